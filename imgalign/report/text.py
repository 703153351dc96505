"""Numbers as a person writes them, and commands as a shell reads them."""

import re
import shlex
from html import escape

from imgalign.report.private import from_here
from imgalign.report.record import RunRecord
from imgalign.runs.folder import CONFIG

MINUS = "−"
NO_BREAK = "\N{NO-BREAK SPACE}"


def duration(seconds: float) -> str:
    """Without line breaks. Example: 372 is "6 min", 42 is "42 s", 5400 is "1 h 30 min"."""
    minutes = round(seconds / 60)
    if seconds < 90:
        words = f"{seconds:.0f} s"
    elif minutes < 90:
        words = f"{minutes} min"
    else:
        words = f"{minutes // 60} h {minutes % 60} min"
    return words.replace(" ", NO_BREAK)


def change(before: float, after: float) -> str:
    """Two numbers of as many digits, about three significant ones. Example: "4.22 → 5.59"."""
    size = max(abs(before), abs(after))
    digits = 3 if 0 < size < 0.3 else 2 if size < 10 else 1 if size < 100 else 0
    return f"{before:.{digits}f} → {after:.{digits}f}".replace("-", MINUS)


def signed(value: float, digits: int = 2) -> str:
    """Example: -0.112 is "−0.11"."""
    return f"{value:+.{digits}f}".replace("-", MINUS)


def command_of(command: str, run: RunRecord) -> str:
    """What to type in the working folder. Example: "imgalign evaluate runs/a"."""
    folder = from_here(run.folder)
    words = [str(folder)]
    if command == "train":
        words = [str(folder / CONFIG), "--out", str(folder), "--resume"]
    return shlex.join(["imgalign", command, *words])


def sentence(text: str) -> str:
    """Example: "finished at iteration 40" is "Finished at iteration 40."."""
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def typeset(text: str) -> str:
    """A text with a true arrow and minus. Example: "1 -> 0 (-3)" is "1 → 0 (−3)"."""
    return re.sub(r"(?<![\w-])-(?=\d)", MINUS, text.replace("->", "→"))


def marked(text: str) -> str:
    """HTML of a text with code in back-ticks."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text, quote=False))
