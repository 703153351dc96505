"""The report's HTML: one file, styles and images inside it, no script, no request.

Every text from outside goes through `html.escape`, here or in sections.py.
"""

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files

from PIL import Image

from imgalign.report.sheets import data_uri
from imgalign.report.text import NO_BREAK

GENERATOR = '<meta name="generator" content="imgalign">'
"""What a report is known by: only another report may replace it."""
MAGNIFIED = 160
"""Small images are shown by the largest whole factor that keeps them below this many pixels."""


def page(title: str, body: Iterable[str]) -> str:
    """The whole document."""
    # A number and its percent sign stay on one line.
    content = "".join(body).replace(" %", f"{NO_BREAK}%")
    style = (files("imgalign.report") / "style.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'{GENERATOR}\n<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n<main>\n{content}</main>\n</body>\n</html>\n"
    )


def section(title: str, *parts: str, lead: str = "") -> str:
    """A titled part of the page; `lead` is one sentence in plain words, as HTML."""
    opening = f'<p class="lead">{lead}</p>\n' if lead else ""
    return f"<section>\n<h2>{escape(title)}</h2>\n{opening}{''.join(parts)}</section>\n"


def missing(title: str, why: str, command: str) -> str:
    """The one line that stands for a section without input."""
    return (
        f'<p class="missing"><b>{escape(title)}.</b> {escape(why)} '
        f"<code>{to_copy(command)}</code></p>\n"
    )


def plots(*figures: tuple[str, str]) -> str:
    """Plots side by side where there is room, each with a caption in HTML."""
    return f'<div class="plots">\n{"".join(plot(*each) for each in figures)}</div>\n'


def plot(drawing: str, caption: str) -> str:
    """One plot and what to see in it."""
    return f'<figure class="plot">{drawing}<figcaption>{caption}</figcaption></figure>\n'


def inline(image: Image.Image, alt: str, *, largest: int = MAGNIFIED) -> str:
    """An image as part of the page."""
    factor = largest // image.width
    shown = image.width * factor if factor else largest
    kind = "crisp" if factor else "smooth"
    return (
        f'<img class="{kind}" src="{data_uri(image)}" alt="{escape(alt)}" '
        f'width="{shown}" height="{max(1, round(shown * image.height / image.width))}">'
    )


def pair_card(
    base: Image.Image, aligned: Image.Image, prompt: str, *, note: str = "", upright: bool = False
) -> str:
    """The base's image and the aligned one's of one prompt and seed."""
    largest = 192 if upright else 128
    sides = "".join(
        f'<span class="side {name}"><em>{name}</em>'
        f"{inline(image, f'{name}: {prompt}', largest=largest)}</span>"
        for name, image in (("base", base), ("aligned", aligned))
    )
    below = f"<small>{escape(note)}</small>" if note else ""
    kind = "pair upright" if upright else "pair"
    return (
        f'<figure class="{kind}"><div>{sides}</div>'
        f"<figcaption>{escape(prompt)}{below}</figcaption></figure>\n"
    )


def gallery(cards: Iterable[str]) -> str:
    """A grid of cards."""
    return f'<div class="gallery">\n{"".join(cards)}</div>\n'


def tiles(entries: Sequence[tuple[str, str, str]]) -> str:
    """Numbers at a glance: what, the number, what to think of it."""
    inside = "".join(
        f"<div><dt>{escape(name)}</dt><dd><b>{escape(number)}</b>"
        f"<small>{escape(note)}</small></dd></div>\n"
        for name, number, note in entries
    )
    return f'<dl class="tiles">\n{inside}</dl>\n'


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """A two-column table of names and texts."""
    inside = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>\n" for name, text in rows
    )
    return f'<table class="facts">\n{inside}</table>\n'


def folded(summary: str, inside: str) -> str:
    """Something that most readers pass over."""
    return f"<details><summary>{escape(summary)}</summary>\n{inside}</details>\n"


def code(text: str) -> str:
    """Text as it stands."""
    return f"<pre>{to_copy(text.rstrip())}</pre>\n"


def to_copy(text: str) -> str:
    """Text that is copied from the page as it is here: `page` leaves its spaces alone."""
    return escape(text).replace(" %", "&#32;%")


def numbered(entries: Iterable[str]) -> str:
    """A list of texts that are referred to by their numbers."""
    inside = "".join(f"<li>{escape(entry)}</li>\n" for entry in entries)
    return f"<ol>\n{inside}</ol>\n"


def items(entries: Iterable[str]) -> str:
    """A list of HTML entries."""
    inside = "".join(f"<li>{entry}</li>\n" for entry in entries)
    return f"<ul>\n{inside}</ul>\n"
