import copy
import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from imgalign.errors import InputError, StoreError
from imgalign.preferences.records import Counts, Item, Provenance, Submission
from imgalign.preferences.store import Store

Add = Callable[..., list[str]]


def judge(item: Item | None, annotator: str = "ann", **fields: Any) -> Submission:
    """A ranking of the candidates in display order, best first."""
    assert item is not None
    defaults: dict[str, Any] = {
        "key": f"{annotator}-{item.item_id}",
        "item_id": item.item_id,
        "annotator": annotator,
        "order": item.order,
        "ranking": tuple((index,) for index in item.order),
    }
    return Submission(**(defaults | fields))


def forged(submission: Submission, **fields: Any) -> Submission:
    """What a broken or hostile page could send, past our own type annotations."""
    forgery = copy.copy(submission)
    for name, value in fields.items():
        object.__setattr__(forgery, name, value)
    return forgery


def test_a_submitted_ranking_comes_back_as_it_was_given(store: Store, add_items: Add):
    add_items(1)
    item = store.next_item("ann")
    receipt = store.submit(judge(item, ranking=((2,), (1, 0)), client_ms=1234))
    assert receipt.created
    (ranking,) = store.rankings()
    assert ranking.ranking_id == receipt.ranking_id
    assert (ranking.prompt, ranking.annotator, ranking.group) == ("prompt 0", "ann", "warm")
    assert ranking.ranking == ((2,), (0, 1))
    assert ranking.order == item.order
    assert ranking.client_ms == 1234
    assert [store.provenance(image).seed for image in ranking.image_ids] == [0, 1, 2]
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
    assert [r.ranking for r in store.rankings()] == [((0,), (1,), (2,))]


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
        ({"ranking": ((0,), (1,))}, "each candidate 0 to 2 exactly once"),
        ({"ranking": ((0,), (1,), (2,), (2,))}, "each candidate 0 to 2 exactly once"),
        ({"ranking": ((0, 0), (1,), (2,))}, "each candidate 0 to 2 exactly once"),
        ({"ranking": ((0,), (1,), (3,))}, "each candidate 0 to 2 exactly once"),
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
        ({"ranking": (0, 1, 2)}, "expected candidate numbers"),
        ({"order": None}, "order: expected candidate numbers"),
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


def test_an_order_that_was_not_issued_is_refused(store: Store, add_items: Add):
    add_items(1)
    item = store.next_item("ann")
    with pytest.raises(InputError, match="as issued for this item"):
        store.submit(judge(item, order=item.order[::-1]))


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
    assert [(r.annotator, r.reason, r.key) for r in store.rankings()] == [(nasty,) * 3]


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
    submission = judge(store.next_item("ann"))
    store.submit(submission)
    assert store.next_item("ann").item_id == second  # already on screen when undo is pressed
    store.undo("ann", submission.key)
    assert list(store.rankings()) == []
    (undone,) = store.rankings(include_undone=True)
    assert undone.undone_at is not None
    again = store.next_item("ann")
    assert (again.item_id, again.order) == (first, submission.order)
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


def test_provenance_comes_back_whole(
    store: Store, png: Callable[..., bytes], provenance: Callable[..., Provenance]
):
    full = provenance(
        model="stable-diffusion-v1-5/stable-diffusion-v1-5",
        adapter="runs/a/step-000200",
        adapter_hash="ab" * 32,
        negative_prompt="blurry, é 🦊",
        seed=2**63 - 1,
        guidance_scale=0.1 + 0.2,
        eta=1.0,
        created_at=datetime(2026, 11, 22, 9, 0, 0, 123456, UTC),
    )
    image = store.add_image(png(1), full)
    assert store.provenance(image) == full
    with Image.open(store.image_path(image)) as opened:
        assert opened.size == (full.width, full.height)


def test_one_picture_made_in_two_ways_keeps_both_provenances(
    store: Store, png: Callable[..., bytes], provenance: Callable[..., Provenance]
):
    base, aligned = provenance(), provenance(adapter="runs/a")
    image = store.add_image(png(1), base)
    assert store.add_image(png(1), aligned) == image
    store.add_image(png(1), provenance())  # made again, later, in the same way
    assert store.provenances(image) == [base, aligned]


def test_a_seed_that_no_database_can_hold_is_refused(
    store: Store, png: Callable[..., bytes], provenance: Callable[..., Provenance]
):
    with pytest.raises(InputError, match=r"provenance.seed"):
        store.add_image(png(1), provenance(seed=2**63))


def test_an_item_on_screen_is_blind_to_model_seed_and_file(
    store: Store, png: Callable[..., bytes], provenance: Callable[..., Provenance]
):
    images = [
        store.add_image(
            png(index, parameters="secret-model, Seed: 424242"),
            provenance(model="secret-model", seed=424242, adapter="runs/secret-model"),
        )
        for index in range(4)
    ]
    store.add_item("a fox", images, source="secret-model against base")
    item = store.next_item("ann")
    shown = json.dumps([item.item_id, item.prompt, item.tokens])
    for secret in ("secret-model", "424242", *images):
        assert secret not in shown
    for token in item.tokens:
        blind = store.image_bytes_for_token(token, "ann")
        assert b"secret-model" in store.image_for_token(token, "ann").read_bytes()
        assert b"secret-model" not in blind
        assert b"424242" not in blind


def test_tokens_show_the_candidates_in_the_order_issued(store: Store, add_items: Add):
    add_items(1)
    item = store.next_item("ann")
    store.submit(judge(item))
    (ranking,) = store.rankings()
    shown = [store.image_for_token(token, "ann").stem for token in item.tokens]
    assert shown == [ranking.image_ids[candidate] for candidate in item.order]


def test_a_token_works_for_nobody_else(store: Store, add_items: Add):
    add_items(1, overlap=2)
    token = store.next_item("ann").tokens[0]
    assert token not in store.next_item("bob").tokens
    for stranger in ("bob", "eve"):
        with pytest.raises(StoreError, match="unknown, or issued to another annotator"):
            store.image_for_token(token, stranger)
    with pytest.raises(StoreError, match="unknown, or issued to another annotator"):
        store.image_for_token("../../etc/passwd", "ann")


def test_display_orders_differ_between_items_but_not_between_seeded_runs(
    tmp_path: Path, png: Callable[..., bytes], provenance: Callable[..., Provenance]
):
    def orders(run: str, seed: int | None) -> list[tuple[int, ...]]:
        url = f"sqlite:///{tmp_path / run}.db"
        with Store.open(url, images=tmp_path / "images", seed=seed) as store:
            store.add_annotator("ann")
            images = [store.add_image(png(k), provenance(seed=k)) for k in range(8)]
            for index in range(4):
                store.add_item(f"prompt {index}", images, source="test")
            held: dict[str, tuple[int, ...]] = {}
            while item := store.next_item("ann", holding=held):
                held[item.item_id] = item.order
            return list(held.values())

    first, second, other = orders("a", 1), orders("b", 1), orders("c", None)
    assert first == second
    assert len(set(first)) == 4
    assert first != other  # equal once in 40320 ** 4 times
    assert all(sorted(order) == list(range(8)) for order in first)


def test_a_lost_image_file_is_named(store: Store, add_items: Add):
    add_items(1)
    token = store.next_item("ann").tokens[0]
    path = store.image_for_token(token, "ann")
    path.unlink()
    with pytest.raises(StoreError, match=rf"{path.name}: image file is missing"):
        store.image_for_token(token, "ann")
    with pytest.raises(StoreError, match="not in"):
        store.image_path("f" * 64)
