"""A qualification: gold items that come first, and who may go on."""

import itertools
from collections.abc import Callable, Sequence

import pytest
from submissions import judge, on_screen

from imgalign.errors import InputError, StoreError
from imgalign.preferences.checking import check_store
from imgalign.preferences.gold import mark_gold, unmark_gold
from imgalign.preferences.qualification import (
    Qualification,
    admit,
    qualification_of,
    set_qualification,
)
from imgalign.preferences.records import TieGroups
from imgalign.preferences.store import Store
from imgalign.preferences.stored import item_samples

Add = Callable[..., list[str]]
BEST_LAST: TieGroups = ((2,), (0, 1))
WRONG: TieGroups = ((0,), (1,), (2,))
number = itertools.count()


@pytest.fixture
def asked(store: Store, add_items: Add) -> list[str]:
    """Six items, of which the third, fifth and sixth are gold and make the qualification."""
    item_ids = add_items(6)
    for place in (5, 2, 4):
        mark_gold(store, item_ids[place], BEST_LAST)
    set_qualification(store.database, "default", num_items=3, share=0.6)
    return item_ids


def taken_from(store: Store, item_id: str) -> list[str]:
    """The images of an item."""
    return list(item_samples(store, [item_id])[0].sample_ids)


def answer(store: Store, right: Sequence[bool], who: str = "ann") -> list[str]:
    """Judge what comes next; the items that came."""
    came = []
    for is_right in right:
        item = store.next_item(who)
        assert item is not None
        order = BEST_LAST if is_right else WRONG
        key = f"{who}-{item.item_id}-{next(number)}"
        store.submit(judge(item, who, ranking=on_screen(store, item, order, who), key=key))
        came.append(item.item_id)
    return came


def take_back(store: Store, item_id: str, who: str) -> None:
    """Undo the standing judgement of an item."""
    (key,) = [each.key for each in store.history(who, 20) if each.item_id == item_id]
    store.undo(who, key)


def test_gold_items_come_first_in_the_order_of_the_queue_and_then_the_others(store, asked):
    assert qualification_of(store.database, "default") == Qualification(num_items=3, share=0.6)
    assert store.counts("ann").qualifying == 3
    came = answer(store, [True, False, True, True, True, True])
    assert came == [asked[place] for place in (2, 4, 5, 0, 1, 3)]
    counts = store.counts("ann")
    assert (counts.done, counts.left, counts.qualifying, counts.held) == (6, 0, 0, False)


def test_they_come_to_everybody_even_where_their_overlap_is_reached(store, asked):
    answer(store, [True] * 3)
    counts = store.counts("bob")
    assert (counts.done, counts.left, counts.waiting, counts.qualifying) == (0, 6, 0, 3)
    assert answer(store, [True] * 3, "bob") == [asked[place] for place in (2, 4, 5)]
    assert check_store(store).passed


def test_who_answers_too_few_as_expected_gets_nothing_more(store, asked):
    answer(store, [False, True, False])
    assert store.next_item("ann") is None
    assert store.next_item("ann", prefetch=True) is None
    counts = store.counts("ann")
    assert (counts.done, counts.left, counts.waiting, counts.held) == (3, 0, 0, True)
    assert len(list(store.rankings())) == 3  # they are kept, and count
    assert store.next_item("bob") is not None  # of others nothing is asked but their own


def test_nothing_else_is_fetched_ahead_before_it_is_decided(store, asked):
    answer(store, [False, False])
    last = store.next_item("ann")
    assert last is not None
    assert last.item_id == asked[5]
    assert store.next_item("ann", holding=(last.item_id,), prefetch=True) is None
    first = store.next_item("bob")
    assert first is not None
    ahead = store.next_item("bob", holding=(first.item_id,), prefetch=True)
    assert ahead is not None
    assert ahead.item_id == asked[4]


def test_a_lead_admits_whom_they_like(store, asked):
    answer(store, [False] * 3)
    for _ in range(2):
        admit(store.database, "ann", project="default")
    assert not store.counts("ann").held
    assert answer(store, [True]) == [asked[0]]
    with pytest.raises(StoreError, match="'zoe': not registered"):
        admit(store.database, "zoe", project="default")


def test_a_correction_counts_until_the_last_is_judged_and_not_after(store, asked):
    answer(store, [False, False])
    take_back(store, asked[4], "ann")
    assert answer(store, [True, True]) == [asked[4], asked[5]]
    assert not store.counts("ann").held

    answer(store, [False, False, True], "bob")
    assert store.counts("bob").held
    take_back(store, asked[4], "bob")
    assert answer(store, [True], "bob") == [asked[4]]  # what they take back they may judge again
    assert store.counts("bob").held


def test_a_skip_is_not_as_expected(store, asked):
    item = store.next_item("ann")
    skip = {"verdict": "skipped", "ranking": None, "reason": "unsafe"}
    store.submit(judge(item, **skip))
    answer(store, [True, False])
    assert store.counts("ann").held


def test_what_is_taken_back_comes_before_the_qualification(store, asked):
    set_qualification(store.database, "default", num_items=0, share=0.6)
    assert answer(store, [True]) == [asked[0]]
    set_qualification(store.database, "default", num_items=3, share=0.6)
    take_back(store, asked[0], "ann")
    assert answer(store, [True, True]) == [asked[0], asked[2]]


def test_an_item_that_is_gold_no_more_is_asked_for_no_more(store, asked):
    unmark_gold(store, asked[4])
    assert answer(store, [True, True, True]) == [asked[2], asked[5], asked[0]]
    for place in (2, 5):
        unmark_gold(store, asked[place])
    assert qualification_of(store.database, "default") is None
    assert store.counts("bob").qualifying == 0


def test_a_project_without_one_is_as_before(store, asked, add_items):
    set_qualification(store.database, "default", num_items=0, share=0.6)
    assert qualification_of(store.database, "default") is None
    assert answer(store, [False] * 4) == asked[:4]
    assert not store.counts("ann").held


def test_no_lease_of_others_is_taken_over_for_who_may_not_go_on(store: Store, add_items: Add):
    (gold,) = add_items(1)
    mark_gold(store, gold, BEST_LAST)
    store.add_annotator("eve", client="10.0.0.1")
    answer(store, [True], "eve")
    others = [store.add_item(f"more {n}", taken_from(store, gold), source="test") for n in range(3)]
    held: list[str] = []
    for _ in others:  # one network address has all that is left
        item = store.next_item("eve", holding=held)
        assert item is not None
        held.append(item.item_id)
    assert store.next_item("bob") is not None
    set_qualification(store.database, "default", num_items=1, share=1)
    answer(store, [False])
    assert store.next_item("ann") is None


@pytest.mark.parametrize(
    ("num_items", "share", "message"),
    [
        (4, 0.6, "expected at most 3, the gold items of project 'default', got 4; add gold items"),
        (21, 0.6, "expected 0 to 20 gold items, got 21"),
        (-1, 0.6, "expected 0 to 20 gold items, got -1"),
        (3, 0.0, "expected a share above 0 and at most 1, got 0"),
        (3, 1.01, "expected a share above 0 and at most 1, got 1.01"),
        (3, float("nan"), "expected a share above 0 and at most 1, got nan"),
    ],
)
def test_what_cannot_be_asked_is_refused_and_what_was_asked_stays(
    store, asked, num_items, share, message
):
    with pytest.raises(InputError, match=message):
        set_qualification(store.database, "default", num_items=num_items, share=share)
    assert qualification_of(store.database, "default") == Qualification(num_items=3, share=0.6)
