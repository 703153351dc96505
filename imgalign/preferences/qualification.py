"""A short qualification: gold items that every annotator of a project judges before any other.

Who does not answer the asked share of them as the lead expects gets nothing more to judge, unless
a lead admits them. What they judged is kept and counts as all else does; leaving it out is an
exclusion. A correction counts until the last of the items is judged for the first time; what is
changed later changes nothing, so that nobody tries until it fits. A skip is not as expected. AI
judges have no qualification.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import BindParameter, Connection, bindparam, delete, insert, select

from imgalign.errors import InputError
from imgalign.preferences import queries
from imgalign.preferences.accounts_schema import admissions, qualifications
from imgalign.preferences.database import Database
from imgalign.preferences.identity import person
from imgalign.preferences.quality import as_expected
from imgalign.preferences.records import Annotator, TieGroups, utc_now
from imgalign.preferences.schema import gold, items, rankings, undos

MOST_ITEMS = 20
"""More is no short qualification."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Qualification:
    """What a project asks of those who begin: so many gold items, and the share to answer right."""

    num_items: int
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Where an annotator stands: the items that are left, and whether they may not go on."""

    left: tuple[str, ...] = ()
    held: bool = False

    @property
    def open(self) -> bool:
        """Whether they may judge whatever there is."""
        return not self.left and not self.held


def qualification_of(database: Database, project: str) -> Qualification | None:
    """What a project asks for, of the items that still are gold; None for nothing."""
    with database.read() as connection:
        rule = connection.execute(RULE, {"project": project}).first()
        known = {} if rule is None else _expected(connection, rule.items)
    return Qualification(num_items=len(known), share=rule.share) if rule and known else None


def set_qualification(database: Database, project: str, *, num_items: int, share: float) -> None:
    """Ask for the first gold items of a project, in the order of its queue; 0 asks for nothing.

    Who has judged them before is measured by that. InputError for more items than are gold.
    """
    if not 0 <= num_items <= MOST_ITEMS:
        raise InputError(f"qualification: expected 0 to {MOST_ITEMS} gold items, got {num_items}")
    if not 0 < share <= 1:
        raise InputError(f"qualification: expected a share above 0 and at most 1, got {share}")
    with database.write() as connection:
        connection.execute(delete(qualifications).where(qualifications.c.project == project))
        if not num_items:
            return
        marked = select(items.c.item_id).join(gold, gold.c.item_id == items.c.item_id)
        of_project = marked.where(items.c.project == project).order_by(items.c.sequence)
        first = list(connection.execute(of_project.limit(num_items)).scalars())
        if len(first) < num_items:
            raise InputError(
                f"qualification: expected at most {len(first)}, the gold items of project "
                f"{project!r}, got {num_items}; add gold items, or ask for fewer"
            )
        row = {"project": project, "items": first, "share": share, "changed_at": utc_now()}
        connection.execute(insert(qualifications).values(**row))


def admit(database: Database, annotator: str, *, project: str) -> None:
    """Let an annotator go on, whatever they answered; StoreError for an unknown one."""
    with database.write() as connection:
        who = queries.require_annotator(connection, person(annotator)).annotator_id
        if connection.execute(ADMITTED, {"who": who, "project": project}).first() is None:
            row = {"project": project, "annotator_id": who, "created_at": utc_now()}
            connection.execute(insert(admissions).values(**row))


WHO: BindParameter[str] = bindparam("who")
PROJECT: BindParameter[str] = bindparam("project")
IDS: BindParameter[str] = bindparam("ids", expanding=True)
RULE = select(qualifications).where(qualifications.c.project == PROJECT)
ADMITTED = select(admissions.c.project).where(
    admissions.c.project == PROJECT, admissions.c.annotator_id == WHO
)
EXPECTED = select(gold.c.item_id, gold.c.expected).where(gold.c.item_id.in_(IDS))
JUDGED = (
    select(
        rankings.c.item_id,
        rankings.c.tie_groups,
        undos.c.ranking_id.is_(None).label("stands"),
    )
    .outerjoin(undos, undos.c.ranking_id == rankings.c.ranking_id)
    .where(rankings.c.item_id.in_(IDS), rankings.c.annotator_id == WHO)
    .order_by(rankings.c.sequence)
)


def entry(connection: Connection, who: Annotator, project: str) -> Entry:
    """Where an annotator stands with the qualification of a project."""
    rule = connection.execute(RULE, {"project": project}).first()
    if rule is None or who.judge_id is not None:
        return Entry()
    expected = _expected(connection, rule.items)
    asked = {"ids": list(expected), "who": who.annotator_id, "project": project}
    judged = connection.execute(JUDGED, asked).all()
    latest: dict[str, bool] = {}
    for row in judged:
        if len(latest) == len(expected):
            break
        given = queries.to_tie_groups(row.tie_groups)
        latest[row.item_id] = as_expected(given, expected[row.item_id])
    if len(latest) < len(expected):
        standing = {row.item_id for row in judged if row.stands}
        left = [each for each in expected if each not in standing]
        return Entry(left=tuple(left))
    # 0.6 of five items are 3, whatever the rounding.
    passed = sum(latest.values()) > rule.share * len(expected) - 0.5e-6
    if passed or connection.execute(ADMITTED, asked).first() is not None:
        return Entry()
    return Entry(held=True)


def _expected(connection: Connection, chosen: Sequence[str]) -> dict[str, TieGroups]:
    """The expected order of those items that still are gold, in the order of the qualification."""
    rows = connection.execute(EXPECTED, {"ids": chosen}).all()
    found = {row.item_id: queries.to_tie_groups(row.expected) or () for row in rows}
    return {each: found[each] for each in chosen if each in found}
