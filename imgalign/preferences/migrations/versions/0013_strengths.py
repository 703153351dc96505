"""How strongly the adapter of an image was applied; all from before were applied in full."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    columns = sa.inspect(op.get_bind()).get_columns("provenances")
    if "strength" in {each["name"] for each in columns}:
        return  # 0008 has just counted by it
    op.add_column(
        "provenances", sa.Column("strength", sa.Float(53), nullable=False, server_default="1")
    )
