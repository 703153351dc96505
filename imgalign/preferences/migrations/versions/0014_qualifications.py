"""Qualifications: gold items that annotators of a project judge first. No project has one yet."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"

NAME = sa.String(200)


def upgrade() -> None:
    op.create_table(
        "qualifications",
        sa.Column("project", NAME, nullable=False),
        sa.Column("items", sa.JSON, nullable=False),
        sa.Column("share", sa.Float(53), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("project", name="pk_qualifications"),
    )
    op.create_table(
        "admissions",
        sa.Column("project", NAME, nullable=False),
        sa.Column("annotator_id", NAME, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("project", "annotator_id", name="pk_admissions"),
        sa.ForeignKeyConstraint(
            ["annotator_id"], ["annotators.annotator_id"], name="fk_admissions_annotator_id"
        ),
    )
