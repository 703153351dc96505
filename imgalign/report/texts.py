"""The parts of the report that show texts: pairs with their words marked, and texts over training.

Every text goes through `html.escape`. A word that only the base's text has is crossed out, one that
only the aligned one has is set off.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from imgalign.files import read_json
from imgalign.language.differences import Part, word_difference

log = logging.getLogger(__name__)

LONGEST = 800
"""Characters of a text that are shown."""


class TextPair(NamedTuple):
    """What both sides wrote for one prompt and seed."""

    prompt: str
    base: str
    aligned: str
    note: str = ""


def table(pairs: Iterable[TextPair]) -> str:
    """A row for each pair: prompt, the base's text, the aligned one's."""
    rows = "".join(_row(pair) for pair in pairs)
    return (
        '<table class="texts">\n<tr><th>Prompt</th><th><span class="base">base</span></th>'
        f'<th><span class="aligned">aligned</span></th></tr>\n{rows}</table>\n'
    )


def _row(pair: TextPair) -> str:
    parts = word_difference(shortened(pair.base), shortened(pair.aligned))
    note = f"<small>{escape(pair.note)}</small>" if pair.note else ""
    return (
        f"<tr><th>{escape(pair.prompt)}{note}</th>"
        f"<td>{before(parts)}</td><td>{after(parts)}</td></tr>\n"
    )


def before(parts: Sequence[Part]) -> str:
    """The earlier of two texts, what the later one has not crossed out."""
    return "".join(
        _marked(part, "del") if part.kind == "removed" else escape(part.text)
        for part in parts
        if part.kind != "added"
    )


def after(parts: Sequence[Part]) -> str:
    """The later of two texts, what the earlier one has not set off."""
    return "".join(
        _marked(part, "ins") if part.kind == "added" else escape(part.text)
        for part in parts
        if part.kind != "removed"
    )


def _marked(part: Part, tag: str) -> str:
    rest = part.text[len(part.indent) + len(part.words) :]
    return f"{escape(part.indent)}<{tag}>{escape(part.words)}</{tag}>{escape(rest)}"


def shortened(text: str) -> str:
    """The text, or its beginning where it is long."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST].rstrip()} …"


def read_samples(path: Path) -> Mapping[str, list[str]]:
    """The texts by prompt that a run wrote on the way; none, and a warning, if it is damaged."""
    try:
        found = read_json(path)
        return {str(prompt): [str(text) for text in texts] for prompt, texts in found.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        log.warning("%s: damaged (%s); left out of the report", path, error)
        return {}


def film(frames: Sequence[tuple[str, Mapping[str, list[str]]]], *, num_prompts: int) -> str:
    """The first text of each prompt at each of some times, marked where it left the first time's.

    A frame is its name and the texts by prompt. Example: ("iteration 20", {"a cat": ["..."]}).
    """
    first = frames[0][1]
    rows = []
    for prompt in list(first)[:num_prompts]:
        shown = [(name, texts[prompt][0]) for name, texts in frames if texts.get(prompt)]
        for number, (name, text) in enumerate(shown):
            head = f'<th rowspan="{len(shown)}">{escape(prompt)}</th>' if number == 0 else ""
            parts = word_difference(shortened(shown[0][1]), shortened(text))
            rows.append(f"<tr>{head}<td>{escape(name)}</td><td>{after(parts)}</td></tr>\n")
    return f'<table class="texts film-of-texts">\n{"".join(rows)}</table>\n'
