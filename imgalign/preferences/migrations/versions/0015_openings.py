"""Projects that leads open to annotators with accounts. A store from before has none."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"

NAME = sa.String(200)


def upgrade() -> None:
    op.create_table(
        "openings",
        sa.Column("project", NAME, nullable=False),
        sa.Column("is_open", sa.Boolean, nullable=False),
        sa.Column("changed_by", NAME),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("project", name="pk_openings"),
        sa.ForeignKeyConstraint(
            ["changed_by"], ["accounts.account_id"], name="fk_openings_changed_by"
        ),
    )
