"""Rankings in the store: taken once, kept for ever, taken back by appending."""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from submissions import forged, judge

from imgalign.errors import InputError, StoreError
from imgalign.preferences.records import as_candidates, as_positions
from imgalign.preferences.store import Store

Add = Callable[..., list[str]]


def test_a_submitted_ranking_comes_back_as_it_was_given(store: Store, add_items: Add):
    add_items(1)
    item = store.next_item("ann")
    shown = [store.image_for_token(token, "ann").stem for token in item.tokens]
    receipt = store.submit(judge(item, ranking=((2,), (1, 0)), client_ms=1234))
    assert receipt.created
    (ranking,) = store.rankings()
    assert ranking.ranking_id == receipt.ranking_id
    assert (ranking.prompt, ranking.annotator, ranking.group) == ("prompt 0", "ann", "warm")
    named = [{ranking.sample_ids[candidate] for candidate in group} for group in ranking.ranking]
    assert named == [{shown[2]}, {shown[0], shown[1]}]
    assert [ranking.sample_ids[candidate] for candidate in ranking.order] == shown
    assert ranking.client_ms == 1234
    assert [store.provenance(image).seed for image in ranking.sample_ids] == [0, 1, 2]
    assert abs(ranking.created_at - datetime.now(UTC)) < timedelta(minutes=1)


def test_rankings_survive_closing_and_opening_the_store(
    store: Store, add_items: Add, url: str, tmp_path: Path
):
    add_items(2)
    for _ in range(2):
        store.submit(judge(store.next_item("ann")))
    before = list(store.rankings())
    store.close()
    with Store.open(url, images=tmp_path / "images") as again:
        assert list(again.rankings()) == before
        assert again.next_item("ann") is None


def test_rankings_are_read_whole_across_pages(
    store: Store, add_items: Add, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("imgalign.preferences.store.PAGE", 2)
    item_ids = add_items(5)
    for _ in item_ids:
        store.submit(judge(store.next_item("ann")))
    assert [ranking.item_id for ranking in store.rankings()] == item_ids


def test_rankings_can_be_filtered_by_group_and_annotator(store: Store, add_items: Add):
    add_items(1, overlap=2)
    for annotator in ("ann", "bob"):
        store.submit(judge(store.next_item(annotator), annotator))
    assert [r.annotator for r in store.rankings(group="cool")] == ["bob"]
    assert [r.annotator for r in store.rankings(annotator="ann")] == ["ann"]
    assert list(store.rankings(project="other")) == []


def test_the_same_key_gives_the_same_receipt_and_one_row(store: Store, add_items: Add):
    add_items(1)
    submission = judge(store.next_item("ann"))
    first, second = store.submit(submission), store.submit(submission)
    assert (first.created, second.created) == (True, False)
    assert first.ranking_id == second.ranking_id
    assert len(list(store.rankings())) == 1


def test_a_retry_that_only_took_longer_is_the_same_judgement(store: Store, add_items: Add):
    add_items(1)
    item = store.next_item("ann")
    first = store.submit(judge(item, ranking=((0, 2), (1,)), client_ms=10))
    retry = store.submit(judge(item, ranking=((2, 0), (1,)), client_ms=99))
    assert retry.ranking_id == first.ranking_id


def test_other_content_under_a_used_key_is_refused(store: Store, add_items: Add):
    add_items(1)
    item = store.next_item("ann")
    store.submit(judge(item, ranking=((0,), (1,), (2,))))
    with pytest.raises(StoreError, match="already used for another judgement"):
        store.submit(judge(item, ranking=((1,), (0,), (2,))))
    assert [r.ranking for r in store.rankings()] == [
        as_candidates(((0,), (1,), (2,)), store.display_order(item.item_id, "ann"))
    ]


def test_keys_of_different_annotators_do_not_collide(store: Store, add_items: Add):
    add_items(1, overlap=2)
    for annotator in ("ann", "bob"):
        assert store.submit(judge(store.next_item(annotator), annotator, key="1")).created


def test_twenty_threads_with_one_key_make_one_row(store: Store, add_items: Add):
    add_items(1)
    submission = judge(store.next_item("ann"))
    with ThreadPoolExecutor(20) as threads:
        receipts = list(threads.map(lambda _: store.submit(submission), range(20)))
    assert sum(receipt.created for receipt in receipts) == 1
    assert len({receipt.ranking_id for receipt in receipts}) == 1
    assert len(list(store.rankings())) == 1


def test_twenty_threads_with_twenty_keys_make_one_judgement_of_an_item(
    store: Store, add_items: Add
):
    add_items(1)
    item = store.next_item("ann")

    with ThreadPoolExecutor(20) as threads:
        sent = [threads.submit(store.submit, judge(item, key=str(index))) for index in range(20)]
    errors = [future.exception() for future in sent]
    assert errors.count(None) == 1
    assert sum("already judged" in str(error) for error in errors) == 19


def test_twenty_annotators_at_once_never_exceed_the_overlap(store: Store, add_items: Add):
    add_items(4, overlap=3)
    names = [f"annotator {index}" for index in range(20)]
    for name in names:
        store.add_annotator(name)
    with ThreadPoolExecutor(20) as threads:
        items = list(threads.map(store.next_item, names))
    shown = [item.item_id for item in items if item is not None]
    assert len(shown) == 4 * 3
    assert {shown.count(item_id) for item_id in shown} == {3}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ranking": ((0,), (1,))}, "each position 0 to 2 exactly once"),
        ({"ranking": ((0,), (1,), (2,), (2,))}, "each position 0 to 2 exactly once"),
        ({"ranking": ((0, 0), (1,), (2,))}, "each position 0 to 2 exactly once"),
        ({"ranking": ((0,), (1,), (3,))}, "each position 0 to 2 exactly once"),
        ({"ranking": ((0, 1, 2), ())}, "tie group is empty"),
        ({"ranking": None}, "expected tie groups"),
        ({"reason": "blurred"}, "not with 'ranked'"),
        ({"verdict": "all_bad"}, "expected none with the verdict 'all_bad'"),
        ({"verdict": "skipped", "ranking": None}, "why the item was skipped"),
        ({"verdict": "skipped", "ranking": None, "reason": "  "}, "why the item was skipped"),
        ({"key": ""}, "key: expected a name"),
        ({"key": "k" * 201}, "at most 200 characters"),
        ({"key": "a\0b"}, "cannot be stored"),
        ({"client_ms": -1}, "client_ms"),
        ({"verdict": "splendid"}, "verdict: expected one of"),
        ({"ranking": ((False,), (True,), (2,))}, "expected a whole number"),
        ({"ranking": ((0.0,), (1,), (2,))}, "expected a whole number"),
        ({"ranking": "012"}, "expected tie groups"),
        ({"ranking": (0, 1, 2)}, "expected a list of whole numbers"),
        ({"verdict": "skipped", "ranking": None, "reason": 5}, "reason: expected text"),
        ({"key": None}, "key: expected a name"),
    ],
)
def test_an_inconsistent_submission_is_refused_and_leaves_nothing(
    store: Store, add_items: Add, fields: dict[str, Any], message: str
):
    add_items(1)
    item = store.next_item("ann")
    with pytest.raises(InputError, match=re.escape(message)):
        store.submit(forged(judge(item), **fields))
    assert list(store.rankings(include_undone=True)) == []
    assert store.submit(judge(item)).created


def test_nothing_in_a_submission_alters_the_order_in_which_the_images_were_shown(
    store: Store, add_items: Add
):
    add_items(3, overlap=2)
    for annotator in ("ann", "bob"):
        for ranking in (((2,), (1,), (0,)), ((0, 1, 2),), ((1,), (0, 2))):
            item = store.next_item(annotator)
            issued = store.display_order(item.item_id, annotator)
            sent = judge(item, annotator, ranking=ranking)
            store.submit(sent)
            kept = store.judgement(annotator, sent.key)
            assert (kept.order, store.display_order(item.item_id, annotator)) == (issued, issued)
            assert as_positions(kept.ranking, issued) == ranking


def test_what_was_on_screen_before_a_restart_is_what_is_judged_after_it(
    store: Store, add_items: Add, url: str, tmp_path: Path
):
    add_items(1)
    item = store.next_item("ann")
    shown = [store.image_for_token(token, "ann").stem for token in item.tokens]
    store.close()
    with Store.open(url, images=tmp_path / "images") as again:
        receipt = again.submit(judge(item, ranking=((1,), (2,), (0,))))
        (ranking,) = again.rankings()
        assert ranking.ranking_id == receipt.ranking_id
        best_first = [ranking.sample_ids[candidate] for (candidate,) in ranking.ranking]
        assert best_first == [shown[1], shown[2], shown[0]]


def test_the_bias_of_positions_can_be_read_from_what_is_stored(store: Store, add_items: Add):
    add_items(20)
    while (item := store.next_item("ann")) is not None:
        store.submit(judge(item))  # as one who always likes best what stands first
    kept = list(store.rankings())
    assert {ranking.order.index(ranking.ranking[0][0]) for ranking in kept} == {0}
    # All of 20 first images are one candidate once in 3 ** 19 times.
    assert len({ranking.ranking[0] for ranking in kept}) > 1


def test_an_item_that_was_not_issued_to_the_annotator_is_refused(store: Store, add_items: Add):
    add_items(1, overlap=2)
    item = store.next_item("ann")
    with pytest.raises(StoreError, match="not issued to annotator 'bob'"):
        store.submit(judge(item, "bob"))


def test_an_unknown_annotator_is_refused_everywhere(store: Store, add_items: Add):
    add_items(1)
    item = store.next_item("ann")
    with pytest.raises(StoreError, match="'eve': not registered"):
        store.submit(judge(item, "eve"))
    with pytest.raises(StoreError, match="'eve': not registered"):
        store.next_item("eve")
    with pytest.raises(StoreError, match="'eve': not registered"):
        store.undo("eve", "key")


def test_sql_in_a_text_is_only_text(store: Store, add_items: Add):
    add_items(1)
    nasty = "'); DROP TABLE rankings; --"
    store.add_annotator(nasty)
    item = store.next_item(nasty)
    store.submit(judge(item, nasty, key=nasty, verdict="skipped", ranking=None, reason=nasty))
    kept = [(r.annotator, r.reason, r.key) for r in store.rankings()]
    assert kept == [(nasty.casefold(), nasty, nasty)]


def test_all_bad_and_skipped_keep_their_reasons(store: Store, add_items: Add):
    add_items(2)
    store.submit(judge(store.next_item("ann"), verdict="all_bad", ranking=None))
    store.submit(judge(store.next_item("ann"), verdict="skipped", ranking=None, reason="unsafe"))
    kept = [(r.verdict, r.reason, r.ranking) for r in store.rankings()]
    assert kept == [("all_bad", None, None), ("skipped", "unsafe", None)]


def test_undo_keeps_the_ranking_on_record_and_brings_the_item_back_first(
    store: Store, add_items: Add
):
    first, second = add_items(2)
    shown = store.next_item("ann")
    submission = judge(shown)
    store.submit(submission)
    assert store.next_item("ann").item_id == second  # already on screen when undo is pressed
    store.undo("ann", submission.key)
    assert list(store.rankings()) == []
    (undone,) = store.rankings(include_undone=True)
    assert undone.undone_at is not None
    again = store.next_item("ann")
    assert (again.item_id, again) == (first, shown)
    store.submit(judge(again, key="second try"))
    assert store.next_item("ann").item_id == second
    assert [r.key for r in store.rankings()] == ["second try"]
    assert len(list(store.rankings(include_undone=True))) == 2


def test_undo_brings_back_a_later_item_before_an_earlier_one_on_screen(
    store: Store, add_items: Add
):
    first, second = add_items(2)
    held = store.next_item("ann")
    other = store.next_item("ann", holding=[first])
    assert (held.item_id, other.item_id) == (first, second)
    store.submit(judge(other))
    store.undo("ann", f"ann-{second}")
    assert store.next_item("ann").item_id == second


def test_undoing_twice_is_undoing_once(store: Store, add_items: Add):
    add_items(1)
    submission = judge(store.next_item("ann"))
    receipt = store.submit(submission)
    assert [store.undo("ann", submission.key).created for _ in range(2)] == [True, False]
    assert store.submit(submission).ranking_id == receipt.ranking_id  # a late retry
    assert list(store.rankings()) == []


def test_undo_of_undo_by_ranking_again_can_be_repeated(store: Store, add_items: Add):
    add_items(1)
    for attempt in range(4):
        key = f"attempt {attempt}"
        store.submit(judge(store.next_item("ann"), key=key))
        assert [r.key for r in store.rankings()] == [key]
        store.undo("ann", key)
    assert len(list(store.rankings(include_undone=True))) == 4


def test_only_the_own_judgement_can_be_undone(store: Store, add_items: Add):
    add_items(1)
    submission = judge(store.next_item("ann"))
    store.submit(submission)
    with pytest.raises(StoreError, match="nothing by annotator 'bob' to undo"):
        store.undo("bob", submission.key)
    assert len(list(store.rankings())) == 1


def test_a_judgement_is_found_by_its_key_however_many_came_after(store: Store, add_items: Add):
    first, *_ = add_items(30)
    for index in range(30):
        store.submit(judge(store.next_item("ann"), key=f"key {index}"))
    store.undo("ann", "key 0")
    judged = store.judgement("ann", "key 0")
    assert (judged.item_id, judged.undone_at is not None) == (first, True)
    assert store.judgement("ann", "key 1").undone_at is None
    with pytest.raises(StoreError, match="nothing by annotator 'bob'"):
        store.judgement("bob", "key 0")


@pytest.mark.parametrize("name", ["\ud800", "caf\udce9"])
def test_a_name_that_is_not_utf_8_is_one_line_wherever_it_is_asked_for(
    store: Store, add_items: Add, name: str
):
    add_items(1)
    store.submit(judge(store.next_item("ann")))
    for ask in (
        lambda: store.next_item("ann", project=name),
        lambda: store.next_item(name),
        lambda: store.annotator(name),
        lambda: store.counts("ann", project=name),
        lambda: store.history("ann", project=name),
        lambda: list(store.rankings(group=name)),
        lambda: store.undo("ann", name),
        lambda: store.image_for_token(name, "ann"),
        lambda: Store.open(f"sqlite:///{name}.db"),
        lambda: Store.open(f"sqlite:///{name}\0.db"),
    ):
        with pytest.raises((InputError, StoreError)) as raised:
            ask()
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE rankings SET verdict = 'skipped'",
        "DELETE FROM rankings",
        "UPDATE undos SET created_at = created_at",
        "DELETE FROM undos",
    ],
)
def test_the_database_itself_refuses_to_change_history(
    store: Store, add_items: Add, statement: str
):
    add_items(1)
    submission = judge(store.next_item("ann"))
    store.submit(submission)
    store.undo("ann", submission.key)
    with pytest.raises(DBAPIError, match="append-only"), store.database.write() as connection:
        connection.execute(text(statement))
