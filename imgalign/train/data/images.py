"""Images that somebody gave to learn from, each with its prompt in a text file beside it.

A run keeps what they are in images.json, `{"sha256": "5e.."}`: a resumed run learns from the same
ones, wherever the folder lies by then.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, PositiveInt

from imgalign.algorithms.interface import BatchKind
from imgalign.errors import CheckpointError, ConfigError, InputError
from imgalign.files import read_json, sha256, write_atomically
from imgalign.images import as_tensor, read_image_file
from imgalign.policy import Images
from imgalign.preferences.foreign.image_files import Caption, image_files, read_caption
from imgalign.preferences.foreign.records import FIRST_LINE_ONLY, Remark, summarised
from imgalign.preferences.records import Samples
from imgalign.preferences.splits import prompt_key
from imgalign.prompts import Prompts
from imgalign.train.data.demonstrations import USUAL_SAMPLES, Example, GivenSamples
from imgalign.train.data.source import Amount, DataSection, Known, Parts, some_of

log = logging.getLogger(__name__)

RECORD = "images.json"


class ImagesConfig(DataSection):
    """Images given as examples, each with its prompt in a text file beside it."""

    gives: ClassVar[BatchKind] = "demonstrations"

    source: Literal["images"] = Field("images", alias="from")
    """Where the data comes from."""

    folder: Path
    """Images with their captions: `cat.png`, and in `cat.txt` one line. Each is scaled and cut to
    the model's size."""

    images_per_iteration: PositiveInt | None = None
    """Images in each iteration; every one comes once before any comes again. Null is 64, or all of
    them where there are fewer."""

    @property
    def given_samples(self) -> Samples:
        """Images."""
        return "images"

    def images_taken(self, available: int) -> int:
        """How many of the available images an iteration learns from."""
        return self.images_per_iteration or min(USUAL_SAMPLES, available)

    def known_prompts(self) -> Known:
        """Those of the captions."""
        captions = (caption for _, caption in captioned_images(self.folder))
        training = tuple(dict.fromkeys(caption.text for caption in captions))
        return Known(training, some_of(training, self.held_out), str(self.folder))

    def amount(self, prompts: Prompts) -> Amount:
        """Images."""
        available = len(training_images(self, prompts.held_out))
        what = f"images in {self.folder} whose prompts are not held out"
        return Amount("images_per_iteration", self.images_taken(available), available, what)

    def build(self, parts: Parts) -> GivenSamples:
        """A source that reads the folder."""
        pairs = training_images(self, parts.prompts.held_out)
        return GivenSamples(
            [image_example(path, prompt) for path, prompt in pairs],
            asked=self.images_per_iteration,
            usual=USUAL_SAMPLES,
            policy=parts.scoring_policy(),
            run=parts.run,
            seed=parts.seed,
            world=parts.world,
        )

    def keep(self, run: Path) -> None:
        """A hash of the images and captions."""
        keep_images(self.folder, run)

    def moved(self, run: Path) -> frozenset[str]:
        """The folder may, as long as it holds the same images and captions."""
        refuse_other_images(self.folder, run, setting="data.folder")
        return frozenset({"folder"})


def keep_images(folder: Path, run: Path) -> None:
    """Write down what a folder holds; says where a caption has lines that are not used."""
    noted = [
        Remark(reason=FIRST_LINE_ONLY, name=path.relative_to(folder).as_posix())
        for path, caption in captioned_images(folder)
        if caption.has_more
    ]
    for line in summarised(noted):
        log.info("%s: %s", folder, line)
    write_atomically(run / RECORD, json.dumps({"sha256": images_hash(folder)}) + "\n")


def refuse_other_images(folder: Path, run: Path, *, setting: str) -> None:
    """ConfigError for other images or captions than those that the run kept, CheckpointError where
    nobody knows them.
    """
    path = run / RECORD
    try:
        before = str(read_json(path)["sha256"])
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path}: missing or damaged ({error}), so nobody knows which images this run "
            "learned from; start a new run"
        ) from None
    now = images_hash(folder)
    if now != before:
        raise ConfigError(
            f"{setting}: {folder} holds other images or captions than the run began "
            f"with (SHA-256 {before[:8]}, now {now[:8]}); put those back, or start a new run"
        )


def training_images(config: ImagesConfig, held_out: Sequence[str]) -> list[tuple[Path, str]]:
    """The given images with their prompts, without those of held-out prompts."""
    apart = set(map(prompt_key, held_out))
    return [
        (path, caption.text)
        for path, caption in captioned_images(config.folder)
        if prompt_key(caption.text) not in apart
    ]


def image_example(path: Path, prompt: str) -> Example:
    """An image file with its prompt."""

    def load() -> Images:
        return as_tensor(read_image_file(path))[None]

    return Example(prompt, load)


def captioned_images(folder: Path) -> list[tuple[Path, Caption]]:
    """Every image below a folder with the caption in the text file beside it, in order of names.

    InputError for an image without a caption, and for a folder without images.
    """
    paths = image_files(folder)
    if not paths:
        raise InputError(f"{folder}: expected images with captions, got none")
    return [(path, _caption(path)) for path in paths]


def _caption(image: Path) -> Caption:
    try:
        return read_caption(image)
    except InputError as error:
        name = image.with_suffix(".txt").name
        raise InputError(f"{image}: no caption ({error}); write its prompt into {name}") from None


def images_hash(folder: Path) -> str:
    """SHA-256 over every image of a folder with its name and caption."""
    lines = [
        f"{path.relative_to(folder).as_posix()} {sha256(path)} {caption.text}\n"
        for path, caption in captioned_images(folder)
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
