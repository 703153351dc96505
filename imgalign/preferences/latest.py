"""The latest judgements of an annotator, found by numbers from an index before a wide row is read.

So it takes about as long after ten thousand judgements as after ten. Where the latest ones are not
asked for, as imported ones or those of another project, the walk from number to number ends early:
once it has all that the tallies count in the project, or where fewer items were ever shown to the
annotator than it would read, which are looked up instead.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import BindParameter, Connection, Select, bindparam, func, select

from imgalign.preferences.queries import standing
from imgalign.preferences.schema import assignments, items, rankings, tallies
from imgalign.preferences.shown import WHO

MOST_AT_ONCE = 10_000
"""Numbers in one statement; databases take about 32,000."""


def latest(
    connection: Connection,
    annotator_id: str,
    *,
    limit: int,
    project: str | None = None,
    before: int | None = None,
    include_undone: bool = False,
    shown_only: bool = False,
) -> list[int]:
    """Sequence numbers of the annotator's latest judgements below `before`, newest first.

    With `shown_only` those of items that this annotator was never shown, which were imported, are
    left out; the time follows how many those are, or the items shown, whichever are fewer.
    """
    asked = {"who": annotator_id, "of_project": project}
    kind = {"in_project": project is not None, "include_undone": include_undone}
    wanted = _wanted(**kind)
    found: list[int] = []
    portion = 2 * limit
    while len(found) < limit:
        part = {"who": annotator_id, "before": before, "portion": portion}
        numbers = list(connection.execute(_numbers(from_newest=before is None), part).scalars())
        if not numbers:
            break
        among = _among(shown_only=shown_only, **kind)
        found += _newest(connection, among, {**asked, "numbers": numbers})
        before = numbers[-1]
        portion = min(4 * portion, MOST_AT_ONCE)
        if project is not None and not include_undone and len(found) < limit:
            limit = min(limit, _num_standing(connection, annotator_id, project))
        if shown_only and len(found) < limit:
            few = _shown_if_few(connection, annotator_id, most=portion)
            if few is not None:
                # No index of the annotator's: SQLite would walk all of their judgements by it.
                theirs = rankings.c.annotator_id.concat("") == annotator_id
                rest = wanted.where(rankings.c.item_id.in_(few), theirs)
                found += [each for each in _newest(connection, rest, asked) if each < before]
                break
    return found[:limit]


# Statements are built once: building one takes longer than the database does.
PROJECT: BindParameter[str] = bindparam("of_project")


@cache
def _numbers(*, from_newest: bool) -> Select[Any]:
    """Some numbers of the annotator's judgements; the index has them, so this reads no row."""
    own = select(rankings.c.sequence).where(rankings.c.annotator_id == WHO)
    if not from_newest:
        own = own.where(rankings.c.sequence < bindparam("before"))
    return own.order_by(rankings.c.sequence.desc()).limit(bindparam("portion"))


@cache
def _wanted(*, in_project: bool, include_undone: bool) -> Select[Any]:
    """Numbers of the judgements that are asked for, whoever made them."""
    # No join: SQLite would begin with all items of the project.
    there = select(items.c.item_id).where(
        items.c.item_id == rankings.c.item_id, items.c.project == PROJECT
    )
    conditions = [] if include_undone else [standing()]
    conditions += [there.correlate(rankings).exists()] if in_project else []
    return select(rankings.c.sequence).where(*conditions)


@cache
def _among(*, shown_only: bool, in_project: bool, include_undone: bool) -> Select[Any]:
    """Those of them that are among some numbers."""
    wanted = _wanted(in_project=in_project, include_undone=include_undone)
    wanted = wanted.where(rankings.c.sequence.in_(bindparam("numbers", expanding=True)))
    if not shown_only:
        return wanted
    shown = select(assignments.c.item_id).where(
        assignments.c.item_id == rankings.c.item_id, assignments.c.annotator_id == WHO
    )
    return wanted.where(shown.correlate(rankings).exists())


def _newest(connection: Connection, wanted: Select[Any], values: Mapping[str, object]) -> list[int]:
    return sorted(connection.execute(wanted, values).scalars(), reverse=True)


def _num_standing(connection: Connection, annotator_id: str, project: str) -> int:
    """Standing judgements of the annotator in a project, those of items never shown included."""
    this = (tallies.c.annotator_id == annotator_id) & (tallies.c.project == project)
    return connection.execute(select(tallies.c.done).where(this)).scalar() or 0


def _shown_if_few(connection: Connection, annotator_id: str, *, most: int) -> Sequence[str] | None:
    """Items that the annotator was ever shown; None where they are more than `most`."""
    own = select(assignments.c.item_id).where(assignments.c.annotator_id == annotator_id)
    # The index on annotator and lease counts them without a row.
    counted = own.with_only_columns(assignments.c.leased_until).limit(most + 1).subquery()
    if connection.execute(select(func.count()).select_from(counted)).scalar_one() > most:
        return None
    return connection.execute(own).scalars().all()
