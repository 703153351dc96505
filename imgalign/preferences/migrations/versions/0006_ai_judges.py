"""AI judges: what each one is, which annotators are one, and its answers behind each ranking.

Everybody from before is no AI judge.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

HASH = sa.String(64)
MOMENT = sa.DateTime(timezone=True)
APPEND_ONLY = ("judges", "judge_answers")


def upgrade() -> None:
    op.create_table(
        "judges",
        sa.Column("judge_id", HASH, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("revision", sa.Text),
        sa.Column("host", sa.Text),
        sa.Column("constitution_name", sa.Text, nullable=False),
        sa.Column("constitution", sa.Text, nullable=False),
        sa.Column("question_hash", HASH, nullable=False),
        sa.Column("image_size", sa.Integer),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("judge_id", name="pk_judges"),
    )
    op.create_table(
        "judge_answers",
        sa.Column("ranking_id", HASH, nullable=False),
        sa.Column("answers", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("ranking_id", name="pk_judge_answers"),
        sa.ForeignKeyConstraint(
            ["ranking_id"], ["rankings.ranking_id"], name="fk_judge_answers_ranking_id"
        ),
    )
    # In SQL, because SQLite takes a new column's reference in no other place.
    op.execute(
        "ALTER TABLE annotators ADD COLUMN judge_id VARCHAR(64) "
        "CONSTRAINT fk_annotators_judge_id REFERENCES judges (judge_id)"
    )
    _refuse_changes(op.get_bind().dialect.name)


def _refuse_changes(dialect: str) -> None:
    for table in APPEND_ONLY:
        if dialect == "postgresql":
            op.execute(
                f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE ON {table} "
                "FOR EACH ROW EXECUTE FUNCTION imgalign_refuse()"
            )
        elif dialect == "sqlite":
            for change in ("UPDATE", "DELETE"):
                op.execute(
                    f"CREATE TRIGGER {table}_no_{change.lower()} BEFORE {change} ON {table} "
                    f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
                )
