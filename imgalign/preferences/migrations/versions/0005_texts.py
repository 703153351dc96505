"""Texts beside images: candidates of an item are either; those from before are images."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

SEQUENCE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
HASH = sa.String(64)
MOMENT = sa.DateTime(timezone=True)
KEPT = "item_id, candidate, image_id"
ONE_SAMPLE = "(image_id IS NULL) <> (text_id IS NULL)"


def upgrade() -> None:
    op.create_table(
        "texts",
        sa.Column("text_id", HASH, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("added_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("text_id", name="pk_texts"),
    )
    op.create_table(
        "text_provenances",
        sa.Column("sequence", SEQUENCE, nullable=False),
        sa.Column("text_id", HASH, nullable=False),
        sa.Column("digest", HASH, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("adapter", sa.Text),
        sa.Column("adapter_hash", sa.Text),
        sa.Column("prompt", sa.Text, nullable=False),
        sa.Column("seed", sa.BigInteger, nullable=False),
        sa.Column("temperature", sa.Float(53), nullable=False),
        sa.Column("max_new_tokens", sa.Integer, nullable=False),
        sa.Column("dtype", sa.Text, nullable=False),
        sa.Column("imgalign_version", sa.Text, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("sequence", name="pk_text_provenances"),
        sa.ForeignKeyConstraint(["text_id"], ["texts.text_id"], name="fk_text_provenances_text_id"),
        sa.UniqueConstraint("text_id", "digest", name="uq_text_provenances_text_id_digest"),
    )
    op.add_column(
        "items", sa.Column("samples", sa.String(16), nullable=False, server_default="images")
    )
    if op.get_bind().dialect.name == "sqlite":
        _make_candidates_anew()
        return
    op.alter_column("candidates", "image_id", nullable=True)
    op.add_column("candidates", sa.Column("text_id", HASH))
    op.create_foreign_key("fk_candidates_text_id", "candidates", "texts", ["text_id"], ["text_id"])
    op.create_unique_constraint(
        "uq_candidates_item_id_text_id", "candidates", ["item_id", "text_id"]
    )
    op.create_check_constraint("ck_candidates_one_sample", "candidates", ONE_SAMPLE)


def _make_candidates_anew() -> None:
    """SQLite cannot change a column, so the table is made anew and filled with the same rows.

    It keeps its name throughout, because `views` refers to it; the references are checked when the
    migration is committed.
    """
    op.execute("PRAGMA defer_foreign_keys = ON")
    op.execute(f"CREATE TABLE kept AS SELECT {KEPT} FROM candidates")
    op.drop_table("candidates")
    op.create_table(
        "candidates",
        sa.Column("item_id", HASH, nullable=False),
        sa.Column("candidate", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("image_id", HASH),
        sa.Column("text_id", HASH),
        sa.PrimaryKeyConstraint("item_id", "candidate", name="pk_candidates"),
        sa.ForeignKeyConstraint(["item_id"], ["items.item_id"], name="fk_candidates_item_id"),
        sa.ForeignKeyConstraint(["image_id"], ["images.image_id"], name="fk_candidates_image_id"),
        sa.ForeignKeyConstraint(["text_id"], ["texts.text_id"], name="fk_candidates_text_id"),
        sa.UniqueConstraint("item_id", "image_id", name="uq_candidates_item_id_image_id"),
        sa.UniqueConstraint("item_id", "text_id", name="uq_candidates_item_id_text_id"),
        sa.CheckConstraint(ONE_SAMPLE, name="ck_candidates_one_sample"),
    )
    op.execute(f"INSERT INTO candidates ({KEPT}) SELECT {KEPT} FROM kept")
    op.drop_table("kept")
