"""What a rewrite changed, word by word. Pure functions of two texts."""

from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from itertools import pairwise
from typing import Literal, NamedTuple, TypeAlias

from imgalign.language.words import word_spans

Kind: TypeAlias = Literal["kept", "added", "removed"]

MARKS: Mapping[Kind, tuple[str, str]] = {
    "kept": ("", ""),
    "added": ("{+", "+}"),
    "removed": ("[-", "-]"),
}
"""Those of `git diff --word-diff`."""


class Part(NamedTuple):
    """Words that both texts have, or only one of them. Example: ("added", " red")."""

    kind: Kind
    text: str
    """With the spaces that are before its words."""

    @property
    def words(self) -> str:
        """Without the spaces before and after them."""
        return self.text.strip()

    @property
    def indent(self) -> str:
        """The spaces before the words."""
        return self.text[: len(self.text) - len(self.text.lstrip())]


def word_difference(before: str, after: str) -> tuple[Part, ...]:
    """The words of two texts in one sequence, removed ones before what is in their place.

    Kept and added parts hold the words of `after` in their order, kept and removed ones those of
    `before`. Example: "a big cat" and "a red cat" give kept "a", removed " big", added " red", kept
    " cat".
    """
    old, new = pieces(before), pieces(after)
    matcher = SequenceMatcher(
        None, [each.strip() for each in old], [each.strip() for each in new], autojunk=False
    )
    parts: list[Part] = []
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        if tag == "equal":
            # The first word of a text has no spaces before it, and may now come after another.
            first = max(old[i1], new[j1], key=len)
            parts.append(Part("kept", "".join([first, *new[j1 + 1 : j2]])))
            continue
        if i2 > i1:
            parts.append(Part("removed", "".join(old[i1:i2])))
        if j2 > j1:
            parts.append(Part("added", "".join(new[j1:j2])))
    return tuple(parts)


def marked(parts: Sequence[Part]) -> str:
    """A difference as plain text. Example: "a [-big-] {+red+} cat"."""
    return "".join(
        f"{part.indent}{MARKS[part.kind][0]}{part.words}{MARKS[part.kind][1]}" for part in parts
    )


def pieces(text: str) -> list[str]:
    """A text cut into words and single marks, each with the spaces before it."""
    cuts = [0]
    for start, end in word_spans(text):
        cuts += [place + 1 for place in range(cuts[-1], start) if not text[place].isspace()]
        cuts.append(end)
    cuts += [place + 1 for place in range(cuts[-1], len(text)) if not text[place].isspace()]
    return [text[start:end] for start, end in pairwise(cuts)]
