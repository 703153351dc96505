"""Training images of the storybook: drawn once, stored as NumPy arrays.

A data folder holds `images.npy` (uint8, [n 64 64 3]), `items.npy` (float32, [n 4 6]: what is in
each image, see ITEM_FIELDS; rows of -1 are empty), `settings.npy` (uint8, [n]) and
`captions.txt`, one per line. Image i depends on the seed and i alone.
"""

import os
import shlex
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imgalign.errors import InputError
from imgalign.storybook.drawing import draw
from imgalign.storybook.layout import sample_scene
from imgalign.storybook.scenes import (
    COLOURS,
    OBJECTS,
    SETTINGS,
    Scene,
    prompt_of,
    sample_spec,
)

SIDE = 64
MAX_ITEMS = 4
ITEM_FIELDS = ("kind", "colour", "x", "y", "size", "width")
CHUNK = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingImages:
    """The arrays of a data folder, opened read-only; images are memory-mapped."""

    images: NDArray[np.uint8]
    items: NDArray[np.float32]
    settings: NDArray[np.uint8]
    captions: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.captions)


def load_images(folder: Path) -> TrainingImages:
    """Open a folder written by `draw_images`; InputError when it is missing or incomplete."""
    if not (folder / "captions.txt").is_file():
        raise InputError(
            f"{folder}: expected training images here; draw them with "
            f"`imgalign storybook train data --out {shlex.quote(str(folder))}`"
        )
    return TrainingImages(
        images=np.load(folder / "images.npy", mmap_mode="r"),
        items=np.load(folder / "items.npy"),
        settings=np.load(folder / "settings.npy"),
        captions=tuple((folder / "captions.txt").read_text(encoding="utf-8").splitlines()),
    )


def draw_images(folder: Path, *, num_images: int, seed: int, held_out: bool = False) -> None:
    """Draw `num_images` into `folder` on all cores; `captions.txt` is written last."""
    folder.mkdir(parents=True, exist_ok=True)
    images = np.lib.format.open_memmap(
        folder / "images.npy", mode="w+", dtype=np.uint8, shape=(num_images, SIDE, SIDE, 3)
    )
    items = np.full((num_images, MAX_ITEMS, len(ITEM_FIELDS)), -1, dtype=np.float32)
    settings = np.zeros(num_images, dtype=np.uint8)
    captions: list[str] = []
    started = time.monotonic()
    starts = range(0, num_images, CHUNK)
    ends = (min(start + CHUNK, num_images) for start in starts)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        chunks = pool.map(_draw_chunk, starts, ends, repeat(seed), repeat(held_out))
        for start, drawn in zip(starts, chunks, strict=True):
            end = start + len(drawn[3])
            images[start:end], items[start:end], settings[start:end] = drawn[:3]
            captions += drawn[3]
            if start // CHUNK % 20 == 0:
                left = (time.monotonic() - started) / end * (num_images - end)
                _say(f"{end}/{num_images} images, {left:.0f} s left")
    images.flush()
    np.save(folder / "items.npy", items)
    np.save(folder / "settings.npy", settings)
    (folder / "captions.txt").write_text("\n".join(captions) + "\n", encoding="utf-8")


def item_rows(scene: Scene) -> NDArray[np.float32]:
    """A scene's items as rows of ITEM_FIELDS, [4 6]."""
    rows = np.full((MAX_ITEMS, len(ITEM_FIELDS)), -1, dtype=np.float32)
    for row, item in zip(rows, scene.items, strict=False):
        kind, colour = OBJECTS.index(item.kind), COLOURS.index(item.colour)
        row[:] = (kind, colour, item.x, item.y, item.size, item.width)
    return rows


def scene_arrays(
    scenes: Sequence[Scene],
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8]]:
    """Images [n 64 64 3], items [n 4 6] and settings [n] of scenes, as in a data folder."""
    names = tuple(SETTINGS)
    return (
        np.stack([np.asarray(draw(scene, size=SIDE)) for scene in scenes]),
        np.stack([item_rows(scene) for scene in scenes]),
        np.array([names.index(scene.setting) for scene in scenes], dtype=np.uint8),
    )


def shuffled_batches(
    num: int, batch: int, *, seed: int, start: int = 0
) -> Iterator[NDArray[np.intp]]:
    """Endless batches of indices, reshuffled each epoch; batch `start` is the first one given.

    A function of its arguments alone, so that resumed training sees the same batches.
    """
    per_epoch = num // batch
    epoch, skip = divmod(start, per_epoch)
    while True:
        order = np.random.default_rng((seed, epoch)).permutation(num)
        for index in range(skip, per_epoch):
            yield order[index * batch : (index + 1) * batch]
        epoch, skip = epoch + 1, 0


def _draw_chunk(
    start: int, end: int, seed: int, held_out: bool
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8], list[str]]:
    scenes, captions = [], []
    for index in range(start, end):
        rng = np.random.default_rng((seed, index))
        spec = sample_spec(rng, held_out=held_out)
        scenes.append(sample_scene(spec, rng))
        captions.append(prompt_of(spec))
    return *scene_arrays(scenes), captions


def _say(text: str) -> None:
    from rich.console import Console

    Console(stderr=True).print(text)
