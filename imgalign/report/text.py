"""Numbers as a person writes them, and commands as a shell reads them."""

import re
import shlex
from collections.abc import Sequence
from html import escape
from pathlib import Path

from imgalign.report.record import RunRecord
from imgalign.runs.folder import CONFIG

FRAMES = 6
MINUS = "−"


def duration(seconds: float) -> str:
    """Example: 372 is "6 min", 42 is "42 s", 5400 is "1 h 30 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def number(value: float) -> str:
    """About three significant digits, no exponent. Example: 0.1234 is "0.123"."""
    size = abs(value)
    digits = 2 if size < 10 else 1 if size < 100 else 0
    if 0 < size < 0.3:
        digits = 3
    return f"{value:.{digits}f}".replace("-", MINUS)


def signed(value: float, digits: int = 2) -> str:
    """Example: -0.112 is "−0.11"."""
    return f"{value:+.{digits}f}".replace("-", MINUS)


def command_of(command: str, run: RunRecord) -> str:
    """What to type. Example: "imgalign evaluate runs/a"."""
    words = [str(run.folder)]
    if command == "train":
        words = [str(run.folder / CONFIG), "--out", str(run.folder), "--resume"]
    return shlex.join(["imgalign", command, *words])


def frames_shown(grids: Sequence[tuple[int, Path]]) -> list[tuple[int, Path]]:
    """At most FRAMES of them, the first and the last among these."""
    if len(grids) <= FRAMES:
        return list(grids)
    places = sorted({round(i * (len(grids) - 1) / (FRAMES - 1)) for i in range(FRAMES)})
    return [grids[place] for place in places]


def sentence(text: str) -> str:
    """Example: "finished at step 40" is "Finished at step 40."."""
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def typeset(text: str) -> str:
    """A text with a true arrow and minus. Example: "1 -> 0 (-3)" is "1 → 0 (−3)"."""
    return re.sub(r"(?<![\w-])-(?=\d)", MINUS, text.replace("->", "→"))


def marked(text: str) -> str:
    """HTML of a text with code in back-ticks."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text, quote=False))
