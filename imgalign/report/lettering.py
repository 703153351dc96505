"""Letters for images with captions, in whatever script the prompts are.

Latin, Greek, Cyrillic and much more are DejaVu's, from matplotlib's own files. Other characters are
written in the first font of this machine that has them; none is shipped. Where no font has them
(`missing`), the caller writes something else.
"""

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path

import matplotlib as mpl
from matplotlib.font_manager import findSystemFonts
from matplotlib.ft2font import FT2Font
from PIL import ImageDraw, ImageFont

INVISIBLE = frozenset({"Cc", "Cf", "Mn", "Zl", "Zp", "Zs"})
"""Categories of characters that need no glyph of their own to be understood."""


@dataclass(frozen=True, slots=True)
class Letters:
    """A cut of DejaVu ("Sans", "Sans-Bold", "Serif-Bold") at a size in pixels, and other fonts for
    what it lacks.
    """

    size: int
    cut: str = "Sans"

    def getlength(self, text: str) -> float:
        """Width of a line in pixels."""
        return sum(font.getlength(run) for run, font in self.runs(text))

    def draw(
        self, pen: ImageDraw.ImageDraw, place: tuple[float, float], text: str, fill: str
    ) -> None:
        """Write one line with its upper left corner at `place`; all fonts share one baseline."""
        left, top = place
        baseline = top + opened(dejavu(self.cut), self.size).getmetrics()[0]
        for run, font in self.runs(text):
            pen.text((left, baseline), run, font=font, fill=fill, anchor="ls")
            left += font.getlength(run)

    def runs(self, text: str) -> Iterator[tuple[str, ImageFont.FreeTypeFont]]:
        """The text cut where the font changes."""
        own = dejavu(self.cut)
        for path, characters in groupby(text, lambda each: font_with(each, own) or own):
            yield "".join(characters), opened(path, self.size)


def missing(text: str) -> str:
    """The characters of a text that no font of this machine has, each once."""
    return "".join(dict.fromkeys(each for each in text if font_with(each, dejavu("Sans")) is None))


@cache
def font_with(character: str, first: Path) -> Path | None:
    """The font that has a character: `first` if it does."""
    if unicodedata.category(character) in INVISIBLE:
        return first
    candidates = (first, *system_fonts()) if ord(character) not in glyphs(first) else (first,)
    return next((path for path in candidates if ord(character) in glyphs(path)), None)


def dejavu(cut: str) -> Path:
    """A font file of matplotlib's."""
    return Path(mpl.get_data_path()) / "fonts" / "ttf" / f"DejaVu{cut}.ttf"


@cache
def system_fonts() -> tuple[Path, ...]:
    """Fonts of this machine, upright sans-serif ones of normal weight first."""

    def rank(path: Path) -> tuple[bool, bool, str]:
        name = path.name.lower()
        return "sans" not in name, any(cut in name for cut in ("bold", "italic", "oblique")), name

    return tuple(sorted(map(Path, findSystemFonts(fontext="ttf")), key=rank))


@cache
def glyphs(path: Path) -> frozenset[int]:
    """The code points that a font can draw; none if it cannot be opened at any size."""
    try:
        ImageFont.truetype(path, 21)
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):  # damaged, or bitmaps of one size, as colour emoji are
        return frozenset()


@cache
def opened(path: Path, size: int) -> ImageFont.FreeTypeFont:
    """A font file at a size in pixels."""
    return ImageFont.truetype(path, size)
