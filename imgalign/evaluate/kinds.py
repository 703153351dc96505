"""What a comparison does otherwise for images than for texts: making, showing and keeping them.

Prompts, seeds, blind judging and statistics are the same for both. Left out: what texts need
(texts.py).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from PIL import Image

from imgalign.config import refuse_ineffective
from imgalign.errors import ConfigError
from imgalign.evaluate.config import EvaluateConfig
from imgalign.evaluate.judging import ImageFeatures, image_distance, to_samples
from imgalign.evaluate.saved_images import Layout, Side, save_side
from imgalign.evaluate.selection import Selection
from imgalign.evaluate.sides import LoadGenerator, both_sides
from imgalign.policy import Images, Texts
from imgalign.preferences.records import Generated, Samples


@runtime_checkable
class Kind(Protocol):
    """Images or texts, as a comparison needs them. What is made is a sample with its provenance."""

    @property
    def samples(self) -> Samples:
        """Which of the two."""
        ...

    @property
    def blank(self) -> Any:
        """A sample that says nothing, to see whether a prompt can be judged."""
        ...

    def settled(self, settings: EvaluateConfig, run: Path | None) -> EvaluateConfig:
        """The settings with what the run decides in them.

        ConfigError for one that has no effect on such samples.
        """
        ...

    def both_sides(
        self, settings: EvaluateConfig, weights: Path, selection: Selection
    ) -> tuple[Sequence[Any], Sequence[Any]]:
        """What base and aligned model make of the same prompts and seeds."""
        ...

    def content(self, made: Any) -> Any:
        """The sample itself."""
        ...

    def stack(self, samples: Sequence[Any]) -> Images | Texts:
        """Samples as measures take them."""
        ...

    def distance(self, samples: Sequence[Any], features: ImageFeatures | None) -> float:
        """Mean distance between two of them."""
        ...

    def space(self, features: ImageFeatures | None) -> str:
        """What that distance is of. Example: "pixels"."""
        ...

    def length(self, sample: Any) -> float | None:
        """How long it is, in words; None for samples that all have one size."""
        ...

    def save(
        self, made: Sequence[Any], folder: Path, side: Side, *, columns: int, layout: Layout
    ) -> None:
        """Write one side into a new folder, `columns` samples per prompt."""
        ...


class OfImages:
    """Images of a diffusion model; implements `Kind`."""

    samples: Samples = "images"
    blank = Image.new("RGB", (64, 64), "grey")

    def __init__(self, load: LoadGenerator) -> None:
        self.load = load

    def settled(self, settings: EvaluateConfig, run: Path | None) -> EvaluateConfig:
        """As they are."""
        return refused(settings, ["writing"], "on images")

    def both_sides(
        self, settings: EvaluateConfig, weights: Path, selection: Selection
    ) -> tuple[Sequence[Generated], Sequence[Generated]]:
        """From one loaded model, whose weights are switched in between."""
        return both_sides(settings, weights, selection, self.load)

    def content(self, made: Generated) -> Image.Image:
        """The image."""
        return made.image

    def stack(self, samples: Sequence[Image.Image]) -> Images:
        """Images of one size as numbers in [0, 1]."""
        return to_samples(samples)

    def distance(self, samples: Sequence[Image.Image], features: ImageFeatures | None) -> float:
        """In the space of the reward model's features, or of pixels."""
        return image_distance(samples, features)

    def space(self, features: ImageFeatures | None) -> str:
        """For a sentence."""
        return "features of the reward model" if features else "pixels"

    def length(self, sample: Image.Image) -> None:
        """Images have no length."""

    def save(
        self, made: Sequence[Generated], folder: Path, side: Side, *, columns: int, layout: Layout
    ) -> None:
        """As a sheet, or as files."""
        save_side(made, folder, side, columns=columns, layout=layout)


def refused(settings: EvaluateConfig, names: Sequence[str], where: str) -> EvaluateConfig:
    """The settings; ConfigError for the first of these that is not at its default."""
    try:
        refuse_ineffective(settings, names, where)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return settings
