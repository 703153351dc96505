"""Claims: annotators as a reward prefer what their group does, with the noise of a careful one, and
say the same when they are asked again."""

import math

import pytest
import torch
from torch.testing import assert_close

from imgalign.errors import InputError
from imgalign.policy import RewardModel
from imgalign.storybook.annotators import Habits, oracle_utility
from imgalign.storybook.opinions import Opinions, gumbel
from imgalign.storybook.text_oracle import text_utility

IDEAS = ["a cat"] * 4
TEXTS = ["an orange cat in the desert", "a blue cat at night", "a dog", "a cat a cat a cat"]


def test_without_noise_they_are_the_utilities_of_images_and_of_texts():
    silent = Opinions("cosy", habits=Habits(temperature=0.0))
    assert isinstance(silent, RewardModel)
    expected = text_utility(IDEAS, TEXTS, group="cosy")
    assert_close(silent.score(prompts=IDEAS, samples=TEXTS), expected)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    prompts = ["a red cat", "a blue fish"]
    expected = oracle_utility(prompts, images, group="cosy").cpu()
    assert_close(silent.score(prompts=prompts, samples=images), expected)


def test_an_opinion_is_the_same_again_in_any_batch_and_differs_between_samples_and_prompts():
    opinions = Opinions.named("annotators:cosy")
    whole = opinions.score(prompts=IDEAS, samples=TEXTS)
    assert torch.equal(opinions.score(prompts=IDEAS[1:2], samples=TEXTS[1:2]), whole[1:2])
    noise = whole - text_utility(IDEAS, TEXTS, group="cosy")
    assert len(noise.unique()) == 4
    assert noise.abs().max() < 10 * Habits().temperature


def test_the_noise_is_gumbels():
    drawn = torch.tensor([gumbel(f"{number}".encode()) for number in range(20_000)])
    assert drawn.mean().item() == pytest.approx(0.5772, abs=0.03)
    assert drawn.std().item() == pytest.approx(math.pi / math.sqrt(6), abs=0.03)


def test_an_unknown_group_is_one_clear_line():
    with pytest.raises(InputError, match="expected a group of cosy"):
        Opinions.named("annotators:nobody")
