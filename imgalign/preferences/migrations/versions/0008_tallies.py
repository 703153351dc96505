"""Counts that follow from the judgements, filled for those that are there, and indexes."""

import sqlalchemy as sa
from alembic import op

from imgalign.preferences.recount import fill

revision = "0008"
down_revision = "0007"

SEQUENCE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
HASH = sa.String(64)
NAME = sa.String(200)


def upgrade() -> None:
    op.add_column("items", sa.Column("given", sa.Integer, nullable=False, server_default="0"))
    op.drop_index("ix_assignments_annotator_id", "assignments")
    for table, columns in (
        ("assignments", ["annotator_id", "leased_until"]),
        ("assignments", ["leased_until"]),
        ("candidates", ["image_id"]),
    ):
        op.create_index(f"ix_{table}_{'_'.join(columns)}", table, columns)
    op.create_index("ix_rankings_annotator_id_sequence", "rankings", ["annotator_id", "sequence"])
    op.create_table(
        "projects",
        sa.Column("project", NAME, nullable=False),
        sa.Column("items", sa.Integer, nullable=False),
        sa.Column("open", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("project", name="pk_projects"),
    )
    op.create_table(
        "tallies",
        sa.Column("annotator_id", NAME, nullable=False),
        sa.Column("project", NAME, nullable=False),
        *(
            sa.Column(name, sa.Integer, nullable=False)
            for name in ("done", "open", "images", "texts")
        ),
        sa.Column("first", SEQUENCE, nullable=False),
        sa.PrimaryKeyConstraint("annotator_id", "project", name="pk_tallies"),
        sa.ForeignKeyConstraint(
            ["annotator_id"], ["annotators.annotator_id"], name="fk_tallies_annotator_id"
        ),
    )
    op.create_index("ix_tallies_project_first", "tallies", ["project", "first"])
    op.create_table(
        "judged_prompts",
        sa.Column("project", NAME, nullable=False),
        sa.Column("samples", sa.String(16), nullable=False),
        sa.Column("prompt", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("given", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("project", "samples", "prompt", name="pk_judged_prompts"),
    )
    op.create_table(
        "numbers",
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("key", HASH, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_numbers"),
        sa.UniqueConstraint("kind", "key", name="uq_numbers_kind_key"),
    )
    op.create_table(
        "outcomes",
        sa.Column("page", SEQUENCE, autoincrement=False, nullable=False),
        sa.Column("records", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("page", name="pk_outcomes"),
    )
    # Of 0013, but what fills these tables tells makers apart by it.
    op.add_column(
        "provenances", sa.Column("strength", sa.Float(53), nullable=False, server_default="1")
    )
    # Of 0016, but what is open is told by it.
    op.add_column("items", sa.Column("withdrawn_at", sa.DateTime(timezone=True)))
    fill(op.get_bind())
    op.create_index(
        "ix_items_open",
        "items",
        ["project", "sequence"],
        sqlite_where=sa.text("given < overlap"),
        postgresql_where=sa.text("given < overlap"),
    )
