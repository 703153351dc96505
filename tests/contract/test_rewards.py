"""What every reward model must do, and every model of images that diversity is measured in."""

from collections.abc import Callable, Mapping

import pytest
import torch
from random_walk import Brightness
from red_world import make_images, make_rankings
from tiny_clip import write_clip
from torch import Tensor
from torch.testing import assert_close

import reward_models
from imgalign.errors import InputError, NumericsError
from imgalign.policy import FeatureModel, RewardModel
from imgalign.train.watch import Constant
from reward_models.fit import FitConfig, fit

PROMPTS = ["a red fox", "a house", "a red fox", "a sun"]


def zero_shot(folder) -> RewardModel:
    return reward_models.load(write_clip(folder / "clip"))


def fitted(folder) -> RewardModel:
    images, redness = make_images(240)
    config = FitConfig(
        clip=str(write_clip(folder / "clip")), epochs=2, batch_size=8, prior_stds=(3.0,)
    )
    fit(make_rankings(redness), images.__getitem__, config, folder / "reward")
    return reward_models.load(folder / "reward")


REWARDS: Mapping[str, Callable[..., RewardModel]] = {
    "brightness": lambda folder: Brightness(),
    "constant": lambda folder: Constant(),
    "clip, zero-shot": zero_shot,
    "clip, fitted": fitted,
}
"""Made in an empty folder; a new reward model adds its row."""

GUARDED = ("clip, zero-shot", "clip, fitted")
"""Those that people choose by name and that meet images of any origin."""


@pytest.fixture(scope="module", params=REWARDS)
def reward(request, tmp_path_factory) -> RewardModel:
    return REWARDS[request.param](tmp_path_factory.mktemp("reward"))


@pytest.fixture(scope="module", params=GUARDED)
def guarded(request, tmp_path_factory) -> RewardModel:
    return REWARDS[request.param](tmp_path_factory.mktemp("reward"))


def make_samples(count: int = 4, *, size: int = 16) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(3))


def test_it_gives_one_finite_score_for_each_image_at_any_size(reward):
    assert isinstance(reward, RewardModel)
    for size in (16, 24):
        scores = reward.score(prompts=PROMPTS, samples=make_samples(size=size))
        assert scores.shape == (4,)
        assert scores.is_floating_point()
        assert scores.isfinite().all()


def test_a_score_does_not_depend_on_the_other_images_or_their_order(reward):
    samples = make_samples()
    together = reward.score(prompts=PROMPTS, samples=samples)
    for place, prompt in enumerate(PROMPTS):
        alone = reward.score(prompts=[prompt], samples=samples[[place]])
        assert_close(alone, together[[place]])
    order = [2, 0, 3, 1]
    permuted = reward.score(prompts=[PROMPTS[place] for place in order], samples=samples[order])
    assert_close(permuted, together[order])


def test_scoring_changes_neither_the_images_nor_torchs_global_generator(reward):
    samples, before = make_samples(), torch.get_rng_state()
    first = reward.score(prompts=PROMPTS, samples=samples)
    assert torch.equal(samples, make_samples())
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(reward.score(prompts=PROMPTS, samples=samples), first)


def test_a_score_has_a_gradient_in_the_image_and_none_in_the_weights(guarded):
    samples = make_samples().requires_grad_()
    guarded.score(prompts=PROMPTS, samples=samples).sum().backward()
    assert samples.grad.flatten(1).any(dim=1).all()
    assert not any(parameter.requires_grad for parameter in guarded.parameters())


@pytest.mark.parametrize(
    ("prompts", "samples"),
    [
        (PROMPTS[:3], make_samples()),
        ([], make_samples()),
        (["", *PROMPTS[1:]], make_samples()),
        (PROMPTS, make_samples() * 255),
        (PROMPTS, make_samples() * 2 - 1),
        (PROMPTS, make_samples().log().masked_fill(make_samples() < 0.5, torch.nan)),
    ],
    ids=["a prompt too few", "no prompts", "an empty prompt", "bytes", "[-1, 1]", "nan"],
)
def test_what_cannot_be_scored_is_refused(guarded, prompts, samples):
    with pytest.raises((InputError, NumericsError)):
        guarded.score(prompts=prompts, samples=samples)


def test_features_are_one_vector_for_each_image_whatever_the_others(guarded):
    assert isinstance(guarded, FeatureModel)
    samples = make_samples()
    features = guarded.features(samples)
    assert features.shape[0] == 4
    assert features.ndim == 2
    assert features.isfinite().all()
    assert not features.requires_grad
    order = [2, 0, 3, 1]
    assert_close(guarded.features(samples[order]), features[order])
    assert_close(guarded.features(samples[:1]), features[:1])
    assert not torch.equal(features[0], features[1])
