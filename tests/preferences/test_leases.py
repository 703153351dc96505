"""Items in the store: who sees which next, and for how long."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from submissions import judge

from imgalign.errors import InputError, StoreError
from imgalign.preferences import leases
from imgalign.preferences.database import Database
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
    assert store.counts("bob") == Counts(done=0, left=1, waiting=0)
    add_items(2, overlap=2)
    add_items(2)
    assert store.counts("bob") == Counts(done=0, left=2, waiting=0)


def test_items_that_others_hold_are_counted_as_waiting_and_come_back(store: Store, add_items: Add):
    add_items(2, overlap=1)
    held = store.next_item("ann")
    assert store.counts("bob") == Counts(done=0, left=1, waiting=1)
    store.submit(judge(store.next_item("bob"), annotator="bob"))
    assert store.next_item("bob") is None
    assert store.counts("bob") == Counts(done=1, left=0, waiting=1)
    store.submit(judge(held))
    assert store.counts("bob") == Counts(done=1, left=0, waiting=0)
    assert store.counts("ann") == Counts(done=1, left=0, waiting=0)


def test_items_of_other_projects_are_not_shown(store: Store, add_items: Add):
    add_items(1)
    assert store.next_item("ann", project="other") is None
    assert store.counts("ann", project="other") == Counts(done=0, left=0, waiting=0)


def test_counts_follow_judging_and_undoing(store: Store, add_items: Add):
    add_items(3)
    assert store.counts("ann") == Counts(done=0, left=3, waiting=0)
    submission = judge(store.next_item("ann"))
    store.submit(submission)
    assert store.counts("ann") == Counts(done=1, left=2, waiting=0)
    assert store.counts("bob") == Counts(done=0, left=2, waiting=0)
    store.undo("ann", submission.key)
    assert store.counts("ann") == Counts(done=0, left=3, waiting=0)
    store.next_item("bob")
    # One is back on ann's screen.
    assert store.counts("bob") == Counts(done=0, left=2, waiting=1)


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


def test_what_was_fetched_ahead_a_moment_ago_is_given_again_without_writing_until_less_is_left(
    store: Store,
    add_items: Add,
    at: Callable[[timedelta], None],
    monkeypatch: pytest.MonkeyPatch,
):
    first, second = add_items(2)
    at(timedelta(0))
    store.next_item("ann")
    ahead = store.next_item("ann", holding=[first], prefetch=True)
    written: list[Database] = []
    write = Database.write
    monkeypatch.setattr(Database, "write", lambda self: written.append(self) or write(self))
    spare = leases.PREFETCH_LEASE - leases.PREFETCH_KEPT
    for moment, writes in ((spare, 0), (spare + timedelta(seconds=1), 1)):
        at(moment)
        assert store.next_item("ann", holding=[first], prefetch=True) == ahead
        assert len(written) == writes
    at(spare + leases.PREFETCH_LEASE)  # of which it was renewed for a second more
    assert store.next_item("bob") is None
    assert ahead.item_id == second


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
        ("a fox", 0, {}, "at least one candidate"),
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
    with pytest.raises(InputError, match="add the image or text before the item"):
        store.add_item("a fox", [image, "f" * 64], source="test")
    assert store.counts("ann") == Counts(done=0, left=0, waiting=0)


def test_an_annotator_is_registered_once_and_stays_in_the_group(store: Store):
    assert store.add_annotator("ann", group="warm").group == "warm"
    with pytest.raises(StoreError, match="already in group 'warm'"):
        store.add_annotator("ann", group="cool")
    assert [a.annotator_id for a in store.annotators()] == ["ann", "bob"]


def crowd(store: Store, num: int, client: str) -> list[str]:
    """So many names from one network address, each of which asks for an item and for the next."""
    names = [f"{client} {index}" for index in range(num)]
    for name in names:
        store.add_annotator(name, client=client)
        item = store.next_item(name)
        if item is not None:
            store.next_item(name, holding=[item.item_id], prefetch=True)
    return names


def test_one_client_under_many_names_does_not_keep_a_queue_from_the_others(
    store: Store, add_items: Add
):
    add_items(6)
    invented = crowd(store, 10, "192.0.2.7")
    assert store.counts("bob").left == 0
    real = [f"somebody {index}" for index in range(6)]
    for index, name in enumerate(real):
        store.add_annotator(name, client=f"198.51.100.{index}")
    given = [store.next_item(name) for name in real]
    # Each takes over one item, until the client has no more than half of the six.
    assert [item is not None for item in given] == [True, True, True, False, False, False]
    for name in invented:  # coming back does not help it
        store.next_item(name)
    for name, item in zip(real[:3], given[:3], strict=True):
        assert store.next_item(name) == item
        assert store.submit(judge(item, name)).created


def test_what_one_client_gave_up_can_still_be_submitted_there(store: Store, add_items: Add):
    add_items(2)
    store.add_annotator("ada", client="192.0.2.7")
    store.add_annotator("eve", client="192.0.2.7")
    slow = {name: store.next_item(name) for name in ("ada", "eve")}
    taken = store.next_item("bob")
    assert taken == store.issued_item(slow["ada"].item_id, "bob")  # the older lease of the two
    for name, item in slow.items():
        assert store.submit(judge(item, name)).created


def test_what_is_only_fetched_ahead_is_given_up_before_what_is_on_screen(
    store: Store, add_items: Add
):
    first, second = add_items(2)
    store.add_annotator("ada", client="192.0.2.7")
    assert store.next_item("ada").item_id == first
    store.next_item("ada", holding=[first], prefetch=True)
    assert store.next_item("bob").item_id == second


def test_people_behind_one_address_do_not_take_items_from_one_another(store: Store, add_items: Add):
    add_items(4)
    crowd(store, 4, "192.0.2.7")
    store.add_annotator("one more", client="192.0.2.7")
    assert store.next_item("one more") is None
    store.add_annotator("elsewhere", client="192.0.2.8")
    assert store.next_item("elsewhere", prefetch=True) is None  # nobody looks at it yet
    assert store.next_item("elsewhere") is not None


def test_the_last_item_stays_with_who_has_it_on_screen(store: Store, add_items: Add):
    add_items(1)
    store.add_annotator("ada", client="192.0.2.7")
    store.next_item("ada")
    assert store.next_item("bob") is None


def test_the_share_of_a_client_is_of_what_the_asker_can_still_judge(store: Store, add_items: Add):
    add_items(5, overlap=2)
    for _ in range(4):
        store.submit(judge(store.next_item("bob"), "bob"))
    for index in range(6):
        name = f"guest {index}"
        store.add_annotator(name, client="192.0.2.7" if index > 3 else f"198.51.100.{index}")
        store.next_item(name)
    # Others hold the second places of what bob has judged, one client both places of the fifth.
    assert store.next_item("bob") is not None
