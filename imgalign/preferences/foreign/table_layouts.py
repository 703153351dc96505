"""What the rows of tables of ranked images mean, by the names of their columns.

    prompt, chosen, rejected            one pair
    caption, jpg_0, jpg_1, label_0      one pair or tie: label_0 is 1, 0, or 0.5 (Pick-a-Pic)
    prompt, images, ranks               any number of images; the lowest rank is best
    prompt, generations, ranking        the same (ImageRewardDB)
    prompt, image_path, rank            the same, the mean of raw_annotations (HPDv2, test)
    prompt, file_path, human_preference one pair; 1 is better, 0 worse (HPDv2, train)
    prompt, path1, path2                one pair; the first is better (HPDv3)

`prompt` and `caption` are one column under two names. Pure functions of values; left out: files.
What tables of texts (text_layouts.py) have in common with these is here.
"""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar

from imgalign.errors import InputError
from imgalign.preferences.foreign.image_files import LARGEST_CAPTION, one_line
from imgalign.preferences.foreign.records import Reason

T = TypeVar("T")

PROMPTS = ("prompt", "caption")
LARGEST_RANKING = 100
"""Images or texts of one row."""


class UnusableError(InputError):
    """A row that gives no ranking, with the reason for it."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Where an image stands in a row, and what stands there: a path, bytes, or both."""

    column: str
    position: int | None
    """In a list; None where the column holds one image."""
    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a row says: one ranking of its images, or several by different people.

    The ranks are 0 for the best, and -1 for images that are not ranked.
    """

    prompt: str
    cells: tuple[Cell, ...]
    rankings: tuple[tuple[int, ...], ...]
    all_bad: bool
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The columns of one kind of table, and how they are read."""

    columns: tuple[str, ...]
    optional: tuple[str, ...]
    read: Callable[[Mapping[str, Any]], tuple[tuple[Cell, ...], tuple[int, ...]]]
    others: Callable[[Mapping[str, Any], tuple[int, ...]], list[tuple[int, ...]]] = lambda *_: []
    """The rankings of which the ranks of a row are the mean, if it has them and they fit."""


def layout_of(columns: Collection[str], name: str) -> tuple[Layout, str]:
    """The layout of a table, and the name of its column of prompts; InputError where none fits."""
    layouts = {("prompt", *each.columns): each for each in LAYOUTS}
    layout = fitting(layouts, columns, name, aliases=dict.fromkeys(PROMPTS, "prompt"))
    return layout, next(each for each in PROMPTS if each in columns)


def fitting(
    layouts: Mapping[tuple[str, ...], T],
    columns: Collection[str],
    name: str,
    *,
    aliases: Mapping[str, str] = MappingProxyType({}),
) -> T:
    """The first layout whose columns a table has; `aliases` are other names of a column.

    InputError, which says what is missing and what is there, where none fits.
    """
    known = {aliases.get(each, each) for each in columns}
    for wanted, layout in layouts.items():
        if set(wanted) <= known:
            return layout
    nearest = max(layouts, key=lambda each: len(set(each) & known))
    missing = ", ".join(each for each in nearest if each not in known)
    kinds = " or ".join(f"({', '.join(each)})" for each in layouts)
    there = ", ".join(sorted(columns)[:20]) or "none"
    raise InputError(
        f"{name}: expected the columns {kinds}; missing: {missing}; there are: {there}"
    )


def read_row(layout: Layout, prompts: str, values: Mapping[str, Any]) -> Row:
    """What a row says; UnusableError where it says nothing."""
    absent = [each for each in (prompts, *layout.columns) if each not in values]
    if absent:
        raise UnusableError("unusable row", f"no {', '.join(absent)}")
    text = values[prompts]
    prompt = one_line(text) if isinstance(text, str) else ""
    if not prompt or len(prompt) > LARGEST_CAPTION:
        raise UnusableError("no caption", f"{prompts} is {text!r:.40}")
    cells, ranks = layout.read(values)
    ranks, all_bad = judged(ranks, values)
    rankings = tuple(layout.others(values, ranks)) or (ranks,)
    weight = weight_of(values)
    return Row(prompt=prompt, cells=cells, rankings=rankings, all_bad=all_bad, weight=weight)


def judged(ranks: tuple[int, ...], values: Mapping[str, Any]) -> tuple[tuple[int, ...], bool]:
    """The ranks, all -1 where a row says that all are bad, and whether it does.

    UnusableError where it ranks nothing.
    """
    all_bad = values.get("all_bad") or False
    if all_bad is True:
        return (-1,) * len(ranks), True
    if all_bad is not False:
        raise UnusableError("unusable row", f"all_bad is {all_bad!r:.40}")
    if all(rank < 0 for rank in ranks):
        raise UnusableError("no label", "nothing is ranked")
    return ranks, False


def weight_of(values: Mapping[str, Any]) -> float:
    """How much a row counts, 1 where it does not say."""
    value = values.get("weight")
    weight = 1.0 if value is None else _number("weight", value)
    if weight <= 0:
        raise UnusableError("unusable row", f"weight is {weight:g}")
    return weight


def dense(ranks: Collection[float | None]) -> tuple[int, ...]:
    """Ranks from 0 without gaps, -1 for None. Example: 1, 3, None, 3 gives 0, 1, -1, 1."""
    places = {rank: place for place, rank in enumerate(sorted({r for r in ranks if r is not None}))}
    return tuple(-1 if rank is None else places[rank] for rank in ranks)


def _pair(
    values: Mapping[str, Any], *, better: str = "chosen", worse: str = "rejected"
) -> tuple[tuple[Cell, ...], tuple[int, ...]]:
    return _cells(values, better, worse), (0, 1)


def _labelled(values: Mapping[str, Any]) -> tuple[tuple[Cell, ...], tuple[int, ...]]:
    cells = _cells(values, "jpg_0", "jpg_1")
    label = values["label_0"]
    if values.get("has_label") is False or label is None:
        raise UnusableError("no label", "")
    first = _number("label_0", label)
    if first not in (0.0, 0.5, 1.0):
        raise UnusableError("no label", f"label_0 is {first:g}, expected 1, 0 or 0.5")
    second = values.get("label_1")
    if second is not None and _number("label_1", second) != 1 - first:
        raise UnusableError("unusable row", f"label_0 {first:g} contradicts label_1 {second:g}")
    return cells, dense((1 - first, first))


def _preferred(values: Mapping[str, Any]) -> tuple[tuple[Cell, ...], tuple[int, ...]]:
    cells, ranks = _ranked(values, column="file_path", ranked="human_preference")
    if sorted(ranks) != [0, 1]:
        shown = f"{values['human_preference']!r:.40}"
        raise UnusableError("no label", f"human_preference is {shown}, expected [1, 0] or [0, 1]")
    return cells, (ranks[1], ranks[0])


def _raw_annotations(values: Mapping[str, Any], ranks: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The rankings of each annotator; none where `ranks` are not in the order of their mean.

    Then it is not known whether they are ranks of images or images by rank.
    """
    given = values.get("raw_annotations")
    numbers = []
    for each in given if isinstance(given, list) else []:
        own = each.get("rank") if isinstance(each, dict) else None
        if not isinstance(own, list) or len(own) != len(ranks):
            return []
        numbers.append([_number("raw_annotations", rank) for rank in own])
    mean = [round(sum(column) / len(numbers), 6) for column in zip(*numbers, strict=True)]
    return [dense(own) for own in numbers] if dense(mean) == ranks else []


def _ranked(
    values: Mapping[str, Any], *, column: str = "images", ranked: str = "ranks"
) -> tuple[tuple[Cell, ...], tuple[int, ...]]:
    images, ranks = ranked_list(column, values, ranked=ranked)
    cells = tuple(
        Cell(column=column, position=position, value=image) for position, image in enumerate(images)
    )
    return cells, ranks


def ranked_list(
    column: str, values: Mapping[str, Any], *, ranked: str = "ranks"
) -> tuple[list[Any], tuple[int, ...]]:
    """A list of candidates, and their ranks from the column `ranked`."""
    found, ranks = values[column], values[ranked]
    if not isinstance(found, list) or not isinstance(ranks, list) or len(found) != len(ranks):
        shown = [len(each) if isinstance(each, list) else "no list" for each in (found, ranks)]
        differ = f"{column} and {ranked} differ: {shown[0]} and {shown[1]}"
        raise UnusableError("unusable row", differ)
    if len(found) > LARGEST_RANKING:
        raise UnusableError("unusable row", f"{len(found)} {column}, at most {LARGEST_RANKING}")
    numbers = [None if rank in (None, -1) else _number(ranked, rank) for rank in ranks]
    if any(number is not None and number < 0 for number in numbers):
        raise UnusableError("unusable row", f"{ranked}: expected 0 or more, or -1 for no rank")
    return found, dense(numbers)


def _cells(values: Mapping[str, Any], *columns: str) -> tuple[Cell, ...]:
    return tuple(Cell(column=name, position=None, value=values[name]) for name in columns)


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UnusableError("unusable row", f"{name} is {value!r:.40}, expected a number")
    return float(value)


LAYOUTS = (
    Layout(columns=("chosen", "rejected"), optional=(), read=_pair),
    Layout(
        columns=("jpg_0", "jpg_1", "label_0"), optional=("label_1", "has_label"), read=_labelled
    ),
    Layout(columns=("images", "ranks"), optional=("all_bad",), read=_ranked),
    Layout(
        columns=("generations", "ranking"),
        optional=(),
        read=partial(_ranked, column="generations", ranked="ranking"),
    ),
    Layout(
        columns=("image_path", "rank"),
        optional=("raw_annotations",),
        read=partial(_ranked, column="image_path", ranked="rank"),
        others=_raw_annotations,
    ),
    Layout(columns=("file_path", "human_preference"), optional=(), read=_preferred),
    Layout(
        columns=("path1", "path2"),
        optional=(),
        read=partial(_pair, better="path1", worse="path2"),
    ),
)
