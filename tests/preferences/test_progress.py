"""How far a team is with a project, counted by hand."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from judges import judge_next
from submissions import judge

from imgalign.preferences.attention import add_attention
from imgalign.preferences.exclusions import exclude
from imgalign.preferences.gold import mark_gold
from imgalign.preferences.progress import HOURS, ProjectProgress, project_progress
from imgalign.preferences.records import utc_now
from imgalign.preferences.store import Store

Add = Callable[..., list[str]]
ALL_BAD = {"verdict": "all_bad", "ranking": None}
SKIPPED = {"verdict": "skipped", "ranking": None, "reason": "unsafe"}


def rank(store: Store, who: str, count: int, **fields) -> None:
    for _ in range(count):
        store.submit(judge(store.next_item(who), who, **fields))


def test_items_are_complete_with_all_their_rankings_and_the_others_are_still_to_come(
    store: Store, add_items: Add
):
    add_items(4, overlap=2)
    add_items(2, project="cats", first=4)
    begun = project_progress(store, "default")
    assert (begun.items, begun.complete, begun.left, begun.out_of_reach) == (4, 0, 8, 0)
    assert (begun.recent, begun.hours_left) == (0, None)
    rank(store, "ann", 3)
    rank(store, "bob", 1, **ALL_BAD)
    found = project_progress(store, "default")
    assert (found.items, found.complete, found.left, found.recent) == (4, 1, 4, 4)
    rank(store, "ann", 1)
    rank(store, "bob", 3)
    found = project_progress(store, "default")
    assert (found.complete, found.left, found.hours_left) == (4, 0, 0)


def test_a_project_without_items_has_come_nowhere(store: Store):
    assert project_progress(store, "none") == ProjectProgress(
        items=0, complete=0, left=0, out_of_reach=0, recent=0, per_hour=0
    )


def test_skips_ai_judges_attention_items_and_what_is_taken_back_or_excluded_are_no_progress(
    store: Store, add_items: Add, png, provenance
):
    add_items(3, overlap=3)
    castle = [store.add_image(png(k), provenance(prompt="an old castle")) for k in (91, 92, 93)]
    store.add_item("an old castle", castle, source="test", overlap=3)
    (attention,) = add_attention(store, "default", count=1, overlap=9)
    for who in ("ann", "bob"):
        skips = [SKIPPED]
        while (item := store.next_item(who)) is not None:
            fields = skips.pop() if skips and item.item_id != attention else {}
            store.submit(judge(item, who, **fields))
    last = next(each for each in store.history("ann") if each.item_id != attention and each.ranking)
    store.undo("ann", last.key)
    judge_next(store)
    exclude(store.database, "bob", project="default")
    found = project_progress(store, "default")
    assert (found.items, found.complete, found.left, found.recent) == (4, 0, 10, 2)
    # Of three rankings each ann may give one, and none of what she skipped.
    assert found.out_of_reach == 9


def test_rankings_that_need_more_annotators_than_there_are_take_no_time(
    store: Store, add_items: Add
):
    item, *_ = add_items(3, overlap=2)
    mark_gold(store, item, ((0,), (1, 2)), overlap=20)
    rank(store, "ann", 3)
    alone = project_progress(store, "default")
    assert (alone.left, alone.out_of_reach, alone.hours_left) == (21, 21, 0)
    rank(store, "bob", 1)
    found = project_progress(store, "default")
    assert (found.left, found.out_of_reach) == (20, 18)


def test_what_who_is_alone_has_skipped_takes_no_time(store: Store, add_items: Add):
    add_items(3)
    store.submit(judge(store.next_item("ann"), **SKIPPED))
    rank(store, "ann", 2)
    found = project_progress(store, "default")
    assert (found.complete, found.left, found.out_of_reach, found.hours_left) == (2, 1, 1, 0)


@pytest.mark.parametrize(
    ("minutes", "per_hour", "hours_left"),
    [
        ((), 0, None),
        ((1,), 6, 1.5),  # one in ten minutes at least
        ((60, 30, 1), 3, 7 / 3),
        ((60 * HOURS + 1, 60, 30), 2, 3.5),  # the first is too long ago
        ((-5,), 0, None),  # a clock that goes wrong
    ],
)
def test_the_pace_is_that_of_the_last_hours_and_gives_the_time_left(
    store: Store, add_items: Add, monkeypatch, minutes, per_hour, hours_left
):
    now = utc_now()
    add_items(10)
    for each in minutes:
        at = now - timedelta(minutes=each)
        monkeypatch.setattr("imgalign.preferences.store.utc_now", lambda at=at: at)
        rank(store, "ann", 1)
    found = project_progress(store, "default", now=now)
    assert found.per_hour == pytest.approx(per_hour)
    assert found.hours_left == (None if hours_left is None else pytest.approx(hours_left))
