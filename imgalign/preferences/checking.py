"""Check the integrity of a store: image files against their hashes, rows against their references.

Faults are missing or damaged images, changed texts, dangling references, items whose id is not the
hash of their content, withdrawn items that are no attention items, rankings and expected orders
that do not fit their item, several standing judgements of one annotator and item, counts that are
not those of the rankings, and damage that SQLite reports. Files without a row are counted but are
no fault: a kill between file and row leaves one, and two databases may share a folder.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from sqlalchemy import Connection, ForeignKeyConstraint, and_, func, select

from imgalign.errors import InputError
from imgalign.files import sha256
from imgalign.preferences import queries, validation
from imgalign.preferences.judges import to_judge
from imgalign.preferences.records import ATTENTION
from imgalign.preferences.recount import differences
from imgalign.preferences.schema import (
    candidates,
    gold,
    images,
    items,
    judges,
    metadata,
    rankings,
    texts,
)
from imgalign.preferences.store import Store
from imgalign.preferences.texts import text_id

SHOWN = 3
"""Examples named for each kind of fault."""


@dataclass(slots=True, kw_only=True)
class StoreCheck:
    """Numbers of checked images and rows, and the faults by kind."""

    num_images: int = 0
    num_texts: int = 0
    num_items: int = 0
    num_rankings: int = 0
    faults: dict[str, list[str]] = field(default_factory=dict)
    orphans: list[str] = field(default_factory=list)
    """Files in the images folder without a row."""

    @property
    def passed(self) -> bool:
        """Whether no fault was found."""
        return not self.faults

    def add(self, kind: str, what: str) -> None:
        """Add a fault."""
        self.faults.setdefault(kind, []).append(what)

    def lines(self) -> list[str]:
        """For a terminal. Example: "damaged images: 1 (images/ab/abcd.png)"."""
        texts = f"{self.num_texts} texts, " if self.num_texts else ""
        found = [
            f"{self.num_images} images, {texts}{self.num_items} items, "
            f"{self.num_rankings} rankings",
            *(_line(kind, what) for kind, what in self.faults.items()),
        ]
        if self.orphans:
            found.append(_line("files that the database does not know", self.orphans))
        if self.passed:
            found.append("no faults found")
        else:
            found.append("restore missing and damaged files from a backup, under the same names")
        return found


def check_store(
    store: Store, *, on_progress: Callable[[float], None] = lambda _: None
) -> StoreCheck:
    """Read every image, text and row. Changes nothing."""
    check = StoreCheck()
    with store.database.read() as connection:
        for problem in _database_problems(connection):
            check.add("damage in the database file", problem)
        for table, parent, count in _dangling(connection):
            check.add(f"rows of {table} that refer to nothing in {parent}", f"{count} rows")
        _check_texts(connection, check)
        _check_items(connection, check)
        for row in connection.execute(queries.standing_twice()).all():
            check.add("items that somebody has judged twice", f"{row.annotator_id}: {row.item_id}")
        if check.passed:  # otherwise there is nothing whole to count
            for what in differences(connection):
                check.add("counts that are not those of the rankings", what)
        known = list(
            connection.execute(select(images.c.image_id).order_by(images.c.image_id)).scalars()
        )
    check.num_images = len(known)
    for number, image_id in enumerate(known):
        _check_image(store, image_id, check)
        on_progress((number + 1) / len(known))
    expected = {store.images.path(image_id) for image_id in known}
    check.orphans = [
        str(path)
        for path in sorted(store.images.root.rglob("*"))
        if path.is_file() and path not in expected
    ]
    return check


def _line(kind: str, what: list[str]) -> str:
    more = ", ..." if len(what) > SHOWN else ""
    return f"{kind}: {len(what)} ({', '.join(what[:SHOWN])}{more})"


def _check_image(store: Store, image_id: str, check: StoreCheck) -> None:
    path = store.images.path(image_id)
    if not path.is_file():
        check.add("missing images", str(path))
        return
    try:
        if sha256(path) != image_id:
            check.add("damaged images", str(path))
    except OSError as error:
        check.add("unreadable images", f"{path}: {error.strerror}")


def _check_texts(connection: Connection, check: StoreCheck) -> None:
    for row in connection.execute(select(texts)):
        check.num_texts += 1
        if text_id(row.text) != row.text_id:
            check.add("changed texts", row.text_id[:12])


def _check_items(connection: Connection, check: StoreCheck) -> None:
    of_item: dict[str, list[str]] = {}
    kinds: dict[str, set[str]] = {}
    rows = select(candidates).order_by(candidates.c.item_id, candidates.c.candidate)
    for row in connection.execute(rows):
        of_item.setdefault(row.item_id, []).append(row.image_id or row.text_id)
        kinds.setdefault(row.item_id, set()).add("texts" if row.image_id is None else "images")
    for item in connection.execute(select(items)):
        check.num_items += 1
        shown = of_item.get(item.item_id, [])
        whole = queries.item_id(item.project, item.prompt, item.source, shown) == item.item_id
        if not whole or kinds.get(item.item_id, set()) - {item.samples}:
            check.add("items that are not what their id says", item.item_id[:12])
        if item.withdrawn_at is not None and not item.source.startswith(ATTENTION):
            check.add("withdrawn items that are no attention items", item.item_id[:12])
    for judge in connection.execute(select(judges)).mappings():
        if to_judge(judge).judge_id != judge["judge_id"]:
            check.add("AI judges that are not what their id says", judge["judge_id"][:12])
    for row in connection.execute(select(rankings)):
        check.num_rankings += 1
        try:
            validation.fits(
                order=row.display_order,
                ranking=row.tie_groups,
                num_candidates=len(of_item.get(row.item_id, [])),
            )
        except InputError as error:
            check.add("rankings that do not fit their item", f"{row.ranking_id[:12]}: {error}")
    for row in connection.execute(select(gold)):
        try:
            shown = of_item.get(row.item_id, [])
            validation.expected_order(row.expected, num_candidates=len(shown))
        except InputError as error:
            check.add("gold items that do not fit their item", f"{row.item_id[:12]}: {error}")


def _database_problems(connection: Connection) -> list[str]:
    if connection.dialect.name != "sqlite":
        return []
    found = connection.exec_driver_sql("PRAGMA integrity_check(20)").scalars().all()
    return [line for line in found if line != "ok"]


def _dangling(connection: Connection) -> Iterator[tuple[str, str, int]]:
    """(table, table referred to, rows) of references that lead nowhere."""
    for table in metadata.sorted_tables:
        for constraint in table.foreign_key_constraints:
            count = _num_dangling(connection, constraint)
            if count:
                yield table.name, constraint.referred_table.name, count


def _num_dangling(connection: Connection, constraint: ForeignKeyConstraint) -> int:
    parent = constraint.referred_table
    same = and_(*(key.parent == key.column for key in constraint.elements))
    there = select(parent).where(same).correlate(constraint.table).exists()
    given = and_(*(key.parent.is_not(None) for key in constraint.elements))
    rows = select(func.count()).select_from(constraint.table).where(given, ~there)
    return connection.execute(rows).scalar_one()
