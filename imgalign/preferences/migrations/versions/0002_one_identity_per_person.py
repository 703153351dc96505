"""One identity per person, the client that registered them, and where the images are.

Annotators whose names differ only in case, spaces or Unicode form become one. Nothing is lost: of
two standing judgements of one item the later one stands and the earlier counts as taken back. Two
of one name in different groups stay two; the second gets its group in its name.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

from imgalign.preferences.identity import person

revision = "0002"
down_revision = "0001"

HASH = sa.String(64)
NAME = sa.String(200)


def upgrade() -> None:
    op.add_column("annotators", sa.Column("client", HASH))
    op.create_index("ix_annotators_client", "annotators", ["client"])
    op.create_table(
        "folders",
        sa.Column("name", NAME, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_folders"),
    )
    connection = op.get_bind()
    _allow_updates(connection)
    merge = _Merge(connection)
    for old, new in _renamed(connection):
        merge.annotator(old, new)
    _refuse_updates(connection)


def _renamed(connection: sa.Connection) -> list[tuple[str, str]]:
    """(old, new) identity of everybody whose identity changes; those that stay keep theirs."""
    rows = connection.execute(
        sa.text("SELECT annotator_id, group_name FROM annotators ORDER BY created_at, annotator_id")
    ).all()
    group_of: dict[str, str] = {}
    renamed = []
    for old, group in sorted(rows, key=lambda row: row[0] != person(row[0])):
        # A name of nothing but invisible characters has no identity of its own.
        new = person(old) or f"annotator {old.encode().hex()[:40]}"
        while group_of.setdefault(new, group) != group:
            new = f"{new[:150]} ({person(group)[:40]})"
        if new != old:
            renamed.append((old, new))
    return renamed


class _Merge:
    """Moves all that belongs to one annotator to another."""

    def __init__(self, connection: sa.Connection) -> None:
        self.connection = connection
        known = sa.MetaData()
        known.reflect(connection, only=["annotators", "assignments", "views", "rankings", "undos"])
        self.table = known.tables

    def annotator(self, old: str, new: str) -> None:
        annotators = self.table["annotators"]
        if not self._rows(annotators, annotator_id=new):
            (row,) = self._rows(annotators, annotator_id=old)
            self.connection.execute(annotators.insert().values(row | {"annotator_id": new}))
        old_items = {row["item_id"] for row in self._rows(self.table["rankings"], annotator_id=old)}
        latest = {item: self._judgements(item, old, new) for item in sorted(old_items)}
        for assigned in self._rows(self.table["assignments"], annotator_id=old):
            item = assigned["item_id"]
            self._assignment(assigned, new, keep_old=latest.get(item) == old)
        self.connection.execute(annotators.delete().where(annotators.c.annotator_id == old))

    def _judgements(self, item: str, old: str, new: str) -> str:
        """Number the judgements of an item anew; who of the two gave the one that stands."""
        rankings, undos = self.table["rankings"], self.table["undos"]
        rows = sorted(
            [
                *self._rows(rankings, annotator_id=old, item_id=item),
                *self._rows(rankings, annotator_id=new, item_id=item),
            ],
            key=lambda row: row["sequence"],
        )
        standing = [row for row in rows if not self._rows(undos, ranking_id=row["ranking_id"])]
        for row in standing[:-1]:
            values = {"ranking_id": row["ranking_id"], "created_at": standing[-1]["created_at"]}
            self.connection.execute(undos.insert().values(values))
        for attempt, row in enumerate(rows):
            values = {"annotator_id": new, "attempt": -1 - attempt}  # in nobody's way
            if row["annotator_id"] == old and self._rows(
                rankings, annotator_id=new, key=row["key"]
            ):
                values["key"] = row["ranking_id"]
            self._update_ranking(row, values)
        for attempt, row in enumerate(rows):
            self._update_ranking(row, {"attempt": attempt})
        return str((standing or rows)[-1]["annotator_id"])

    def _assignment(self, assigned: dict[str, Any], new: str, *, keep_old: bool) -> None:
        """Keep the display order under which the judgement that stands was given."""
        assignments, views = self.table["assignments"], self.table["views"]
        old, item = assigned["annotator_id"], assigned["item_id"]
        there = bool(self._rows(assignments, annotator_id=new, item_id=item))
        if there:
            self._delete(views, annotator_id=new if keep_old else old, item_id=item)
        else:
            self.connection.execute(assignments.insert().values(assigned | {"annotator_id": new}))
        moved = views.update().where(views.c.annotator_id == old, views.c.item_id == item)
        self.connection.execute(moved.values(annotator_id=new))
        self._delete(assignments, annotator_id=old, item_id=item)

    def _update_ranking(self, row: dict[str, Any], values: dict[str, Any]) -> None:
        rankings = self.table["rankings"]
        this = rankings.c.ranking_id == row["ranking_id"]
        self.connection.execute(rankings.update().where(this).values(values))

    def _rows(self, table: sa.Table, **equal: str) -> list[dict[str, Any]]:
        conditions = [table.c[name] == value for name, value in equal.items()]
        found = self.connection.execute(sa.select(table).where(*conditions)).mappings()
        return [dict(row) for row in found]

    def _delete(self, table: sa.Table, **equal: str) -> None:
        conditions = [table.c[name] == value for name, value in equal.items()]
        self.connection.execute(table.delete().where(*conditions))


def _allow_updates(connection: sa.Connection) -> None:
    if connection.dialect.name == "postgresql":
        op.execute("ALTER TABLE rankings DISABLE TRIGGER rankings_append_only")
    elif connection.dialect.name == "sqlite":
        op.execute("DROP TRIGGER rankings_no_update")


def _refuse_updates(connection: sa.Connection) -> None:
    if connection.dialect.name == "postgresql":
        op.execute("ALTER TABLE rankings ENABLE TRIGGER rankings_append_only")
    elif connection.dialect.name == "sqlite":
        op.execute(
            "CREATE TRIGGER rankings_no_update BEFORE UPDATE ON rankings "
            "BEGIN SELECT RAISE(ABORT, 'rankings is append-only'); END"
        )
