import pytest
import torch
from jaxtyping import TypeCheckError

from imgalign.policy import Trajectory, concatenate


def trajectory(num_images, *, seed=0, **changes):
    generator = torch.Generator().manual_seed(seed)
    fields = {
        "prompts": [f"prompt {seed}"] * num_images,
        "prompt_ids": [f"{seed}/{i}" for i in range(num_images)],
        "seeds": list(range(seed, seed + num_images)),
        "log_probs": torch.randn(num_images, 4, generator=generator),
        "mask": torch.rand(num_images, 4, generator=generator) > 0.5,
        "replay": {"latents": torch.randn(num_images, 5, 2, generator=generator)},
    }
    return Trajectory(**{**fields, **changes})


def test_selected_images_come_in_the_order_asked_for_and_may_repeat():
    whole = trajectory(4)
    part = whole.select([2, 0, 2])
    assert len(part) == 3
    assert part.prompt_ids == ["0/2", "0/0", "0/2"]
    assert part.seeds == [2, 0, 2]
    for name in ("log_probs", "mask"):
        assert torch.equal(getattr(part, name), getattr(whole, name)[[2, 0, 2]])
    assert torch.equal(part.replay["latents"], whole.replay["latents"][[2, 0, 2]])


def test_a_tensor_of_positions_selects_like_a_list():
    whole = trajectory(4)
    assert whole.select(torch.tensor([3, 1])).prompt_ids == whole.select([3, 1]).prompt_ids


def test_nothing_can_be_selected():
    assert len(trajectory(4).select([])) == 0


def test_a_boolean_mask_is_not_taken_for_positions():
    with pytest.raises(TypeCheckError):
        trajectory(4).select(torch.tensor([True, False, True, False]))
    with pytest.raises(ValueError, match="got a mask"):
        trajectory(4).select([True, False, True, False])


def test_selecting_every_image_of_a_concatenation_gives_the_parts_back():
    first, second = trajectory(2, seed=0), trajectory(3, seed=7)
    whole = concatenate([first, second])
    assert len(whole) == 5
    for part, again in ((first, whole.select([0, 1])), (second, whole.select([2, 3, 4]))):
        assert again.prompts == part.prompts
        assert again.prompt_ids == part.prompt_ids
        assert again.seeds == part.seeds
        for name in ("log_probs", "mask"):
            assert torch.equal(getattr(again, name), getattr(part, name))
        assert torch.equal(again.replay["latents"], part.replay["latents"])


@pytest.mark.parametrize(
    "wrong",
    [{"seeds": [1]}, {"prompt_ids": ["a"]}, {"replay": {"latents": torch.zeros(3, 5)}}],
)
def test_fields_of_different_lengths_are_refused(wrong):
    with pytest.raises(ValueError, match="expected as many of each field as images"):
        trajectory(2, **wrong)


def test_trajectories_of_two_kinds_of_policy_are_not_mixed():
    other = trajectory(2, replay={"tokens": torch.zeros(2, 5)})
    with pytest.raises(ValueError, match=r"replay fields \['latents'\], got \['tokens'\]"):
        concatenate([trajectory(2), other])
