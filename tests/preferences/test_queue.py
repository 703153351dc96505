"""Items in the store: who sees which next, and for how long."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from submissions import judge

from imgalign.errors import InputError, StoreError
from imgalign.preferences import leases
from imgalign.preferences.records import Counts, Provenance, utc_now
from imgalign.preferences.store import Store

Add = Callable[..., list[str]]


def test_reload_shows_the_same_item_in_the_same_order(store: Store, add_items: Add):
    add_items(3)
    assert store.next_item("ann") == store.next_item("ann")


def test_an_issued_item_can_be_looked_up_by_its_annotator_only(store: Store, add_items: Add):
    add_items(1)
    item = store.next_item("ann")
    store.submit(judge(item))
    assert store.issued_item(item.item_id, "ann") == item
    with pytest.raises(StoreError, match="not issued to annotator 'bob'"):
        store.issued_item(item.item_id, "bob")


def test_holding_items_fetches_the_ones_after(store: Store, add_items: Add):
    item_ids = add_items(3)
    held: list[str] = []
    while item := store.next_item("ann", holding=held):
        held.append(item.item_id)
    assert held == item_ids


def test_an_item_on_one_screen_goes_to_nobody_else_until_the_lease_ends(
    url: str, tmp_path: Path, store: Store, add_items: Add
):
    (item_id,) = add_items(1)
    with Store.open(url, images=tmp_path / "images", lease=timedelta(0)) as forgetful:
        slow = forgetful.next_item("ann")
    assert store.next_item("bob").item_id == item_id  # ann's lease has run out
    assert store.next_item("ann") is None  # bob's has not
    assert store.submit(judge(slow)).created  # late work still counts
    assert store.next_item("bob") is None


def test_two_annotators_rank_the_same_item_until_the_overlap_is_exhausted(
    store: Store, add_items: Add
):
    (item_id,) = add_items(1, overlap=2)
    store.add_annotator("eve")
    for annotator in ("ann", "bob"):
        assert store.next_item(annotator).item_id == item_id
    assert store.next_item("eve") is None
    for annotator in ("ann", "bob"):
        store.submit(judge(store.next_item(annotator), annotator))
    assert store.next_item("eve") is None


def test_a_skipped_item_goes_to_somebody_else(store: Store, add_items: Add):
    (item_id,) = add_items(1)
    item = store.next_item("ann")
    store.submit(judge(item, verdict="skipped", ranking=None, reason="cannot tell"))
    assert store.next_item("ann") is None
    assert store.next_item("bob").item_id == item_id


def test_adding_an_item_again_changes_nothing_but_a_raised_overlap(store: Store, add_items: Add):
    assert add_items(2) == add_items(2)
    store.submit(judge(store.next_item("ann")))
    assert store.counts("bob") == Counts(done=0, left=1)
    add_items(2, overlap=2)
    add_items(2)
    assert store.counts("bob") == Counts(done=0, left=2)


def test_items_of_other_projects_are_not_shown(store: Store, add_items: Add):
    add_items(1)
    assert store.next_item("ann", project="other") is None
    assert store.counts("ann", project="other") == Counts(done=0, left=0)


def test_counts_follow_judging_and_undoing(store: Store, add_items: Add):
    add_items(3)
    assert store.counts("ann") == Counts(done=0, left=3)
    submission = judge(store.next_item("ann"))
    store.submit(submission)
    assert store.counts("ann") == Counts(done=1, left=2)
    assert store.counts("bob") == Counts(done=0, left=2)
    store.undo("ann", submission.key)
    assert store.counts("ann") == Counts(done=0, left=3)
    store.next_item("bob")
    assert store.counts("bob") == Counts(done=0, left=2)  # one is back on ann's screen


def test_history_is_newest_first_and_holds_the_key_to_undo(store: Store, add_items: Add):
    item_ids = add_items(3)
    for _ in item_ids:
        store.submit(judge(store.next_item("ann")))
    assert [r.item_id for r in store.history("ann", 2)] == item_ids[:0:-1]
    store.undo("ann", store.history("ann", 1)[0].key)
    assert [r.item_id for r in store.history("ann")] == item_ids[1::-1]
    assert len(store.history("ann", include_undone=True)) == 3
    assert store.history("bob") == []


def test_history_of_a_project_reaches_behind_any_number_of_others(
    store: Store, png: Callable[..., bytes], provenance: Callable[..., Provenance]
):
    images = [store.add_image(png(k), provenance(seed=k)) for k in range(2)]
    for project, num in (("cats", 1), ("dogs", 25)):
        for index in range(num):
            store.add_item(f"prompt {index}", images, source="test", project=project)
            store.submit(judge(store.next_item("ann", project=project)))
    (only,) = store.history("ann", 1, project="cats")
    assert only.project == "cats"
    assert {r.project for r in store.history("ann", 20)} == {"dogs"}


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[timedelta], None]:
    """Sets the store's clock to so long after now."""
    start = utc_now()

    def move(by: timedelta) -> None:
        monkeypatch.setattr("imgalign.preferences.store.utc_now", lambda: start + by)

    return move


def test_an_item_fetched_ahead_is_reserved_briefly_and_one_on_screen_for_longer(
    store: Store, add_items: Add, at: Callable[[timedelta], None]
):
    first, second = add_items(2)
    at(timedelta(0))
    assert store.next_item("ann").item_id == first
    assert store.next_item("ann", holding=[first], prefetch=True).item_id == second
    assert store.next_item("bob") is None
    at(leases.PREFETCH_LEASE + timedelta(seconds=1))
    assert store.next_item("bob").item_id == second
    assert store.next_item("ann").item_id == first


def test_fetching_ahead_does_not_shorten_the_lease_of_what_is_on_screen(
    store: Store, add_items: Add, at: Callable[[timedelta], None]
):
    add_items(1)
    at(timedelta(0))
    store.next_item("ann")
    store.next_item("ann", prefetch=True)  # from a second window
    at(leases.LEASE - timedelta(seconds=1))
    assert store.next_item("bob") is None
    at(leases.LEASE + timedelta(seconds=1))
    assert store.next_item("bob") is not None


def test_one_annotator_holds_few_items_and_the_oldest_give_way(store: Store, add_items: Add):
    item_ids = add_items(leases.MAX_HELD + 2)
    held: list[str] = []
    while item := store.next_item("ann", holding=held):
        held.append(item.item_id)
    free = [store.next_item("bob", holding=item_ids[:k]) for k in (0, 1)]
    assert [item and item.item_id for item in free] == item_ids[:2]
    assert store.next_item("bob", holding=item_ids[:2]) is None
    assert store.submit(judge(store.issued_item(item_ids[0], "ann"))).created


def test_a_lease_from_a_clock_that_was_ahead_holds_nothing(
    store: Store, add_items: Add, at: Callable[[timedelta], None]
):
    (item_id,) = add_items(1)
    at(timedelta(days=90))
    ahead = store.next_item("ann")
    at(timedelta(0))
    assert store.next_item("bob").item_id == item_id
    assert store.next_item("ann") is None
    assert store.submit(judge(ahead)).created


def test_the_clocks_of_two_servers_may_differ_a_little(
    store: Store, add_items: Add, at: Callable[[timedelta], None]
):
    add_items(1)
    at(timedelta(minutes=2))
    store.next_item("ann")
    at(timedelta(0))
    assert store.next_item("bob") is None


def test_an_annotator_whose_own_lease_is_from_the_future_gets_a_true_one(
    store: Store, add_items: Add, at: Callable[[timedelta], None]
):
    (item_id,) = add_items(1)
    at(timedelta(days=90))
    store.next_item("ann")
    at(timedelta(0))
    assert store.next_item("ann").item_id == item_id
    assert store.next_item("bob") is None
    at(leases.LEASE + timedelta(seconds=1))
    assert store.next_item("bob").item_id == item_id


@pytest.mark.parametrize(
    ("prompt", "count", "options", "message"),
    [
        ("a fox", 1, {}, "at least 2 candidates"),
        ("  ", 3, {}, "expected a prompt"),
        ("a fox", 3, {"overlap": 0}, "overlap of at least 1"),
        ("a fox", 3, {"project": ""}, "project: expected a name"),
    ],
)
def test_an_item_that_nobody_could_rank_is_refused(
    store: Store, prompt: str, count: int, options: dict[str, Any], message: str
):
    with pytest.raises(InputError, match=message):
        store.add_item(prompt, [str(index) for index in range(count)], source="test", **options)


def test_an_item_needs_different_images_that_are_in_the_store(
    store: Store, png: Callable[..., bytes], provenance: Callable[..., Provenance]
):
    image = store.add_image(png(1), provenance())
    with pytest.raises(InputError, match="same image"):
        store.add_item("a fox", [image, image], source="test")
    with pytest.raises(InputError, match="add the image before the item"):
        store.add_item("a fox", [image, "f" * 64], source="test")
    assert store.counts("ann") == Counts(done=0, left=0)


def test_an_annotator_is_registered_once_and_stays_in_the_group(store: Store):
    assert store.add_annotator("ann", group="warm").group == "warm"
    with pytest.raises(StoreError, match="already in group 'warm'"):
        store.add_annotator("ann", group="cool")
    assert [a.annotator_id for a in store.annotators()] == ["ann", "bob"]
