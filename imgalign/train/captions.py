"""Images that somebody gave to learn from, each with its prompt in a text file beside it.

A run keeps what they are in images.json, `{"sha256": "5e.."}`: a resumed run learns from the same
ones, wherever the folder lies by then. Left out: decoding and encoding them (sources.py).
"""

import hashlib
import json
from pathlib import Path

from imgalign.errors import CheckpointError, ConfigError, InputError
from imgalign.files import read_json, sha256, write_atomically
from imgalign.train.config import DataConfig, ImagesConfig

RECORD = "images.json"
IMAGES = (".png", ".jpg", ".jpeg", ".webp")
LARGEST_CAPTION = 2**16
"""Bytes."""


def captioned_images(folder: Path) -> list[tuple[Path, str]]:
    """Every image below a folder with the prompt in the text file beside it, in order of names.

    InputError for an image without a caption, and for a folder without images.
    """
    if not folder.is_dir():
        raise InputError(f"data.folder: expected a folder of images, got {folder}, which is none")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGES)
    if not paths:
        raise InputError(f"{folder}: expected images ({', '.join(IMAGES)}) with captions, got none")
    return [(path, caption_of(path)) for path in paths]


def caption_of(image: Path) -> str:
    """The prompt in the text file beside an image; InputError without one."""
    path = image.with_suffix(".txt")
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST_CAPTION + 1).decode("utf-8")
    except FileNotFoundError:
        raise InputError(f"{image}: no caption; write its prompt into {path.name}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: expected a text file in utf-8") from None
    prompt = " ".join(text.removeprefix("\ufeff").split())
    if not prompt or len(text) > LARGEST_CAPTION:
        what = "more text than a prompt" if prompt else "an empty file"
        raise InputError(f"{path}: expected the prompt of {image.name}, got {what}")
    return prompt


def images_hash(folder: Path) -> str:
    """SHA-256 over every image of a folder with its name and caption."""
    lines = [
        f"{path.relative_to(folder).as_posix()} {sha256(path)} {prompt}\n"
        for path, prompt in captioned_images(folder)
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def record_images(run: Path, data: DataConfig) -> None:
    """Keep what the images are that a run begins with; nothing for other data."""
    if isinstance(data, ImagesConfig):
        kept = {"sha256": images_hash(data.folder)}
        write_atomically(run / RECORD, json.dumps(kept) + "\n")


def same_images(run: Path, data: DataConfig) -> bool:
    """Whether the images are those that a run began with; False for other data.

    ConfigError where they are others, CheckpointError where nobody knows what they were.
    """
    if not isinstance(data, ImagesConfig):
        return False
    path = run / RECORD
    try:
        before = str(read_json(path)["sha256"])
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path}: missing or damaged ({error}), so nobody knows which images this run learned "
            "from; start a new run"
        ) from None
    now = images_hash(data.folder)
    if now != before:
        raise ConfigError(
            f"data.folder: {data.folder} holds other images or captions than the run began with "
            f"(SHA-256 {before[:8]}, now {now[:8]}); put those back, or start a new run"
        )
    return True
