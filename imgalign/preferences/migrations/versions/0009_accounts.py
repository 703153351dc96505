"""Accounts, invitations and sessions. A store from before has none, and so nobody logs in."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

HASH = sa.String(64)
NAME = sa.String(200)
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "accounts",
        sa.Column("account_id", NAME, nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("password", sa.Text, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("disabled_at", MOMENT),
        sa.PrimaryKeyConstraint("account_id", name="pk_accounts"),
        sa.ForeignKeyConstraint(
            ["account_id"], ["annotators.annotator_id"], name="fk_accounts_account_id"
        ),
    )
    op.create_table(
        "invitations",
        sa.Column("digest", HASH, nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("group_name", NAME, nullable=False),
        sa.Column("invited_by", NAME),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.Column("account_id", NAME),
        sa.Column("used_at", MOMENT),
        sa.PrimaryKeyConstraint("digest", name="pk_invitations"),
        sa.ForeignKeyConstraint(
            ["invited_by"], ["accounts.account_id"], name="fk_invitations_invited_by"
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.account_id"], name="fk_invitations_account_id"
        ),
    )
    op.create_table(
        "sessions",
        sa.Column("digest", HASH, nullable=False),
        sa.Column("account_id", NAME, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_sessions"),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.account_id"], name="fk_sessions_account_id"
        ),
    )
    op.create_index("ix_sessions_account_id", "sessions", ["account_id"])
