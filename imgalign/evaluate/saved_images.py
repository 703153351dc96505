"""The images of a comparison on disk: a sheet per side, or a file per image, with provenance.

evaluation/images-20270131-235959/
    base.png      a row per prompt, a column per seed, no gaps, so that it can be split again
    base.json     provenance of each image, in the order of the sheet
    aligned.png   aligned.json
or, as files, base/000-0.png (prompt 0, its first seed) with base/000-0.json beside it. Each
evaluation has such a folder of its own, which evaluation.json names and the next one removes.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from itertools import chain, count
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from imgalign.errors import InputError
from imgalign.files import UNFINISHED, set_aside
from imgalign.images import read_image_file
from imgalign.preferences.records import Generated, Provenance, Samples

Side = Literal["base", "aligned"]
Layout = Literal["sheets", "files"]

OWN = ".made-by-imgalign"
LARGEST_SHEET = 64_000_000
"""Pixels. Programs refuse much larger images as decompression bombs."""


def save_side(
    images: Sequence[Generated], folder: Path, side: Side, *, columns: int, layout: Layout
) -> None:
    """Save one side, `columns` images per prompt, in a new folder.

    Where a sheet would be too large, files are written instead.
    """
    width, height = images[0].image.size
    if layout == "sheets" and len(images) * width * height <= LARGEST_SHEET:
        save_sheet(images, folder, side, columns=columns)
    else:
        save_files(images, folder, side, columns=columns)


def new_name(out: Path, now: datetime, samples: Samples) -> str:
    """A name for a folder in `out` that does not exist yet."""
    name = f"{samples}-{now:%Y%m%d-%H%M%S}"
    numbered = (f"{name}-{number}" for number in count(2))
    return next(each for each in chain([name], numbered) if not (out / each).exists())


def mark_own(folder: Path) -> None:
    """Mark a new folder as that of an evaluation, which a later one may remove."""
    (folder / OWN).write_text(
        "Samples of an evaluation by imgalign. The next evaluation beside them removes them.\n",
        encoding="utf-8",
    )


def remove_images(out: Path, *, but: str | None) -> None:
    """Remove the samples of evaluations in `out`, recognised by their mark, except one folder."""
    for kind in ("images", "texts", "pictures"):  # the last is what version 0.1 called images
        for folder in out.glob(f"{kind}-*"):
            if folder.name != but and (folder / OWN).is_file():
                set_aside(folder)  # so that a folder that is half removed keeps its mark
        for folder in out.glob(f"{UNFINISHED}old-{kind}-*"):
            shutil.rmtree(folder, ignore_errors=True)


def save_sheet(images: Sequence[Generated], folder: Path, side: Side, *, columns: int) -> None:
    """All images in one PNG, `columns` to a row, and their provenance in a JSON list."""
    width, height = images[0].image.size
    sheet = Image.new("RGB", (columns * width, -(-len(images) // columns) * height))
    for number, each in enumerate(images):
        sheet.paste(each.image, (number % columns * width, number // columns * height))
    sheet.save(folder / f"{side}.png")
    records = [facts(each.provenance) for each in images]
    (folder / f"{side}.json").write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")


def save_files(images: Sequence[Generated], folder: Path, side: Side, *, columns: int) -> None:
    """A PNG for each image, and its provenance beside it."""
    (folder / side).mkdir(exist_ok=True)
    for number, each in enumerate(images):
        path = folder / side / name_of(number, columns)
        each.image.save(path)
        text = json.dumps(facts(each.provenance), indent=1) + "\n"
        path.with_suffix(".json").write_text(text, encoding="utf-8")


def load_side(folder: Path, side: Side, *, count: int, columns: int) -> list[Image.Image]:
    """The images of a side in order, however they were saved; empty where they are missing.

    InputError where a file exists and cannot be read.
    """
    sheet = folder / f"{side}.png"
    if count and sheet.is_file():
        image, rows = opened(sheet), -(-count // columns)
        if image.width < columns or image.height < rows:
            raise InputError(f"{sheet}: too small for {rows} x {columns} images; evaluate again")
        return list(cut(image, count=count, columns=columns))
    paths = [folder / side / name_of(number, columns) for number in range(count)]
    return [opened(path) for path in paths] if all(path.is_file() for path in paths) else []


def cut(sheet: Image.Image, *, count: int, columns: int) -> Iterator[Image.Image]:
    """The images of a sheet, row by row."""
    width, height = sheet.width // columns, sheet.height // -(-count // columns)
    for number in range(count):
        left, top = number % columns * width, number // columns * height
        yield sheet.crop((left, top, left + width, top + height))


def opened(path: Path) -> Image.Image:
    """An image file in memory; InputError where it cannot be read."""
    return read_image_file(path, cure="evaluate again")


def name_of(number: int, columns: int) -> str:
    """Example: image 9 of rows of four is "002-1.png"."""
    return f"{number // columns:03d}-{number % columns}.png"


def facts(provenance: Provenance) -> dict[str, Any]:
    """A provenance as JSON values."""
    return {**asdict(provenance), "created_at": provenance.created_at.isoformat()}
