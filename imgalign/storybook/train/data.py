"""Training pictures of the storybook, drawn once and kept as plain arrays.

A data folder holds `images.npy` (uint8, [n 64 64 3]), `items.npy` (float32, [n 4 6]: what is in
each picture, see ITEM_FIELDS; rows of -1 are empty), `settings.npy` (uint8, [n]) and
`captions.txt`, one per line. Picture i depends on the seed and i alone.
"""

import os
import shlex
import time
from collections.abc import Iterator
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
class Pictures:
    """A data folder, opened read-only; images stay on disk until touched."""

    images: NDArray[np.uint8]
    items: NDArray[np.float32]
    settings: NDArray[np.uint8]
    captions: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.captions)


def load_pictures(folder: Path) -> Pictures:
    """Open what `draw_pictures` wrote; InputError when it is not there or not complete."""
    if not (folder / "captions.txt").is_file():
        raise InputError(
            f"{folder}: expected training pictures here; draw them with "
            f"`python -m imgalign.storybook.train data --out {shlex.quote(str(folder))}`"
        )
    return Pictures(
        images=np.load(folder / "images.npy", mmap_mode="r"),
        items=np.load(folder / "items.npy"),
        settings=np.load(folder / "settings.npy"),
        captions=tuple((folder / "captions.txt").read_text(encoding="utf-8").splitlines()),
    )


def draw_pictures(folder: Path, *, num_pictures: int, seed: int, held_out: bool = False) -> None:
    """Draw `num_pictures` into `folder` on all cores; `captions.txt` is written last."""
    folder.mkdir(parents=True, exist_ok=True)
    images = np.lib.format.open_memmap(
        folder / "images.npy", mode="w+", dtype=np.uint8, shape=(num_pictures, SIDE, SIDE, 3)
    )
    items = np.full((num_pictures, MAX_ITEMS, len(ITEM_FIELDS)), -1, dtype=np.float32)
    settings = np.zeros(num_pictures, dtype=np.uint8)
    captions: list[str] = []
    started = time.monotonic()
    starts = range(0, num_pictures, CHUNK)
    ends = (min(start + CHUNK, num_pictures) for start in starts)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        chunks = pool.map(_draw_chunk, starts, ends, repeat(seed), repeat(held_out))
        for start, drawn in zip(starts, chunks, strict=True):
            end = start + len(drawn[3])
            images[start:end], items[start:end], settings[start:end] = drawn[:3]
            captions += drawn[3]
            if start // CHUNK % 20 == 0:
                left = (time.monotonic() - started) / end * (num_pictures - end)
                _say(f"{end}/{num_pictures} pictures, {left:.0f} s left")
    images.flush()
    np.save(folder / "items.npy", items)
    np.save(folder / "settings.npy", settings)
    (folder / "captions.txt").write_text("\n".join(captions) + "\n", encoding="utf-8")


def describe(scene: Scene) -> NDArray[np.float32]:
    """A scene's items as rows of ITEM_FIELDS, [4 6]."""
    rows = np.full((MAX_ITEMS, len(ITEM_FIELDS)), -1, dtype=np.float32)
    for row, item in zip(rows, scene.items, strict=False):
        kind, colour = OBJECTS.index(item.kind), COLOURS.index(item.colour)
        row[:] = (kind, colour, item.x, item.y, item.size, item.width)
    return rows


def shuffled_batches(
    num: int, batch: int, *, seed: int, start: int = 0
) -> Iterator[NDArray[np.intp]]:
    """Endless batches of indices, reshuffled each epoch; batch `start` is the first one given.

    A function of its arguments alone, so that resumed training sees the batches it would have seen.
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
    images, items, settings, captions = [], [], [], []
    names = tuple(SETTINGS)
    for index in range(start, end):
        rng = np.random.default_rng((seed, index))
        spec = sample_spec(rng, held_out=held_out)
        scene = sample_scene(spec, rng)
        images.append(np.asarray(draw(scene, size=SIDE)))
        items.append(describe(scene))
        settings.append(names.index(scene.setting))
        captions.append(prompt_of(spec))
    return np.stack(images), np.stack(items), np.array(settings, dtype=np.uint8), captions


def _say(text: str) -> None:
    from rich.console import Console

    Console(stderr=True).print(text)
