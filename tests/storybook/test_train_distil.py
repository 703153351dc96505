"""Guidance that is distilled: what the student is taught."""

import pytest
import torch

from imgalign.storybook.scenes import vocabulary
from imgalign.storybook.tokenizer import build_tokenizer
from imgalign.storybook.train.distil import guided
from imgalign.storybook.train.pipeline import TextToImage, tokenise


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A teacher of random weights, and a noisy batch with captions."""
    tokenizer = build_tokenizer(vocabulary(), tmp_path_factory.mktemp("tokens"), max_length=16)
    torch.manual_seed(0)
    teacher = TextToImage(tokenizer).eval()
    caption = tokenise(tokenizer, ("a red cat", "two blue fish by the sea"))
    (empty,) = tokenise(tokenizer, ("",))
    return teacher, torch.randn(2, 8, 16, 16), torch.tensor([100, 900]), caption, empty


def test_scale_1_is_the_teacher_itself_and_scale_0_the_teacher_without_a_caption(world):
    teacher, noisy, timesteps, caption, empty = world
    with torch.no_grad():
        with_caption = teacher(noisy, timesteps, caption)
        without = teacher(noisy, timesteps, empty.expand_as(caption))
    assert (with_caption - without).abs().max() > 1e-4
    torch.testing.assert_close(guided(*world, scale=1.0), with_caption, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(guided(*world, scale=0.0), without, atol=1e-5, rtol=1e-4)


def test_a_larger_scale_goes_further_the_same_way(world):
    once, twice, none = (guided(*world, scale=scale) for scale in (1.0, 2.0, 0.0))
    torch.testing.assert_close(twice - none, 2 * (once - none), atol=1e-5, rtol=1e-4)


def test_an_empty_caption_is_taught_what_the_teacher_says_without_one(world):
    teacher, noisy, timesteps, caption, empty = world
    empties = empty.expand_as(caption)
    taught = guided(teacher, noisy, timesteps, empties, empty, scale=7.0)
    with torch.no_grad():
        torch.testing.assert_close(taught, teacher(noisy, timesteps, empties), atol=1e-4, rtol=1e-3)
