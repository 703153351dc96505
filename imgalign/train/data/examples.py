"""Given examples of any kind, by their path alone."""

from pathlib import Path

from imgalign.errors import InputError
from imgalign.preferences.foreign.texts import read_completions
from imgalign.train.data.demonstrations import Example
from imgalign.train.data.images import captioned_images, image_example
from imgalign.train.data.texts import examples_of, liked


def read_examples(path: Path) -> list[Example]:
    """A folder of images with captions, or a file of prompts and completions.

    InputError where there is neither.
    """
    if path.is_dir():
        return [image_example(image, caption.text) for image, caption in captioned_images(path)]
    if not path.is_file():
        raise InputError(f"{path}: expected a folder of images or a file of completions, got none")
    return examples_of(liked(read_completions(path)))
