"""Votes on pairs of makers, as arrays: a million are gone through in milliseconds.

A vote on two makers is one ranking that holds images of both. Rankings that differ in prompt and
annotator only have the same order, so what a vote says is worked out once for each order.

Shapes: n = votes, k = different orders.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float, Int

from imgalign.preferences.outcomes import FIELDS, Groups, Outcomes
from imgalign.statistics import TwoWay, distinct

Pair = tuple[int, int]
"""Numbers of two makers, the smaller one first."""


@dataclass(frozen=True, kw_only=True)
class Votes:
    """Rankings in the order in which they were given; all but `order` as in `Outcomes`."""

    prompt: Int[np.ndarray, " n"]
    project: Int[np.ndarray, " n"]
    annotator: Int[np.ndarray, " n"]
    order: Int[np.ndarray, " n"]
    """The place in `orders`."""
    orders: tuple[Groups, ...]
    simulated: Bool[np.ndarray, " n"]
    clusters: TwoWay
    """By prompt and by annotator."""

    @classmethod
    def of(cls, found: Outcomes, asked: Bool[np.ndarray, " n"]) -> "Votes":
        """Those of the records that are asked for."""
        prompt, project, annotator, order = (getattr(found, name)[asked] for name in FIELDS)
        known, place = distinct(order)
        by_machine = [number for number, who in found.annotators.items() if who.simulated]
        return cls(
            prompt=prompt,
            project=project,
            annotator=annotator,
            order=place,
            orders=tuple(found.orders[number] for number in known.tolist()),
            simulated=np.isin(annotator, by_machine),
            clusters=TwoWay.of(prompt, annotator),
        )

    def pairs(self) -> list[Pair]:
        """Every two makers with votes, those with the latest vote first."""
        last = np.zeros(len(self.orders), dtype=np.int64)
        last[self.order] = np.arange(len(self.order))
        return sorted(self._won, key=lambda pair: -last[list(self._won[pair])].max())

    def shares(self, pair: Pair) -> Float[np.ndarray, " k"]:
        """The share of pairs of images that the first of two makers wins, by the place in `orders`.

        A tie is half a win; NaN for an order without one of the two.
        """
        found = np.full(len(self.orders), np.nan)
        found[list(self._won[pair])] = list(self._won[pair].values())
        return found

    def people_first(self, pair: Pair) -> tuple["Votes", bool]:
        """The votes on two makers: those of people, or where there are none of simulated
        annotators, and whether they are.
        """
        holds = np.zeros(len(self.orders), dtype=bool)
        holds[list(self._won[pair])] = True
        own = self._at(np.flatnonzero(holds[self.order]))
        by_people = np.flatnonzero(~own.simulated)
        if len(by_people) in (0, len(own.order)):
            return own, not len(by_people)
        return own._at(by_people), False

    def _at(self, places: Int[np.ndarray, " m"]) -> "Votes":
        kept = {name: getattr(self, name)[places] for name in (*FIELDS, "simulated")}
        return replace(self, clusters=self.clusters.at(places), **kept)

    @cached_property
    def _won(self) -> Mapping[Pair, Mapping[int, float]]:
        """By two makers, and by the place of each order that holds both, what the first wins."""
        found: dict[Pair, dict[int, float]] = {}
        for place, groups in enumerate(self.orders):
            ranked = [(maker, rank) for rank, group in enumerate(groups) for maker in group]
            for one, other in combinations(sorted({maker for maker, _ in ranked}), 2):
                won = [
                    (1.0 if mine < theirs else 0.5 if mine == theirs else 0.0)
                    for first, mine in ranked
                    for second, theirs in ranked
                    if first == one and second == other
                ]
                found.setdefault((one, other), {})[place] = sum(won) / len(won)
        return found
