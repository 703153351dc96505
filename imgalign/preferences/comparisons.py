"""Blind comparisons of two makers: how often one is preferred, and whether one may stop asking.

A vote is one ranking that holds images of both; with several of each it is the share of pairs that
one wins, and a tie is half a win. Two things are told. The rate has an interval over prompts and
annotators, as in `evaluate --votes`; it holds for a number of votes that was settled beforehand.
The sequence (`confidence_sequence`) holds whenever one looks. Its observations are prompts, by the
mean of their votes, in the order in which the last vote on each came in. A prompt is no observation
yet while an item of it is open that holds images of both, in a project whose votes are counted: the
mean of its votes so far would be replaced by another.

That both were bad is no vote; how often it was said is told beside them (both_bad.py).
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np
from sqlalchemy import Connection

from imgalign.preferences import outcomes
from imgalign.preferences.both_bad import BothBad, Two, paths_of, times_both_bad
from imgalign.preferences.makers import asked_for, names_of
from imgalign.preferences.open_items import Lineups, OpenItems, open_items
from imgalign.preferences.outcomes import Maker, Outcomes
from imgalign.preferences.prompt_sets import PromptSet, numbers_in
from imgalign.preferences.records import JudgedBy
from imgalign.preferences.store import Store
from imgalign.preferences.votes import Pair, Votes
from imgalign.preferences.wording import counted
from imgalign.statistics import Estimate, confidence_sequence, two_way_rate

MOST = 12
"""Comparisons that are told, those with the latest votes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The votes on two makers; `one` has an adapter if either has."""

    one: Maker
    other: Maker
    name: str
    other_name: str
    path: str | None
    """Where the adapter of `one` was when it made the images."""
    other_path: str | None
    """Where that of `other` was, if it has one."""
    wins: int
    """Votes for `one`."""
    ties: int
    losses: int
    both_bad: int
    """How often its annotators said that both were bad, which is no vote."""
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
            f" {counted(self.votes, 'blind vote')} (ties half{self._interval()})"
        )
        judges = ["All votes are by simulated annotators"] if self.simulated else []
        times = "Once more" if self.both_bad == 1 else f"{self.both_bad} times more"
        bad = [f"{times} both were bad, which counts for neither"] if self.both_bad else []
        return [said, self.decision(), *bad, *judges]

    def _interval(self) -> str:
        """That of the rate: over prompts and annotators, of whom few leave it wide."""
        if self.rate.low is None or self.rate.high is None:
            return ""
        between = f"{100 * self.rate.low:.0f} to {_percent(self.rate.high)}"
        over = f"{self.annotators} annotators and their" if self.annotators > 1 else "the"
        return f"; 95 % interval {between} over {over} prompts, for a number settled beforehand"

    def decision(self, *, one: str | None = None, other: str | None = None) -> str:
        """Whether it is decided, in one sentence; `one` and `other` are other names for them."""
        waiting = self.prompts - self.counted
        rest = ""
        if waiting:
            have = "has" if waiting == 1 else "have"
            rest = f"; {counted(waiting, 'prompt')} still {have} items to judge"
        if self.sequence is None:
            return f"No prompt is judged completely yet{rest}"
        _, low, high = self.whenever
        between = f"{100 * low:.0f} to {_percent(high)} over these, whenever asked"
        on = f"{counted(self.counted, 'prompt')} judged completely ({between})"
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
    prompts: PromptSet | None = None,
    most: int | None = MOST,
    lineups: Lineups | None = None,
) -> list[Comparison]:
    """Every two makers that were compared blind, the latest first, at most so many."""
    found = latest_comparisons(
        store,
        project=project,
        group=group,
        judged_by=judged_by,
        prompts=prompts,
        lineups=lineups,
    )
    return list(islice(found, most))


def latest_comparisons(
    store: Store,
    *,
    project: str | None = None,
    group: str | None = None,
    judged_by: JudgedBy = "people",
    prompts: PromptSet | None = None,
    lineups: Lineups | None = None,
) -> Iterator[Comparison]:
    """Every two makers that were compared blind, the latest first, each counted as it is asked for.

    Of the votes that are stored when the first is asked for. Who asks often keeps `lineups`.
    """
    with store.database.read() as connection:
        found = outcomes.read(connection)
        asked = asked_for(
            found,
            group=group,
            project=project,
            judged_by=judged_by,
            prompts=None if prompts is None else numbers_in(connection, prompts),
        )
        votes = Votes.of(found, asked & ~found.excluded)
        if not len(votes.order):
            return
        left = open_items(connection, found, votes, lineups or Lineups())
        bad = times_both_bad(
            connection, project=project, group=group, judged_by=judged_by, prompts=prompts
        )
    for pair in votes.pairs():
        yield _comparison(found, votes, pair, left, bad)


def never_preferred(
    store: Store,
    *,
    project: str | None = None,
    group: str | None = None,
    judged_by: JudgedBy = "people",
    prompts: PromptSet | None = None,
) -> list[BothBad]:
    """Every two makers without a vote, of which both were bad each time that people were asked."""
    with store.database.read() as connection:
        bad = times_both_bad(
            connection, project=project, group=group, judged_by=judged_by, prompts=prompts
        )
        if not bad:
            return []
        found = outcomes.read(connection)
        chosen = None if prompts is None else numbers_in(connection, prompts)
        asked = asked_for(found, group=group, project=project, judged_by=judged_by, prompts=chosen)
        votes = Votes.of(found, asked & ~found.excluded)
        voted = {frozenset(found.makers[number] for number in pair) for pair in votes.pairs()}
        times: Counter[Two] = Counter()
        for (two, _), number in bad.items():
            if two not in voted:
                times[two] += number
        return [_both_bad(connection, two, number) for two, number in times.most_common(MOST)]


def _both_bad(connection: Connection, two: Two, times: int) -> BothBad:
    names = names_of(paths_of(connection, two))
    with_adapter_first = sorted(two, key=lambda maker: (maker.weights is None, names[maker]))
    name, other_name = (names[maker] for maker in with_adapter_first)
    return BothBad(name, other_name, times)


def _comparison(
    found: Outcomes,
    votes: Votes,
    pair: Pair,
    left: OpenItems,
    bad: Mapping[tuple[Two, bool], int],
) -> Comparison:
    own, simulated = votes.people_first(pair)
    won = votes.shares(pair)[own.order]
    one, other = (found.makers[number] for number in pair)
    if other.weights is not None:  # alone it has an adapter, or it is the newer one
        one, other, won = other, one, 1 - won
    names = names_of(found.path_of)
    still_open = left.prompts(pair, projects=np.flatnonzero(np.bincount(own.project)))
    size = int(own.prompt.max()) + 1
    votes_on, won_on = np.bincount(own.prompt), np.bincount(own.prompt, won)
    last = np.empty(size, dtype=np.int64)
    last[own.prompt] = np.arange(len(own.prompt))
    complete = votes_on > 0
    complete[still_open[still_open < size]] = False
    counted = np.flatnonzero(complete)
    counted = counted[np.argsort(last[counted])]
    means = won_on[counted] / votes_on[counted]
    return Comparison(
        one=one,
        other=other,
        name=names[one],
        other_name=names[other],
        path=found.path_of[one],
        other_path=found.path_of[other],
        wins=int((won > 0.5).sum()),
        ties=int((won == 0.5).sum()),
        losses=int((won < 0.5).sum()),
        both_bad=bad.get((frozenset((one, other)), simulated), 0),
        simulated=simulated,
        prompts=own.clusters.num_one,
        annotators=own.clusters.num_other,
        rate=two_way_rate(won, own.clusters),
        counted=len(counted),
        sequence=confidence_sequence(means) if len(counted) else None,
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
