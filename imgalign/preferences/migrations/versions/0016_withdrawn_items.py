"""Attention items that are withdrawn, since when. A store from before has none."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    columns = sa.inspect(op.get_bind()).get_columns("items")
    if "withdrawn_at" in {each["name"] for each in columns}:
        return  # 0008 has just counted by it
    op.add_column("items", sa.Column("withdrawn_at", sa.DateTime(timezone=True)))
