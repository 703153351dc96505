"""Pairs of blind comparisons of which neither image was any good, as their annotators said.

Such a judgement counts for neither maker and has no place in a rate; but it was made, and is told.
Only projects of comparisons are looked at: elsewhere "all bad" is said of all candidates of a set.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import TypeAlias

from sqlalchemy import Connection, select

from imgalign.preferences import queries
from imgalign.preferences.open_items import lineups_of
from imgalign.preferences.outcomes import Maker
from imgalign.preferences.prompt_sets import PromptSet
from imgalign.preferences.records import JudgedBy, holds_comparisons
from imgalign.preferences.schema import annotators, items, projects, provenances, rankings

Two: TypeAlias = frozenset[Maker]


@dataclass(frozen=True, slots=True)
class BothBad:
    """Two makers of which nobody has preferred one yet, because each time both were bad."""

    name: str
    other_name: str
    times: int

    def line(self) -> str:
        """Whom it is about, and how often."""
        times = "once" if self.times == 1 else f"{self.times} times"
        return f"{self.name} and {self.other_name}: {times} both were bad, which counts for neither"


def times_both_bad(
    connection: Connection,
    *,
    project: str | None = None,
    group: str | None = None,
    judged_by: JudgedBy = "people",
    prompts: PromptSet | None = None,
) -> Mapping[tuple[Two, bool], int]:
    """How often both were bad, by two makers and by whether simulated annotators said so."""
    known = connection.execute(select(projects.c.project)).scalars()
    among = [each for each in known if holds_comparisons(each) and project in (None, each)]
    if not among:
        return {}
    said = (
        select(rankings.c.item_id, items.c.prompt, annotators.c.simulated)
        .join(items, items.c.item_id == rankings.c.item_id)
        .join(annotators, annotators.c.annotator_id == rankings.c.annotator_id)
        .where(
            items.c.project.in_(among),
            items.c.samples == "images",
            rankings.c.verdict == "all_bad",
            queries.counted(),
            ~queries.is_attention(),
            *queries.judged_by(judged_by),
        )
    )
    if group is not None:
        said = said.where(annotators.c.group_name == group)
    rows = connection.execute(said).all()
    if prompts is not None:
        rows = [row for row in rows if row.prompt in prompts]
    lineups = lineups_of(connection, list({row.item_id for row in rows}))
    return Counter(
        (frozenset(two), row.simulated)
        for row in rows
        for two in combinations(lineups[row.item_id], 2)
    )


def paths_of(connection: Connection, makers: Two) -> dict[Maker, str | None]:
    """The paths of the adapters of makers, as they were first told."""
    found: dict[Maker, str | None] = {}
    for maker in makers:
        own = provenances.c.adapter_hash == maker.weights
        told = select(provenances.c.adapter).where(own).order_by(provenances.c.sequence).limit(1)
        first = None if maker.weights is None else connection.execute(told).scalar()
        found[maker] = first or maker.weights
    return found
