"""Counts that are kept beside the judgements: equal to a recount, whatever was done before."""

import itertools
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from counted_worlds import PEOPLE, STEPS, VERDICTS, Plain, World, number
from databases import UNDO_0018, make_tables
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from judges import JUDGE, judge_next
from sqlalchemy import Engine, event, insert, select, text
from submissions import judge

from imgalign.errors import InputError
from imgalign.preferences import outcomes, recount, schema
from imgalign.preferences.checking import check_store
from imgalign.preferences.coverage import judged_projects, project_mark, store_mark
from imgalign.preferences.exchange import export_rankings, import_rankings
from imgalign.preferences.judges import add_judge
from imgalign.preferences.makers import rate_makers
from imgalign.preferences.records import Counts, Provenance, utc_now
from imgalign.preferences.schema import items
from imgalign.preferences.store import Store

Add = Callable[..., list[str]]
SINCE = (
    *("openings", "sessions", "invitations", "password_resets", "accounts"),
    *("gold", "exclusions", "guidelines", "qualifications", "admissions"),
)
"""Tables that came after the counts, those that refer to others first."""


@example(  # the last two leave as many items open as there were
    steps=[
        *[("judge", "bob", "ranked")] * 2,
        *[("watch", 4, 1), ("withdraw", 0), ("add", 1, 2)],
    ]
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
