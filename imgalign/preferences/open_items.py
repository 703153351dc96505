"""Items that fewer have judged than were asked to, and who made their images.

Shapes: n = items.
"""

import threading
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Int
from sqlalchemy import Connection, func, select

from imgalign.preferences.outcomes import (
    CHUNK,
    MADE,
    Maker,
    Outcomes,
    maker_of,
    prompt_numbers,
)
from imgalign.preferences.queries import is_attention, is_open
from imgalign.preferences.schema import candidates, items, provenances
from imgalign.preferences.votes import Pair, Votes
from imgalign.statistics import distinct

MOST_KEPT = 200_000
"""Items: tens of megabytes."""
T = TypeVar("T")
Lineup = frozenset[Maker]


class Item(NamedTuple):
    """What never changes of an item, but for who made its images."""

    prompt: int
    project: str
    lineup: Lineup


@dataclass(frozen=True, slots=True)
class OpenItems:
    """Open items of images, by the numbers of `outcomes`."""

    prompt: Int[np.ndarray, " n"]
    project: Int[np.ndarray, " n"]
    lineup: Int[np.ndarray, " n"]
    """The place in `lineups`."""
    lineups: Sequence[frozenset[int]]
    """Makers of the images of an item; images that several made are left out, as in rankings."""

    def prompts(self, pair: Pair, *, projects: Int[np.ndarray, " p"]) -> Int[np.ndarray, " m"]:
        """Prompts of the items with images of both makers, in any of these projects."""
        both = np.array([makers.issuperset(pair) for makers in self.lineups], dtype=bool)
        if not both.any():
            return np.zeros(0, dtype=np.int64)
        return np.asarray(self.prompt[both[self.lineup] & np.isin(self.project, projects)])


class Lineups:
    """Items that were looked up, kept for the next time, when most of the open ones are the same.

    All are looked up anew when the store has one provenance more, because an image may have got
    another maker.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[int, Item] = {}
        self._newest: int | None = None

    def of(self, connection: Connection, sequences: Sequence[int]) -> list[Item]:
        """Those of the items whose prompt was ever judged; the others are looked up each time."""
        # Read before the makers: if it is too old for them, they are looked up once more.
        newest = connection.execute(select(func.max(provenances.c.sequence))).scalar()
        with self._lock:
            missing = [each for each in sequences if each not in self._kept]
            if newest != self._newest or len(self._kept) + len(missing) > MOST_KEPT:
                self._kept, missing, self._newest = {}, list(sequences), newest
            for some in _chunks(missing):
                self._kept |= _items(connection, some)
            return [self._kept[each] for each in sequences if each in self._kept]


def open_items(
    connection: Connection, found: Outcomes, votes: Votes, lineups: Lineups
) -> OpenItems:
    """The open items of images on prompts and in projects that have votes."""
    names = {number: name for name, number in found.projects.items()}
    projects = [names[number] for number in distinct(votes.project)[0].tolist()]
    sequences = connection.execute(
        select(items.c.sequence).where(
            is_open(),
            ~is_attention(),
            items.c.samples == "images",
            items.c.project.in_(projects),
        )
    ).scalars()
    shown = lineups.of(connection, sequences.all())
    places = {lineup: place for place, lineup in enumerate(dict.fromkeys(i.lineup for i in shown))}
    number_of = {maker: number for number, maker in found.makers.items()}
    return OpenItems(
        np.array([item.prompt for item in shown], dtype=np.int64),
        np.array([found.projects[item.project] for item in shown], dtype=np.int64),
        np.array([places[item.lineup] for item in shown], dtype=np.int64),
        [frozenset(number_of[who] for who in each if who in number_of) for each in places],
    )


def _items(connection: Connection, sequences: Sequence[int]) -> dict[int, Item]:
    asked = select(items.c.sequence, items.c.item_id, items.c.prompt, items.c.project)
    rows = connection.execute(asked.where(items.c.sequence.in_(sequences))).all()
    numbers = prompt_numbers(connection, {row.prompt for row in rows})
    rows = [row for row in rows if row.prompt in numbers]
    lineups = lineups_of(connection, [row.item_id for row in rows])
    return {
        sequence: Item(numbers[prompt], project, lineups[item_id])
        for sequence, item_id, prompt, project in rows
    }


def lineups_of(connection: Connection, item_ids: Sequence[str]) -> dict[str, Lineup]:
    """Who made the images of items, but for images that several made."""
    images: dict[str, list[str]] = {item_id: [] for item_id in item_ids}
    shown = select(candidates.c.item_id, candidates.c.image_id)
    shown = shown.where(candidates.c.item_id.in_(item_ids))
    for item_id, image in connection.execute(shown).all():
        images[item_id].append(image)
    made: dict[str, set[Maker]] = defaultdict(set)
    known: dict[tuple[object, ...], Maker] = {}
    for some in _chunks({image for each in images.values() for image in each}):
        by = select(provenances.c.image_id, *MADE).where(provenances.c.image_id.in_(some))
        for row in connection.execute(by):
            key = tuple(row[1:])
            if key not in known:
                known[key] = maker_of(row)
            made[row[0]].add(known[key])
    alone = {image: who for image, makers in made.items() if len(makers) == 1 for who in makers}
    same: dict[Lineup, Lineup] = {}  # one object for all that are equal
    found: dict[str, Lineup] = {}
    for item_id, each in images.items():
        lineup = frozenset(alone[image] for image in each if image in alone)
        found[item_id] = same.setdefault(lineup, lineup)
    return found


def _chunks(values: Collection[T]) -> Iterator[list[T]]:
    left = iter(values)
    while some := list(islice(left, CHUNK)):
        yield some
