"""Judgements that take the place of others, which may have arrived or not."""

from collections.abc import Callable

import pytest
from submissions import judge

from imgalign.errors import InputError, StoreError
from imgalign.preferences.checking import check_store
from imgalign.preferences.records import TieGroups
from imgalign.preferences.store import Store

Add = Callable[..., list[str]]
FORWARD: TieGroups = ((0,), (1,), (2,))
BACKWARD: TieGroups = ((2,), (1,), (0,))


def kept(store: Store, *, undone: bool = False) -> list[str]:
    return [each.key for each in store.rankings(include_undone=undone)]


@pytest.mark.parametrize("arrived", [(), ("first",), ("second",), ("first", "second")])
def test_a_correction_stands_alone_whichever_of_the_earlier_ones_arrived(
    store: Store, add_items: Add, arrived: tuple[str, ...]
):
    add_items(2)
    item = store.next_item("ann")
    for at, key in enumerate(arrived):
        store.submit(judge(item, key=key, ranking=FORWARD, replaces=arrived[:at]))
    correction = judge(item, key="third", ranking=BACKWARD, replaces=("first", "second"))
    receipts = [store.submit(correction) for _ in range(2)]
    assert [each.created for each in receipts] == [True, False]
    assert receipts[0].ranking_id == receipts[1].ranking_id
    assert kept(store) == ["third"]
    assert kept(store, undone=True) == [*arrived, "third"]
    assert store.counts("ann").done == 1
    assert store.next_item("ann").prompt == "prompt 1"  # it does not come again
    assert check_store(store).passed


def test_what_arrives_after_its_correction_changes_nothing(store: Store, add_items: Add):
    add_items(1)
    item = store.next_item("ann")
    store.submit(judge(item, key="second", ranking=BACKWARD, replaces=("first",)))
    with pytest.raises(StoreError, match="already judged"):
        store.submit(judge(item, key="first", ranking=FORWARD))
    assert kept(store) == ["second"]


def test_only_what_the_annotator_said_of_the_same_item_is_replaced(store: Store, add_items: Add):
    add_items(2, overlap=2)
    mine, theirs = store.next_item("ann"), store.next_item("bob")
    store.submit(judge(mine, key="of ann"))
    store.submit(judge(theirs, "bob", key="of bob"))
    other = store.next_item("ann")
    store.submit(judge(other, key="another", replaces=("of ann", "of bob")))
    assert kept(store) == ["of ann", "of bob", "another"]


def test_a_judgement_under_a_key_that_is_not_replaced_stands(store: Store, add_items: Add):
    add_items(1)
    item = store.next_item("ann")
    store.submit(judge(item, key="elsewhere"))
    with pytest.raises(StoreError, match="already judged"):
        store.submit(judge(item, key="second", ranking=BACKWARD, replaces=("first",)))
    assert kept(store, undone=True) == ["elsewhere"]


def test_nothing_is_taken_back_for_a_judgement_that_is_refused(store: Store, add_items: Add):
    add_items(1)
    item = store.next_item("ann")
    store.submit(judge(item, key="first"))
    for wrong in ({"ranking": ((0,), (1,))}, {"replaces": ("first", "\0")}):
        with pytest.raises(InputError):
            store.submit(judge(item, **{"key": "second", "replaces": ("first",)} | wrong))
    assert kept(store) == ["first"]
