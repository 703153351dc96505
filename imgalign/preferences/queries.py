"""SQL queries of the preference store, and conversion between rows and records.

A judgement is called standing until it is undone. It counts while it stands, unless its annotator
is excluded from the project. Nothing is learned from one of an attention item, counted or not.
"""

import hashlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Select,
    bindparam,
    func,
    insert,
    select,
)

from imgalign.errors import InputError, StoreError
from imgalign.preferences.records import (
    ATTENTION,
    Annotator,
    Answer,
    JudgedBy,
    Provenance,
    Ranking,
    Samples,
    Submission,
    TextProvenance,
    TieGroups,
    as_candidates,
    as_positions,
)
from imgalign.preferences.schema import (
    annotators,
    assignments,
    candidates,
    exclusions,
    items,
    judge_answers,
    provenances,
    rankings,
    undos,
    views,
)
from imgalign.preferences.shown import ITEM, WHO

# Statements are built once, with these in place of values: building one takes longer than the
# database does.
TOKEN: BindParameter[str] = bindparam("token")
KEY: BindParameter[str] = bindparam("key")

# sqlalchemy.Row is generic in its columns in a way that run-time type checkers cannot follow.
AnyRow = Any

PROVENANCE_FIELDS = tuple(Provenance.__dataclass_fields__)
LATER = {"original_prompt": None, "rewriter": None, "strength": 1.0}
"""Columns of a provenance that the first stores did not have, and what all of theirs would say."""


def item_id(project: str, prompt: str, source: str, sample_ids: Sequence[str]) -> str:
    """Identity of an item: a hash of its project, prompt, source and images or texts."""
    return _digest([project, prompt, source, *sample_ids])


def sample_id() -> ColumnElement[str]:
    """The image or text of a row of `candidates`."""
    return func.coalesce(candidates.c.image_id, candidates.c.text_id).label("sample_id")


SHOWN_ITEM = select(items.c.prompt, items.c.samples).where(items.c.item_id == ITEM)
SHOWN_SAMPLE = (
    select(candidates.c.image_id, candidates.c.text_id)
    .join(
        views,
        (views.c.item_id == candidates.c.item_id) & (views.c.candidate == candidates.c.candidate),
    )
    .where(views.c.token == TOKEN, views.c.annotator_id == WHO)
)
ANNOTATOR = select(annotators).where(annotators.c.annotator_id == WHO)
BY_KEY = select(rankings).where(rankings.c.annotator_id == WHO, rankings.c.key == KEY)


def shown_item(connection: Connection, asked: str) -> AnyRow:
    """Prompt and kind of samples of an item that exists."""
    return connection.execute(SHOWN_ITEM, {"item": asked}).one()


def shown_sample(connection: Connection, token: str, annotator_id: str) -> AnyRow:
    """Image or text behind a token; StoreError unless it was issued to this annotator."""
    row = connection.execute(SHOWN_SAMPLE, {"token": token, "who": annotator_id}).first()
    if row is None:
        raise StoreError("token: unknown, or issued to another annotator")
    return row


def candidates_of(connection: Connection, item: str) -> list[str]:
    """Ids of an item's images or texts, in order; empty for an unknown item."""
    statement = select(sample_id()).where(candidates.c.item_id == item)
    return list(connection.execute(statement.order_by(candidates.c.candidate)).scalars())


def kinds_of(connection: Connection, item: str) -> set[Samples]:
    """What the candidates of an item are; one kind, unless the database was changed."""
    statement = select(candidates.c.text_id).where(candidates.c.item_id == item)
    found = connection.execute(statement).scalars()
    return {"images" if text is None else "texts" for text in found}


def annotator(connection: Connection, annotator_id: str) -> Annotator | None:
    """A registered annotator, or None."""
    row = connection.execute(ANNOTATOR, {"who": annotator_id}).first()
    return None if row is None else to_annotator(row)


def require_annotator(connection: Connection, annotator_id: str) -> Annotator:
    """The annotator; StoreError unless registered."""
    found = annotator(connection, annotator_id)
    if found is None:
        raise StoreError(f"annotator {annotator_id!r}: not registered; add the annotator first")
    return found


def judged_by(asked: JudgedBy) -> Sequence[ColumnElement[bool]]:
    """Conditions on `annotators`: that they are people, or AI judges; none for all."""
    is_person = annotators.c.judge_id.is_(None)
    conditions = {"people": [is_person], "ai": [~is_person], "all": []}
    return conditions[asked]


def standing() -> ColumnElement[bool]:
    """Condition on `rankings`: not undone."""
    undone = select(undos.c.ranking_id).where(undos.c.ranking_id == rankings.c.ranking_id)
    return ~undone.correlate(rankings).exists()


def excluded(annotator_id: ColumnElement[str], project: ColumnElement[str]) -> ColumnElement[bool]:
    """Condition: this annotator is excluded from this project."""
    found = select(exclusions.c.project).where(
        exclusions.c.project == project, exclusions.c.annotator_id == annotator_id
    )
    return found.correlate_except(exclusions).exists()


def counted() -> ColumnElement[bool]:
    """Condition on `rankings` and `items`: the judgement counts, in whatever is made of them."""
    return standing() & ~excluded(rankings.c.annotator_id, items.c.project)


def unjudged(annotator_id: str | ColumnElement[str]) -> ColumnElement[bool]:
    """Condition on `items`: this annotator has no standing judgement of the item."""
    mine = select(rankings.c.sequence).where(
        rankings.c.item_id == items.c.item_id,
        rankings.c.annotator_id == annotator_id,
        standing(),
    )
    return ~mine.correlate_except(rankings).exists()


def is_open() -> ColumnElement[bool]:
    """Condition on `items`: people shall judge it more often; the index of open items serves it."""
    return (items.c.given < items.c.overlap) & ~is_withdrawn()


def is_withdrawn() -> ColumnElement[bool]:
    """Condition on `items`: nobody is asked it any more, AI judges neither."""
    return items.c.withdrawn_at.is_not(None)


def is_attention() -> ColumnElement[bool]:
    """Condition on `items`: an attention item, some of whose images do not belong to its prompt."""
    # No LIKE, which on SQLite takes "Attention: " for the same.
    return func.substr(items.c.source, 1, len(ATTENTION)) == ATTENTION


def by_key(connection: Connection, annotator_id: str, key: str) -> AnyRow | None:
    """The judgement submitted under this key, undone or not."""
    return connection.execute(BY_KEY, {"who": annotator_id, "key": key}).first()


def has_judged(connection: Connection, item: str, annotator_id: str) -> bool:
    """Whether a judgement of this annotator stands."""
    of_both = {"item": item, "who": annotator_id}
    return connection.execute(standing_of(), of_both).first() is not None


@cache
def standing_of() -> Select[Any]:
    """Numbers of standing judgements of an annotator and item; there is one at most."""
    of_annotator = (rankings.c.item_id == ITEM) & (rankings.c.annotator_id == WHO)
    return select(rankings.c.sequence).where(of_annotator, standing())


def standing_twice() -> Select[Any]:
    """Annotators and items with several standing judgements; there are none in a whole store."""
    by = (rankings.c.annotator_id, rankings.c.item_id)
    return select(*by).where(standing()).group_by(*by).having(func.count() > 1)


def _num_attempts(connection: Connection, item: str, annotator_id: str) -> int:
    """Judgements of this annotator so far, undone ones included."""
    statement = select(func.count()).where(
        rankings.c.item_id == item, rankings.c.annotator_id == annotator_id
    )
    return connection.execute(statement).scalar_one()


def add_ranking(
    connection: Connection, sent: Submission, *, order: Sequence[int], now: datetime
) -> str:
    """Insert a judgement, with positions converted to candidates; returns its id.

    `order` is the permutation under which the annotator saw them.
    """
    ranking_id = uuid.uuid4().hex
    of_lease = select(assignments.c.propensity).where(
        assignments.c.item_id == sent.item_id, assignments.c.annotator_id == sent.annotator
    )
    connection.execute(
        insert(rankings).values(
            ranking_id=ranking_id,
            item_id=sent.item_id,
            annotator_id=sent.annotator,
            key=sent.key,
            attempt=_num_attempts(connection, sent.item_id, sent.annotator),
            verdict=sent.verdict,
            reason=sent.reason,
            display_order=order,
            tie_groups=None if sent.ranking is None else as_candidates(sent.ranking, order),
            client_ms=sent.client_ms,
            created_at=now,
            propensity=of_lease.scalar_subquery(),
        )
    )
    if sent.answers:
        rows = [answer_row(each, order) for each in sent.answers]
        connection.execute(insert(judge_answers).values(ranking_id=ranking_id, answers=rows))
    return ranking_id


def answer_row(answer: Answer, order: Sequence[int]) -> list[int | str | None]:
    """An answer as the table has it, in candidates. Example: [0, 2, 1, "first"]."""
    return [answer.principle, order[answer.first], order[answer.second], answer.choice]


def judgements(*, include_undone: bool, include_excluded: bool) -> Select[Any]:
    """Select rankings with their items and annotators, for `to_rankings`; without either of the
    two those that count.
    """
    statement = (
        select(
            rankings,
            items.c.prompt,
            items.c.project,
            items.c.source,
            items.c.samples,
            annotators.c.group_name,
            annotators.c.simulated,
            annotators.c.judge_id,
            judge_answers.c.answers,
            undos.c.created_at.label("undone_at"),
        )
        .join(items, items.c.item_id == rankings.c.item_id)
        .join(annotators, annotators.c.annotator_id == rankings.c.annotator_id)
        .outerjoin(undos, undos.c.ranking_id == rankings.c.ranking_id)
        .outerjoin(judge_answers, judge_answers.c.ranking_id == rankings.c.ranking_id)
    )
    if not include_excluded:
        statement = statement.where(~excluded(rankings.c.annotator_id, items.c.project))
    return statement if include_undone else statement.where(undos.c.ranking_id.is_(None))


def to_rankings(connection: Connection, rows: Sequence[AnyRow]) -> list[Ranking]:
    """Records of rows selected by `judgements`, with their candidates."""
    of_item: dict[str, list[str]] = {row.item_id: [] for row in rows}
    statement = (
        select(candidates.c.item_id, sample_id())
        .where(candidates.c.item_id.in_(of_item))
        .order_by(candidates.c.item_id, candidates.c.candidate)
    )
    for row in connection.execute(statement):
        of_item[row.item_id].append(row.sample_id)
    return [
        Ranking(
            ranking_id=row.ranking_id,
            prompt=row.prompt,
            sample_ids=tuple(of_item[row.item_id]),
            order=tuple(row.display_order),
            ranking=to_tie_groups(row.tie_groups),
            verdict=row.verdict,
            reason=row.reason,
            annotator=row.annotator_id,
            group=row.group_name,
            created_at=row.created_at,
            item_id=row.item_id,
            project=row.project,
            source=row.source,
            key=row.key,
            client_ms=row.client_ms,
            undone_at=row.undone_at,
            simulated=row.simulated,
            samples=row.samples,
            judge_id=row.judge_id,
            answers=to_answers(row.answers or ()),
            propensity=row.propensity,
        )
        for row in rows
    ]


def to_answers(rows: Any) -> tuple[Answer, ...]:
    """Records of what `answer_row` makes; InputError for rows of another shape."""
    try:
        return tuple(Answer(*row) for row in rows)
    except TypeError:
        raise InputError(f"answers: expected rows of four, got {rows!r:.80}") from None


def content(row: AnyRow) -> tuple[object, ...]:
    """`validation.content` of a stored ranking, to compare with a repeated submission."""
    ranking = to_tie_groups(row.tie_groups)
    if ranking is not None:
        ranking = as_positions(ranking, row.display_order)
    return (row.item_id, row.verdict, row.reason, ranking)


def to_annotator(row: AnyRow) -> Annotator:
    """A record of a row of `annotators`."""
    return Annotator(
        annotator_id=row.annotator_id,
        name=row.name,
        group=row.group_name,
        simulated=row.simulated,
        judge_id=row.judge_id,
    )


def provenances_of(connection: Connection, image_id: str) -> list[Provenance]:
    """All provenances of an image, oldest first; empty for an unknown one."""
    columns = [provenances.c[field] for field in PROVENANCE_FIELDS]
    statement = select(*columns).where(provenances.c.image_id == image_id)
    rows = connection.execute(statement.order_by(provenances.c.sequence)).mappings()
    return [Provenance(**row) for row in rows]


def provenance_row(provenance: Provenance | TextProvenance) -> dict[str, Any]:
    """Columns of a provenance; its digest leaves out when and by which version it was made.

    It also leaves out columns of LATER that say what they would of the first stores, and so is what
    it was before these came.
    """
    row = asdict(provenance)
    absent = {key for key, before in LATER.items() if row.get(key) == before}
    same = {
        key: row[key] for key in sorted(row.keys() - {"created_at", "imgalign_version", *absent})
    }
    return {**row, "digest": _digest(same)}


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=True).encode()).hexdigest()


def to_tie_groups(value: list[list[int]] | None) -> TieGroups | None:
    """The order that a row of `rankings` or `gold` has."""
    return None if value is None else tuple(tuple(group) for group in value)
