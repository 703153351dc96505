"""Locked words: what a rewrite of a prompt has to keep. Pure functions of texts.

Words are compared whole and without regard to case. In scripts without spaces there are no whole
words to compare: a phrase is kept where its characters follow one another. The words of a phrase
follow one another with nothing but spaces and apostrophes between them. Left out: word order,
inflections and synonyms ("cats" does not keep "cat").
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

from imgalign.errors import InputError
from imgalign.language.words import is_unspaced, word_spans

Lock: TypeAlias = Literal["content", "none"] | tuple[str, ...]
"""What of a prompt is locked: its content words, nothing, or these words and phrases."""

FUNCTION_WORDS = frozenset(
    (
        *("a", "an", "the", "and", "or", "but", "nor", "so", "of", "in", "at", "by", "to", "from"),
        *("for", "with", "as", "into", "is", "are", "was", "were", "be", "been", "being", "am"),
        *("has", "have", "had", "do", "does", "did", "this", "that", "these", "those", "it", "its"),
        *("he", "him", "his", "she", "her", "hers", "they", "them", "their", "we", "us", "our"),
        *("you", "your", "i", "me", "my", "who", "which", "what", "whose", "some", "any"),
        *("something", "anything", "someone", "somebody", "anybody", "there", "here", "then"),
        *("than", "very", "please", "s"),
    )
)
"""English words that leave open what is drawn. Not among them: numbers, negations ("no", "without")
and where things are ("on", "above", "left")."""

WEIGHT = re.compile(r":\s*\d+(?:\.\d+)?(?=\s*[)\]])")
"""How much a part of a prompt counts, as in "(red:1.2)": no word."""

APOSTROPHE = "'"
SPELLINGS = str.maketrans(
    {"\u2010": "-", "\u2018": APOSTROPHE, "\u2019": APOSTROPHE, "\u02bc": APOSTROPHE}
)
"""Other signs for a hyphen and an apostrophe."""


class Word(NamedTuple):
    """A word of a text as it is compared, and what is between it and the word before."""

    text: str
    gap: Literal["none", "apostrophe", "space", "mark"]
    """mark: any punctuation, which no phrase goes across."""

    @property
    def spaced(self) -> bool:
        """Whether its script separates words."""
        return not is_unspaced(self.text[0])


def folded(text: str) -> str:
    """A text as it is compared: without case, and with one spelling for equal characters."""
    same = unicodedata.normalize("NFKC", text).translate(SPELLINGS).casefold()
    return unicodedata.normalize("NFKC", same)


def words_of(text: str) -> list[Word]:
    """The words of a text, each as it is compared."""
    text = folded(text)
    spans = word_spans(text)
    ends = [0, *(end for _, end in spans)]
    return [
        Word(text[start:end], _gap(text[before:start]))
        for before, (start, end) in zip(ends, spans, strict=False)
    ]


def locked_words(prompt: str, lock: Lock) -> tuple[str, ...]:
    """The words and phrases of a prompt that a rewrite of it has to keep.

    Of `lock` those that the prompt holds itself: nothing can be kept that is not there.
    """
    if lock == "none":
        return ()
    if lock == "content":
        return content_words(prompt)
    return tuple(each for each in lock if not lost_words((each,), prompt))


def content_words(prompt: str) -> tuple[str, ...]:
    """All words of a prompt that say something of the image, each once, in order.

    Words joined by an apostrophe stay together, and so do characters of a script without spaces.
    Function words are known in English only; in other languages every word counts. Example: "a cat
    on something red" gives ("cat", "on", "red").
    """
    groups: list[list[Word]] = []
    for word in words_of(WEIGHT.sub("", prompt)):
        if groups and _belongs(word, after=groups[-1][-1]):
            groups[-1].append(word)
        else:
            groups.append([word])
    said = (group for group in groups if any(word.text not in FUNCTION_WORDS for word in group))
    return tuple(dict.fromkeys(_phrase(group) for group in said))


def lost_words(locked: Sequence[str], text: str) -> tuple[str, ...]:
    """Those of some words and phrases that a text does not hold."""
    there = words_of(text)
    return tuple(phrase for phrase in locked if not _holds(there, words_of(phrase)))


def parse_lock(text: str) -> Lock:
    """A lock as it is written: "content", "none", or words and phrases separated by commas.

    InputError for a part without a word. Example: "red, house by the sea" gives ("red", "house by
    the sea").
    """
    if text in ("content", "none"):
        return "content" if text == "content" else "none"
    parts = [" ".join(part.split()) for part in text.split(",") if part.strip()]
    empty = next((part for part in parts if not words_of(part)), None)
    if empty is not None or not parts:
        raise InputError(
            f"lock: expected words separated by commas, content or none, got {empty or text!r}"
        )
    return tuple(dict.fromkeys(parts))


def check_lock(lock: Lock, prompts: Sequence[str]) -> None:
    """InputError for a word that none of the prompts holds, which is mostly misspelt."""
    for phrase in () if isinstance(lock, str) else lock:
        if all(lost_words((phrase,), prompt) for prompt in prompts):
            where = f"the prompt {prompts[0]!r}" if len(prompts) == 1 else "any of the prompts"
            raise InputError(
                f"lock: {phrase!r} is not in {where}; only words of a prompt can be kept"
            )


def _belongs(word: Word, *, after: Word) -> bool:
    return word.gap == "apostrophe" or (word.gap == "none" and not (word.spaced or after.spaced))


def _holds(there: Sequence[Word], phrase: Sequence[Word]) -> bool:
    wanted, size = [word.text for word in phrase], len(phrase)
    return any(
        [word.text for word in there[start : start + size]] == wanted
        and all(word.gap != "mark" for word in there[start + 1 : start + size])
        for start in range(len(there) - size + 1)
    )


def _phrase(group: Sequence[Word]) -> str:
    first, *others = group
    joined = (f"{APOSTROPHE * (word.gap == 'apostrophe')}{word.text}" for word in others)
    return "".join([first.text, *joined])


def _gap(between: str) -> Literal["none", "apostrophe", "space", "mark"]:
    if not between:
        return "none"
    if between == APOSTROPHE:
        return "apostrophe"
    return "mark" if between.strip() else "space"
