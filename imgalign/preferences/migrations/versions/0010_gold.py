"""Gold items: items whose expected order a lead has written down."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.create_table(
        "gold",
        sa.Column("item_id", sa.String(64), nullable=False),
        sa.Column("expected", sa.JSON, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("item_id", name="pk_gold"),
        sa.ForeignKeyConstraint(["item_id"], ["items.item_id"], name="fk_gold_item_id"),
    )
