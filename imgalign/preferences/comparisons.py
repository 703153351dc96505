"""Blind comparisons of two makers: how often one is preferred, and whether one may stop asking.

A vote is one ranking that holds images of both; with several of each it is the share of pairs that
one wins, and a tie is half a win. Two things are told. The rate has an interval over prompts and
annotators, as in `evaluate --votes`; it holds for a number of votes that was settled beforehand.
The sequence (`confidence_sequence`) holds whenever one looks. Its observations are prompts, by the
mean of their votes, in the order in which the last vote on each came in. A prompt whose items are
still open is no observation yet: its votes so far would be replaced by others.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from sqlalchemy import Connection, select

from imgalign.preferences import outcomes
from imgalign.preferences.makers import asked_for, names_of
from imgalign.preferences.outcomes import FIELDS, Groups, Maker, Outcomes
from imgalign.preferences.records import JudgedBy
from imgalign.preferences.schema import items, numbers
from imgalign.preferences.store import Store
from imgalign.statistics import Estimate, confidence_sequence, two_way_rate

MOST = 12
"""Comparisons that are told, those with the latest votes."""
CHUNK = 500
"""Prompts that are looked up at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The votes on two makers; `one` has an adapter if either has."""

    one: Maker
    other: Maker
    name: str
    other_name: str
    path: str | None
    """Where the adapter of `one` was when it made the images."""
    wins: int
    """Votes for `one`."""
    ties: int
    losses: int
    simulated: bool
    """Whether the votes are of simulated annotators, which count where no person has voted."""
    prompts: int
    annotators: int
    rate: Estimate
    """How often `one` is preferred; over prompts and annotators, if there are several."""
    counted: int
    """Prompts whose items are all judged."""
    sequence: Estimate | None
    """The same rate over these prompts, with an interval that holds whenever one looks."""

    @property
    def votes(self) -> int:
        """All of them."""
        return self.wins + self.ties + self.losses

    @property
    def whenever(self) -> tuple[float, float, float]:
        """The rate over prompts that are judged completely, with its interval; else over all."""
        found = self.sequence or self.rate
        if self.sequence is None or found.low is None or found.high is None:
            return found.value, 0.0, 1.0
        return found.value, found.low, found.high

    @property
    def preferred(self) -> Literal["one", "other"] | None:
        """Which is preferred, if that is no chance."""
        _, low, high = self.whenever
        return "one" if low >= 0.5 else "other" if high <= 0.5 else None

    def lines(self) -> list[str]:
        """What came out, and whether to go on."""
        said = (
            f"{self.name} was preferred to {self.other_name} in {_percent(self.rate.value)} of"
            f" {_votes(self.votes)} (ties half{_interval(self.rate)})"
        )
        judges = ["All votes are by simulated annotators"] if self.simulated else []
        return [said, self.decision(), *judges]

    def decision(self, *, one: str | None = None, other: str | None = None) -> str:
        """Whether it is decided, in one sentence; `one` and `other` are other names for them."""
        waiting = self.prompts - self.counted
        rest = ""
        if waiting:
            rest = f"; {_prompts(waiting)} still {'have' if waiting > 1 else 'has'} items to judge"
        if self.sequence is None:
            return f"No prompt is judged completely yet{rest}"
        _, low, high = self.whenever
        between = f"{100 * low:.0f} to {_percent(high)}, whenever asked"
        on = f"{_prompts(self.counted)} judged completely ({between})"
        if self.preferred is None:
            return f"Not decided by {on}: this may still be chance; rank more prompts{rest}"
        winner = (one or self.name) if self.preferred == "one" else (other or self.other_name)
        return f"Decided: {winner} is preferred, by {on}{rest}"


def compare_makers(
    store: Store,
    *,
    project: str | None = None,
    group: str | None = None,
    judged_by: JudgedBy = "people",
    most: int | None = MOST,
) -> list[Comparison]:
    """Every two makers that were compared blind, the latest first, at most so many."""
    found = latest_comparisons(store, project=project, group=group, judged_by=judged_by)
    return list(islice(found, most))


def latest_comparisons(
    store: Store,
    *,
    project: str | None = None,
    group: str | None = None,
    judged_by: JudgedBy = "people",
) -> Iterator[Comparison]:
    """Every two makers that were compared blind, the latest first, each counted as it is asked for.

    Of the votes that are stored when the first is asked for.
    """
    with store.database.read() as connection:
        found = outcomes.read(connection)
        asked = asked_for(found, group=group, project=project, judged_by=judged_by)
        asked &= ~found.excluded
        open_prompts = _open(connection, project) if asked.any() else np.zeros(0, dtype=np.int64)
    records = found.records[asked].astype(np.int64)
    shares = _shares(found.orders, np.unique(records[:, FIELDS.index("order")]))
    latest = sorted(shares, key=lambda pair: -_last(records, shares[pair]))
    for pair in latest:
        yield _comparison(found, records, pair, shares[pair], open_prompts)


Pair = tuple[int, int]


def _shares(
    orders: Mapping[int, Groups], kinds: Int[np.ndarray, " k"]
) -> dict[Pair, dict[int, float]]:
    """By two makers, and by orders that hold both: the share of pairs that the first one wins."""
    found: dict[Pair, dict[int, float]] = {}
    for kind in kinds.tolist():
        place = [(maker, rank) for rank, group in enumerate(orders[kind]) for maker in group]
        for one, other in combinations(sorted({maker for maker, _ in place}), 2):
            won = [
                (1.0 if mine < theirs else 0.5 if mine == theirs else 0.0)
                for first, mine in place
                for second, theirs in place
                if first == one and second == other
            ]
            found.setdefault((one, other), {})[kind] = sum(won) / len(won)
    return found


def _last(records: Int[np.ndarray, "n 4"], shares: Mapping[int, float]) -> int:
    """The place of the latest vote."""
    return int(np.flatnonzero(_holding(records, shares))[-1])


def _holding(
    records: Int[np.ndarray, "n 4"], shares: Mapping[int, float]
) -> Bool[np.ndarray, " n"]:
    return np.isin(records[:, FIELDS.index("order")], list(shares))


def _comparison(
    found: Outcomes,
    records: Int[np.ndarray, "n 4"],
    pair: Pair,
    shares: Mapping[int, float],
    open_prompts: Int[np.ndarray, " m"],
) -> Comparison:
    own = records[_holding(records, shares)]
    simulated = np.isin(own[:, FIELDS.index("annotator")], _simulated(found))
    votes = dict(zip(FIELDS, (own if simulated.all() else own[~simulated]).T, strict=True))
    won = np.array([shares[order] for order in votes["order"].tolist()])
    one, other = (found.makers[number] for number in pair)
    if other[1] is not None:  # alone it has an adapter, or it is the newer one
        one, other, won = other, one, 1 - won
    names = names_of(found.path_of)
    prompts = votes["prompt"]
    counted = ~np.isin(prompts, open_prompts)
    return Comparison(
        one=one,
        other=other,
        name=names[one],
        other_name=names[other],
        path=found.path_of[one],
        wins=int((won > 0.5).sum()),
        ties=int((won == 0.5).sum()),
        losses=int((won < 0.5).sum()),
        simulated=bool(simulated.all()),
        prompts=len(np.unique(prompts)),
        annotators=len(np.unique(votes["annotator"])),
        rate=two_way_rate(won, prompts.tolist(), votes["annotator"].tolist()),
        counted=len(np.unique(prompts[counted])),
        sequence=_sequence(won[counted], prompts[counted]) if counted.any() else None,
    )


def _simulated(found: Outcomes) -> list[int]:
    return [number for number, who in found.annotators.items() if who.simulated]


def _sequence(won: Float[np.ndarray, " n"], prompts: Int[np.ndarray, " n"]) -> Estimate:
    """Over the means of prompts, in the order of the last vote on each."""
    _, backwards, places = np.unique(prompts[::-1], return_index=True, return_inverse=True)
    means = np.bincount(places, weights=won[::-1]) / np.bincount(places)
    return confidence_sequence(means[np.argsort(-backwards)])


def _open(connection: Connection, project: str | None) -> Int[np.ndarray, " m"]:
    """Numbers of the prompts with items of images that fewer have judged than were asked for."""
    wanted = items.c.given < items.c.overlap
    statement = select(items.c.prompt).distinct().where(wanted, items.c.samples == "images")
    if project is not None:
        statement = statement.where(items.c.project == project)
    keys = [outcomes.digest(prompt) for prompt in connection.execute(statement).scalars()]
    found: list[int] = []
    for start in range(0, len(keys), CHUNK):
        part: Sequence[str] = keys[start : start + CHUNK]
        known = select(numbers.c.number).where(numbers.c.kind == "prompt", numbers.c.key.in_(part))
        found += connection.execute(known).scalars()
    return np.array(found, dtype=np.int64)


def _interval(rate: Estimate) -> str:
    if rate.low is None or rate.high is None:
        return ""
    between = f"{100 * rate.low:.0f} to {_percent(rate.high)}"
    return f"; 95 % interval {between} for a number settled beforehand"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _votes(number: int) -> str:
    return "1 blind vote" if number == 1 else f"{number} blind votes"


def _prompts(number: int) -> str:
    return "1 prompt" if number == 1 else f"{number} prompts"
