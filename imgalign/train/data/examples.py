"""Given examples of any kind, by their path alone: a folder of images, or a file of completions.

A run keeps completions, and of images what they are, so that a resumed run has the same ones.
"""

from pathlib import Path

from imgalign.errors import InputError
from imgalign.preferences.foreign.records import Completion
from imgalign.preferences.foreign.texts import read_completions
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
    if path.is_dir():
        keep_images(path, run)
        return
    if not path.is_file():
        raise InputError(f"{path}: expected a folder of images or a file of completions, got none")
    given = read_completions(path)
    say_read(run, given)
    write_completions(run, [(each.prompt, each.text) for each in liked(given)])


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
