"""The reward of a text as a prompt: what an image model draws from it is scored.

A language model learns with it to rewrite prompts so that people like the images. Images are scored
against the original prompt and never against the rewrite, which would reward forgetting what was
asked for. All rewrites of a prompt, and the prompt itself, are drawn from the same seeds: then
scores differ by the words alone. The seeds follow from the prompt and are training seeds, so a text
has one score throughout a run, and comparisons draw from others.

Left out: building the image model and its reward (cli/).

Shapes: b = texts.
"""

import logging
import math
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, TypeAlias

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor

from imgalign.config import Config, PathText
from imgalign.images import as_tensor
from imgalign.policy import Images, RewardModel, Texts
from imgalign.preferences.records import SamplerSettings
from imgalign.prompts import stable_hash, training_seed

if TYPE_CHECKING:
    from imgalign.diffusion.generate import ImageGenerator

log = logging.getLogger(__name__)

REMEMBERED = 2**16
"""Scores of images that are kept, so that no image is drawn twice."""

Draw: TypeAlias = Callable[[Sequence[str], Sequence[int]], Images]
"""Draws one image per text and seed."""


class DrawnConfig(Config):
    """How texts are drawn to be scored."""

    model: PathText = "storybook"
    """The image model: the shipped one, a folder, a file, or a name on the Hugging Face hub."""

    adapter: PathText | None = None
    """Trained weights on top of it: a run, one of its checkpoints, or a LoRA."""

    images_per_text: Annotated[int, Field(ge=2)] = 2
    """Images of each text, from the same seeds for all texts of a prompt; their mean score counts.
    More give a less noisy reward, and take as much more time."""

    minus_plain: bool = False
    """Subtract the score of the prompt as it is, drawn from the same seeds: 0 is then no better
    than without rewriting. Costs one more text for each prompt, once."""

    sampler: SamplerSettings = SamplerSettings()
    """How images are sampled. Half of the steps of images to look at are enough to compare by."""

    batch_size: PositiveInt = 16
    """Images in one pass. A last, smaller batch is filled up, since a network's rounding depends on
    the size of its batch."""


class DrawnReward:
    """The mean score of the images of a text; implements the protocol RewardModel.

    `images` scores images for a prompt. `seed` is that of the run.
    """

    def __init__(
        self, images: RewardModel[Images], draw: Draw, config: DrawnConfig, *, seed: int
    ) -> None:
        self.images = images
        self.draw = draw
        self.config = config
        self.seed = seed
        self.num_drawn = 0
        """Images drawn so far, with those that fill up a batch."""
        self._known: OrderedDict[tuple[str, str, int], float] = OrderedDict()

    def score(self, *, prompts: Sequence[str], samples: Texts) -> Float[Tensor, " b"]:
        """One score per text; NaN for a text that cannot be drawn, because there is nothing in it.

        With `minus_plain` the difference to the prompt as it is.
        """
        pairs = list(zip(prompts, samples, strict=True))
        plain = [(prompt, prompt) for prompt in prompts] if self.config.minus_plain else []
        scores = self._scores([*pairs, *plain])
        values = torch.tensor([scores[pair] for pair in pairs])
        return values - torch.tensor([scores[pair] for pair in plain]) if plain else values

    def seeds(self, prompt: str) -> list[int]:
        """Those from which every text for this prompt is drawn."""
        first = stable_hash(prompt)
        return [
            training_seed(self.seed, first + each) for each in range(self.config.images_per_text)
        ]

    @torch.no_grad()
    def _scores(self, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], float]:
        """The mean score of each prompt and text."""
        keys = {
            (prompt, text): [(prompt, text, seed) for seed in self.seeds(prompt)]
            for prompt, text in dict.fromkeys(pairs)
            if can_be_drawn(text)
        }
        every = [key for own in keys.values() for key in own]
        found = {key: self._known[key] for key in every if key in self._known}
        missing, size = [key for key in every if key not in found], self.config.batch_size
        for start in range(0, len(missing), size):
            found |= self._drawn(missing[start : start + size])
        for key in every:
            self._known[key] = found[key]
            self._known.move_to_end(key)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        means = {pair: fmean(found[key] for key in own) for pair, own in keys.items()}
        return {pair: means.get(pair, math.nan) for pair in pairs}

    def _drawn(self, keys: Sequence[tuple[str, str, int]]) -> dict[tuple[str, str, int], float]:
        filled = [*keys, *([keys[-1]] * (self.config.batch_size - len(keys)))]
        prompts, texts, seeds = zip(*filled, strict=True)
        scores = self.images.score(prompts=prompts, samples=self.draw(texts, seeds))
        self.num_drawn += len(filled)
        return dict(zip(keys, scores.float().cpu().tolist(), strict=False))


def can_be_drawn(text: str) -> bool:
    """Whether there is anything in a text that an image model could read."""
    return bool(text.strip()) and "\0" not in text


def drawing(generator: "ImageGenerator", sampler: SamplerSettings) -> Draw:
    """Draws with a loaded image model; a text that it cuts is drawn as far as it reads.

    That is said once, and not of each of thousands of texts.
    """
    said = False

    def draw(texts: Sequence[str], seeds: Sequence[int]) -> Images:
        nonlocal said
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="prompt: the model reads")
            made = list(generator.generate(texts, seeds=seeds, settings=sampler))
        cut = next((each for each in made if each.unread), None)
        if cut is not None and not said:
            said = True
            log.warning(
                "reward.drawn: %s does not read all of a text such as %r, and draws the rest; "
                "this is said once",
                generator.model,
                cut.provenance.prompt[:60],
            )
        return torch.stack([as_tensor(each.image) for each in made])

    return draw
