"""Ratings over time: what the ratings would have been after fewer of the rankings.

The table's own method rates the first twelfth of the rankings, the first two twelfths and so on, so
that the last point is what the table says. A fit (Bradley-Terry, Plackett-Luce) is made anew each
time, whichever order the rankings came in; Elo goes on from point to point, by the same updates in
the same order, and so goes up and down with the latest rankings where nothing has changed. Each
point is told as the difference to one maker, because the mean, which a fit sets to 0, moves
whenever another maker joins.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from jaxtyping import Int
from sqlalchemy import select

from imgalign.preferences.judged import Judged
from imgalign.preferences.ratings import Ratings
from imgalign.preferences.schema import rankings
from imgalign.preferences.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """How far makers were above one of them, in the unit of the ratings, after so many rankings."""

    reference: str
    """The maker with the most pairs."""
    num_rankings: tuple[int, ...]
    at: tuple[datetime, ...]
    """When the last of these rankings was given."""
    above: Mapping[str, tuple[float | None, ...]]
    """By maker; None until it was compared with the reference, directly or through others."""


def over_time(
    store: Store,
    sequences: Int[np.ndarray, " n"],
    judged: Judged,
    *,
    rate: Callable[[Judged], Ratings],
    points: int,
) -> History:
    """The history of makers that all are connected; `sequences` say which rankings these are.

    `rate` is the method, without intervals; it must rate any of their first rankings.
    """
    num = len(judged.kind)
    ends = sorted({-(-num * k // points) for k in range(1, points + 1)})
    whole = rate(judged)
    reference = whole.items[int(np.argmax(whole.num_comparisons))]
    scores = [_above(judged.first(end), reference, rate) for end in ends]
    last = sequences[np.array(ends) - 1].tolist()
    statement = select(rankings.c.sequence, rankings.c.created_at)
    with store.database.read() as connection:
        rows = connection.execute(statement.where(rankings.c.sequence.in_(last))).all()
    when = {row.sequence: row.created_at for row in rows}
    return History(
        reference=reference,
        num_rankings=tuple(ends),
        at=tuple(when[sequence] for sequence in last),
        above={name: tuple(each.get(name) for each in scores) for name in whole.items},
    )


def _above(judged: Judged, reference: str, rate: Callable[[Judged], Ratings]) -> dict[str, float]:
    """Scores of those that are connected with the reference, less its own."""
    for _, part in judged.parts():
        if any(reference in group for groups in part.groups for group in groups):
            found = rate(part)
            own = found.score[found.items.index(reference)]
            return {name: score - own for name, score in zip(found.items, found.score, strict=True)}
    return {}
