"""Oracle of texts: how well a text carries out an idea, and how a group of annotators likes it.

Utilities, groups and tastes are those of images (annotators.py). Faithfulness counts the words of
the idea that are kept; a single flaw costs more than all taste. Taste is predicted from the words:
LOOKS says how each changes what the image model draws, so taste is average where nothing is said. A
text that copies its idea is therefore faithful, if the image model can read it, and of average
taste in all that the idea leaves open. Training never sees any of this.

Shapes: b = texts. Utilities have no unit and lie in [0, FAITHFULNESS_WEIGHT + 1] = [0, 7].
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from imgalign.errors import InputError
from imgalign.storybook.annotators import Annotator, Impression, Judgement, check_group, taste_of
from imgalign.storybook.ideas import UNORDERED, Idea, Thing, carries_out, parse_idea
from imgalign.storybook.scenes import (
    COLOURS,
    OBJECTS,
    SETTINGS,
    Item,
    SceneSpec,
    parse_prompt,
    prompt_of,
    vocabulary,
)
from imgalign.storybook.verifier import (
    COLOUR_POINTS,
    EXTRA_FACTOR,
    FLAWED,
    KIND_POINTS,
    RELATION_POINTS,
    SETTING_POINTS,
)

RAMBLE_FACTOR = 0.95
"""Faithfulness is multiplied by this for each word or mark that is not part of the prompt."""
READ_PIECES = 200
"""Words and marks of a text that are read; the rest only counts as rambling."""

FEATURES = ("warmth", "brightness", "contrast", "saturation", "crispness")
LOOKS: Mapping[str, tuple[float, ...]] = {
    "meadow": (-0.4, 0.4, 0.0, -0.3, 0.2),
    "night": (-1.2, -2.2, -0.5, 0.0, -1.4),
    "snow": (-0.7, 0.5, 0.3, -0.8, 0.8),
    "sea": (-0.5, 0.4, 0.1, -0.6, 0.1),
    "desert": (1.7, 0.5, 0.1, 1.5, 0.5),
    "room": (1.1, 0.4, 0.0, 0.3, -0.2),
    "red": (0.6, -0.2, 0.6, 0.5, 0.6),
    "orange": (0.8, 0.1, -0.5, 0.8, -0.4),
    "yellow": (0.8, 0.3, -1.1, 0.7, -1.2),
    "green": (-0.4, 0.0, 0.1, -0.6, 0.2),
    "blue": (-1.2, -0.1, 0.6, 0.1, 0.6),
    "purple": (-0.7, -0.1, 0.4, -0.4, 0.2),
    "pink": (0.0, 0.2, -1.0, -0.5, -1.1),
    "brown": (0.1, -0.1, 0.9, -0.6, 1.1),
}
"""Change of each of FEATURES by a setting or a colour, in standard deviations.

Least squares over 3,000 images of the shipped pipeline (benchmarks/text_taste.py). Settings have
mean 0, and so have colours; a colour counts by its share of the objects. The extent is left out: no
word changes it by more than 0.3.
"""
TEXT_STEEPNESS = 1.2
"""Of the logistic function from looks to taste: less steep than for images, because words decide
about half of the variance of an image's taste."""

_WORDS = frozenset(vocabulary())
_STARTS = ("a", "an", "two", "three", "four")
_LONGEST = 11
"""Words of the longest prompt: "a red cat left of a blue house by the sea"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextReading:
    """What a text asks the image model for: its longest part that is a prompt, the first of them.

    Example: "a cat, a red cat at night, so pretty" asks for a red cat at night, with `excess` 6.
    """

    spec: SceneSpec | None
    """None where no part is a prompt."""
    excess: int
    """Words and punctuation marks that are not part of the prompt."""
    exact: bool
    """Whether the text is that prompt and nothing else; spaces around it do not matter."""


@lru_cache(maxsize=2**14)
def read_text(text: str) -> TextReading:
    """Find the prompt in a text; upper case is read as lower case, but is not exact."""
    pieces = re.findall(r"\w+|[^\w\s]", text.lower())
    best: SceneSpec | None = None
    length = 0
    for start in range(min(len(pieces), READ_PIECES)):
        if pieces[start] not in _STARTS:
            continue
        end = start
        while end < min(len(pieces), start + _LONGEST) and pieces[end] in _WORDS:
            end += 1
        for stop in range(end, start + length, -1):
            spec = _parsed_prompt(" ".join(pieces[start:stop]))
            if spec is not None:
                best, length = spec, stop - start
                break
    exact = best is not None and prompt_of(best) == text.strip()
    return TextReading(spec=best, excess=len(pieces) - length, exact=exact)


def text_faithfulness(idea: str, text: str) -> float:
    """How well a text carries out an idea, in [0, 1]; 1 exactly when nothing is wrong.

    The share of points earned, with the points of images (verifier.py), times EXTRA_FACTOR per
    object too many and RAMBLE_FACTOR per word too many, and times FLAWED unless everything is right
    and the image model can read the text. InputError for an idea outside the grammar.
    """
    wanted, reading = _parsed_idea(idea), read_text(text)
    if reading.spec is None:
        return 0.0
    if reading.exact and carries_out(reading.spec, wanted):
        return 1.0
    earned, possible, num_extra = _points(wanted, reading.spec)
    share = earned / possible
    return FLAWED * share * EXTRA_FACTOR**num_extra * RAMBLE_FACTOR**reading.excess


def text_taste(text: str, *, group: str) -> float:
    """How a group likes what the text asks for, in [0, 1]; 0 where it asks for nothing."""
    spec = read_text(text).spec
    if spec is None:
        return 0.0
    items = [spec.first] if spec.second is None else [spec.first, spec.second]
    said = [(spec.setting, 1.0), *((item.colour, 1 / len(items)) for item in items)]
    return taste_of(_look(said), group=group, steepness=TEXT_STEEPNESS)


def text_impressions(ideas: Sequence[str], texts: Sequence[str], *, group: str) -> list[Impression]:
    """Faithfulness and taste of each text for its idea, as `group` sees it."""
    check_group(group)
    if len(ideas) != len(texts):
        raise InputError(f"text oracle: {len(ideas)} ideas for {len(texts)} texts")
    return [
        Impression(faithfulness=text_faithfulness(idea, text), taste=text_taste(text, group=group))
        for idea, text in zip(ideas, texts, strict=True)
    ]


def text_utility(ideas: Sequence[str], texts: Sequence[str], *, group: str) -> Float[Tensor, " b"]:
    """Oracle utility of each text for `group`, without noise."""
    worth = text_impressions(ideas, texts, group=group)
    return torch.tensor([impression.utility for impression in worth])


def rank_texts(
    annotator: Annotator, idea: str, texts: Sequence[str], *, order: Sequence[int], item_id: str
) -> Judgement:
    """The annotator's answer to candidate texts of one idea, as `Annotator.rank` gives it."""
    worth = text_impressions([idea] * len(texts), texts, group=annotator.group)
    return annotator.rank(worth, order=order, item_id=item_id)


def best_text(idea: str, *, group: str) -> str:
    """A text of the highest utility for an idea and a group."""
    wanted = _parsed_idea(idea)

    def best(words: Sequence[str]) -> str | None:
        liked = {word: taste_of(_look([(word, 1.0)]), group=group) for word in words}
        favourite = max(liked, key=lambda word: liked[word])
        return favourite if liked[favourite] > 0.5 else None

    def item(thing: Thing, company: Thing | Item | None) -> Item:
        others = (kind for kind in OBJECTS if company is None or kind != company.kind)
        return Item(kind=thing.kind or next(others), colour=thing.colour or best(COLOURS))

    first = item(wanted.first, wanted.second)
    return prompt_of(
        SceneSpec(
            first=first,
            count=wanted.count,
            relation=wanted.relations[0],
            second=None if wanted.second is None else item(wanted.second, first),
            setting=wanted.setting or best(tuple(SETTINGS)),
        )
    )


def text_oracle_reward(group: str) -> Callable[..., Float[Tensor, " b"]]:
    """The noiseless utility of a group of annotators, as a reward function of texts."""

    def score(*, prompts: Sequence[str], samples: Sequence[str]) -> Float[Tensor, " b"]:
        return text_utility(prompts, samples, group=group)

    return score


def check_carried_out(*, prompts: Sequence[str], samples: Sequence[str]) -> Bool[Tensor, " b"]:
    """Whether each text is a prompt that carries out its idea, and nothing else."""
    pairs = zip(prompts, samples, strict=True)
    return torch.tensor([text_faithfulness(idea, text) == 1.0 for idea, text in pairs])


def idea_slice_of(text: str) -> str:
    """The kind of an idea; "free text" outside the grammar of ideas."""
    try:
        idea = parse_idea(text)
    except ValueError:
        return "free text"
    if idea.first.kind is None or (idea.second is not None and idea.second.kind is None):
        return "something open"
    if idea.second is not None:
        return "two things"
    return "one thing" if idea.count == 1 else "several of a kind"


def _points(idea: Idea, spec: SceneSpec) -> tuple[int, int, int]:
    """Points earned, points possible, and the number of objects too many."""
    items = [spec.first] * spec.count if spec.second is None else [spec.first, spec.second]
    first = [_item_points(idea.first, item) for item in items]
    if idea.second is None:
        earned = sum(sorted(first, reverse=True)[: idea.count])
        possible = idea.count * _most(idea.first)
        num_asked = idea.count
    else:
        second = [_item_points(idea.second, item) for item in items]
        earned = max(*first, *second)
        for i, j in ((0, 1), (1, 0)) if len(items) > 1 else ():
            # A relation between other things than the ones asked for is worth nothing.
            both = first[i] >= KIND_POINTS and second[j] >= KIND_POINTS
            ordered = i == 0 or idea.joint in UNORDERED
            related = both and ordered and spec.relation in idea.relations
            earned = max(earned, first[i] + second[j] + RELATION_POINTS * related)
        possible = _most(idea.first) + _most(idea.second) + RELATION_POINTS
        num_asked = 2
    if idea.setting is not None:
        possible += SETTING_POINTS
        earned += SETTING_POINTS * (spec.setting == idea.setting)
    return earned, possible, max(0, len(items) - num_asked)


def _most(thing: Thing) -> int:
    return KIND_POINTS + (0 if thing.colour is None else COLOUR_POINTS)


def _item_points(thing: Thing, item: Item) -> int:
    # A colour on the wrong kind of object earns nothing.
    if thing.kind not in (None, item.kind):
        return 0
    return KIND_POINTS + COLOUR_POINTS * (thing.colour is not None and thing.colour == item.colour)


def _look(said: Sequence[tuple[str | None, float]]) -> dict[str, float]:
    """The look of what the image model draws for words with these shares, on average."""
    looks = [(LOOKS[word], share) for word, share in said if word is not None]
    return {
        name: sum(share * look[place] for look, share in looks)
        for place, name in enumerate(FEATURES)
    }


@cache
def _parsed_idea(text: str) -> Idea:
    try:
        return parse_idea(text)
    except ValueError as error:
        raise InputError(f"text oracle: {text!r} is not a storybook idea: {error}") from error


@lru_cache(maxsize=2**16)
def _parsed_prompt(text: str) -> SceneSpec | None:
    try:
        return parse_prompt(text)
    except ValueError:
        return None
