"""Annotators whose judgements in a project count nowhere. A store from before has none."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

NAME = sa.String(200)


def upgrade() -> None:
    op.create_table(
        "exclusions",
        sa.Column("project", NAME, nullable=False),
        sa.Column("annotator_id", NAME, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("project", "annotator_id", name="pk_exclusions"),
        sa.ForeignKeyConstraint(
            ["annotator_id"], ["annotators.annotator_id"], name="fk_exclusions_annotator_id"
        ),
    )
