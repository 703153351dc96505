"""What was asked for, where an image's prompt is a rewrite, and the model that rewrote it.

No prompt from before is a rewrite.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    for name in ("original_prompt", "rewriter"):
        op.add_column("provenances", sa.Column(name, sa.Text))
