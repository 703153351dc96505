"""First schema: images, annotators, items, leases, append-only rankings."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

SEQUENCE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
HASH = sa.String(64)
NAME = sa.String(200)
MOMENT = sa.DateTime(timezone=True)
APPEND_ONLY = ("rankings", "undos")


def upgrade() -> None:
    op.create_table(
        "writer",
        sa.Column("id", sa.Integer, autoincrement=False),
        sa.PrimaryKeyConstraint("id", name="pk_writer"),
    )
    op.execute("INSERT INTO writer (id) VALUES (1)")
    op.create_table(
        "images",
        sa.Column("image_id", HASH, nullable=False),
        sa.Column("width", sa.Integer, nullable=False),
        sa.Column("height", sa.Integer, nullable=False),
        sa.Column("num_bytes", sa.BigInteger, nullable=False),
        sa.Column("added_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("image_id", name="pk_images"),
    )
    op.create_table(
        "provenances",
        sa.Column("sequence", SEQUENCE, nullable=False),
        sa.Column("image_id", HASH, nullable=False),
        sa.Column("digest", HASH, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("adapter", sa.Text),
        sa.Column("adapter_hash", sa.Text),
        sa.Column("prompt", sa.Text, nullable=False),
        sa.Column("negative_prompt", sa.Text, nullable=False),
        sa.Column("seed", sa.BigInteger, nullable=False),
        sa.Column("steps", sa.Integer, nullable=False),
        sa.Column("guidance_scale", sa.Float(53), nullable=False),
        sa.Column("scheduler", sa.Text, nullable=False),
        sa.Column("eta", sa.Float(53), nullable=False),
        sa.Column("width", sa.Integer, nullable=False),
        sa.Column("height", sa.Integer, nullable=False),
        sa.Column("imgalign_version", sa.Text, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("sequence", name="pk_provenances"),
        sa.ForeignKeyConstraint(["image_id"], ["images.image_id"], name="fk_provenances_image_id"),
        sa.UniqueConstraint("image_id", "digest", name="uq_provenances_image_id_digest"),
    )
    op.create_table(
        "annotators",
        sa.Column("annotator_id", NAME, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("group_name", NAME, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("annotator_id", name="pk_annotators"),
    )
    op.create_table(
        "items",
        sa.Column("sequence", SEQUENCE, nullable=False),
        sa.Column("item_id", HASH, nullable=False),
        sa.Column("project", NAME, nullable=False),
        sa.Column("prompt", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("overlap", sa.Integer, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("sequence", name="pk_items"),
        sa.UniqueConstraint("item_id", name="uq_items_item_id"),
    )
    op.create_index("ix_items_project_sequence", "items", ["project", "sequence"])
    op.create_table(
        "candidates",
        sa.Column("item_id", HASH, nullable=False),
        sa.Column("candidate", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("image_id", HASH, nullable=False),
        sa.PrimaryKeyConstraint("item_id", "candidate", name="pk_candidates"),
        sa.ForeignKeyConstraint(["item_id"], ["items.item_id"], name="fk_candidates_item_id"),
        sa.ForeignKeyConstraint(["image_id"], ["images.image_id"], name="fk_candidates_image_id"),
        sa.UniqueConstraint("item_id", "image_id", name="uq_candidates_item_id_image_id"),
    )
    op.create_table(
        "assignments",
        sa.Column("item_id", HASH, nullable=False),
        sa.Column("annotator_id", NAME, nullable=False),
        sa.Column("issued_at", MOMENT, nullable=False),
        sa.Column("leased_until", MOMENT, nullable=False),
        sa.Column("requeued_at", MOMENT),
        sa.PrimaryKeyConstraint("item_id", "annotator_id", name="pk_assignments"),
        sa.ForeignKeyConstraint(["item_id"], ["items.item_id"], name="fk_assignments_item_id"),
        sa.ForeignKeyConstraint(
            ["annotator_id"], ["annotators.annotator_id"], name="fk_assignments_annotator_id"
        ),
    )
    op.create_index("ix_assignments_annotator_id", "assignments", ["annotator_id"])
    op.create_table(
        "views",
        sa.Column("token", HASH, nullable=False),
        sa.Column("item_id", HASH, nullable=False),
        sa.Column("annotator_id", NAME, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("candidate", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("token", name="pk_views"),
        sa.ForeignKeyConstraint(
            ["item_id", "annotator_id"],
            ["assignments.item_id", "assignments.annotator_id"],
            name="fk_views_item_id_annotator_id",
        ),
        sa.ForeignKeyConstraint(
            ["item_id", "candidate"],
            ["candidates.item_id", "candidates.candidate"],
            name="fk_views_item_id_candidate",
        ),
        sa.UniqueConstraint(
            "item_id", "annotator_id", "position", name="uq_views_item_id_annotator_id_position"
        ),
        sa.UniqueConstraint(
            "item_id", "annotator_id", "candidate", name="uq_views_item_id_annotator_id_candidate"
        ),
    )
    op.create_table(
        "rankings",
        sa.Column("sequence", SEQUENCE, nullable=False),
        sa.Column("ranking_id", HASH, nullable=False),
        sa.Column("item_id", HASH, nullable=False),
        sa.Column("annotator_id", NAME, nullable=False),
        sa.Column("key", NAME, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("verdict", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("display_order", sa.JSON, nullable=False),
        sa.Column("tie_groups", sa.JSON),
        sa.Column("client_ms", sa.BigInteger),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("sequence", name="pk_rankings"),
        sa.UniqueConstraint("ranking_id", name="uq_rankings_ranking_id"),
        sa.ForeignKeyConstraint(["item_id"], ["items.item_id"], name="fk_rankings_item_id"),
        sa.ForeignKeyConstraint(
            ["annotator_id"], ["annotators.annotator_id"], name="fk_rankings_annotator_id"
        ),
        sa.UniqueConstraint("annotator_id", "key", name="uq_rankings_annotator_id_key"),
        sa.UniqueConstraint(
            "item_id", "annotator_id", "attempt", name="uq_rankings_item_id_annotator_id_attempt"
        ),
    )
    op.create_table(
        "undos",
        sa.Column("ranking_id", HASH, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("ranking_id", name="pk_undos"),
        sa.ForeignKeyConstraint(
            ["ranking_id"], ["rankings.ranking_id"], name="fk_undos_ranking_id"
        ),
    )
    _refuse_changes(op.get_bind().dialect.name)


def _refuse_changes(dialect: str) -> None:
    if dialect == "postgresql":
        op.execute(
            "CREATE FUNCTION imgalign_refuse() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$"
        )
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
