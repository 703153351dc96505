"""The number type that an image was made in; what was there before was made in float32."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column(
        "provenances", sa.Column("dtype", sa.Text, nullable=False, server_default="float32")
    )
