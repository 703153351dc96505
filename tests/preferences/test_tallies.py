"""Counts that are kept beside the judgements: equal to a recount, whatever was done before."""

import itertools
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from databases import UNDO_0018, make_tables
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from judges import JUDGE, judge_next
from sqlalchemy import Engine, event, insert, select, text
from submissions import judge

from imgalign.errors import InputError
from imgalign.preferences import leases, outcomes, recount, schema
from imgalign.preferences.attention import bring_back, withdraw
from imgalign.preferences.checking import check_store
from imgalign.preferences.coverage import judged_projects, project_mark, store_mark
from imgalign.preferences.exchange import export_rankings, import_rankings
from imgalign.preferences.exclusions import exclude, include
from imgalign.preferences.judges import add_judge
from imgalign.preferences.makers import rate_makers
from imgalign.preferences.records import ATTENTION, Answer, Counts, Provenance, utc_now
from imgalign.preferences.schema import items
from imgalign.preferences.store import Store

Add = Callable[..., list[str]]
PEOPLE = ("ann", "bob", "eve")
VERDICTS: dict[str, dict[str, Any]] = {
    "ranked": {},
    "all_bad": {"verdict": "all_bad", "ranking": None},
    "skipped": {"verdict": "skipped", "ranking": None, "reason": "unsafe"},
}
SINCE = (
    *("openings", "sessions", "invitations", "password_resets", "accounts"),
    *("gold", "exclusions", "guidelines", "qualifications", "admissions"),
)
"""Tables that came after the counts, those that refer to others first."""
number = itertools.count()


class Plain:
    """What the store should say, counted row by row from its judgements and leases."""

    def __init__(self, store: Store, project: str) -> None:
        with store.database.read() as connection:

            def rows(table: Any) -> list[Any]:
                return list(connection.execute(select(table)).all())

            undone = {row.ranking_id for row in rows(schema.undos)}
            self.judges = {
                row.annotator_id for row in rows(schema.annotators) if row.judge_id is not None
            }
            self.items = [row for row in rows(schema.items) if row.project == project]
            self.items.sort(key=lambda row: row.sequence)
            self.standing = [row for row in rows(schema.rankings) if row.ranking_id not in undone]
            self.leases = rows(schema.assignments)
            self.excluded = {
                row.annotator_id for row in rows(schema.exclusions) if row.project == project
            }
            self.uncounted = self.judges | self.excluded

    def state(self) -> object:
        """All that is counted of the project."""
        own = {row.item_id for row in self.items}
        given = [row.ranking_id for row in self.standing if row.item_id in own]
        return own, given, self.excluded

    def judged(self, who: str, item_id: str) -> bool:
        return any((r.annotator_id, r.item_id) == (who, item_id) for r in self.standing)

    def given(self, item_id: str) -> int:
        return sum(
            r.item_id == item_id and r.verdict != "skipped" and r.annotator_id not in self.uncounted
            for r in self.standing
        )

    def lives(self, item_id: str, now: Any) -> dict[str, Any]:
        """Live leases on an item by who holds them."""
        return {
            lease.annotator_id: lease
            for lease in self.leases
            if lease.item_id == item_id
            and lease.leased_until > now
            and lease.issued_at <= now + leases.SKEW
        }

    def available(self, who: str, item: Any, now: Any) -> bool:
        if self.judged(who, item.item_id) or item.withdrawn_at is not None:
            return False
        held = self.lives(item.item_id, now)
        if who in self.judges or (who in held and held[who].requeued_at is not None):
            return True
        others = [
            each
            for each in held
            if each != who and each not in self.uncounted and not self.judged(each, item.item_id)
        ]
        return self.given(item.item_id) + len(others) < item.overlap

    def counts(self, who: str, now: Any) -> Counts:
        left = sum(self.available(who, item, now) for item in self.items)
        could = sum(
            not self.judged(who, item.item_id) and self.given(item.item_id) < item.overlap
            for item in self.items
            if item.withdrawn_at is None
        )
        done = sum(self.judged(who, item.item_id) for item in self.items)
        return Counts(done=done, left=left, waiting=max(0, could - left))

    def next_item(self, who: str, now: Any) -> str | None:
        found = [item for item in self.items if self.available(who, item, now)]

        def order(item: Any) -> tuple[float, bool, float, int]:
            held = self.lives(item.item_id, now).get(who)
            at = None if held is None else held.requeued_at
            came = 0.0 if held is None else held.chosen_at.timestamp()
            back = 0.0 if at is None else -at.timestamp()
            return (back, held is None, came, item.sequence)

        return min(found, key=order).item_id if found else None


class World:
    """A project of its own in a store, and what is done in it."""

    def __init__(
        self, store: Store, images: list[str], monkeypatch: pytest.MonkeyPatch, made: Any
    ) -> None:
        self.store, self.images, self.made = store, images, made
        self.project = f"project {next(number)}"
        self.now = utc_now()
        self.keys: dict[str, list[str]] = {}
        self.attention: list[str] = []
        monkeypatch.setattr("imgalign.preferences.store.utc_now", lambda: self.now)

    def add(self, which: int, overlap: int) -> None:
        shown = [self.images[which % 4], self.images[4 + which % 3], self.images[7]]
        self.store.add_item(
            f"prompt {which}", shown, source="test", project=self.project, overlap=overlap
        )

    def watch(self, which: int, overlap: int) -> None:
        """Queue an attention item; of these alone some are withdrawn."""
        self.attention.append(
            self.store.add_item(
                f"prompt {which}",
                [self.images[which % 4], self.images[4]],
                source=f"{ATTENTION}{len(self.attention)}",
                project=self.project,
                overlap=overlap,
            )
        )

    def withdraw(self, which: int) -> None:
        if self.attention:
            item = self.attention[which % len(self.attention)]
            withdraw(self.store, item, project=self.project)

    def bring_back(self, which: int) -> None:
        if self.attention:
            item = self.attention[which % len(self.attention)]
            bring_back(self.store, item, project=self.project)

    def judge(self, who: str, verdict: str) -> None:
        plain = Plain(self.store, self.project).next_item(who, self.now)
        item = self.store.next_item(who, project=self.project)
        # None is right as well where a lease was taken over: no client has so many here.
        assert (None if item is None else item.item_id) == plain
        if item is None:
            return
        fields = VERDICTS[verdict]
        if who not in PEOPLE:
            fields = fields | {"answers": (Answer(0, 0, 1, None),)}
        sent = judge(item, who, key=f"key {next(number)}", **fields)
        self.store.submit(sent)
        self.keys.setdefault(who, []).append(sent.key)

    def hold(self, who: str) -> None:
        self.store.next_item(who, project=self.project)

    def undo(self, who: str, which: int) -> None:
        if keys := self.keys.get(who):
            self.store.undo(who, keys[which % len(keys)])

    def exclude(self, who: str) -> None:
        exclude(self.store.database, who, project=self.project)

    def include(self, who: str) -> None:
        include(self.store.database, who, project=self.project)

    def wait(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)

    def make_alike(self, which: int) -> None:
        """Another model makes an image that is there."""
        self.store.add_image(self.made[which % len(self.made)], self.other_model)

    other_model: Provenance


WHO = st.sampled_from((*PEOPLE, "the judge"))
WHICH = st.integers(0, 5)
STEPS = st.one_of(
    st.tuples(st.sampled_from(("add", "watch")), WHICH, st.integers(1, 3)),
    st.tuples(st.sampled_from(("withdraw", "withdraw", "bring_back")), WHICH),
    st.tuples(st.just("judge"), WHO, st.sampled_from(("ranked", "ranked", "all_bad", "skipped"))),
    st.tuples(st.just("judge"), WHO, st.just("ranked")),
    st.tuples(st.just("hold"), WHO),
    st.tuples(st.just("undo"), WHO, WHICH),
    st.tuples(st.sampled_from(("exclude", "include")), WHO),
    st.tuples(st.just("wait"), st.sampled_from((1, 10, 40))),
    st.tuples(st.just("make_alike"), WHICH),
)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=st.lists(STEPS, min_size=10, max_size=40))
def test_counts_equal_a_recount_after_anything(
    store: Store,
    png: Callable[..., bytes],
    provenance: Callable[..., Provenance],
    monkeypatch: pytest.MonkeyPatch,
    steps: list[tuple[Any, ...]],
):
    made = [png(1000 * next(number) + k) for k in range(8)]
    images = [store.add_image(each, provenance(model=f"m{k % 3}")) for k, each in enumerate(made)]
    store.add_annotator("eve")
    ai = add_judge(store, JUDGE).annotator_id
    world = World(store, images, monkeypatch, made)
    world.other_model = provenance(model="m9")
    world.add(0, 2)
    world.add(1, 1)
    marks: dict[Any, Any] = {}
    read: dict[Any, Any] = {}
    for name, *arguments in steps:
        named = [ai if each == "the judge" else each for each in arguments]
        getattr(world, name)(*named)
        plain = Plain(store, world.project)
        # A mark never stands for two states of a project.
        mark = project_mark(store, world.project)
        assert marks.setdefault(mark, plain.state()) == plain.state()
        state = results_read(store)
        assert read.setdefault(store_mark(store), state) == state
    for who in (*PEOPLE, ai):
        assert store.counts(who, project=world.project) == plain.counts(who, world.now)
    with store.database.read() as connection:
        assert recount.differences(connection) == []


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=st.lists(STEPS, min_size=10, max_size=40), every=st.integers(3, 20))
def test_counts_equal_a_recount_after_imports_of_anything(
    store: Store,
    png: Callable[..., bytes],
    provenance: Callable[..., Provenance],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    steps: list[tuple[Any, ...]],
    every: int,
):
    """Into one store, of others in which work goes on between two exports."""
    name = f"{next(number)}"
    make_tables(f"sqlite:///{tmp_path / name}.db")
    with Store.open(f"sqlite:///{tmp_path / name}.db", images=tmp_path / "images") as other:
        for who, group in (("ann", "warm"), ("bob", "cool"), ("eve", "default")):
            other.add_annotator(who, group=group)
        made = [png(1000 * next(number) + k) for k in range(8)]
        images = [
            other.add_image(each, provenance(model=f"m{k % 3}")) for k, each in enumerate(made)
        ]
        ai = add_judge(other, JUDGE).annotator_id
        world = World(other, images, monkeypatch, made)
        world.other_model = provenance(model="m9")
        world.add(0, 2)
        for taken, (step, *arguments) in enumerate([*steps, ("wait", 1)]):
            getattr(world, step)(*(ai if each == "the judge" else each for each in arguments))
            if taken % every == 0 or taken == len(steps):
                export_rankings(other, tmp_path / f"{name}.jsonl")
                import_rankings(store, tmp_path / f"{name}.jsonl")
                assert differences(store) == []
        for who in PEOPLE:
            there = other.counts(who, project=world.project).done
            assert store.counts(who, project=world.project).done == there


def test_an_item_that_opens_again_is_found_by_those_who_had_passed_it(
    store: Store, add_items: Add, monkeypatch: pytest.MonkeyPatch
):
    first, second, _ = add_items(3)
    sent = judge(store.next_item("ann"))
    store.submit(sent)
    theirs = store.next_item("bob")
    assert theirs is not None
    assert theirs.item_id == second
    store.submit(judge(theirs, "bob"))
    store.undo("ann", sent.key)
    later = utc_now() + timedelta(hours=1)
    monkeypatch.setattr("imgalign.preferences.store.utc_now", lambda: later)
    again = store.next_item("bob")
    assert again is not None
    assert again.item_id == first


def work(store: Store, add_items: Add) -> None:
    """Judgements of every kind, some of them taken back."""
    add_items(6, overlap=2)
    store.add_annotator("eve")
    for who, fields in itertools.product(PEOPLE, VERDICTS.values()):
        store.submit(judge(store.next_item(who), who, **fields))
    store.undo("ann", store.history("ann", 1)[0].key)
    store.undo("bob", store.history("bob", 3)[2].key)
    judge_next(store)


def results_read(store: Store) -> Any:
    """All that results are made of: records, makers, and what is open."""
    with store.database.read() as connection:
        found = outcomes.read(connection)
        given = connection.execute(select(items.c.item_id, items.c.given, items.c.overlap)).all()
    closed = {row.item_id: row.given < row.overlap for row in given}
    columns = [getattr(found, name).tolist() for name in (*outcomes.FIELDS, "excluded")]
    return columns, found.orders, found.makers, closed


def differences(store: Store) -> list[str]:
    with store.database.read() as connection:
        return recount.differences(connection)


def test_a_store_from_before_is_counted_when_it_is_opened(
    store: Store, add_items: Add, url: str, tmp_path: Path
):
    work(store, add_items)
    before = {who: store.counts(who) for who in PEOPLE}, judged_projects(store)
    with store.database.write() as connection:
        for undo in UNDO_0018:
            connection.execute(text(undo))
        for name in ("ix_items_open", "ix_assignments_leased_until", "ix_candidates_image_id"):
            connection.execute(text(f"DROP INDEX {name}"))
        connection.execute(text("DROP INDEX ix_assignments_annotator_id_leased_until"))
        connection.execute(text("DROP INDEX ix_rankings_annotator_id_sequence"))
        index = "ix_assignments_annotator_id"
        connection.execute(text(f"CREATE INDEX {index} ON assignments (annotator_id)"))
        connection.execute(text("ALTER TABLE items DROP COLUMN given"))
        connection.execute(text("ALTER TABLE provenances DROP COLUMN strength"))
        kept = ("projects", "tallies", "judged_prompts", "numbers", "outcomes")
        for name in (*kept, *SINCE):
            connection.execute(text(f"DROP TABLE {name}"))
        connection.execute(text("ALTER TABLE items DROP COLUMN withdrawn_at"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0007'"))
    store.close()
    with Store.open(url, images=tmp_path / "images") as again:
        assert ({who: again.counts(who) for who in PEOPLE}, judged_projects(again)) == before
        assert differences(again) == []
        assert check_store(again).passed


def test_an_import_is_counted(store: Store, add_items: Add, tmp_path: Path):
    work(store, add_items)
    export_rankings(store, tmp_path / "all.jsonl")
    with Store.open(f"sqlite:///{tmp_path / 'other.db'}", images=tmp_path / "more") as other:
        import_rankings(other, tmp_path / "all.jsonl", images=store.images.root)
        assert differences(other) == []
        assert [other.counts(who).done for who in PEOPLE] == [
            store.counts(who).done for who in PEOPLE
        ]
        assert judged_projects(other) == judged_projects(store)
        import_rankings(other, tmp_path / "all.jsonl", images=store.images.root)
        assert differences(other) == []


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("UPDATE items SET given = given + 1 WHERE sequence = 1", "judgements of items"),
        ("UPDATE projects SET open = 0", "items of projects"),
        ("UPDATE tallies SET done = done + 1", "judgements of annotators"),
        ("UPDATE tallies SET first = 100", "where annotators go on"),
        ("DELETE FROM judged_prompts", "judged prompts"),
        ("DELETE FROM outcomes", "outcomes of rankings"),
    ],
)
def test_a_count_that_another_program_changed_is_a_fault(
    store: Store, add_items: Add, change: str, what: str
):
    work(store, add_items)
    assert check_store(store).passed
    with store.database.write() as connection:
        connection.execute(text(change))
    assert what in differences(store)
    assert not check_store(store).passed


def test_an_item_that_is_passed_over_is_a_fault_though_somebody_else_has_judged_it(
    store: Store, add_items: Add
):
    add_items(2, overlap=2)
    store.submit(judge(store.next_item("bob"), "bob"))
    assert store.next_item("ann") is not None
    with store.database.write() as connection:
        row = {"annotator_id": "ann", "project": "default", "first": 2}
        zeros = dict.fromkeys(("done", "open", "images", "texts"), 0)
        connection.execute(insert(schema.tallies).values(row | zeros))
    assert differences(store) == ["where annotators go on"]


def test_what_failed_is_not_counted(store: Store, add_items: Add, monkeypatch: pytest.MonkeyPatch):
    add_items(1)
    item = store.next_item("ann")
    monkeypatch.setattr("imgalign.preferences.outcomes.put", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        store.submit(judge(item))
    assert store.counts("ann") == Counts(done=0, left=1, waiting=0)
    assert differences(store) == []


@pytest.fixture
def on_sqlite(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store is SQLite's, whose plans are read here, also where others test a server."""
    monkeypatch.delenv("IMGALIGN_TEST_POSTGRES", raising=False)


def test_no_step_of_ranking_reads_a_table_from_end_to_end(
    on_sqlite: None, store: Store, add_items: Add
):
    work(store, add_items)
    asked: list[tuple[str, Any]] = []

    @event.listens_for(Engine, "before_cursor_execute")
    def note(_c: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        asked.append((statement, values))

    item = store.next_item("ann")
    assert item is not None
    store.next_item("ann", holding=[item.item_id], prefetch=True)
    store.next_item("bob", holding=[item.item_id])
    store.counts("ann")
    store.history("ann", 1, project="default")
    sent = judge(item, key="one more")
    store.submit(sent)
    store.undo("ann", sent.key)
    event.remove(Engine, "before_cursor_execute", note)
    with store.database.read() as connection:
        steps = {
            (str(step[-1]), statement)
            for statement, values in asked
            if statement.startswith(("SELECT", "UPDATE"))
            for step in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
        }
    # Neither is a table: an empty list of items, and the few leases that another step found.
    harmless = ("SCAN CONSTANT ROW", "SCAN (subquery-1)", "SCAN held")
    assert {
        step for step in steps if step[0].startswith("SCAN") and step[0] not in harmless
    } == set()
    # All items of a project are no better than all items, nor are all of an annotator.
    plans = {plan for plan, _ in steps}
    assert not {plan for plan in plans if plan.endswith(("(project=?)", "(annotator_id=?)"))} - {
        "SEARCH annotators USING INDEX sqlite_autoindex_annotators_1 (annotator_id=?)",
        "SEARCH projects USING INDEX sqlite_autoindex_projects_1 (project=?)",
        "SEARCH queue_orders USING INDEX sqlite_autoindex_queue_orders_1 (project=?)",
        "SEARCH qualifications USING INDEX sqlite_autoindex_qualifications_1 (project=?)",
        # Its order is that of the sequence: the latest come first, a few of them.
        "SEARCH rankings USING COVERING INDEX ix_rankings_annotator_id_sequence (annotator_id=?)",
    }
    assert "SEARCH items USING INDEX ix_items_open (project=? AND sequence>?)" in plans


def test_ratings_read_no_ranking(on_sqlite: None, store: Store, add_items: Add):
    work(store, add_items)
    asked: list[str] = []

    @event.listens_for(Engine, "before_cursor_execute")
    def note(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        asked.append(statement)

    with pytest.raises(InputError, match="got 2 rankings of images by storybook"):
        rate_makers(store)
    judged_projects(store)
    event.remove(Engine, "before_cursor_execute", note)
    assert asked
    assert [statement for statement in asked if "rankings" in statement] == []
