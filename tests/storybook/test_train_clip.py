"""The false captions that the storybook's CLIP learns to tell from the true ones."""

import math

import numpy as np
import torch
from readings import reading_of

from imgalign.storybook.layout import sample_scene
from imgalign.storybook.scenes import (
    is_held_out,
    parse_prompt,
    prompt_of,
    sample_spec,
)
from imgalign.storybook.train.clip import (
    THUMBNAIL,
    above,
    appearance_targets,
    changes,
    contrast,
    corrupted,
    drawn,
    falsified,
    near_misses,
)
from imgalign.storybook.verifier import default_verifier, verified


def test_false_captions_are_false_of_their_images_and_never_held_out() -> None:
    rng = np.random.default_rng(0)
    for _ in range(600):
        spec = sample_spec(rng)
        scene = sample_scene(spec, rng)
        truth = reading_of(scene)
        caption = prompt_of(spec)
        assert verified(caption, truth)
        for false in falsified(caption, rng, num=4):
            assert not verified(false, truth), (caption, false)
            assert not is_held_out(parse_prompt(false)), false


def test_every_detail_that_a_caption_says_is_changed_in_turn() -> None:
    spec = parse_prompt("a red cat left of a blue house at night")
    kinds = changes(spec)
    # Both objects, both colours, setting, relation, the two exchanged, their colours exchanged.
    assert len(kinds) == 8
    assert all(change != spec for kind in kinds for change in kind)
    rng = np.random.default_rng(0)
    assert len({false for _ in range(40) for false in falsified(prompt_of(spec), rng, num=8)}) > 45


def test_what_a_caption_leaves_open_is_not_changed() -> None:
    changed = [prompt_of(change) for kind in changes(parse_prompt("a cat")) for change in kind]
    assert all(len(caption.split()) == 2 for caption in changed)


def test_the_contrast_is_clips_when_false_captions_are_far_away() -> None:
    image = torch.eye(4, 8)
    near = torch.cat([image, -image])
    loss, logits = contrast(image, near, torch.tensor(1.0))
    assert logits.shape == (4, 8)
    # Image to text: own 1, three others 0, own false one -1, three others 0.
    to_text = math.log(math.e + 6 + math.exp(-1)) - 1
    to_image = math.log(math.e + 3) - 1
    torch.testing.assert_close(loss.item(), (to_text + to_image) / 2)


def test_a_false_caption_that_fits_as_well_costs() -> None:
    image = torch.eye(4, 8)
    fooled, _ = contrast(image, torch.cat([image, image]), torch.tensor(10.0))
    clear, _ = contrast(image, torch.cat([image, -image]), torch.tensor(10.0))
    assert fooled > clear + 0.3


def test_counterparts_show_the_false_caption_and_not_the_true_one() -> None:
    rng = np.random.default_rng(0)
    captions = [prompt_of(sample_spec(rng)) for _ in range(60)]
    false = [falsified(caption, rng, num=1)[0] for caption in captions]
    readings = default_verifier().read(drawn(false, rng).float() / 255)
    assert sum(map(verified, false, readings)) >= 58
    assert sum(map(verified, captions, readings)) <= 1


def test_a_look_keeps_light_and_where_it_falls() -> None:
    images = torch.zeros(3, 3, 64, 64)
    images[1, 0, :8, 8:16] = 1.0  # red, in the first row's second field
    light = appearance_targets(images)[:, : 3 * THUMBNAIL**2].view(3, 3, THUMBNAIL, THUMBNAIL)
    assert light[1].argmax() == 1
    assert light[1, 0, 0, 1] > light[0, 0, 0, 1]
    torch.testing.assert_close(light[:, 1:], torch.zeros_like(light[:, 1:]))


def test_a_look_keeps_texture_of_equal_light() -> None:
    images = torch.full((3, 3, 64, 64), 0.5)
    images[2, :, ::2] = 1.0
    images[2, :, 1::2] = 0.0
    seen = appearance_targets(images)
    light, texture = seen[:, : 3 * THUMBNAIL**2], seen[:, 3 * THUMBNAIL**2 :]
    torch.testing.assert_close(light, torch.zeros_like(light))
    assert (texture[2] > texture[0] + 1).all()


def test_near_misses_are_what_differs_in_one_detail_and_nothing_else() -> None:
    # Two images, their counterparts; captions of all four, then two more false ones an image.
    logits = torch.arange(4 * 8).view(4, 8)
    by_caption, by_counterpart, third, fourth = near_misses(logits, 3)
    assert by_caption.tolist() == [logits[0, 2], logits[1, 3]]
    assert by_counterpart.tolist() == [logits[2, 0], logits[3, 1]]
    assert third.tolist() == [logits[0, 4], logits[1, 6]]
    assert fourth.tolist() == [logits[0, 5], logits[1, 7]]


def test_a_level_of_its_own_for_each_image_costs() -> None:
    """Each pair is told apart by 2, but the first image's wrong lies above the second's right."""
    shifted = above(torch.tensor([5.0, 1.0]), torch.tensor([3.0, -1.0]))
    level = above(torch.tensor([1.0, 1.0]), torch.tensor([-1.0, -1.0]))
    softplus = [math.log1p(math.exp(x)) for x in (-2, 2, -6, -2)]
    assert math.isclose(shifted.item(), sum(softplus) / 4, rel_tol=1e-5)
    assert math.isclose(level.item(), softplus[0], rel_tol=1e-5)


def test_corrupted_images_are_not_what_their_captions_say() -> None:
    rng = np.random.default_rng(1)
    captions = [prompt_of(sample_spec(rng)) for _ in range(40)]
    torch.manual_seed(0)
    images = corrupted(drawn(captions, rng).float() / 127.5 - 1) / 2 + 0.5
    readings = default_verifier().read(images)
    assert sum(map(verified, captions, readings)) <= 2
