"""Links by which an account gets another password. A store from before has none."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"

NAME = sa.String(200)
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "password_resets",
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("account_id", NAME, nullable=False),
        sa.Column("made_by", NAME),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_password_resets"),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.account_id"], name="fk_password_resets_account_id"
        ),
        sa.ForeignKeyConstraint(
            ["made_by"], ["accounts.account_id"], name="fk_password_resets_made_by"
        ),
    )
    op.create_index("ix_password_resets_account_id", "password_resets", ["account_id"])
