"""Texts are scored by what is drawn from them, for the prompt that was asked."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from imgalign.config import load_config
from imgalign.diffusion.generate import ImageGenerator
from imgalign.errors import ConfigError
from imgalign.preferences.records import SamplerSettings
from imgalign.prompts import EVALUATION_SEEDS
from imgalign.train.config import TrainConfig
from imgalign.train.cost import DrawsImages
from imgalign.train.drawn import DrawnConfig, DrawnReward, drawing


class Asks:
    """An image reward: the mean of the image, more if the prompt is long; remembers its calls."""

    def __init__(self):
        self.prompts, self.sizes = [], []

    def score(self, *, prompts, samples):
        self.prompts += prompts
        self.sizes.append(len(samples))
        return samples.mean(dim=(1, 2, 3)) + torch.tensor([len(each) / 100 for each in prompts])


class Painter:
    """Paints an image in one grey for each text and seed, and remembers what it painted."""

    def __init__(self):
        self.painted: list[tuple[str, int]] = []

    def grey(self, text: str, seed: int) -> float:
        return len(text) / 64 + seed % 7 / 16

    def __call__(self, texts, seeds):
        self.painted += zip(texts, seeds, strict=True)
        greys = [self.grey(*each) for each in zip(texts, seeds, strict=True)]
        return torch.tensor(greys)[:, None, None, None].expand(-1, 3, 4, 4)


def built(**settings: Any) -> tuple[DrawnReward, Asks, Painter]:
    reward, painter = Asks(), Painter()
    config = DrawnConfig(**{"batch_size": 4, **settings})
    return DrawnReward(reward, painter, config, seed=3), reward, painter


def test_a_text_has_the_mean_score_of_its_images_for_the_prompt_that_was_asked():
    drawn, asked, painter = built(images_per_text=3)
    scores = drawn.score(prompts=["a cat"], samples=["a red cat"])
    greys = [painter.grey("a red cat", seed) for seed in drawn.seeds("a cat")]
    assert scores.tolist() == pytest.approx([sum(greys) / 3 + 5 / 100])
    assert set(asked.prompts) == {"a cat"}


def test_all_texts_of_a_prompt_are_drawn_from_the_same_training_seeds():
    drawn, _, painter = built()
    drawn.score(prompts=["a cat", "a cat", "a dog"], samples=["a red cat", "a cat", "a cat"])
    seeds: dict[str, list[int]] = {}
    for text, seed in dict.fromkeys(painter.painted):
        seeds.setdefault(text, []).append(seed)
    assert seeds["a red cat"] == drawn.seeds("a cat")
    assert seeds["a cat"] == [*drawn.seeds("a cat"), *drawn.seeds("a dog")]
    assert len(set(drawn.seeds("a cat"))) == 2
    assert not set(drawn.seeds("a cat")) & set(drawn.seeds("a dog"))
    assert all(seed not in EVALUATION_SEEDS for seed in drawn.seeds("a cat"))
    other, _, _ = built(images_per_text=3)
    assert other.seeds("a cat")[:2] == drawn.seeds("a cat")


def test_images_that_are_drawn_are_counted_once_each_with_what_fills_a_batch():
    drawn, _, painter = built(batch_size=4)
    drawn.score(prompts=["a cat"] * 3, samples=["a cat", "a red cat", "a blue cat"])
    drawn.score(prompts=["a cat"], samples=["a red cat"])
    assert drawn.num_drawn == len(painter.painted) == 8
    assert isinstance(drawn, DrawsImages)


def test_less_the_plain_prompt_zero_is_no_better_than_without_rewriting():
    drawn, _, painter = built(minus_plain=True)
    values = drawn.score(prompts=["a cat"] * 2, samples=["a cat", "a red cat"])
    assert values[0] == 0
    assert values[1].item() == pytest.approx((9 - 5) / 64)
    assert ("a cat", drawn.seeds("a cat")[0]) in painter.painted


def test_no_image_is_drawn_twice():
    drawn, _, painter = built(batch_size=1, minus_plain=True)
    first = drawn.score(prompts=["a cat"] * 3, samples=["a red cat", "a red cat", "a cat"])
    assert len(painter.painted) == len(set(painter.painted)) == 4
    again = drawn.score(prompts=["a cat"] * 2, samples=["a red cat", "a blue cat"])
    assert len(painter.painted) == 6
    assert again[0] == first[0] == first[1]


def test_every_pass_is_of_the_same_size():
    drawn, asked, painter = built(batch_size=4)
    drawn.score(prompts=["a cat"] * 3, samples=["a", "b", "c"])
    assert asked.sizes == [4, 4]
    assert len(set(painter.painted)) == 6


@pytest.mark.parametrize("text", ["", "  \n", "a\0cat"])
def test_a_text_that_cannot_be_drawn_has_no_score(text: str):
    drawn, _, painter = built()
    scores = drawn.score(prompts=["a cat"] * 2, samples=[text, "a cat"]).tolist()
    assert math.isnan(scores[0])
    assert math.isfinite(scores[1])
    assert text not in [each for each, _ in painter.painted]


def test_a_text_has_the_same_score_whatever_was_scored_before(tiny_pipeline_folder: Path):
    config = DrawnConfig(batch_size=4, sampler=SamplerSettings(num_inference_steps=2))

    def fresh() -> DrawnReward:
        generator = ImageGenerator(str(tiny_pipeline_folder), device="cpu", dtype="float32")
        return DrawnReward(Asks(), drawing(generator, config.sampler), config, seed=0)

    texts = ["a red house", "two blue boat", "the green tree"]
    together = fresh().score(prompts=["a house"] * 3, samples=texts)
    one = fresh()
    alone = [one.score(prompts=["a house"], samples=[text]) for text in reversed(texts)]
    assert torch.equal(together, torch.cat(alone[::-1]))
    assert len(set(together.tolist())) == 3


def test_a_text_that_the_image_model_cuts_is_drawn_and_said_once(
    tiny_pipeline_folder: Path, caplog: pytest.LogCaptureFixture
):
    generator = ImageGenerator(str(tiny_pipeline_folder), device="cpu")
    draw = drawing(generator, SamplerSettings(num_inference_steps=1))
    for _ in range(2):
        assert draw(["a red house and " * 6], [0]).shape == (1, 3, 16, 16)
    assert len([each for each in caplog.messages if "does not read all of a text" in each]) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["reward.path=r"], "policy.kind: diffusion makes images; leave it out"),
        (["policy.kind=language"], "expected reward.path, a reward of images"),
        (["policy.kind=language", "reward.path=r", "reward.drawn.images_per_text=1"], "2"),
    ],
)
def test_settings_that_draw_nothing_are_refused(settings: list[str], message: str):
    with pytest.raises(ConfigError, match=r"reward\.drawn") as error:
        load_config(TrainConfig, None, ["reward.drawn.model=storybook", *settings])
    assert message in str(error.value)
