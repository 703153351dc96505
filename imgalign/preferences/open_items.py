"""Items that fewer have judged than were asked to, and who made their images.

Shapes: n = items.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from sqlalchemy import Connection, select

from imgalign.preferences.outcomes import CHUNK, MADE, Outcomes, maker_of, prompt_numbers
from imgalign.preferences.queries import is_attention, is_open
from imgalign.preferences.schema import candidates, items, provenances
from imgalign.preferences.votes import Pair, Votes
from imgalign.statistics import distinct

UNKNOWN = 0
"""A maker without a vote."""


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


def open_items(connection: Connection, found: Outcomes, votes: Votes) -> OpenItems:
    """The open items of images on prompts and in projects that have votes."""
    names = {number: name for name, number in found.projects.items()}
    projects = [names[number] for number in distinct(votes.project)[0].tolist()]
    rows = connection.execute(
        select(items.c.item_id, items.c.prompt, items.c.project).where(
            is_open(),
            ~is_attention(),
            items.c.samples == "images",
            items.c.project.in_(projects),
        )
    ).all()
    judged = set(distinct(votes.prompt)[0].tolist())
    numbers = prompt_numbers(connection, {row.prompt for row in rows})
    rows = [row for row in rows if numbers.get(row.prompt) in judged]
    makers = _makers(connection, found, [row.item_id for row in rows])
    places = {lineup: place for place, lineup in enumerate(dict.fromkeys(makers.values()))}
    columns = np.array(
        [
            (numbers[row.prompt], found.projects[row.project], places[makers[row.item_id]])
            for row in rows
        ],
        dtype=np.int64,
    )
    prompt, project, lineup = columns.reshape(-1, 3).T
    return OpenItems(prompt, project, lineup, list(places))


def _makers(
    connection: Connection, found: Outcomes, item_ids: Sequence[str]
) -> dict[str, frozenset[int]]:
    """Numbers of the makers of each item's images, where they have votes."""
    number_of = {maker: number for number, maker in found.makers.items()}
    of_image: dict[str, set[int]] = defaultdict(set)
    images: dict[str, list[str]] = {item_id: [] for item_id in item_ids}
    known: dict[tuple[object, ...], int] = {}
    for start in range(0, len(item_ids), CHUNK):
        statement = (
            select(candidates.c.item_id, candidates.c.image_id, *MADE)
            .join(provenances, provenances.c.image_id == candidates.c.image_id)
            .where(candidates.c.item_id.in_(item_ids[start : start + CHUNK]))
        )
        for row in connection.execute(statement).all():
            made = tuple(row[2:])
            if made not in known:
                known[made] = number_of.get(maker_of(row), UNKNOWN)
            of_image[row.image_id].add(known[made])
            images[row.item_id].append(row.image_id)
    alone = {image: next(iter(who)) for image, who in of_image.items() if len(who) == 1}
    return {
        item_id: frozenset(alone[image] for image in shown if image in alone) - {UNKNOWN}
        for item_id, shown in images.items()
    }
