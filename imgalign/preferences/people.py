"""The annotators of a project as a lead sees them: how well each judges, and who is excluded.

AI judges are left out: `imgalign feedback` reports what they are worth.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, func, select

from imgalign.errors import StoreError
from imgalign.preferences import queries
from imgalign.preferences.attention import AttentionItem, attention_items
from imgalign.preferences.exclusions import all_exclusions
from imgalign.preferences.gold import GoldItem, gold_items
from imgalign.preferences.qualification import entry
from imgalign.preferences.quality import AnnotatorQuality, Share, project_quality
from imgalign.preferences.records import Annotator, Ranking
from imgalign.preferences.reliability import Reliability
from imgalign.preferences.schema import annotators, items, projects, rankings
from imgalign.preferences.store import Store

LATEST = 5_000
"""Judgements that are looked at: the latest of a project, which take some seconds."""
AT_ONCE = 500
SHARES = ("gold", "attention", "consistency", "first place", "agreement")
"""Columns of the table for a terminal, behind the numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """An annotator of a project, their quality, and since when they are excluded, if they are.

    Who is `held` did not qualify.
    """

    annotator: Annotator
    quality: AnnotatorQuality
    excluded_since: datetime | None
    held: bool = False

    @property
    def state(self) -> str:
        """In words, if there is anything to say. Example: "not qualified"."""
        said = ["excluded"] if self.excluded_since else []
        return ", ".join([*said, "not qualified"] if self.held else said)


@dataclass(frozen=True, slots=True, kw_only=True)
class People:
    """The annotators of a project, those with the most votes first."""

    project: str
    people: tuple[Person, ...]
    alpha: Reliability
    """Of those who are not excluded, as is kappa."""
    kappa: Reliability
    gold: tuple[GoldItem, ...]
    attention: tuple[AttentionItem, ...]
    num_read: int
    num_older: int
    """Judgements that were not looked at, because more are later."""

    def lines(self) -> list[str]:
        """A table for a terminal."""
        if not self.people:
            return [f"project {self.project!r}: nobody has judged anything yet"]
        columns = [("votes", 6), ("skips", 6), ("s/vote", 7)]
        columns += [(name, 23) for name in SHARES]
        found = ["  ".join(f"{name:>{width}}" for name, width in columns) + "  annotator"]
        for each in self.people:
            own = each.quality
            seconds = "" if own.median_seconds is None else f"{own.median_seconds:.1f}"
            shares = (
                *(own.gold, own.attention, own.self_consistency),
                *(own.first_place, own.agreement),
            )
            numbers = f"{own.num_votes:>6}  {own.num_skipped:>6}  {seconds:>7}"
            name = ", ".join(filter(None, (each.annotator.name, each.state)))
            found.append("  ".join([numbers, *(f"{_share(one):>23}" for one in shares), name]))
        found.append(f"Krippendorff's alpha (ordinal): {reliability_line(self.alpha)}")
        found.append(f"Fleiss' kappa (better, worse, tie): {reliability_line(self.kappa)}")
        if self.num_older:
            found.append(
                f"of the latest {self.num_read:,} judgements; {self.num_older:,} are older"
            )
        return found


def people_of(store: Store, project: str, *, latest: int = LATEST) -> People:
    """The annotators of a project, from its `latest` judgements; StoreError for an unknown one."""
    gold, attention = gold_items(store, project), attention_items(store, project)
    excluded = {
        each.annotator_id: each.since for each in all_exclusions(store.database, project=project)
    }
    with store.database.read() as connection:
        known = select(projects.c.project).where(projects.c.project == project)
        if connection.execute(known).first() is None:
            raise StoreError(f"project {project!r}: nothing is queued there; check its name")
        judged, num_older = _latest(connection, project, latest)
    found = project_quality(
        judged,
        gold={each.item_id: each.expected for each in gold},
        excluded=excluded,
        withdrawn={each.item_id for each in attention if each.withdrawn_since},
    )
    names = {each.annotator_id: each for each in store.annotators()}
    with store.database.read() as connection:
        asked = (names[each.annotator] for each in found.annotators)
        held = {each.annotator_id for each in asked if entry(connection, each, project).held}
    return People(
        project=project,
        people=tuple(
            Person(
                annotator=names[each.annotator],
                quality=each,
                excluded_since=excluded.get(each.annotator),
                held=each.annotator in held,
            )
            for each in found.annotators
            if names[each.annotator].judge_id is None
        ),
        alpha=found.alpha,
        kappa=found.kappa,
        gold=tuple(gold),
        attention=tuple(attention),
        num_read=len(judged),
        num_older=num_older,
    )


def reliability_line(found: Reliability) -> str:
    """Alpha or kappa in words. Example: "0.41 [0.33, 0.48], 620 pairs of 40 prompts"."""
    if found.value is None:
        same = "all pairs are ties" if found.num_pairs else "no two annotators judged the same pair"
        return f"unknown, {same}"
    interval = "" if found.low is None else f" [{found.low:.2f}, {found.high:.2f}]"
    return f"{found.value:.2f}{interval}, {found.num_pairs} pairs of {found.num_prompts} prompts"


def _share(share: Share) -> str:
    if share.value is None:
        return ""
    low, high = 100 * share.low, 100 * share.high
    return f"{100 * share.value:.0f} % [{low:.0f}, {high:.0f}] of {share.count}"


def _latest(connection: Connection, project: str, latest: int) -> tuple[Sequence[Ranking], int]:
    """The latest standing judgements of people, in the order of their time; and how many more."""
    of_people = (items.c.project == project, annotators.c.judge_id.is_(None), queries.standing())
    whole = (
        select(func.count())
        .select_from(rankings)
        .join(items, items.c.item_id == rankings.c.item_id)
        .join(annotators, annotators.c.annotator_id == rankings.c.annotator_id)
        .where(*of_people)
    )
    statement = (
        queries.judgements(include_undone=False, include_excluded=True)
        .where(items.c.project == project, annotators.c.judge_id.is_(None))
        .order_by(rankings.c.sequence.desc())
        .limit(latest)
    )
    rows = connection.execute(statement).all()[::-1]
    found = [
        each
        for start in range(0, len(rows), AT_ONCE)
        for each in queries.to_rankings(connection, rows[start : start + AT_ONCE])
    ]
    return found, connection.execute(whole).scalar_one() - len(rows)
