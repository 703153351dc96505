"""Withdrawn items are counted without reading all items."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"

WITHDRAWN = sa.text("withdrawn_at IS NOT NULL")


def upgrade() -> None:
    op.create_index(
        "ix_items_withdrawn_at",
        "items",
        ["project", "withdrawn_at"],
        sqlite_where=WITHDRAWN,
        postgresql_where=WITHDRAWN,
    )
