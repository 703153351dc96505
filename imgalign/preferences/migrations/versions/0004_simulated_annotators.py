"""Simulated annotators are marked; those from before are told by the names they were given."""

import sqlalchemy as sa
from alembic import op

from imgalign.preferences.identity import was_simulated

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column(
        "annotators",
        sa.Column("simulated", sa.Boolean, nullable=False, server_default=sa.false()),
    )
    annotators = sa.table(
        "annotators",
        sa.column("annotator_id", sa.String),
        sa.column("group_name", sa.String),
        sa.column("simulated", sa.Boolean),
    )
    connection = op.get_bind()
    known = sa.select(annotators.c.annotator_id, annotators.c.group_name)
    for row in connection.execute(known).all():
        if was_simulated(row.annotator_id, row.group_name):
            this = annotators.c.annotator_id == row.annotator_id
            connection.execute(annotators.update().where(this).values(simulated=True))
