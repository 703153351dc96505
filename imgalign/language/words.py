"""Where the words of a text are, in any script. Pure functions of a text.

What is joined by a hyphen or an underscore is one word ("t-shirt", "blue_eyes"); an apostrophe
separates words. A symbol such as an emoji is a word, and so is each character of a script without
spaces between words, such as Chinese.
"""

import unicodedata
from functools import lru_cache
from typing import Literal

UNSPACED = (
    *("CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "BOPOMOFO"),
    *("THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN"),
)
"""How the Unicode names of letters begin in scripts that put no spaces between words."""
JOINING = "-_\u2010\u2011"
"""Between two letters, these make one word of both sides."""
JOINERS = "\u200c\u200d"
"""Invisible; they decide how the letters around them are drawn."""


@lru_cache(maxsize=2**12)
def kind_of(character: str) -> Literal["letter", "alone", "mark", "other"]:
    """What a character is in a word.

    letter: part of one; alone: a word of itself; mark: goes with the letter before it; other: in
    none.
    """
    category = unicodedata.category(character)
    if category.startswith("M") or character in JOINERS:
        return "mark"
    if category == "So":
        return "alone"
    if not character.isalnum():
        return "other"
    return "alone" if is_unspaced(character) else "letter"


def is_unspaced(character: str) -> bool:
    """Whether a letter is of a script without spaces between words."""
    return character.isalnum() and unicodedata.name(character, "").startswith(UNSPACED)


def word_spans(text: str) -> list[tuple[int, int]]:
    """Start and end of every word, in order."""
    found: list[tuple[int, int]] = []
    place = 0
    while place < len(text):
        if kind_of(text[place]) in ("other", "mark"):
            place += 1
            continue
        end = _end_of_word(text, place)
        found.append((place, end))
        place = end
    return found


def _end_of_word(text: str, start: int) -> int:
    letters, end = kind_of(text[start]) == "letter", start + 1
    while end < len(text):
        kind, following = kind_of(text[end]), text[end + 1 : end + 2]
        joins = text[end] in JOINING and following != "" and kind_of(following) == "letter"
        if kind != "mark" and not (letters and (kind == "letter" or joins)):
            break
        end += 1
    return end
