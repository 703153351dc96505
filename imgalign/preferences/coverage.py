"""How far the ranking of some items has come."""

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from itertools import groupby
from math import inf
from typing import Any, NamedTuple, get_args

from sqlalchemy import Select, case, func, select, true

from imgalign.preferences.accounts_schema import accounts, openings
from imgalign.preferences.queries import counted, excluded, is_attention, sample_id
from imgalign.preferences.records import Samples
from imgalign.preferences.schema import (
    annotators,
    candidates,
    exclusions,
    items,
    judged_prompts,
    projects,
    provenances,
    rankings,
    tallies,
)
from imgalign.preferences.skips import Skipped, skipped_items
from imgalign.preferences.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """The items of one source in a project, and the answers to them.

    Example: 40 items that two people each shall judge want 80 answers.
    """

    prompts: dict[str, str]
    """The prompt by item id, in the order in which they were queued."""
    wanted: int
    """The sum of their overlaps."""
    given: int
    """Answers that count, skips included, no more of an item than its overlap."""


def coverage(store: Store, *, project: str, source: str, simulated: bool) -> Coverage:
    """Count the answers of people, or with `simulated` those of simulated annotators."""
    queued = (
        select(items.c.item_id, items.c.prompt, items.c.overlap)
        .where(items.c.project == project, items.c.source == source)
        .order_by(items.c.sequence)
    )
    answered = (
        select(rankings.c.item_id, func.count())
        .join(items, items.c.item_id == rankings.c.item_id)
        .join(annotators, annotators.c.annotator_id == rankings.c.annotator_id)
        .where(
            items.c.project == project,
            items.c.source == source,
            annotators.c.simulated == simulated,
            annotators.c.judge_id.is_(None),
            counted(),
        )
        .group_by(rankings.c.item_id)
    )
    with store.database.read() as connection:
        rows = connection.execute(queued).all()
        given: Counter[str] = Counter()
        for item_id, count in connection.execute(answered):
            given[item_id] = count
    return Coverage(
        prompts={row.item_id: row.prompt for row in rows},
        wanted=sum(row.overlap for row in rows),
        given=sum(min(given[row.item_id], row.overlap) for row in rows),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectRankings:
    """What people have judged in a project, of one kind of samples."""

    project: str
    samples: Samples
    rankings: int
    """Judgements that count, simulated annotators' too; those of AI judges, of attention items and
    skips left out."""
    prompts: int
    groups: tuple[str, ...]
    """The groups of those who judged, by name."""
    compared: bool = True
    """Whether samples were ranked beside others, as `judged_forms` sees it."""
    liked: bool = False
    """Whether samples were liked or disliked one by one, as `judged_forms` sees it."""


def judged_projects(store: Store) -> list[ProjectRankings]:
    """Every project with judgements, by name; one with images and texts is in it twice."""
    kinds: tuple[Samples, ...] = get_args(Samples)
    given = {kind: func.sum(tallies.c[kind]).label(kind) for kind in kinds}
    of_groups = (
        select(tallies.c.project, annotators.c.group_name, *given.values())
        .join(annotators, annotators.c.annotator_id == tallies.c.annotator_id)
        .where(
            annotators.c.judge_id.is_(None),
            ~excluded(tallies.c.annotator_id, tallies.c.project),
        )
        .group_by(tallies.c.project, annotators.c.group_name)
        .order_by(tallies.c.project, annotators.c.group_name)
    )
    of_prompts = (
        select(judged_prompts.c.project, judged_prompts.c.samples, func.count().label("prompts"))
        .where(judged_prompts.c.given > 0)
        .group_by(judged_prompts.c.project, judged_prompts.c.samples)
    )
    with store.database.read() as connection:
        rows = connection.execute(of_groups).mappings().all()
        prompts = {(row[0], row[1]): row.prompts for row in connection.execute(of_prompts)}
    found = []
    for project, samples in sorted(prompts):
        own = [row for row in rows if row["project"] == project and row[samples]]
        found.append(
            ProjectRankings(
                project=project,
                samples=samples,
                rankings=sum(row[samples] for row in own),
                prompts=prompts[project, samples],
                groups=tuple(row["group_name"] for row in own),
                **judged_forms(store, project, samples)._asdict(),
            )
        )
    return found


class Forms(NamedTuple):
    """How samples of a project were judged."""

    compared: bool
    """Some beside others."""
    liked: bool
    """Some one by one."""


LOOKED_AT = 200
"""Judged items, from each end of a project: enough for a project, which holds one form as a rule,
and few enough for any number of judgements."""


def judged_forms(store: Store, project: str, samples: Samples | None = None) -> Forms:
    """How a project was judged, by the oldest and newest of its judged items; nothing without."""
    of_project = [items.c.project == project, items.c.given > 0, ~is_attention()]
    if samples is not None:
        of_project.append(items.c.samples == samples)
    found: set[bool] = set()
    with store.database.read() as connection:
        for order in (items.c.sequence, items.c.sequence.desc()):
            some = select(items.c.item_id).where(*of_project).order_by(order).limit(LOOKED_AT)
            seen = some.subquery()
            second = (
                select(candidates.c.item_id)
                .where(candidates.c.item_id == seen.c.item_id, candidates.c.candidate == 1)
                .correlate(seen)
                .exists()
            )
            found.update(connection.execute(select(second).select_from(seen)).scalars())
    return Forms(compared=True in found, liked=False in found)


def queued_projects(store: Store) -> list[str]:
    """The projects that have items, judged or not, by name."""
    found = select(projects.c.project).order_by(projects.c.project)
    with store.database.read() as connection:
        return list(connection.execute(found).scalars())


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectStanding:
    """Where a project stands. Example: 12 prompts, 48 images, 7 of 12 items ranked."""

    project: str
    kinds: frozenset[Samples]
    prompts: int
    samples: int
    """Different images and texts."""
    items: int
    judged: int
    """Items that somebody has judged, simulated annotators too, AI judges and skips left out."""
    skipped: Skipped
    """Of the others."""

    @property
    def waiting(self) -> int:
        """Items that nobody has judged or skipped."""
        return self.items - self.judged - self.skipped.items


def project_standings(store: Store, project: str | None = None) -> list[ProjectStanding]:
    """Every project with items, by name; or the one that is named, if it has any.

    Attention items are none of them.
    """
    whole = true() if project is None else items.c.project == project
    asked = whole & ~is_attention()
    queued = (
        select(
            items.c.project,
            items.c.samples,
            func.count().label("items"),
            func.count(items.c.prompt.distinct()).label("prompts"),
            func.sum(case((items.c.given > 0, 1), else_=0)).label("judged"),
        )
        .where(asked)
        .group_by(items.c.project, items.c.samples)
        .order_by(items.c.project)
    )
    shown = (
        select(items.c.project, func.count(sample_id().element.distinct()))
        .join(candidates, candidates.c.item_id == items.c.item_id)
        .where(asked)
        .group_by(items.c.project)
    )
    with store.database.read() as connection:
        rows = connection.execute(queued).all()
        samples = {name: count for name, count in connection.execute(shown)}
        skipped = skipped_items(connection, project)
    return [
        ProjectStanding(
            project=name,
            kinds=frozenset(row.samples for row in own),
            prompts=sum(row.prompts for row in own),
            samples=samples.get(name, 0),
            items=sum(row.items for row in own),
            judged=sum(row.judged for row in own),
            skipped=skipped.get(name, Skipped()),
        )
        for name, own in (
            (key, list(group)) for key, group in groupby(rows, key=lambda row: row.project)
        )
    ]


def adapters_in(store: Store, project: str) -> frozenset[str]:
    """The weights, by their hashes, whose images are queued in a project."""
    found = (
        select(provenances.c.adapter_hash)
        .distinct()
        .join(candidates, candidates.c.image_id == provenances.c.image_id)
        .join(items, items.c.item_id == candidates.c.item_id)
        .where(items.c.project == project, provenances.c.adapter_hash.is_not(None), ~is_attention())
    )
    with store.database.read() as connection:
        return frozenset(connection.execute(found).scalars())


def judged_since(store: Store, project: str) -> float:
    """When the first of a project's judged items was judged, in seconds since 1970.

    Infinity without one. Takes no longer the more judgements there are.
    """
    first_item = (
        select(items.c.item_id)
        .where(items.c.project == project, items.c.given > 0)
        .order_by(items.c.sequence)
        .limit(1)
    )
    found = select(func.min(rankings.c.created_at)).where(
        rankings.c.item_id == first_item.scalar_subquery()
    )
    with store.database.read() as connection:
        first = connection.execute(found).scalar()
    return inf if first is None else float(first.timestamp())


def store_mark(store: Store) -> Hashable:
    """Another one whenever items, judgements, makers or excluded annotators have changed.

    Takes a millisecond however many judgements there are, and is read from the database: another
    server's judgements change it too.
    """
    parts = (
        # A judgement that is taken back is in none of the other numbers.
        select(func.sum(tallies.c.done), func.sum(tallies.c.images + tallies.c.texts)),
        select(func.max(rankings.c.sequence)),
        select(func.sum(projects.c["items"]), func.sum(projects.c.open)),
        # One item that is withdrawn and another that is opened leave the sums as they were.
        withdrawn_items(),
        select(func.count(exclusions.c.annotator_id), func.max(exclusions.c.created_at)),
        select(func.max(provenances.c.sequence)),
    )
    with store.database.read() as connection:
        return tuple(tuple(connection.execute(each).one()) for each in parts)


def project_mark(store: Store, project: str) -> Hashable:
    """Another one whenever items, judgements or those who may rank a project have changed.

    Takes a millisecond however many judgements there are. Other projects that its annotators judge
    in may change it too.
    """
    last = (
        select(func.max(rankings.c.sequence))
        .where(rankings.c.annotator_id == tallies.c.annotator_id)
        .scalar_subquery()
    )
    # A judgement that is taken back and given anew leaves the sums as they were.
    judged = select(
        func.sum(tallies.c.done), func.sum(tallies.c.images + tallies.c.texts), func.max(last)
    ).where(tallies.c.project == project)
    queued = select(projects.c["items"], projects.c.open).where(projects.c.project == project)
    out = select(func.count(exclusions.c.annotator_id), func.max(exclusions.c.created_at)).where(
        exclusions.c.project == project
    )
    withdrawn = withdrawn_items().where(items.c.project == project)
    let_in = select(openings.c.is_open).where(openings.c.project == project)
    people = select(func.count(), func.count(accounts.c.disabled_at))
    parts = (judged, queued, withdrawn, out, let_in, people)
    with store.database.read() as connection:
        return tuple(tuple(connection.execute(each).all()) for each in parts)


def withdrawn_items() -> Select[Any]:
    """How many there are, and since when the latest is one; read from an index of these alone."""
    at = items.c.withdrawn_at
    figures: list[Any] = [func.count(at), func.max(at)]
    return select(*figures).where(at.is_not(None))


def has_items(store: Store, project: str, samples: Samples | None = None) -> bool:
    """Whether there is anything to rank in a project, judged or not; of this kind if one is named.

    One that it has is enough, so a large project takes no longer.
    """
    found = select(items.c.item_id).where(items.c.project == project).limit(1)
    if samples is not None:
        found = found.where(items.c.samples == samples)
    with store.database.read() as connection:
        return connection.execute(found).first() is not None
