"""Which item is ranked next where a lead lets the most informative come first."""

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from judges import JUDGE
from sqlalchemy import event, select
from submissions import judge

from imgalign.errors import InputError, StoreError
from imgalign.preferences import choosing, leases
from imgalign.preferences.choosing import EXPLORED, HIGHEST, most_informative
from imgalign.preferences.exchange import export_rankings, import_rankings
from imgalign.preferences.gold import mark_gold
from imgalign.preferences.judges import add_judge
from imgalign.preferences.queue_order import (
    informative_projects,
    open_items_of,
    queue_order_of,
    set_priorities,
    set_queue_order,
)
from imgalign.preferences.records import ATTENTION, COMPARISONS, utc_now
from imgalign.preferences.repeats import ask_again
from imgalign.preferences.schema import assignments, items
from imgalign.preferences.store import Store
from imgalign.preferences.stored import item_samples
from imgalign.preferences.tallies import item_withdrawn

Add = Callable[..., list[str]]


def propensities(store: Store) -> dict[str, float | None]:
    """Of each lease, by its item."""
    found = select(assignments.c.item_id, assignments.c.propensity)
    with store.database.read() as connection:
        return {item_id: value for item_id, value in connection.execute(found)}


def priorities(store: Store) -> dict[str, float | None]:
    """Of each item."""
    found = select(items.c.item_id, items.c.priority)
    with store.database.read() as connection:
        return {item_id: value for item_id, value in connection.execute(found)}


def withdraw(store: Store, item_id: str) -> None:
    """As an attention item is."""
    with store.database.write() as connection:
        item_withdrawn(connection, item_id, since=utc_now())


def explore(monkeypatch: pytest.MonkeyPatch, draws: Sequence[bool]) -> None:
    """Let these choices be drawn evenly, and the others not."""
    turns = iter(draws)

    def shuffler(*of: object) -> random.Random:
        drawing = random.Random(repr(of))
        monkeypatch.setattr(drawing, "random", lambda: 0.0 if next(turns) else 0.99)
        return drawing

    monkeypatch.setattr(leases, "shuffler", shuffler)


def test_the_oldest_comes_first_until_a_lead_chooses_otherwise(store: Store, add_items: Add):
    first, second, third = add_items(3)
    set_priorities(store.database, "default", {third: 2.0, second: 1.0})
    assert queue_order_of(store.database, "default") == "oldest"
    assert store.next_item("ann").item_id == first
    assert propensities(store) == {first: None}


def test_what_tells_most_comes_first_then_what_has_no_priority(
    store: Store, add_items: Add, monkeypatch: pytest.MonkeyPatch
):
    first, second, third, fourth = add_items(4)
    set_queue_order(store.database, "default", "informative")
    set_priorities(store.database, "default", {third: 0.5, fourth: 1.5})
    explore(monkeypatch, [False] * 20)
    seen = []
    for _ in range(4):
        item = store.next_item("ann")
        store.submit(judge(item))
        seen.append(item.item_id)
    assert seen == [fourth, third, first, second]
    expected = [1 - EXPLORED + EXPLORED / left for left in (4, 3, 2, 1)]
    assert [propensities(store)[each] for each in seen] == pytest.approx(expected)


def test_a_choice_that_is_drawn_is_one_of_all_and_says_how_probable_it_was(
    store: Store, add_items: Add, monkeypatch: pytest.MonkeyPatch
):
    item_ids = add_items(5, overlap=99)
    set_queue_order(store.database, "default", "informative")
    set_priorities(store.database, "default", {item_ids[4]: 3.0})
    explore(monkeypatch, [True] * 200)
    shown: Counter[str] = Counter()
    for number in range(60):
        store.add_annotator(name := f"annotator {number}")
        item_id = store.next_item(name).item_id
        shown[item_id] += 1
        both = 1 - EXPLORED + EXPLORED / 5 if item_id == item_ids[4] else EXPLORED / 5
        assert propensities(store)[item_id] == pytest.approx(both)
    assert set(shown) == set(item_ids)
    assert min(shown.values()) >= 3


def test_a_share_of_the_choices_is_drawn(store: Store, add_items: Add, url: str, tmp_path: Path):
    item_ids = add_items(2, overlap=999)
    set_queue_order(store.database, "default", "informative")
    set_priorities(store.database, "default", {item_ids[1]: 3.0})
    with Store.open(url, images=tmp_path / "images", seed=0) as seeded:
        others = 0
        for number in range(100):
            seeded.add_annotator(name := f"annotator {number}")
            others += seeded.next_item(name).item_id == item_ids[0]
    # Of a hundred draws of which one in ten is of the other item.
    assert 3 <= others <= 20


def test_twenty_annotators_at_once_get_what_tells_most_and_never_exceed_the_overlap(
    store: Store, add_items: Add, monkeypatch: pytest.MonkeyPatch
):
    item_ids = add_items(6, overlap=3)
    set_queue_order(store.database, "default", "informative")
    nats = {item_id: float(number) for number, item_id in enumerate(item_ids)}
    set_priorities(store.database, "default", nats)
    monkeypatch.setattr(choosing, "EXPLORED", 0.0)
    names = [f"annotator {index}" for index in range(20)]
    for name in names[:12]:
        store.add_annotator(name)
    with ThreadPoolExecutor(12) as threads:
        found = list(threads.map(store.next_item, names[:12]))
    assert Counter(item.item_id for item in found) == dict.fromkeys(item_ids[2:], 3)
    assert set(propensities(store).values()) == {1.0}
    for name in names[12:]:
        store.add_annotator(name)
    monkeypatch.setattr(choosing, "EXPLORED", 1.0)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(store.next_item, names[12:]))
    shown = Counter(item.item_id for item in found if item is not None)
    assert set(shown) <= set(item_ids[:2])
    assert max(shown.values()) <= 3


def test_what_somebody_else_took_meanwhile_gives_way_to_the_next(
    store: Store, add_items: Add, monkeypatch: pytest.MonkeyPatch
):
    item_ids = add_items(3)
    set_queue_order(store.database, "default", "informative")
    set_priorities(store.database, "default", dict(zip(item_ids, (1.0, 2.0, 3.0), strict=True)))
    explore(monkeypatch, [False, False, True])
    asked = leases.Asked(store.annotator("ann"), "default", (), utc_now())
    with store.database.read() as connection:
        start = choosing.first_available(connection, asked)
    assert store.next_item("bob").item_id == item_ids[2]
    with store.database.write() as connection:
        assert choosing.next_item(connection, asked, start=start).item_id == item_ids[1]
    with store.database.read() as connection:
        start = choosing.first_available(connection, asked)
        drawn_now = select(items.c.item_id).where(items.c.sequence == start.drawn)
        drawn = connection.execute(drawn_now).scalar_one()
    withdraw(store, drawn)
    (other,) = set(item_ids[:2]) - {drawn}
    with store.database.write() as connection:
        assert choosing.next_item(connection, asked, start=start).item_id == other


def test_what_is_on_a_screen_stays_in_the_order_in_which_it_came(
    store: Store, add_items: Add, monkeypatch: pytest.MonkeyPatch
):
    first, second, third = add_items(3)
    set_queue_order(store.database, "default", "informative")
    set_priorities(store.database, "default", {third: 2.0, second: 1.0})
    explore(monkeypatch, [False] * 20)
    for _ in range(3):
        held: list[str] = []
        while item := store.next_item("ann", holding=held, prefetch=bool(held)):
            held.append(item.item_id)
        assert held == [third, second, first]
        assert store.next_item("ann").item_id == store.next_item("ann").item_id == third


def test_what_was_on_the_screen_and_is_judged_meanwhile_gives_way_to_an_older_one(
    store: Store, add_items: Add, monkeypatch: pytest.MonkeyPatch
):
    first, second = add_items(2)
    set_queue_order(store.database, "default", "informative")
    set_priorities(store.database, "default", {second: 1.0})
    explore(monkeypatch, [False])
    sent = judge(store.next_item("ann"))
    assert sent.item_id == second
    asked = leases.Asked(store.annotator("ann"), "default", (), utc_now())
    with store.database.read() as connection:
        start = choosing.first_available(connection, asked)
    store.submit(sent)
    with store.database.write() as connection:
        assert choosing.next_item(connection, asked, start=start) == leases.Chosen(first)


def test_what_was_taken_back_comes_first_and_keeps_its_propensity(
    store: Store, add_items: Add, monkeypatch: pytest.MonkeyPatch
):
    first, second = add_items(2)
    set_queue_order(store.database, "default", "informative")
    set_priorities(store.database, "default", {first: 1.0, second: 2.0})
    explore(monkeypatch, [False, True, True])
    sent = judge(store.next_item("ann"))
    store.submit(sent)
    before = propensities(store)[second]
    assert store.next_item("ann").item_id == first
    store.undo("ann", sent.key)
    assert store.next_item("ann").item_id == second
    assert propensities(store)[second] == before == 1 - EXPLORED / 2


def test_an_item_that_came_back_although_it_is_full_is_none_of_those_available(
    store: Store, add_items: Add, monkeypatch: pytest.MonkeyPatch
):
    first, second, third = add_items(3)
    skip = judge(store.next_item("ann"), verdict="skipped", reason="blurred", ranking=None)
    store.submit(skip)
    assert store.next_item("bob").item_id == first
    store.submit(judge(store.issued_item(first, "bob"), "bob"))
    store.undo("ann", skip.key)
    set_queue_order(store.database, "default", "informative")
    explore(monkeypatch, [False])
    assert store.next_item("ann").item_id == first
    assert store.next_item("ann", holding=[first], prefetch=True).item_id == second
    assert propensities(store)[second] == 1 - EXPLORED / 2
    assert third not in propensities(store)


def test_an_ai_judge_gets_the_oldest(store: Store, add_items: Add):
    first, second = add_items(2)
    set_queue_order(store.database, "default", "informative")
    set_priorities(store.database, "default", {second: 1.0})
    who = add_judge(store, JUDGE).annotator_id
    assert store.next_item(who).item_id == first
    assert propensities(store) == {first: None}


def test_an_item_that_is_withdrawn_comes_to_nobody(store: Store, add_items: Add):
    item_ids = add_items(2)
    set_queue_order(store.database, "default", "informative")
    set_priorities(store.database, "default", {item_ids[1]: 1.0})
    withdraw(store, item_ids[1])
    assert store.next_item("ann").item_id == item_ids[0]
    assert store.next_item("ann", holding=item_ids[:1]) is None


def test_an_item_goes_to_no_more_annotators_than_its_overlap(
    store: Store, add_items: Add, monkeypatch: pytest.MonkeyPatch
):
    first, best = add_items(2)
    set_queue_order(store.database, "default", "informative")
    set_priorities(store.database, "default", {best: 1.0})
    explore(monkeypatch, [False] * 20)
    assert store.next_item("ann").item_id == best
    assert store.next_item("ann").item_id == best
    assert store.next_item("bob").item_id == first
    assert propensities(store)[first] == 1
    store.add_annotator("eve")
    assert store.next_item("eve") is None


def test_items_that_the_page_has_are_not_chosen_again_nor_counted(
    store: Store, add_items: Add, monkeypatch: pytest.MonkeyPatch
):
    first, second, third = add_items(3)
    set_queue_order(store.database, "default", "informative")
    set_priorities(store.database, "default", {third: 1.0})
    explore(monkeypatch, [False, False, False])
    held: list[str] = []
    while item := store.next_item("ann", holding=held, prefetch=bool(held)):
        held.append(item.item_id)
    assert held == [third, first, second]
    expected = [1 - EXPLORED + EXPLORED / left for left in (3, 2, 1)]
    assert [propensities(store)[each] for each in held] == pytest.approx(expected)


def test_a_ranking_keeps_the_propensity_of_its_lease_and_takes_it_to_another_store(
    store: Store, add_items: Add, tmp_path: Path
):
    add_items(4)
    store.submit(judge(store.next_item("ann")))
    set_queue_order(store.database, "default", "informative")
    item = store.next_item("ann")
    store.submit(judge(item))
    before, after = store.rankings()
    assert before.propensity is None
    assert after.propensity == propensities(store)[item.item_id]
    assert 0 < after.propensity < 1
    export_rankings(store, tmp_path / "all.jsonl")
    url = f"sqlite:///{tmp_path / 'other.db'}"
    with Store.open(url, images=tmp_path / "more") as other:
        import_rankings(other, tmp_path / "all.jsonl", images=store.images.root)
        assert [each.propensity for each in other.rankings()] == [None, after.propensity]


def test_an_export_without_propensities_is_imported_and_one_that_is_none_refused(
    store: Store, add_items: Add, tmp_path: Path
):
    add_items(1)
    store.submit(judge(store.next_item("ann")))
    export_rankings(store, tmp_path / "all.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    for number, propensity in enumerate((None, 1.5)):
        older = [dict(line) for line in lines]
        for line in older:
            if line["kind"] == "ranking":
                del line["propensity"]
                line |= {} if propensity is None else {"propensity": propensity}
            assert "priority" not in line
        file = tmp_path / f"{number}.jsonl"
        file.write_text("".join(json.dumps(line) + "\n" for line in older))
        with Store.open(f"sqlite:///{tmp_path / f'{number}.db'}") as other:
            if propensity is None:
                assert import_rankings(other, file, images=store.images.root) == 1
            else:
                with pytest.raises(InputError, match=r"propensity: expected above 0 .* got 1\.5"):
                    import_rankings(other, file, images=store.images.root)


def test_new_priorities_replace_the_earlier_ones_also_where_nobody_need_judge_any_more(
    store: Store, add_items: Add
):
    first, second, third = add_items(3)
    (elsewhere,) = add_items(1, project="cats", first=3)
    set_priorities(store.database, "cats", {elsewhere: 4.0})
    set_priorities(store.database, "default", {first: 1.0, second: 2.0, elsewhere: 5.0})
    store.submit(judge(store.next_item("ann")))  # of the first: it may be open again
    set_priorities(store.database, "default", {third: 3.0})
    assert priorities(store) == {first: None, second: None, third: 3.0, elsewhere: 4.0}
    set_priorities(store.database, "default", {})
    set_priorities(store.database, "default", {})
    assert priorities(store) == {first: None, second: None, third: None, elsewhere: 4.0}


def test_attention_items_come_among_the_others(store: Store, add_items: Add):
    foxes, castle = add_items(1)[0], add_items(1, first=5)[0]
    images = {each.item_id: each.sample_ids for each in item_samples(store, [foxes, castle])}
    mixed = (images[foxes][0], *images[castle][:2])
    check = store.add_item("prompt 0", mixed, source=f"{ATTENTION}test", overlap=9)
    set_priorities(store.database, "default", {foxes: 2.0})
    assert priorities(store) == {foxes: 2.0, castle: None, check: 2.0}
    assert [each.item_id for each in open_items_of(store.database, "default", "images")] == [
        foxes,
        castle,
    ]
    set_priorities(store.database, "default", {})
    assert set(priorities(store).values()) == {None}


def test_gold_items_and_repeats_come_among_the_others(store: Store, add_items: Add):
    asked, known, other = add_items(3, overlap=2)
    store.submit(judge(store.next_item("ann")))
    (again,) = ask_again(store, "default", count=1)
    mark_gold(store, known, ((0,), (1, 2)))
    set_priorities(store.database, "default", {asked: 0.5, known: 0.1, other: 2.0})
    found = priorities(store)
    assert (found[asked], found[other]) == (0.5, 2.0)
    assert {found[known], found[again]} <= {0.5, 0.1, 2.0}
    assert found[again] is not None
    for _ in range(40):  # of its own it would always have the lowest
        if priorities(store)[known] != 0.1:
            return
        set_priorities(store.database, "default", {asked: 0.5, known: 0.1, other: 2.0})
    raise AssertionError("a gold item has its own priority")


def test_open_items_have_their_candidates_in_order(store: Store, add_items: Add):
    item_ids = add_items(3)
    store.submit(judge(store.next_item("ann")))
    found = open_items_of(store.database, "default", "images")
    assert [each.item_id for each in found] == item_ids[1:]
    assert [each.prompt for each in found] == ["prompt 1", "prompt 2"]
    assert [len(set(each.sample_ids)) for each in found] == [3, 3]
    assert open_items_of(store.database, "default", "texts") == []


def test_an_order_is_chosen_for_projects_that_there_are(store: Store, add_items: Add):
    add_items(1)
    with pytest.raises(InputError, match="expected oldest or informative, got 'newest'"):
        set_queue_order(store.database, "default", "newest")
    with pytest.raises(StoreError, match="project 'cats': nothing is queued there"):
        set_queue_order(store.database, "cats", "informative")
    with pytest.raises(InputError, match="project"):
        set_queue_order(store.database, "\x00", "informative")
    set_queue_order(store.database, "default", "informative")
    assert informative_projects(store.database) == ["default"]
    set_queue_order(store.database, "default", "oldest")
    assert informative_projects(store.database) == []


def test_a_reward_chooses_none_of_the_sets_that_test_it(store: Store, add_items: Add):
    add_items(1, project=f"default{COMPARISONS}")
    with pytest.raises(InputError, match="blind comparisons test what was learned"):
        set_queue_order(store.database, f"default{COMPARISONS}", "informative")
    set_queue_order(store.database, f"default{COMPARISONS}", "oldest")
    assert informative_projects(store.database) == []


def test_the_most_informative_item_is_read_from_an_index(store: Store, add_items: Add):
    """Otherwise the next one would take longer the more items there are."""
    if store.database.path is None:
        pytest.skip("EXPLAIN QUERY PLAN is of SQLite; PostgreSQL scans a table this small anyway")
    add_items(1)
    asked = leases.Asked(store.annotator("ann"), "default", (), utc_now())
    said: list[Any] = []
    with store.database.read() as connection:
        event.listen(connection, "before_cursor_execute", lambda *of: said.append(of[2:4]))
        connection.execute(most_informative(), asked.values(most=HIGHEST))
        statement, values = said[-1]
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).all()
    steps = [str(row[-1]) for row in plan]
    assert any("ix_items_priority" in step for step in steps), steps
    assert not any("TEMP B-TREE" in step for step in steps), steps
