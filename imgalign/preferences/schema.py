"""Tables of the preference store, portable across SQL databases.

The schema is normalised. `rankings`, `undos`, `judges` and `judge_answers` are append-only: the
migrations add triggers that refuse every UPDATE and DELETE. Leases (`assignments`) change, and so
do the tallies (`tallies.py`, `outcomes.py`), which follow from the judgements and are written in
the same transactions: `items.given`, `tallies`, `projects`, `judged_prompts`, `outcomes`. What
leads decide of judgements (`gold`, `exclusions`) changes as well.

    judges <- annotators <- assignments -> items <- candidates -> images <- provenances
                                 |           ^          |
                               views      rankings      +-> texts <- text_provenances
                                             ^
                                    undos, judge_answers
    annotators <- exclusions; items <- gold

Left out: accounts, and what leads decide of a project (accounts_schema.py).
"""

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class UtcDateTime(TypeDecorator[datetime]):
    """A UTC time. SQLite does not store time zones, so they are removed and restored."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert an aware time to UTC, naive on SQLite."""
        if value is None:
            return None
        assert value.tzinfo is not None, "times in the store carry their zone"
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert a stored time to aware UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


# SQLite numbers rows by itself only where the type is exactly INTEGER.
Sequence = BigInteger().with_variant(Integer(), "sqlite")
Hash = String(64)
Name = String(200)

writer = Table("writer", metadata, Column("id", Integer, primary_key=True, autoincrement=False))

images = Table(
    "images",
    metadata,
    Column("image_id", Hash, primary_key=True),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("num_bytes", BigInteger, nullable=False),
    Column("added_at", UtcDateTime, nullable=False),
)

provenances = Table(
    "provenances",
    metadata,
    Column("sequence", Sequence, primary_key=True),
    Column("image_id", ForeignKey("images.image_id"), nullable=False),
    Column("digest", Hash, nullable=False),
    Column("model", Text, nullable=False),
    Column("adapter", Text),
    Column("adapter_hash", Text),
    Column("strength", Float(53), nullable=False, server_default="1"),
    Column("prompt", Text, nullable=False),
    Column("negative_prompt", Text, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("steps", Integer, nullable=False),
    Column("guidance_scale", Float(53), nullable=False),
    Column("scheduler", Text, nullable=False),
    Column("eta", Float(53), nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("dtype", Text, nullable=False, server_default="float32"),
    Column("original_prompt", Text),
    Column("rewriter", Text),
    Column("imgalign_version", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    UniqueConstraint("image_id", "digest"),
)

texts = Table(
    "texts",
    metadata,
    Column("text_id", Hash, primary_key=True),
    Column("text", Text, nullable=False),
    Column("added_at", UtcDateTime, nullable=False),
)

text_provenances = Table(
    "text_provenances",
    metadata,
    Column("sequence", Sequence, primary_key=True),
    Column("text_id", ForeignKey("texts.text_id"), nullable=False),
    Column("digest", Hash, nullable=False),
    Column("model", Text, nullable=False),
    Column("adapter", Text),
    Column("adapter_hash", Text),
    Column("prompt", Text, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("temperature", Float(53), nullable=False),
    Column("max_new_tokens", Integer, nullable=False),
    Column("dtype", Text, nullable=False),
    Column("imgalign_version", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    UniqueConstraint("text_id", "digest"),
)

judges = Table(
    "judges",
    metadata,
    Column("judge_id", Hash, primary_key=True),
    Column("model", Text, nullable=False),
    Column("revision", Text),
    Column("host", Text),
    Column("constitution_name", Text, nullable=False),
    Column("constitution", Text, nullable=False),
    Column("question_hash", Hash, nullable=False),
    Column("image_size", Integer),
    Column("created_at", UtcDateTime, nullable=False),
)

annotators = Table(
    "annotators",
    metadata,
    Column("annotator_id", Name, primary_key=True),
    Column("name", Text, nullable=False),
    Column("group_name", Name, nullable=False),
    Column("simulated", Boolean, nullable=False, server_default=false()),
    # Digest of the client that registered the name, if known; not exported.
    Column("client", Hash),
    Column("created_at", UtcDateTime, nullable=False),
    # Of AI judges only.
    Column("judge_id", ForeignKey("judges.judge_id")),
    Index(None, "client"),
)

# Paths of folders: "images", relative to the database file if it is below it.
folders = Table(
    "folders",
    metadata,
    Column("name", Name, primary_key=True),
    Column("path", Text, nullable=False),
)

items = Table(
    "items",
    metadata,
    Column("sequence", Sequence, primary_key=True),
    Column("item_id", Hash, nullable=False, unique=True),
    Column("project", Name, nullable=False),
    Column("prompt", Text, nullable=False),
    Column("source", Text, nullable=False),
    # What its candidates are, all of them: "images" or "texts".
    Column("samples", String(16), nullable=False, server_default="images"),
    Column("overlap", Integer, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    # Judgements of people that count, skips left out; below the overlap the item is open.
    Column("given", Integer, nullable=False, server_default="0"),
    # Of attention items only: since when nobody is asked it any more.
    Column("withdrawn_at", UtcDateTime),
    # Nats that a ranking of it is expected to tell a reward (queue_order.py); null where none was
    # fitted since it was queued, and where its prompt is held out. Not those of attention items.
    Column("priority", Float(53)),
    Index(None, "project", "sequence"),
    Index(
        "ix_items_open",
        "project",
        "sequence",
        sqlite_where=text("given < overlap"),
        postgresql_where=text("given < overlap"),
    ),
    Index(
        "ix_items_priority",
        "project",
        "priority",
        sqlite_where=text("given < overlap AND priority IS NOT NULL"),
        postgresql_where=text("given < overlap AND priority IS NOT NULL"),
    ),
    Index(
        "ix_items_withdrawn_at",
        "project",
        "withdrawn_at",
        sqlite_where=text("withdrawn_at IS NOT NULL"),
        postgresql_where=text("withdrawn_at IS NOT NULL"),
    ),
)

candidates = Table(
    "candidates",
    metadata,
    Column("item_id", ForeignKey("items.item_id"), primary_key=True),
    Column("candidate", Integer, primary_key=True, autoincrement=False),
    # Exactly one of these two.
    Column("image_id", ForeignKey("images.image_id")),
    Column("text_id", ForeignKey("texts.text_id")),
    UniqueConstraint("item_id", "image_id"),
    UniqueConstraint("item_id", "text_id"),
    CheckConstraint("(image_id IS NULL) <> (text_id IS NULL)", name="ck_candidates_one_sample"),
    Index(None, "image_id"),
)

# Items whose answer is known: tie groups of candidates, best first. Annotators are never told.
gold = Table(
    "gold",
    metadata,
    Column("item_id", ForeignKey("items.item_id"), primary_key=True),
    Column("expected", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)

assignments = Table(
    "assignments",
    metadata,
    Column("item_id", ForeignKey("items.item_id"), primary_key=True),
    Column("annotator_id", ForeignKey("annotators.annotator_id"), primary_key=True),
    Column("issued_at", UtcDateTime, nullable=False),
    Column("leased_until", UtcDateTime, nullable=False),
    Column("requeued_at", UtcDateTime),
    # When it was chosen from the queue: those on a screen stay in the order in which they came.
    Column("chosen_at", UtcDateTime),
    # Probability with which this item was chosen among those available; null if none was drawn.
    Column("propensity", Float(53)),
    # A lease ends when its item is judged, so that few are live.
    Index(None, "annotator_id", "leased_until"),
    Index(None, "leased_until"),
)

views = Table(
    "views",
    metadata,
    Column("token", Hash, primary_key=True),
    Column("item_id", Hash, nullable=False),
    Column("annotator_id", Name, nullable=False),
    Column("position", Integer, nullable=False),
    Column("candidate", Integer, nullable=False),
    ForeignKeyConstraint(
        ["item_id", "annotator_id"], ["assignments.item_id", "assignments.annotator_id"]
    ),
    ForeignKeyConstraint(["item_id", "candidate"], ["candidates.item_id", "candidates.candidate"]),
    UniqueConstraint("item_id", "annotator_id", "position"),
    UniqueConstraint("item_id", "annotator_id", "candidate"),
)

rankings = Table(
    "rankings",
    metadata,
    Column("sequence", Sequence, primary_key=True),
    Column("ranking_id", Hash, nullable=False, unique=True),
    Column("item_id", ForeignKey("items.item_id"), nullable=False),
    Column("annotator_id", ForeignKey("annotators.annotator_id"), nullable=False),
    Column("key", Name, nullable=False),
    # Number of earlier judgements of this item by this annotator, all undone. The unique
    # constraint on it makes a second standing judgement impossible.
    Column("attempt", Integer, nullable=False),
    Column("verdict", String(16), nullable=False),
    Column("reason", Text),
    Column("display_order", JSON, nullable=False),
    Column("tie_groups", JSON(none_as_null=True)),
    Column("client_ms", BigInteger),
    Column("created_at", UtcDateTime, nullable=False),
    # That of the lease.
    Column("propensity", Float(53)),
    UniqueConstraint("annotator_id", "key"),
    UniqueConstraint("item_id", "annotator_id", "attempt"),
    Index("ix_rankings_annotator_id_sequence", "annotator_id", "sequence"),
)

# What an AI judge answered to each question behind a ranking: principle, first candidate, second
# candidate, and "first", "second" or null.
judge_answers = Table(
    "judge_answers",
    metadata,
    Column("ranking_id", ForeignKey("rankings.ranking_id"), primary_key=True),
    Column("answers", JSON, nullable=False),
)

undos = Table(
    "undos",
    metadata,
    Column("ranking_id", ForeignKey("rankings.ranking_id"), primary_key=True),
    Column("created_at", UtcDateTime, nullable=False),
)

# Annotators whose judgements in a project count nowhere.
exclusions = Table(
    "exclusions",
    metadata,
    Column("project", Name, primary_key=True),
    Column("annotator_id", ForeignKey("annotators.annotator_id"), primary_key=True),
    Column("created_at", UtcDateTime, nullable=False),
)

projects = Table(
    "projects",
    metadata,
    Column("project", Name, primary_key=True),
    Column("items", Integer, nullable=False),
    Column("open", Integer, nullable=False),
)

# Standing judgements of an annotator in a project: `done` are all, skips included, `images` and
# `texts` those that are no skips, `open` the items among them that are open. No item below
# `first`, a sequence number, is left for them; for AI judges, whether it is open or not. Attention
# items are in `done` and `open` alone.
tallies = Table(
    "tallies",
    metadata,
    Column("annotator_id", ForeignKey("annotators.annotator_id"), primary_key=True),
    Column("project", Name, primary_key=True),
    Column("done", Integer, nullable=False),
    Column("open", Integer, nullable=False),
    Column("images", Integer, nullable=False),
    Column("texts", Integer, nullable=False),
    Column("first", Sequence, nullable=False),
    Index(None, "project", "first"),
)

# Judgements of people that count by prompt, skips and attention items left out; prompts are those
# of `numbers`.
judged_prompts = Table(
    "judged_prompts",
    metadata,
    Column("project", Name, primary_key=True),
    Column("samples", String(16), primary_key=True),
    Column("prompt", Integer, primary_key=True, autoincrement=False),
    Column("given", Integer, nullable=False),
)

# Numbers for what `outcomes` names: "prompt", "project", "annotator", "maker" and "order". The key
# is a digest of what it stands for.
numbers = Table(
    "numbers",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("key", Hash, nullable=False),
    Column("value", Text, nullable=False),
    UniqueConstraint("kind", "key"),
)

outcomes = Table(
    "outcomes",
    metadata,
    Column("page", Sequence, primary_key=True, autoincrement=False),
    Column("records", LargeBinary, nullable=False),
)
