"""A constitution: the principles by which an AI judge compares candidates, as a YAML file.

    name: picture prompts
    principles:
      - text: It keeps everything that the request names.
        weight: 2
      - {text: It does not ramble., samples: texts}

Each principle is a question of its own, so that its answers can be checked for consistency and its
weight means something (Constitutional AI, arXiv:2212.08073, draws one principle per comparison).
Several criteria in one text are one question, which costs less.
"""

import json
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from imgalign.config import RECIPE_FOLDERS, Config, load_config
from imgalign.errors import InputError
from imgalign.preferences.records import Samples


def _one_line(text: str) -> str:
    said = " ".join(text.split())
    if not said.isprintable() or not said:
        raise ValueError(f"expected text, got {text!r:.80}")
    return said


Line = Annotated[str, AfterValidator(_one_line)]


class Principle(Config):
    """What makes one candidate better than another."""

    text: Annotated[Line, Field(max_length=2000)]
    """A statement about the better candidate, such as "It keeps everything that the request
    names." """

    weight: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] = 1.0
    """How much a verdict by this principle counts beside the others."""

    samples: Samples | None = None
    """The kind of candidates that it is for: images or texts; null is both."""


class Constitution(Config):
    """The principles of an AI judge."""

    name: Annotated[Line, Field(max_length=100)]
    """Names the judge's rankings: it is the group of its annotator."""

    principles: Annotated[tuple[Principle, ...], Field(min_length=1, max_length=50)]
    """Asked one by one; the order does not matter to the judge."""

    @model_validator(mode="after")
    def _no_principle_counts_twice(self) -> "Constitution":
        texts = [principle.text for principle in self.principles]
        for text in texts:
            if texts.count(text) > 1:
                raise ValueError(f"principles: given twice: {text!r:.80}; raise its weight instead")
        return self

    @property
    def canonical(self) -> str:
        """The principles as JSON: the same for every spelling of the same file."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True)

    def principles_for(self, samples: Samples) -> dict[int, Principle]:
        """The principles for images or for texts, by their place in the constitution."""
        return {
            place: principle
            for place, principle in enumerate(self.principles)
            if principle.samples in (None, samples)
        }


def shipped_constitutions() -> list[Path]:
    """Those that come with imgalign, by name."""
    return sorted(path for folder in RECIPE_FOLDERS for path in folder.glob("constitutions/*.yaml"))


def load_constitution(path: Path) -> Constitution:
    """A constitution from a file, or a shipped one by its name.

    InputError where there is none, ConfigError for one with wrong keys or values.
    """
    if path.is_file():
        return load_config(Constitution, path)
    shipped = {each.stem: each for each in shipped_constitutions()}
    if str(path) in shipped:
        return load_config(Constitution, shipped[str(path)])
    raise InputError(
        f"{path}: no such constitution; expected a YAML file, or one of those that come with "
        f"imgalign: {', '.join(shipped) or 'none'}"
    )
