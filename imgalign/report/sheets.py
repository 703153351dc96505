"""Images for people: before and after on one sheet, and images as they go into a page.

Small images are magnified by whole factors without smoothing, so that what the model made is
what one sees.
"""

import base64
import io
import logging
import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw

from imgalign.errors import InputError
from imgalign.report.lettering import Letters, missing

log = logging.getLogger(__name__)

PAPER, INK, MUTED, BASE, ALIGNED = "#fbf8f2", "#242019", "#857a6a", "#5f6f7d", "#b04a2b"

SHEET = "before_after.png"
"""Beside the evaluation that it shows."""

CELL = 256
"""Images are shown about this large."""
GAP, MARGIN, GUTTER = 20, 56, 118
COLUMNS = 4
NUM_LINES = 4
"""Of a caption."""
LARGEST_INLINE = 320
"""Larger images are made smaller before they go into a page."""


def before_after(
    base: Sequence[Image.Image],
    aligned: Sequence[Image.Image],
    prompts: Sequence[str],
    *,
    title: str = "Before and after",
    subtitle: str = "the same prompts and seeds, base above and aligned below",
    names: tuple[str, str] = ("base", "aligned"),
    columns: int = COLUMNS,
) -> Image.Image:
    """One sheet to share: pairs of images, the base's above the aligned one's, with prompts.

    A prompt that this machine has no letters for is numbered instead, and a warning says so.
    InputError where there are no images, or not as many of each.
    """
    if not (len(base) == len(aligned) == len(prompts) > 0):
        raise InputError(
            f"before and after: expected as many images as prompts and at least one, got "
            f"{len(base)} and {len(aligned)} for {len(prompts)} prompts"
        )
    columns = min(columns, len(prompts))
    shown = [(magnified(one), magnified(other)) for one, other in zip(base, aligned, strict=True)]
    width, height = shown[0][0].size
    caption = Letters(21)
    captions = [wrapped(text, caption, width) for text in writable(prompts)]
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
    Letters(44, "Serif-Bold").draw(pen, (MARGIN, MARGIN - 6), title, INK)
    Letters(21).draw(pen, (MARGIN, MARGIN + 54), subtitle, MUTED)
    top = MARGIN + 118
    for row, row_height in zip(rows, row_heights, strict=True):
        for name, colour, offset in ((names[0], BASE, 0), (names[1], ALIGNED, height + 10)):
            middle = top + offset + height // 2
            Letters(23, "Sans-Bold").draw(pen, (MARGIN, middle - 14), name, colour)
        for column, number in enumerate(row):
            left = MARGIN + GUTTER + column * (width + GAP)
            sheet.paste(shown[number][0], (left, top))
            sheet.paste(shown[number][1], (left, top + height + 10))
            below = top + 2 * height + 10 + 12
            for place, text in enumerate(captions[number]):
                caption.draw(pen, (left, below + place * line), text, INK)
        top += row_height
    return sheet


def magnified(image: Image.Image) -> Image.Image:
    """About CELL pixels wide: by a whole factor if it is smaller, smoothed if it is larger."""
    image = image.convert("RGB")
    factor = CELL // image.width
    if factor >= 1:
        size = image.width * factor, image.height * factor
        return image.resize(size, Image.Resampling.NEAREST)
    return image.resize(
        (CELL, max(1, round(image.height * CELL / image.width))), Image.Resampling.LANCZOS
    )


def writable(prompts: Sequence[str]) -> list[str]:
    """The prompts, those aside that no font here can write: "prompt 3" stands for the third."""
    lacking = [missing(prompt) for prompt in prompts]
    if any(lacking):
        log.warning(
            "%s: no font of this machine has %s of %d captions; they are numbered instead, and "
            "report.html has their text; install a font with these characters, such as Noto Sans",
            SHEET,
            ascii("".join(dict.fromkeys("".join(lacking)))[:8]),
            sum(map(bool, lacking)),
        )
    return [
        f"prompt {number}" if lacks else prompt
        for number, (prompt, lacks) in enumerate(zip(prompts, lacking, strict=True), start=1)
    ]


def wrapped(text: str, letters: Letters, width: int) -> list[str]:
    """The text in lines no wider than `width` pixels, four at most."""
    text = text[: NUM_LINES * width]  # a letter is wider than a pixel: the rest has no place
    per_line = next(
        (
            count
            for count in range(min(len(text), width), 4, -1)
            if all(letters.getlength(line) <= width for line in textwrap.wrap(text, count))
        ),
        4,
    )
    return textwrap.wrap(text, per_line, max_lines=NUM_LINES, placeholder=" …")


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
