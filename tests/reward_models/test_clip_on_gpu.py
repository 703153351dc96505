"""Claims: on a GPU a reward model is fitted as well as on the CPU, and scores the same."""

import pytest
import torch
from torch.testing import assert_close

import reward_models
from imgalign.images import read_tensor
from reward_models.clip import ClipReward
from reward_models.contract import check_golden, read_image_contract
from reward_models.evaluate import evaluate
from reward_models.fit import fit

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("whole_float32")]

BLOCKS = {"unfreeze_image_blocks": 1, "unfreeze_text_blocks": 1, "tower_epochs": 2}


@pytest.mark.parametrize("changes", [{}, BLOCKS, {"prior_stds": (1.0, 3.0), "seeds": (0, 1)}])
def test_a_reward_is_fitted_and_its_golden_scores_hold_on_both_devices(
    changes, gpu, world, config, tmp_path
):
    images, _, rankings = world
    settings = type(config).model_validate(
        config.model_dump(exclude_unset=True) | changes | {"device": gpu.type}
    )
    folder = tmp_path / "reward"
    report = fit(rankings, images.__getitem__, settings, folder)
    assert report.test.accuracy.micro > 0.8
    here, there = (reward_models.load(folder, device=name) for name in ("cpu", gpu.type))
    assert isinstance(there, ClipReward)
    assert there.device.type == gpu.type
    contract = read_image_contract(folder)
    golden = [
        float(there.score(prompts=[each.prompt], samples=read_tensor(folder / each.image)[None]))
        for each in contract.golden
    ]
    check_golden(contract, golden, folder=folder)
    prompts = [ranking.prompt for ranking in rankings[:8]]
    samples = torch.stack([images[ranking.sample_ids[0]] for ranking in rankings[:8]])
    scores = [
        reward.score(prompts=prompts, samples=given).cpu()
        for reward, given in ((here, samples), (there, samples), (there, samples.to(gpu)))
    ]
    assert_close(scores[1], scores[0], rtol=1e-3, atol=1e-3)
    assert_close(scores[2], scores[1])
    again = evaluate(there, rankings, images.__getitem__)
    assert again.accuracy.micro == pytest.approx(report.test.accuracy.micro, abs=0.02)


def test_the_shipped_clip_scores_and_sees_the_same_on_both_devices(gpu):
    samples = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    prompts = ["a red house", "a blue cat", "two green trees", "a boat"]
    here, there = (reward_models.load("storybook", device=name) for name in ("cpu", gpu.type))
    assert isinstance(here, ClipReward)
    assert isinstance(there, ClipReward)
    assert_close(
        there.score(prompts=prompts, samples=samples).cpu(),
        here.score(prompts=prompts, samples=samples),
        rtol=1e-3,
        atol=1e-4,
    )
    assert_close(there.features(samples).cpu(), here.features(samples), rtol=1e-3, atol=1e-4)


def test_a_score_in_half_precision_surroundings_is_that_of_float32(gpu):
    samples = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    reward = reward_models.load("storybook", device=gpu.type)
    expected = reward.score(prompts=["a red house"] * 4, samples=samples)
    with torch.autocast(gpu.type, torch.bfloat16):
        assert torch.equal(reward.score(prompts=["a red house"] * 4, samples=samples), expected)
