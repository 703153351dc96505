"""Gold items: an expected order that fits the item, travels with it and is unseen."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text
from submissions import judge

from imgalign.errors import InputError, StoreError
from imgalign.preferences import validation
from imgalign.preferences.checking import check_store
from imgalign.preferences.exchange import export_rankings, import_rankings
from imgalign.preferences.gold import (
    gold_items,
    mark_gold,
    read_order,
    unmark_gold,
    written_order,
)
from imgalign.preferences.records import TieGroups
from imgalign.preferences.store import Store

Add = Callable[..., list[str]]


def test_an_item_is_gold_with_its_latest_order_until_it_is_none(store: Store, add_items: Add):
    first, second = add_items(2)
    mark_gold(store, second, ((2,), (0, 1)))
    mark_gold(store, first, ((0,), (1,), (2,)))
    mark_gold(store, first, ((1, 0), (2,)))
    found = [(each.item_id, each.prompt, each.expected) for each in gold_items(store, "default")]
    assert found == [
        (first, "prompt 0", ((0, 1), (2,))),
        (second, "prompt 1", ((2,), (0, 1))),
    ]
    assert gold_items(store, "another") == []
    assert check_store(store).passed
    unmark_gold(store, first)
    assert [each.item_id for each in gold_items(store, "default")] == [second]
    with pytest.raises(StoreError, match="no gold item; reload the list"):
        unmark_gold(store, first)


def test_gold_items_are_asked_of_as_many_as_the_lead_wants_and_counts_know(
    store: Store, add_items: Add
):
    (item,) = add_items(1)
    store.submit(judge(store.next_item("ann")))
    assert store.next_item("bob") is None
    mark_gold(store, item, ((2,), (0, 1)), overlap=3)
    assert store.counts("bob").left == 1
    store.submit(judge(store.next_item("bob"), "bob"))
    mark_gold(store, item, ((2,), (0, 1)), overlap=1)  # asked already
    assert gold_items(store, "default")[0].overlap == 3
    assert check_store(store).passed


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        (((0,), (1,)), "each candidate 0 to 2 exactly once"),
        (((0,), (1,), (2, 2)), "each candidate 0 to 2 exactly once"),
        (((0, 1, 2),), "all are tied"),
        (((0,), (), (1, 2)), "a tie group is empty"),
        ((), "each candidate"),
    ],
)
def test_an_order_that_does_not_fit_its_item_is_refused(
    store: Store, add_items: Add, expected: TieGroups, message: str
):
    (item,) = add_items(1)
    with pytest.raises(InputError, match=message):
        mark_gold(store, item, expected)
    assert gold_items(store, "default") == []


@pytest.mark.parametrize(
    "value", [[[0], ["1"], [2]], [[0], [1.0], [2]], [[0], [True], [2]], ["012"]]
)
def test_an_order_that_is_read_has_whole_numbers(value: object):
    """A file may hold anything; `mark_gold` itself is given numbers."""
    with pytest.raises(InputError, match=r"expected (a|a list of) whole number"):
        validation.expected_order(value, num_candidates=3)


def test_an_unknown_item_and_a_wrong_overlap_are_refused(store: Store, add_items: Add):
    (item,) = add_items(1)
    with pytest.raises(StoreError, match=r"item 000000000000: not in .*imgalign\.db|test_"):
        mark_gold(store, "0" * 64, ((0,), (1,)))
    for overlap in (0, 10**9):
        with pytest.raises(InputError, match="expected 1 to 10000 annotators"):
            mark_gold(store, item, ((0,), (1, 2)), overlap=overlap)


def test_an_annotator_gets_a_gold_item_as_any_other(store: Store, add_items: Add):
    (item,) = add_items(1, overlap=2)
    before = store.next_item("ann"), store.counts("ann")
    mark_gold(store, item, ((2,), (0, 1)))
    assert (store.next_item("ann"), store.counts("ann")) == before
    store.submit(judge(store.next_item("ann")))
    assert [each.item_id for each in store.rankings()] == [item]


def test_gold_items_travel_with_an_export(store: Store, add_items: Add, tmp_path: Path):
    (item,) = add_items(1)
    mark_gold(store, item, ((2,), (0, 1)))
    export_rankings(store, tmp_path / "all.jsonl")
    with Store.open(tmp_path / "other.db", images=tmp_path / "more") as other:
        for _ in range(2):
            import_rankings(other, tmp_path / "all.jsonl", images=store.images.root)
        assert gold_items(other, "default") == gold_items(store, "default")
        mark_gold(other, item, ((0,), (1, 2)))
        with pytest.raises(StoreError, match="gold is here already with another expected"):
            import_rankings(other, tmp_path / "all.jsonl", images=store.images.root)


def test_an_imported_order_that_does_not_fit_is_refused(
    store: Store, add_items: Add, tmp_path: Path
):
    (item,) = add_items(1)
    mark_gold(store, item, ((2,), (0, 1)))
    file = tmp_path / "all.jsonl"
    export_rankings(store, file)
    wrong = file.read_text().replace('"expected": [[2], [0, 1]]', '"expected": [[2], [0, 7]]')
    file.write_text(wrong)
    with (
        Store.open(tmp_path / "other.db", images=tmp_path / "more") as other,
        pytest.raises(InputError, match=r"all\.jsonl:\d+: expected order: expected each candidate"),
    ):
        import_rankings(other, file, images=store.images.root)


def test_an_order_that_another_program_changed_is_a_fault(store: Store, add_items: Add):
    (item,) = add_items(1)
    mark_gold(store, item, ((2,), (0, 1)))
    with store.database.write() as connection:
        connection.execute(text("UPDATE gold SET expected = '[[0]]'"))
    assert list(check_store(store).faults) == ["gold items that do not fit their item"]


@pytest.mark.parametrize(
    ("written", "groups"),
    [
        ("B > A = C", ((1,), (0, 2))),
        ("C>B>A", ((2,), (1,), (0,))),
        ("b", ((1,), (0, 2))),
        (" a , c > b ", ((0, 2), (1,))),
    ],
)
def test_an_order_is_written_in_letters(written: str, groups: TieGroups):
    assert read_order(written, num_candidates=3) == groups
    assert read_order(written_order(groups), num_candidates=3) == groups


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("", r"expected the letters A to C with > and =, such as B > A, got ''"),
        ("D > A", r"got 'D > A'"),
        ("A > > B", "expected the letters"),
        ("A > B > A", "A is there twice"),
        ("1 > 2", "expected the letters"),
    ],
)
def test_what_is_no_order_of_letters_is_refused(written: str, message: str):
    with pytest.raises(InputError, match=message):
        read_order(written, num_candidates=3)
