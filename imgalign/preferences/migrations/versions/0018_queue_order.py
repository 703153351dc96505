"""Which item is ranked next, by project, and how probable each choice was.

A store from before ranks the oldest item first, where nothing is drawn.
"""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"

INFORMATIVE = sa.text("given < overlap AND priority IS NOT NULL")


def upgrade() -> None:
    op.add_column("items", sa.Column("priority", sa.Float(53)))
    op.add_column("assignments", sa.Column("chosen_at", sa.DateTime(timezone=True)))
    op.add_column("assignments", sa.Column("propensity", sa.Float(53)))
    op.add_column("rankings", sa.Column("propensity", sa.Float(53)))
    op.create_index(
        "ix_items_priority",
        "items",
        ["project", "priority"],
        sqlite_where=INFORMATIVE,
        postgresql_where=INFORMATIVE,
    )
    op.create_table(
        "queue_orders",
        sa.Column("project", sa.String(200), nullable=False),
        sa.Column("queue_order", sa.String(16), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("project", name="pk_queue_orders"),
    )
