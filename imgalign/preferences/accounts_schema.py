"""Tables of accounts, their sessions, and what leads decide of a project; all of them change.

    annotators <- accounts <- sessions, invitations, password_resets, openings
    annotators <- admissions

Left out: images, items and judgements (schema.py), whose metadata these tables join.
"""

from sqlalchemy import JSON, Boolean, Column, Float, ForeignKey, Index, String, Table, Text

from imgalign.preferences.schema import Hash, Name, UtcDateTime, metadata

accounts = Table(
    "accounts",
    metadata,
    Column("account_id", ForeignKey("annotators.annotator_id"), primary_key=True),
    Column("role", String(16), nullable=False),
    # Argon2id.
    Column("password", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("disabled_at", UtcDateTime),
)

# Of invitations, reset links and sessions only the SHA-256 of their tokens is known.
invitations = Table(
    "invitations",
    metadata,
    Column("digest", Hash, primary_key=True),
    Column("role", String(16), nullable=False),
    Column("group_name", Name, nullable=False),
    # Null for one that was made on the command line.
    Column("invited_by", ForeignKey("accounts.account_id")),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("account_id", ForeignKey("accounts.account_id")),
    Column("used_at", UtcDateTime),
)

# Of links by which an account gets another password: those that were not used.
password_resets = Table(
    "password_resets",
    metadata,
    Column("digest", Hash, primary_key=True),
    Column("account_id", ForeignKey("accounts.account_id"), nullable=False),
    # Null for one that was made on the command line.
    Column("made_by", ForeignKey("accounts.account_id")),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Index(None, "account_id"),
)

sessions = Table(
    "sessions",
    metadata,
    Column("digest", Hash, primary_key=True),
    Column("account_id", ForeignKey("accounts.account_id"), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Index(None, "account_id"),
)

# Whether annotators with accounts may rank a project; without a row only the one that the app
# begins with.
openings = Table(
    "openings",
    metadata,
    Column("project", Name, primary_key=True),
    Column("is_open", Boolean, nullable=False),
    Column("changed_by", ForeignKey("accounts.account_id")),
    Column("changed_at", UtcDateTime, nullable=False),
)

guidelines = Table(
    "guidelines",
    metadata,
    Column("project", Name, primary_key=True),
    Column("text", Text, nullable=False),
    Column("changed_at", UtcDateTime, nullable=False),
)

# Gold items, by their ids, that annotators of a project judge before any other, and the share of
# them that they must answer as expected to go on.
qualifications = Table(
    "qualifications",
    metadata,
    Column("project", Name, primary_key=True),
    Column("items", JSON, nullable=False),
    Column("share", Float(53), nullable=False),
    Column("changed_at", UtcDateTime, nullable=False),
)

# Annotators whom a lead lets go on in a project, whatever they answered.
admissions = Table(
    "admissions",
    metadata,
    Column("project", Name, primary_key=True),
    Column("annotator_id", ForeignKey("annotators.annotator_id"), primary_key=True),
    Column("created_at", UtcDateTime, nullable=False),
)

# Which item of a project is ranked next; without a row the oldest.
queue_orders = Table(
    "queue_orders",
    metadata,
    Column("project", Name, primary_key=True),
    Column("queue_order", String(16), nullable=False),
    Column("changed_at", UtcDateTime, nullable=False),
)
