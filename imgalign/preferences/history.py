"""Ratings over time: what the ratings would have been after fewer of the rankings.

Bradley-Terry scores are fitted anew to the first twelfth of the rankings, the first two twelfths
and so on, so that the last point is what the table of ratings says, whichever order the rankings
came in. Incremental Elo was not chosen: it depends on that order and on its K, and goes up and down
with the latest rankings where nothing has changed. Each point is told as the difference to one
maker, because the mean, which the table sets to 0, moves whenever another maker joins.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int
from sqlalchemy import select

from imgalign.preferences.choice import Choices, estimate
from imgalign.preferences.judged import Judged
from imgalign.preferences.ratings import pairs_of
from imgalign.preferences.schema import rankings
from imgalign.preferences.store import Store

RIDGE = 0.1
"""After few rankings some makers have won or lost every pair, and few differences are certain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """How far makers were above one of them, in nats, after so many rankings."""

    reference: str
    """The maker with the most pairs."""
    num_rankings: tuple[int, ...]
    at: tuple[datetime, ...]
    """When the last of these rankings was given."""
    above: Mapping[str, tuple[float | None, ...]]
    """By maker; None until it was compared with the reference, directly or through others."""


def over_time(
    store: Store, sequences: Int[np.ndarray, " n"], judged: Judged, *, points: int
) -> History:
    """The history of makers that all are connected; `sequences` say which rankings these are."""
    num = len(judged.kind)
    ends = sorted({-(-num * k // points) for k in range(1, points + 1)})
    names, pair, kind_of, amount = _pairs(judged)
    size = len(names)
    found: list[Float[np.ndarray, "m m"]] = []
    times = np.zeros(len(judged.groups), dtype=np.int64)
    for start, end in pairwise([0, *ends]):
        times += np.bincount(judged.kind[start:end], minlength=len(judged.groups))
        won = np.bincount(pair, weights=amount * times[kind_of], minlength=size * size)
        found.append(won.reshape(size, size))
    reference = int((found[-1] + found[-1].T).sum(axis=1).argmax())
    scores = [_above(won, reference) for won in found]
    last = sequences[np.array(ends) - 1].tolist()
    statement = select(rankings.c.sequence, rankings.c.created_at)
    with store.database.read() as connection:
        rows = connection.execute(statement.where(rankings.c.sequence.in_(last))).all()
    when = {row.sequence: row.created_at for row in rows}
    return History(
        reference=names[reference],
        num_rankings=tuple(ends),
        at=tuple(when[sequence] for sequence in last),
        above={name: tuple(each[place] for each in scores) for place, name in enumerate(names)},
    )


def _pairs(
    judged: Judged,
) -> tuple[list[str], Int[np.ndarray, " p"], Int[np.ndarray, " p"], Float[np.ndarray, " p"]]:
    """Names, and for each pair that an outcome holds: winner and loser, the outcome, and how much
    it counts. A tie is half a pair each way.
    """
    names = sorted({who for groups in judged.groups for group in groups for who in group})
    place = {name: number for number, name in enumerate(names)}
    rows = [
        (place[winner] * len(names) + place[loser], kind, 0.5 if tied else 1.0)
        for kind, groups in enumerate(judged.groups)
        for better, worse, tied in pairs_of(groups)
        for winner, loser in ([(better, worse), (worse, better)] if tied else [(better, worse)])
    ]
    columns = np.array(rows, dtype=np.float64).reshape(-1, 3).T
    return names, columns[0].astype(np.int64), columns[1].astype(np.int64), columns[2]


def _above(won: Float[np.ndarray, "m m"], reference: int) -> list[float | None]:
    """Bradley-Terry scores of those that are connected with the reference, less its own."""
    met = won + won.T > 0
    reached = np.zeros(len(won), dtype=bool)
    reached[reference] = True
    while (more := reached | met[reached].any(axis=0)).sum() > reached.sum():
        reached = more
    places = np.flatnonzero(reached)
    found: list[float | None] = [None] * len(won)
    if len(places) < 2:
        return found
    blocks = [
        Choices(
            np.eye(2),
            np.array([one, other]),
            np.array([0, 1]),
            np.array([won[i, j], won[j, i]]),
            np.zeros(2, dtype=np.int64),
        )
        for one, i in enumerate(places)
        for other, j in enumerate(places)
        if one < other and met[i, j]
    ]
    scores = estimate(blocks, num_parameters=len(places), num_centred=len(places), ridge=RIDGE)
    scores -= scores[places.tolist().index(reference)]
    for place, score in zip(places.tolist(), scores.tolist(), strict=True):
        found[place] = score
    return found
