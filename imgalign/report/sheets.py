"""Pictures for people: before and after on one sheet, and images as they go into a page.

Small pictures are magnified by whole factors without smoothing, so that what the model made is
what one sees. Letters are DejaVu from matplotlib's own files: no font of the system is needed.
"""

import base64
import io
import textwrap
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import matplotlib as mpl
from PIL import Image, ImageDraw, ImageFont

from imgalign.errors import InputError

PAPER, INK, MUTED, BASE, ALIGNED = "#fbf8f2", "#242019", "#857a6a", "#5f6f7d", "#b04a2b"

CELL = 256
"""Pictures are shown about this large."""
GAP, MARGIN, GUTTER = 20, 56, 118
COLUMNS = 4
LARGEST_INLINE = 320
"""Larger pictures are made smaller before they go into a page."""


def before_after(
    base: Sequence[Image.Image],
    aligned: Sequence[Image.Image],
    prompts: Sequence[str],
    *,
    title: str = "Before and after",
    subtitle: str = "the same prompts and seeds, base above and aligned below",
    columns: int = COLUMNS,
) -> Image.Image:
    """One sheet to share: pairs of pictures, the base's above the aligned one's, with prompts.

    InputError where there are no pictures, or not as many of each.
    """
    if not (len(base) == len(aligned) == len(prompts) > 0):
        raise InputError(
            f"before and after: expected as many pictures as prompts and at least one, got "
            f"{len(base)} and {len(aligned)} for {len(prompts)} prompts"
        )
    columns = min(columns, len(prompts))
    shown = [(magnified(one), magnified(other)) for one, other in zip(base, aligned, strict=True)]
    width, height = shown[0][0].size
    caption = font(21)
    captions = [wrapped(prompt, caption, width) for prompt in prompts]
    line = 29
    rows = [
        range(start, min(start + columns, len(prompts)))
        for start in range(0, len(prompts), columns)
    ]
    row_heights = [
        2 * height + 10 + 16 + line * max(len(captions[i]) for i in row) + 30 for row in rows
    ]
    sheet = Image.new(
        "RGB",
        (
            2 * MARGIN + GUTTER + columns * width + (columns - 1) * GAP,
            MARGIN + 118 + sum(row_heights) + MARGIN - 30,
        ),
        PAPER,
    )
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN - 6), title, font=font(44, "Serif-Bold"), fill=INK)
    pen.text((MARGIN, MARGIN + 54), subtitle, font=font(21), fill=MUTED)
    top = MARGIN + 118
    for row, row_height in zip(rows, row_heights, strict=True):
        for name, colour, offset in (("base", BASE, 0), ("aligned", ALIGNED, height + 10)):
            middle = top + offset + height // 2
            pen.text((MARGIN, middle), name, font=font(23, "Sans-Bold"), fill=colour, anchor="lm")
        for column, number in enumerate(row):
            left = MARGIN + GUTTER + column * (width + GAP)
            sheet.paste(shown[number][0], (left, top))
            sheet.paste(shown[number][1], (left, top + height + 10))
            below = top + 2 * height + 10 + 12
            for place, text in enumerate(captions[number]):
                pen.text((left, below + place * line), text, font=caption, fill=INK)
        top += row_height
    return sheet


def magnified(image: Image.Image) -> Image.Image:
    """About CELL pixels wide: by a whole factor if it is smaller, smoothed if it is larger."""
    image = image.convert("RGB")
    factor = CELL // image.width
    if factor >= 1:
        size = image.width * factor, image.height * factor
        return image.resize(size, Image.Resampling.NEAREST)
    return image.resize((CELL, round(image.height * CELL / image.width)), Image.Resampling.LANCZOS)


def wrapped(text: str, letters: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """The text in lines no wider than `width` pixels, four at most."""
    per_line = next(
        (
            count
            for count in range(len(text), 4, -1)
            if all(letters.getlength(line) <= width for line in textwrap.wrap(text, count))
        ),
        4,
    )
    return textwrap.wrap(text, per_line, max_lines=4, placeholder=" …")


@cache
def font(size: int, cut: str = "Sans") -> ImageFont.FreeTypeFont:
    """DejaVu at a size in pixels; `cut` as in "Sans", "Sans-Bold" or "Serif-Bold"."""
    path = Path(mpl.get_data_path()) / "fonts" / "ttf" / f"DejaVu{cut}.ttf"
    return ImageFont.truetype(path, size)


def data_uri(image: Image.Image) -> str:
    """An image as an address that holds it: PNG, or JPEG where it had to be made smaller."""
    image = image.convert("RGB")
    buffer = io.BytesIO()
    if max(image.size) <= LARGEST_INLINE:
        image.save(buffer, format="PNG", optimize=True)
        kind = "png"
    else:
        image.thumbnail((LARGEST_INLINE, LARGEST_INLINE), Image.Resampling.LANCZOS)
        image.save(buffer, format="JPEG", quality=90)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
