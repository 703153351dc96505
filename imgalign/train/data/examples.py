"""Given examples of any kind, by their path alone: a folder of images, or a file of completions.

A run keeps completions, and of images what they are, so that a resumed run has the same ones.
"""

from pathlib import Path

from imgalign.errors import ConfigError, InputError
from imgalign.preferences.foreign.image_files import image_files
from imgalign.preferences.foreign.records import Completion
from imgalign.preferences.foreign.texts import read_completions
from imgalign.preferences.records import Samples
from imgalign.train.data.demonstrations import Example
from imgalign.train.data.images import (
    captioned_images,
    image_example,
    keep_images,
    refuse_other_images,
)
from imgalign.train.data.kept_texts import TEXTS, kept_completions, write_completions
from imgalign.train.data.texts import examples_of, liked, say_read


def keep_examples(path: Path, run: Path) -> None:
    """Write into the folder of a new run what its examples are.

    InputError where the path is neither a folder of images with captions nor a file of prompts and
    completions.
    """
    if not path.exists():
        raise InputError(f"{path}: expected a folder of images or a file of completions, got none")
    if holds_images(path):
        keep_images(path, run)
        return
    given = read_completions(path)
    say_read(run, given)
    write_completions(run, [(each.prompt, each.text) for each in liked(given)])


def holds_images(path: Path) -> bool:
    """Whether examples are a folder of images, and not completions."""
    return path.is_dir() and bool(image_files(path))


def refuse_other_kind(path: Path, samples: Samples) -> None:
    """ConfigError for examples of another kind than a policy makes."""
    if path.exists() and holds_images(path) != (samples == "images"):
        expected, found = "a folder of images with captions", "prompts and completions"
        if samples == "texts":
            expected, found = found, "images"
        raise ConfigError(
            f"data.examples: expected {expected}, as policy.kind asks for, got {found} in {path}"
        )


def kept_examples(path: Path, run: Path) -> list[Example]:
    """The examples of a run: completions as it keeps them, or the images of the folder."""
    if (run / TEXTS).is_file():
        pairs = kept_completions(run)
        return examples_of([Completion(prompt=prompt, text=text) for prompt, text in pairs])
    return [image_example(image, caption.text) for image, caption in captioned_images(path)]


def refuse_other_examples(path: Path, run: Path, *, setting: str) -> None:
    """ConfigError where a folder holds other images than the run began with.

    CheckpointError where nobody knows what these were.
    """
    if not (run / TEXTS).is_file():
        refuse_other_images(path, run, setting=setting)
