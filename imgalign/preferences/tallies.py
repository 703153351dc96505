"""Counts that follow from the judgements, kept with them in the same transaction.

Without these, every next item and every progress bar would count all rankings. Each change of what
is counted comes through one function here: an item was added, its overlap was raised, it was
withdrawn or brought back, a judgement was given or taken back, an annotator was excluded or
included again. `recount` has the same numbers
from the judgements alone; `store check` and a property test compare the two. The writer's lock
makes each change see the one before.
"""

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Select,
    Table,
    Update,
    bindparam,
    func,
    insert,
    select,
    update,
)

from imgalign.preferences import outcomes
from imgalign.preferences.queries import (
    AnyRow,
    excluded,
    is_attention,
    is_open,
    is_withdrawn,
    standing,
    unjudged,
)
from imgalign.preferences.schema import (
    UtcDateTime,
    annotators,
    assignments,
    items,
    judged_prompts,
    projects,
    rankings,
    tallies,
)
from imgalign.preferences.shown import ITEM, WHO


def item_added(connection: Connection, item_id: str) -> None:
    """Count a new item, which nobody has judged."""
    item = _item(connection, item_id)
    _add(connection, projects, {"project": item.project}, items=1, open=int(_open(item)))


def overlap_raised(connection: Connection, item_id: str, overlap: int) -> None:
    """Set a larger overlap, which may open the item again."""
    _changed(connection, item_id, overlap=overlap)


def item_withdrawn(connection: Connection, item_id: str, *, since: datetime) -> None:
    """Close an item, however many have judged it."""
    _changed(connection, item_id, withdrawn_at=since)


def item_brought_back(connection: Connection, item_id: str) -> None:
    """Let an item be as if it had never been withdrawn."""
    item = _item(connection, item_id)
    _changed(connection, item_id, withdrawn_at=None)
    lower(connection, item.project, item.place)  # open or not: AI judges are asked it again


def _changed(connection: Connection, item_id: str, **values: object) -> None:
    """Set columns of an item that decide whether it is open."""
    before = _item(connection, item_id)
    connection.execute(update(items).where(items.c.item_id == item_id).values(values))
    judged = _judged_by(connection, item_id)
    _opened(connection, before, _item(connection, item_id), before_by=judged, after_by=judged)


def places_swapped(connection: Connection, item_id: str, other: str) -> None:
    """Let two items of a project change places in its queue."""
    one, two = _item(connection, item_id), _item(connection, other)
    # Places are unique: one waits at a place that none has.
    moves = ((other, -1 - one.place), (item_id, two.place), (other, one.place))
    for moved, place in moves:
        this = update(items).where(items.c.item_id == moved)
        connection.execute(this.values(sequence=place))
    lower(connection, one.project, min(one.place, two.place))


def judged(connection: Connection, ranking_id: str, *, now: datetime) -> None:
    """Count a judgement that was just added, and end the lease that it answers."""
    row = _judgement(connection, ranking_id)
    _count(connection, row, by=1)
    answered = {"item": row.item_id, "who": row.annotator_id, "now": now, "leased_until": now}
    connection.execute(ANSWERED, answered)
    _advance(connection, row)


def taken_back(connection: Connection, ranking_id: str) -> None:
    """Count a judgement no more that was just undone."""
    row = _judgement(connection, ranking_id)
    _count(connection, row, by=-1)
    own = tallies.c.annotator_id == row.annotator_id
    lower(connection, row.project, row.place, own)


def annotator_excluded(connection: Connection, annotator_id: str, project: str) -> None:
    """Count the judgements of an annotator no more who was just excluded from a project."""
    _count_all(connection, annotator_id, project, by=-1)


def annotator_included(connection: Connection, annotator_id: str, project: str) -> None:
    """Count the judgements of an annotator again who was excluded until now."""
    _count_all(connection, annotator_id, project, by=1)


def _count_all(connection: Connection, annotator_id: str, project: str, *, by: int) -> None:
    """Count an annotator's judgements in a project, or no more; what is their own stays.

    Their own progress in `tallies`, and their records in `outcomes`, are of what stands.
    """
    judged = (
        select(
            *(items.c[name] for name in ("item_id", "sequence", "prompt", "samples")),
            is_attention().label("attention"),
        )
        .select_from(items)
        .join(rankings, rankings.c.item_id == items.c.item_id)
        .join(annotators, annotators.c.annotator_id == rankings.c.annotator_id)
        .where(
            rankings.c.annotator_id == annotator_id,
            items.c.project == project,
            rankings.c.verdict != "skipped",
            annotators.c.judge_id.is_(None),
            standing(),
        )
    )
    rows = connection.execute(judged).all()
    if not rows:
        return
    of_them = items.c.item_id.in_(judged.with_only_columns(rankings.c.item_id))
    connection.execute(update(items).where(of_them).values(given=items.c.given + by))
    learned = Counter((row.samples, row.prompt) for row in rows if not row.attention)
    for (samples, prompt), number in learned.items():
        numbered = outcomes.number(connection, "prompt", prompt)
        key = {"project": project, "samples": samples, "prompt": numbered}
        _add(connection, judged_prompts, key, given=by * number)
    of_project = (items.c.project == project, is_open())
    num_open = select(func.count()).where(*of_project).scalar_subquery()
    connection.execute(update(projects).where(projects.c.project == project).values(open=num_open))
    own_open = (
        select(func.count(items.c.item_id.distinct()))
        .join(rankings, rankings.c.item_id == items.c.item_id)
        .where(*of_project, rankings.c.annotator_id == tallies.c.annotator_id, standing())
        .correlate(tallies)
        .scalar_subquery()
    )
    connection.execute(update(tallies).where(tallies.c.project == project).values(open=own_open))
    lower(connection, project, min(row.sequence for row in rows))


def _count(connection: Connection, row: AnyRow, *, by: int) -> None:
    others = _judged_by(connection, row.item_id, but=row.ranking_id)
    everybody = others | {row.annotator_id}
    is_given = row.verdict != "skipped"
    if is_given and row.judge_id is None and not row.excluded:
        connection.execute(GIVEN, {"item": row.item_id, "by": by})
    is_learned = is_given and not row.attention
    if is_learned and row.judge_id is None and not row.excluded:
        prompt = outcomes.number(connection, "prompt", row.prompt)
        key = {"project": row.project, "samples": row.samples, "prompt": prompt}
        _add(connection, judged_prompts, key, given=by)
    of = {"annotator_id": row.annotator_id, "project": row.project}
    _add(connection, tallies, of, done=by, **{row.samples: by * is_learned})
    _opened(
        connection,
        row,
        _item(connection, row.item_id),
        before_by=others if by > 0 else everybody,
        after_by=everybody if by > 0 else others,
    )
    if not row.attention:
        outcomes.put(connection, row, stands=by > 0)


def _opened(
    connection: Connection,
    before: AnyRow,
    after: AnyRow,
    *,
    before_by: set[str],
    after_by: set[str],
) -> None:
    """Count an item as open or not, for its project and for those who have judged it."""
    was, now = _open(before), _open(after)
    for annotator_id in sorted(before_by | after_by):
        by = (annotator_id in after_by and now) - (annotator_id in before_by and was)
        if by:
            of = {"annotator_id": annotator_id, "project": after.project}
            _add(connection, tallies, of, open=by)
    if was != now:
        _add(connection, projects, {"project": after.project}, open=now - was)
    if now and not was:
        lower(connection, after.project, after.place)


def lower(connection: Connection, project: str, place: int, *whose: ColumnElement[bool]) -> None:
    """Let annotators find an item again that is left for them once more."""
    lowered = update(tallies).where(tallies.c.project == project, tallies.c.first > place, *whose)
    connection.execute(lowered.values(first=place))


def _advance(connection: Connection, row: AnyRow) -> None:
    """Raise `first` to the first item that the annotator has not judged and that is open."""
    own = {"who": row.annotator_id, "of_project": row.project}
    first = connection.execute(FIRST, own).scalar_one()
    if row.place < first:
        return
    left = _first_left(by_ai=row.judge_id is not None)
    found = connection.execute(left, {**own, "from": first}).scalar()
    if found is None:
        found = connection.execute(LAST, {"of_project": row.project}).scalar_one() + 1
    if found > first:
        connection.execute(ADVANCED, {**own, "first": found})


# Built once: building a statement takes longer than the database does.
RANKING: BindParameter[str] = bindparam("ranking")
PROJECT: BindParameter[str] = bindparam("of_project")
NOW = bindparam("now", type_=UtcDateTime())
JUDGEMENT = (
    select(
        *(rankings.c[name] for name in ("ranking_id", "item_id", "annotator_id", "verdict")),
        *(rankings.c.sequence, rankings.c.tie_groups),
        *(items.c[name] for name in ("project", "prompt", "samples")),
        *(items.c[name] for name in ("given", "overlap", "withdrawn_at")),
        items.c.sequence.label("place"),
        annotators.c.judge_id,
        excluded(rankings.c.annotator_id, items.c.project).label("excluded"),
        is_attention().label("attention"),
    )
    .join(items, items.c.item_id == rankings.c.item_id)
    .join(annotators, annotators.c.annotator_id == rankings.c.annotator_id)
    .where(rankings.c.ranking_id == RANKING)
)
ITEM_COUNTED = select(
    *(items.c[name] for name in ("project", "given", "overlap", "withdrawn_at")),
    items.c.sequence.label("place"),
).where(items.c.item_id == ITEM)
ANSWERED = update(assignments).where(
    assignments.c.item_id == ITEM,
    assignments.c.annotator_id == WHO,
    assignments.c.leased_until > NOW,
)
GIVEN = update(items).where(items.c.item_id == ITEM).values(given=items.c.given + bindparam("by"))
OWN = (tallies.c.annotator_id == WHO) & (tallies.c.project == PROJECT)
FIRST = select(tallies.c.first).where(OWN)
ADVANCED = update(tallies).where(OWN)
LAST = select(func.max(items.c.sequence)).where(items.c.project == PROJECT)
JUDGED_BY = select(rankings.c.annotator_id).where(
    rankings.c.item_id == ITEM, rankings.c.ranking_id != RANKING, standing()
)


@cache
def _first_left(*, by_ai: bool) -> Select[Any]:
    """The first place from one on whose item an annotator may judge still."""
    left = select(items.c.sequence).where(
        items.c.project == PROJECT,
        items.c.sequence >= bindparam("from"),
        unjudged(WHO),
        ~is_withdrawn(),
    )
    if not by_ai:
        left = left.where(is_open())
    return left.order_by(items.c.sequence).limit(1)


def _judgement(connection: Connection, ranking_id: str) -> AnyRow:
    return connection.execute(JUDGEMENT, {"ranking": ranking_id}).one()


def _item(connection: Connection, item_id: str) -> AnyRow:
    return connection.execute(ITEM_COUNTED, {"item": item_id}).one()


def _open(item: AnyRow) -> bool:
    return bool(item.given < item.overlap and item.withdrawn_at is None)


def _judged_by(connection: Connection, item_id: str, *, but: str = "") -> set[str]:
    """Annotators with a standing judgement of an item, one judgement left out."""
    values = {"item": item_id, "ranking": but}
    return set(connection.execute(JUDGED_BY, values).scalars())


@cache
def adding(table: Table, key: tuple[str, ...], by: tuple[str, ...]) -> Update:
    """Add to numbers of a row: `by_open` to its `open`, where `of_project` is its project."""
    this = [table.c[name] == bindparam(f"of_{name}") for name in key]
    added = {name: table.c[name] + bindparam(f"by_{name}") for name in by}
    return update(table).where(*this).values(added)


def _add(connection: Connection, table: Table, key: Mapping[str, object], **by: int) -> None:
    """Add to numbers of a row, which is made with zeros if it is not there."""
    values = {f"of_{name}": value for name, value in key.items()}
    values |= {f"by_{name}": number for name, number in by.items()}
    if connection.execute(adding(table, tuple(key), tuple(by)), values).rowcount == 0:
        zeros = {column.name: 0 for column in table.c if column.name not in key}
        connection.execute(insert(table).values({**zeros, **key, **by}))
