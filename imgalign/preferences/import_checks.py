"""Whether the lines of an export fit each other and a store, before anything is written.

What the store has of the rows that a file names is read at once; then each line is held against
that and the lines before it, in memory. So it needs no lock, and an import holds one only while it
writes. A change of the store in between is met by the constraints of the tables.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import Column, Connection, Select, select

from imgalign.errors import InputError, StoreError
from imgalign.preferences import queries, schema, validation
from imgalign.preferences.accounts_schema import accounts
from imgalign.preferences.exchange_lines import TABLES, Line, Row
from imgalign.preferences.records import ATTENTION

# Columns that may differ between two stores, such as times and the spelling of a name; what is here
# already keeps its own.
LOCAL = frozenset(
    {"sequence", "added_at", "overlap", "withdrawn_at", "created_at", "name", "propensity"}
)
PORTION = 1000
"""Rows that are looked up or written at once."""

Identity = tuple[Any, ...]
Pair = tuple[str, str]
"""An item and an annotator."""
T = TypeVar("T")

KINDS = {table.name: kind for kind, (table, _) in TABLES.items()}
PARENTS: dict[str, dict[str, str]] = {
    kind: {key.parent.name: KINDS[key.column.table.name] for key in table.foreign_keys}
    for kind, (table, _) in TABLES.items()
}
"""Columns that refer to a row of another kind. Example: "undo": {"ranking_id": "ranking"}."""


@dataclass(slots=True, kw_only=True)
class Known:
    """What is known of rows that a file names: those of the store, then the file's own."""

    accounts: frozenset[str]
    """Those in whose name the file may neither judge nor undo."""
    rows: dict[str, dict[Identity, Mapping[str, Any]]] = field(
        default_factory=lambda: {kind: {} for kind in TABLES}
    )
    """By kind and identity."""
    shown: dict[str, dict[int, tuple[str | None, str | None]]] = field(default_factory=dict)
    """The image or text of each candidate, by item."""
    judged: dict[Pair, set[str]] = field(default_factory=dict)
    """Rankings, undone ones too, by who gave them to what."""
    turns: set[tuple[str, str, int]] = field(default_factory=set)
    keys: set[tuple[str, str]] = field(default_factory=set)

    def has(self, kind: str, value: object) -> bool:
        """Whether there is a row that others refer to by this value."""
        return (value,) in self.rows[kind]

    def add(self, kind: str, row: Mapping[str, Any]) -> None:
        """Take a row in."""
        self.rows[kind][identity(kind, row)] = row
        if kind == "candidate":
            sample = row["image_id"], row["text_id"]
            self.shown.setdefault(row["item_id"], {})[row["candidate"]] = sample
        if kind == "ranking":
            item_id, annotator_id = row["item_id"], row["annotator_id"]
            self.judged.setdefault((item_id, annotator_id), set()).add(row["ranking_id"])
            self.turns.add((item_id, annotator_id, row["attempt"]))
            self.keys.add((annotator_id, row["key"]))

    def samples(self, item_id: str) -> list[tuple[str | None, str | None]]:
        """Images and texts of an item, in order; none for an unknown one."""
        return [sample for _, sample in sorted(self.shown.get(item_id, {}).items())]

    def num_standing(self, pair: Pair) -> int:
        """Judgements that stand of an annotator and item."""
        return sum(not self.has("undo", ranking_id) for ranking_id in self.judged[pair])


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """What an import adds to a store."""

    new: dict[str, list[Row]]
    """Rows by kind, in the order of the file."""
    undone: list[Mapping[str, Any]]
    """Rankings of the store that the file takes back."""
    accounts: frozenset[str] | None
    """Those in whose name it may neither judge nor undo; None if it may."""

    def __bool__(self) -> bool:
        return any(self.new.values())


def identity(kind: str, row: Mapping[str, Any]) -> Identity:
    """What identifies a row among those of its kind."""
    return tuple(row[name] for name in TABLES[kind][1])


def portions(values: Iterable[T]) -> Iterator[list[T]]:
    """Values in parts of a size at which statements are quick on any database."""
    listed = list(values)
    for start in range(0, len(listed), PORTION):
        yield listed[start : start + PORTION]


def account_ids(connection: Connection) -> frozenset[str]:
    """Everybody who has an account."""
    return frozenset(connection.execute(select(accounts.c.account_id)).scalars())


def checked(connection: Connection, lines: Sequence[Line], *, of_accounts: bool) -> Import:
    """What a file adds; changes nothing.

    InputError for a line that does not fit those before it, StoreError for one that contradicts the
    store; without `of_accounts` also for a new judgement, or the undo of one, of who has an
    account.
    """
    kept = None if of_accounts else account_ids(connection)
    known = _of_store(connection, lines, kept or frozenset())
    stored = set(known.rows["ranking"])
    new: dict[str, list[Row]] = {kind: [] for kind in TABLES}
    changed_items: dict[str, str] = {}
    judged: dict[Pair, str] = {}
    for where, kind, row in lines:
        if not _is_new(known, kind, row, where):
            continue
        _refuse_misfit(known, kind, row, where)
        _refuse_accounts(known, kind, row, where)
        known.add(kind, row)
        new[kind].append(row)
        if kind == "ranking":
            judged[row["item_id"], row["annotator_id"]] = where
        if kind in ("item", "candidate"):
            changed_items.setdefault(row["item_id"], where)
    for item_id, where in changed_items.items():
        _check_item(known, item_id, where)
    for pair, where in judged.items():
        if known.num_standing(pair) > 1:
            raise InputError(
                f"{where}: a second judgement of its item by {pair[1]!r}, of which one can stand; "
                "undo the others in the file"
            )
    taken_back = [(row["ranking_id"],) for row in new["undo"]]
    undone = [known.rows["ranking"][each] for each in taken_back if each in stored]
    return Import(new=new, undone=undone, accounts=kept)


def _of_store(connection: Connection, lines: Sequence[Line], kept: frozenset[str]) -> Known:
    """What a store has of the rows that a file names."""
    known = Known(accounts=kept)
    named: dict[str, set[Any]] = {kind: set() for kind in TABLES}
    rankings: list[Row] = []
    for _, kind, row in lines:
        named[kind].add(row[TABLES[kind][1][0]])
        for column, parent in PARENTS[kind].items():
            named[parent].add(row[column])
        if kind == "ranking":
            rankings.append(row)
    named["candidate"] = named["item"]  # all of them, to see whether an item is whole
    named["exclusion"] = named["annotator"]
    for kind, (table, columns) in TABLES.items():
        by = table.c["annotator_id" if kind == "exclusion" else columns[0]]
        # Nothing refers to a row that is not there.
        of = PARENTS[kind].get(by.name)
        values = {each for each in named[kind] if of is None or known.has(of, each)}
        for found in _rows(connection, select(table), by, values - {None}):
            known.add(kind, found)
    by_whom = {row["annotator_id"] for row in known.rows["ranking"].values()}
    others = {each for each in by_whom if not known.has("annotator", each)}
    table = schema.annotators
    for found in _rows(connection, select(table), table.c.annotator_id, others):
        known.add("annotator", found)
    here = [row for row in rankings if known.has("annotator", row["annotator_id"])]
    _add_judgements(connection, known, here)
    return known


def _add_judgements(connection: Connection, known: Known, rankings: Sequence[Row]) -> None:
    """Add what the store has of the items and under the keys of judgements by those it knows."""
    table = schema.rankings
    of_items = {row["item_id"] for row in rankings if known.has("item", row["item_id"])}
    people = {row["annotator_id"] for row in rankings}
    found = {}
    for row in _rows(connection, select(table), table.c.item_id, of_items):
        if row["annotator_id"] in people:
            known.add("ranking", row)
            found[row["ranking_id"]] = row
    undone = select(schema.undos)
    for row in _rows(connection, undone, schema.undos.c.ranking_id, found):
        known.add("undo", row)
    keys: dict[str, set[str]] = {}
    for row in rankings:
        keys.setdefault(row["annotator_id"], set()).add(row["key"])
    for annotator_id, own in keys.items():
        statement = select(table.c.key).where(table.c.annotator_id == annotator_id)
        taken = _rows(connection, statement, table.c.key, own)
        known.keys |= {(annotator_id, row["key"]) for row in taken}


def _rows(
    connection: Connection, statement: Select[Any], by: Column[Any], values: Iterable[Any]
) -> Iterator[queries.AnyRow]:
    for portion in portions(values):
        yield from connection.execute(statement.where(by.in_(portion))).mappings()


def _is_new(known: Known, kind: str, row: Row, where: str) -> bool:
    """Whether a row is not there yet; StoreError where it is there with other values."""
    here = known.rows[kind].get(identity(kind, row))
    if here is None:
        return True
    for name, value in row.items():
        if name not in LOCAL and here[name] != value:
            raise StoreError(f"{where}: {kind} is here already with another {name}")
    return False


def _refuse_misfit(known: Known, kind: str, row: Row, where: str) -> None:
    """Hold a new row to the rules for what is given here, and to the constraints of its table."""
    try:
        for column, parent in PARENTS[kind].items():
            if row[column] is not None and not known.has(parent, row[column]):
                raise InputError(
                    f"does not fit the lines before it: of an unknown {parent} {row[column]!r:.80}"
                )
        match kind:
            case "candidate":
                _check_candidate(known, row)
            case "gold":
                num = len(known.samples(row["item_id"]))
                validation.expected_order(row["expected"], num_candidates=num)
            case "ranking":
                _check_ranking(known, row)
            case "judge_answers":
                _check_answers(known, row)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    if kind == "ranking":
        _refuse_taken(known, row, where)


def _check_candidate(known: Known, row: Row) -> None:
    sample = row["image_id"], row["text_id"]
    if sum(each is not None for each in sample) != 1:
        got = "neither" if row["image_id"] is None else "both"
        raise InputError(f"candidate: expected either an image_id or a text_id, got {got}")
    if sample in known.samples(row["item_id"]):
        raise InputError("does not fit the lines before it: its item has this sample already")


def _check_ranking(known: Known, row: Row) -> None:
    validation.judgement(verdict=row["verdict"], reason=row["reason"], ranking=row["tie_groups"])
    validation.propensity(row["propensity"])
    validation.fits(
        order=row["display_order"],
        ranking=row["tie_groups"],
        num_candidates=len(known.samples(row["item_id"])),
    )


def _check_answers(known: Known, row: Row) -> None:
    judgement = known.rows["ranking"][row["ranking_id"],]
    by = known.rows["annotator"][judgement["annotator_id"],]
    validation.answers(
        queries.to_answers(row["answers"]),
        num=len(judgement["display_order"]),
        by_judge=by["judge_id"] is not None,
    )


def _check_item(known: Known, item_id: str, where: str) -> None:
    """Check that an item's id is the hash of its content, and its samples are of its kind."""
    item = known.rows["item"][item_id,]
    samples = known.samples(item_id)
    ids = [image_id or text_id or "" for image_id, text_id in samples]
    kinds = {"texts" if image_id is None else "images" for image_id, _ in samples}
    whole = queries.item_id(item["project"], item["prompt"], item["source"], ids) == item_id
    if not whole or kinds - {item["samples"]}:
        raise InputError(f"{where}: item {item_id[:12]} is not what its id says; was it changed?")
    if item["withdrawn_at"] is not None and not item["source"].startswith(ATTENTION):
        raise InputError(
            f"{where}: item {item_id[:12]}: expected no withdrawn_at, which only "
            "attention items have"
        )


def _refuse_accounts(known: Known, kind: str, row: Row, where: str) -> None:
    """StoreError for a judgement, or the undo of one, in the name of one of these accounts."""
    if not known.accounts or kind not in ("ranking", "undo"):
        return
    of = row if kind == "ranking" else known.rows["ranking"][row["ranking_id"],]
    annotator_id = of["annotator_id"]
    if annotator_id in known.accounts:
        raise StoreError(
            f"{where}: {kind} by {annotator_id!r}, who has an account here and judges for "
            "themselves; give the annotator another name in the file, or import it by "
            "'imgalign data import' as the owner of the database"
        )


def _refuse_taken(known: Known, row: Row, where: str) -> None:
    """StoreError where both stores have judgements of one annotator and item."""
    annotator_id = row["annotator_id"]
    same_key = (annotator_id, row["key"]) in known.keys
    if same_key or (row["item_id"], annotator_id, row["attempt"]) in known.turns:
        raise StoreError(
            f"{where}: annotator {annotator_id!r} has judged this item here as well; "
            "import into a new store"
        )
