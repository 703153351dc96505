"""An annotator's own votes: whose, in which order, in which pages, and at what cost."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, event, insert
from submissions import judge

from imgalign.errors import StoreError
from imgalign.preferences import schema, tallies
from imgalign.preferences.own_votes import latest_key, own_votes
from imgalign.preferences.records import Ranking, Submission, utc_now
from imgalign.preferences.store import Store

Add = Callable[..., list[str]]


def submit_next(store: Store, annotator: str = "ann", **fields: object) -> Submission:
    """Judge what comes next; what was sent."""
    sent = judge(store.next_item(annotator), annotator, **fields)
    store.submit(sent)
    return sent


def prompts(store: Store, annotator: str = "ann", **options: Any) -> list[str]:
    """Prompts of a page."""
    asked: dict[str, Any] = {"project": "default", "limit": 20} | options
    return [vote.prompt for vote in own_votes(store, annotator, **asked)]


def test_votes_come_newest_first_as_they_stood_on_the_screen(store: Store, add_items: Add):
    add_items(3)
    first = store.next_item("ann")
    submit_next(store, ranking=((2,), (0, 1)))
    submit_next(store, verdict="all_bad", ranking=None)
    submit_next(store, verdict="skipped", ranking=None, reason="unsafe")
    skipped, bad, ranked = own_votes(store, "ann", project="default", limit=20)
    assert (skipped.verdict, skipped.reason) == ("skipped", "unsafe")
    assert (bad.verdict, bad.ranking) == ("all_bad", None)
    assert ranked.ranking == ((2,), (0, 1))
    assert (ranked.item_id, ranked.tokens) == (first.item_id, first.tokens)
    assert ranked.prompt == "prompt 0"


def test_only_ones_own_votes_are_given_under_any_spelling(store: Store, add_items: Add):
    add_items(2, overlap=2)
    submit_next(store, "ann")
    submit_next(store, "bob")
    submit_next(store, "bob")
    assert prompts(store, " ANN ") == ["prompt 0"]
    assert prompts(store, "bob") == ["prompt 1", "prompt 0"]
    assert prompts(store, "nobody") == []
    mine = own_votes(store, "ann", project="default", limit=1)[0]
    theirs = own_votes(store, "bob", project="default", limit=2)[1]
    assert mine.item_id == theirs.item_id
    assert not set(mine.tokens) & set(theirs.tokens)


def test_a_page_goes_on_after_a_key_even_once_that_vote_is_taken_back(store: Store, add_items: Add):
    add_items(5)
    sent = [submit_next(store) for _ in range(5)]
    assert prompts(store, limit=2) == ["prompt 4", "prompt 3"]
    assert prompts(store, limit=2, before=sent[3].key) == ["prompt 2", "prompt 1"]
    store.undo("ann", sent[3].key)
    assert prompts(store, limit=2, before=sent[3].key) == ["prompt 2", "prompt 1"]
    assert prompts(store, limit=2) == ["prompt 4", "prompt 2"]
    assert prompts(store, before=sent[0].key) == []


def test_a_key_of_somebody_else_begins_no_page(store: Store, add_items: Add):
    add_items(1, overlap=2)
    sent = submit_next(store, "bob")
    with pytest.raises(StoreError, match="nothing by annotator 'ann'; begin with the newest"):
        prompts(store, before=sent.key)


def test_the_latest_key_is_that_of_the_newest_vote_that_stands(store: Store, add_items: Add):
    add_items(3)

    def latest(annotator: str = "ann", project: str = "default") -> str | None:
        return latest_key(store, annotator, project=project)

    assert latest() is None
    sent = [submit_next(store) for _ in range(2)]
    assert latest(" ANN ") == sent[1].key
    assert (latest("bob"), latest(project="cats")) == (None, None)
    store.undo("ann", sent[1].key)
    assert latest() == sent[0].key


def test_a_corrected_vote_is_the_newest_and_the_old_one_stays_on_record(
    store: Store, add_items: Add
):
    add_items(3)
    sent = [submit_next(store) for _ in range(3)]
    store.undo("ann", sent[0].key)
    assert prompts(store) == ["prompt 2", "prompt 1"]
    submit_next(store, key="corrected", ranking=((2,), (1,), (0,)))
    assert prompts(store) == ["prompt 0", "prompt 2", "prompt 1"]
    kept: list[Ranking] = list(store.rankings(include_undone=True))
    assert [each.key for each in kept] == [*(each.key for each in sent), "corrected"]


def test_a_page_is_filled_past_many_that_were_taken_back(store: Store, add_items: Add):
    add_items(16)
    sent = [submit_next(store) for _ in range(16)]
    for each in sent[2:]:
        store.undo("ann", each.key)
    assert prompts(store, limit=1) == ["prompt 1"]
    assert prompts(store, limit=3) == ["prompt 1", "prompt 0"]


@pytest.fixture
def on_sqlite(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store is SQLite's, whose plans are read here, also where others test a server."""
    monkeypatch.delenv("IMGALIGN_TEST_POSTGRES", raising=False)


def test_a_page_reads_no_table_from_end_to_end(on_sqlite: None, store: Store, add_items: Add):
    add_items(3)
    sent = [submit_next(store) for _ in range(3)]
    asked: list[tuple[str, Any]] = []

    @event.listens_for(Engine, "before_cursor_execute")
    def note(_c: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        asked.append((statement, values))

    assert prompts(store, limit=2, before=sent[2].key) == ["prompt 1", "prompt 0"]
    event.remove(Engine, "before_cursor_execute", note)
    selects = [each for each in asked if each[0].startswith("SELECT")]
    assert len(selects) >= 4
    with store.database.read() as connection:
        plans = [
            str(step[-1])
            for statement, values in selects
            for step in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
        ]
    assert [step for step in plans if step.startswith("SCAN")] == []


def bring_in(store: Store, *, first: int, number: int, project: str = "default") -> None:
    """Add judgements of "ann" as an import does, of items that nobody was shown here."""
    now = utc_now()
    item = {"project": project, "source": "import", "overlap": 1, "created_at": now}
    judged = {"annotator_id": "ann", "attempt": 0, "verdict": "all_bad", "created_at": now}
    with store.database.write() as connection:
        for index in range(first, first + number):
            item_id, ranking_id = f"{index:064d}", f"r{index}"
            added = insert(schema.items).values(item_id=item_id, prompt=f"p{index}", **item)
            connection.execute(added)
            tallies.item_added(connection, item_id)
            own = {"item_id": item_id, "ranking_id": ranking_id, "key": f"key-{index}"}
            added = insert(schema.rankings).values(**own, **judged, display_order=[0])
            connection.execute(added)
            tallies.judged(connection, ranking_id, now=now)


class Work:
    """What statements take on SQLite, in hundreds of steps of its machine."""

    def __init__(self) -> None:
        self.done = 0

    def __enter__(self) -> "Work":
        event.listen(Engine, "before_cursor_execute", self._watch)
        return self

    def __exit__(self, *_: object) -> None:
        event.remove(Engine, "before_cursor_execute", self._watch)

    def _watch(self, _connection: Any, cursor: Any, *_: Any) -> None:
        cursor.connection.set_progress_handler(self._count, 100)

    def _count(self) -> int:
        self.done += 1
        return 0


def work(do: Callable[[], object]) -> int:
    """The work of a call."""
    with Work() as taken:
        do()
    return taken.done


@pytest.mark.parametrize("num_shown", [0, 3])
def test_imported_votes_cost_nobody_who_asks_for_their_own(
    on_sqlite: None, store: Store, add_items: Add, num_shown: int
):
    add_items(3)
    sent = [submit_next(store) for _ in range(num_shown)]
    newest = sent[-1].key if sent else None
    wanted = [f"prompt {n}" for n in reversed(range(num_shown))]

    def ask() -> None:
        assert latest_key(store, "ann", project="default") == newest
        assert prompts(store) == wanted

    bring_in(store, first=0, number=60)
    few = work(ask)
    bring_in(store, first=60, number=600)
    assert work(ask) <= 1.5 * few + 5
    if sent:
        assert prompts(store, before=sent[1].key) == ["prompt 0"]


def test_votes_of_another_project_cost_nothing_where_one_has_none(
    on_sqlite: None, store: Store, add_items: Add
):
    def ask() -> None:
        assert latest_key(store, "ann", project="default") is None
        assert store.history("ann", 20, project="default") == []

    bring_in(store, first=0, number=60, project="cats")
    few = work(ask)
    bring_in(store, first=60, number=600, project="cats")
    assert work(ask) <= 1.5 * few + 5


def test_a_page_goes_on_over_many_imported_votes_in_between(store: Store, add_items: Add):
    add_items(5)
    submit_next(store)
    bring_in(store, first=0, number=50)
    sent = [submit_next(store) for _ in range(4)]
    assert prompts(store, limit=2) == ["prompt 4", "prompt 3"]
    assert prompts(store, limit=2, before=sent[2].key) == ["prompt 2", "prompt 1"]
    assert prompts(store, limit=2, before=sent[0].key) == ["prompt 0"]
    store.undo("ann", sent[0].key)
    assert prompts(store, limit=4) == ["prompt 4", "prompt 3", "prompt 2", "prompt 0"]


def test_votes_of_other_projects_are_left_out(store: Store, add_items: Add):
    add_items(1)
    submit_next(store)
    assert prompts(store, project="cats") == []


def test_a_skip_that_others_have_filled_since_comes_back_when_it_is_taken_back(
    store: Store, add_items: Add
):
    add_items(2)
    skipped = submit_next(store, verdict="skipped", ranking=None, reason="unsafe")
    assert submit_next(store, "bob").item_id == skipped.item_id
    store.undo("ann", skipped.key)
    again = store.next_item("ann")
    assert again is not None
    assert again.item_id == skipped.item_id
    assert store.counts("ann").left == 2
    store.submit(judge(again, key="corrected"))
    assert len(list(store.rankings())) == 2
