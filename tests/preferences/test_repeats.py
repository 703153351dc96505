"""Sets that are asked again, and what they say of the annotators."""

from collections.abc import Callable

import pytest
from submissions import judge, on_screen

from imgalign.errors import InputError
from imgalign.preferences.checking import check_store
from imgalign.preferences.people import people_of
from imgalign.preferences.records import TieGroups
from imgalign.preferences.repeats import ask_again
from imgalign.preferences.store import Store
from imgalign.preferences.stored import item_samples

Add = Callable[..., list[str]]
SAME: TieGroups = ((1,), (0,), (2,))
OTHER: TieGroups = ((2,), (1,), (0,))


def judge_all(store: Store, who: str, order: TieGroups) -> int:
    """Judge what is left; the number of items."""
    count = 0
    while (item := store.next_item(who)) is not None:
        store.submit(judge(item, who, ranking=on_screen(store, item, order, who)))
        count += 1
    return count


def test_repeats_come_to_those_who_judged_before_and_tell_who_is_consistent(
    store: Store, add_items: Add
):
    add_items(4, overlap=2)
    for who in ("ann", "bob"):
        assert judge_all(store, who, SAME) == 4
    assert all(
        each.quality.self_consistency.count == 0 for each in people_of(store, "default").people
    )
    repeats = ask_again(store, "default", count=3, seed=1)
    assert len(set(repeats)) == 3
    assert judge_all(store, "ann", SAME) == 3
    assert judge_all(store, "bob", OTHER) == 3
    found = {each.annotator.name: each.quality for each in people_of(store, "default").people}
    consistency = {name: each.self_consistency for name, each in found.items()}
    assert (consistency["ann"].value, consistency["ann"].count) == (1, 9)
    # Of three pairs of each set the other order keeps one.
    assert (consistency["bob"].value, consistency["bob"].count) == (pytest.approx(1 / 3), 9)
    assert len(list(store.rankings())) == 14  # they count
    assert check_store(store).passed


def test_a_repeat_has_the_same_candidates_and_is_not_repeated(store: Store, add_items: Add):
    items = add_items(3)
    judge_all(store, "ann", SAME)
    first = ask_again(store, "default", count=2)
    samples = {each.item_id: each.sample_ids for each in item_samples(store, [*items, *first])}
    assert all(samples[each] in [samples[item] for item in items] for each in first)
    (last,) = ask_again(store, "default", count=1)
    assert len({samples[each] for each in first} | {item_samples(store, [last])[0].sample_ids}) == 3
    judge_all(store, "ann", SAME)
    with pytest.raises(InputError, match="expected at most 0, got 1"):
        ask_again(store, "default", count=1)


@pytest.mark.parametrize(
    ("count", "overlap", "message"),
    [
        (0, None, "sets to ask again: expected 1 to 100, got 0"),
        (101, None, "sets to ask again: expected 1 to 100, got 101"),
        (2, None, "expected at most 1, got 2; so many sets of project 'default' are judged"),
        (1, 0, "annotators: expected 1 to 10000, got 0"),
    ],
)
def test_what_cannot_be_asked_again_is_refused(store, add_items, count, overlap, message):
    (judged, *_) = add_items(2)
    store.submit(judge(store.next_item("ann")))
    assert [each.item_id for each in store.rankings()] == [judged]
    with pytest.raises(InputError, match=message):
        ask_again(store, "default", count=count, overlap=overlap)
