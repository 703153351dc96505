import re
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from fastapi import Request
from pydantic import ValidationError
from texts import add_texts

from imgalign.errors import InputError, StoreError
from imgalign.preferences import choosing
from imgalign.preferences.exchange import export_rankings, import_rankings
from imgalign.preferences.issued import item_named
from imgalign.preferences.leases import PREFETCH_LEASE
from imgalign.preferences.own_votes import Judged
from imgalign.preferences.queue_order import set_priorities, set_queue_order
from imgalign.preferences.records import utc_now
from imgalign.preferences.store import Store
from ui.api import rank
from ui.api.projects import Rankable, chosen_project, own_projects
from ui.api.shown import image, text


def answer(shown, *, key="key-0001", annotator="Ada", **changes):
    ranked = {
        "ranking": [[position] for position in range(len(shown.candidates))],
        "verdict": "ranked",
    }
    asked = {"annotator": annotator, "key": key, "item": shown.item}
    return rank.Answer(**(asked | ranked | changes))


def tokens_of(shown):
    return [image.token for image in shown.candidates]


def test_positions_on_the_screen_reach_the_store_in_candidate_numbers(store, add_items):
    add_items(1)
    shown = rank.next_item(store, "Ada")
    paths = [store.image_for_token(token, "Ada").stem for token in tokens_of(shown)]
    rank.submit(store, answer(shown, ranking=[[2], [0, 3], [1]]))
    (stored,) = store.rankings()
    named = [{stored.sample_ids[candidate] for candidate in group} for group in stored.ranking]
    assert named == [{paths[2]}, {paths[0], paths[3]}, {paths[1]}]


def test_the_same_key_twice_gives_the_same_receipt_and_one_row(store, add_items):
    add_items(1)
    shown = rank.next_item(store, "Ada")
    first, second = (rank.submit(store, answer(shown)) for _ in range(2))
    assert (first.created, second.created) == (True, False)
    assert first.receipt == second.receipt
    assert len(list(store.rankings())) == 1


def test_many_submissions_of_one_key_at_once_leave_one_row(store, add_items):
    add_items(1)
    shown = rank.next_item(store, "Ada")
    with ThreadPoolExecutor(8) as pool:
        saved = list(pool.map(lambda _: rank.submit(store, answer(shown)), range(16)))
    assert sum(each.created for each in saved) == 1
    assert len(list(store.rankings())) == 1


def test_the_same_item_stays_on_screen_until_it_is_judged(store, add_items):
    add_items(2)
    first = rank.next_item(store, "Ada")
    assert rank.next_item(store, "Ada") == first
    rank.submit(store, answer(first))
    assert rank.next_item(store, "Ada").item != first.item


def test_the_images_to_prefetch_are_those_of_the_next_two_items(store, add_items):
    add_items(4)
    first = rank.next_item(store, "Ada")
    urls = []
    for key in ("key-0001", "key-0002"):
        rank.submit(store, answer(rank.next_item(store, "Ada"), key=key))
        urls += [shown.url for shown in rank.next_item(store, "Ada").candidates]
    assert urls == first.next


@pytest.mark.parametrize("order", ["oldest", "informative"])
def test_the_coming_items_are_given_as_they_will_be_shown(store, add_items, monkeypatch, order):
    monkeypatch.setattr(choosing, "EXPLORED", 0.0)
    # The newest tells most: in this order what comes later is older.
    nats = {item_id: float(number) for number, item_id in enumerate(add_items(3))}
    set_queue_order(store.database, "default", order)
    set_priorities(store.database, "default", nats)
    first = rank.next_item(store, "Ada")
    assert [coming.seconds for coming in first.after] == [90, 90]
    shown = [first]
    for number, coming in enumerate(first.after):
        rank.submit(store, answer(shown[-1], key=f"key-000{number}"))
        shown.append(rank.next_item(store, "Ada"))
        for name in ("item", "prompt", "samples", "candidates"):
            assert getattr(coming, name) == getattr(shown[-1], name), name
    assert [len(each.after) for each in shown] == [2, 1, 0]


def test_what_was_fetched_ahead_is_free_for_others_once_its_time_is_over(
    store, add_items, monkeypatch
):
    add_items(3, overlap=1)
    shown = rank.next_item(store, "Ada")
    start = utc_now()
    assert rank.next_item(store, "Eve").item is None
    assert timedelta(seconds=shown.after[0].seconds) < PREFETCH_LEASE
    late = PREFETCH_LEASE + timedelta(seconds=1)
    monkeypatch.setattr("imgalign.preferences.store.utc_now", lambda: start + late)
    eve = rank.next_item(store, "Eve")
    names = [eve.item, *(each.item for each in eve.after)]
    ahead = [item_named(store, each.item, "Ada") for each in shown.after]
    assert [item_named(store, name, "Eve") for name in names] == ahead


def test_whether_anything_is_queued_is_told_without_a_name(store, add_items):
    sender = Request({"type": "http"})
    assert not Rankable(store, None).holds_any(sender)
    add_items(1, project="cats")
    assert Rankable(store, None).holds_any(sender)
    assert not Rankable(store, "dogs").holds_any(sender)


def test_progress_counts_judged_items_and_those_that_wait(store, add_items):
    add_items(3)
    counts = []
    for key in ("key-0001", "key-0002", "key-0003"):
        shown = rank.next_item(store, "Ada")
        counts.append((shown.done, shown.total))
        rank.submit(store, answer(shown, key=key))
    end = rank.next_item(store, "Ada")
    assert counts == [(0, 3), (1, 3), (2, 3)]
    assert (end.item, end.done, end.total) == (None, 3, 3)


def test_undo_brings_the_item_back_as_it_was_ranked(store, add_items):
    add_items(2)
    shown = rank.next_item(store, "Ada")
    rank.submit(store, answer(shown, ranking=[[3], [1], [2, 0]]))
    key = rank.next_item(store, "Ada").undo
    back = rank.undo(store, rank.Undo(annotator="Ada", key=key))
    again = rank.next_item(store, "Ada")
    assert (back.item, back.num_candidates) == (shown.item, 4)
    assert back.ranking == ((3,), (1,), (0, 2))
    assert (again.item, again.candidates) == (shown.item, shown.candidates)
    assert list(store.rankings()) == []


def test_what_was_taken_back_comes_with_what_was_judged_last(store, add_items):
    add_items(3)
    for key, ranking in (("key-0001", [[3], [1], [2, 0]]), ("key-0002", [[0, 1, 2], [3]])):
        shown = rank.next_item(store, "Ada")
        assert shown.taken_back is None
        rank.submit(store, answer(shown, key=key, ranking=ranking))
    for key in ("key-0001", "key-0002"):
        rank.undo(store, rank.Undo(annotator="Ada", key=key))
    again = rank.next_item(store, "Ada")
    judged = [again.taken_back, *(each.taken_back for each in again.after)]
    assert judged == [
        Judged(((0, 1, 2), (3,)), "ranked", None),
        Judged(((3,), (1,), (0, 2)), "ranked", None),
        None,
    ]
    skip = answer(again, key="key-0003", verdict="skipped", reason="unsafe", ranking=None)
    rank.submit(store, skip)
    rank.undo(store, rank.Undo(annotator="Ada", key="key-0003"))
    assert rank.next_item(store, "Ada").taken_back == Judged(None, "skipped", "unsafe")
    assert rank.next_item(store, "Eve").taken_back is None


def test_an_undone_item_is_judged_again_under_a_new_key(store, add_items):
    add_items(1)
    shown = rank.next_item(store, "Ada")
    rank.submit(store, answer(shown))
    rank.undo(store, rank.Undo(annotator="Ada", key="key-0001"))
    with pytest.raises(StoreError):
        rank.submit(store, answer(shown, ranking=[[3], [2], [1], [0]]))
    rank.submit(store, answer(shown, key="key-0002", ranking=[[3], [2], [1], [0]]))
    assert len(list(store.rankings())) == 1
    assert len(list(store.rankings(include_undone=True))) == 2


@pytest.mark.parametrize(
    ("changes", "verdict", "reason"),
    [
        ({"verdict": "all_bad"}, "all_bad", None),
        ({"verdict": "skipped", "reason": "prompt unclear"}, "skipped", "prompt unclear"),
    ],
)
def test_verdicts_are_stored_without_a_ranking(store, add_items, changes, verdict, reason):
    add_items(1)
    shown = rank.next_item(store, "Ada")
    rank.submit(store, answer(shown, ranking=None, **changes))
    (stored,) = store.rankings()
    assert (stored.verdict, stored.reason, stored.ranking) == (verdict, reason, None)


def test_somebody_else_cannot_judge_an_item_they_were_not_shown(store, add_items):
    add_items(1)
    shown = rank.next_item(store, "Ada")
    store.add_annotator("Eve")
    with pytest.raises(StoreError, match="not issued"):
        rank.submit(store, answer(shown, annotator="Eve"))
    with pytest.raises(StoreError):
        image(store, shown.candidates[0].token, "Eve")


def test_no_id_of_the_store_is_taken_for_an_item(store, add_items):
    """Else whoever guesses what made an image could try whether the guess is right."""
    shown, never = add_items(2)
    given = rank.next_item(store, "Ada")
    rank.next_item(store, "Eve")
    said = set()
    for guess in (shown, never, tokens_of(given)[1], "0" * 64):
        with pytest.raises(StoreError) as refused:
            rank.submit(store, answer(given, item=guess))
        said.add(str(refused.value))
    assert said == {"item: not issued to annotator 'ada'; ask for the next one"}
    assert list(store.rankings()) == []


def test_a_judgement_that_nobody_made_on_this_page_is_not_taken_back_there(
    store, add_items, tmp_path
):
    add_items(1)
    rank.submit(store, answer(rank.next_item(store, "Ada")))
    export_rankings(store, tmp_path / "rankings.jsonl")
    place = tmp_path / "elsewhere"
    place.mkdir()
    with Store.open(place / "imgalign.db", images=tmp_path / "images") as other:
        import_rankings(other, tmp_path / "rankings.jsonl")
        assert rank.next_item(other, "Ada").undo is None
        with pytest.raises(StoreError, match="not issued"):
            rank.undo(other, rank.Undo(annotator="Ada", key="key-0001"))
        assert [each.key for each in other.rankings()] == ["key-0001"]


def test_an_unfinished_ranking_is_refused_and_nothing_is_stored(store, add_items):
    add_items(1)
    shown = rank.next_item(store, "Ada")
    with pytest.raises(InputError, match="each position 0 to 3 exactly once"):
        rank.submit(store, answer(shown, ranking=[[1]]))
    assert list(store.rankings()) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"ranking": [[True], [0], [2], [3]]},
        {"ranking": [0, 1, 2, 3]},
        {"ranking": "0123"},
        {"verdict": "liked"},
        {"verdict": "skipped", "ranking": None, "reason": "bored"},
        {"order": [0, 1, 2, 3]},
        {"client_ms": -5},
        {"key": "short"},
    ],
)
def test_a_body_that_the_widget_does_not_send_is_refused(store, add_items, changes):
    add_items(1)
    body = answer(rank.next_item(store, "Ada")).model_dump()
    assert rank.Answer(**body)
    with pytest.raises(ValidationError):
        rank.Answer(**(body | changes))


def test_two_annotators_see_their_own_tokens_of_one_item(store, add_items):
    add_items(1)
    ada, bob = rank.next_item(store, "Ada"), rank.next_item(store, "Bob")
    assert item_named(store, ada.item, "Ada") == item_named(store, bob.item, "Bob")
    assert not {ada.item, *tokens_of(ada)} & {bob.item, *tokens_of(bob)}


def test_names_from_one_address_leave_something_to_rank_for_everybody_else(store, add_items):
    add_items(3, overlap=1)
    for number in range(5):
        rank.next_item(store, f"invented {number}", client="192.0.2.7")
    screen = rank.next_item(store, "Ada", client="192.0.2.8")
    assert (screen.item is not None, screen.done, screen.total) == (True, 0, 3)
    assert screen.waiting == 2


@pytest.mark.parametrize("num_images", [2, 9, 12])
def test_any_number_of_images_can_be_ranked(store, add_items, num_images):
    add_items(1, num_images=num_images)
    shown = rank.next_item(store, "Ada")
    rank.submit(store, answer(shown))
    (stored,) = store.rankings()
    assert stored.ranking == tuple((candidate,) for candidate in stored.order)
    assert len(stored.ranking) == num_images


def test_only_items_of_the_project_are_shown_counted_and_taken_back(store, add_items):
    add_items(1)
    add_items(2, project="cats")
    assert rank.next_item(store, "Ada").total == 1
    cats = rank.next_item(store, "Ada", project="cats")
    assert (cats.done, cats.total) == (0, 2)
    rank.submit(store, answer(cats))
    assert rank.next_item(store, "Ada").undo is None
    assert rank.next_item(store, "Ada", project="cats").undo == "key-0001"
    assert [each.project for each in store.rankings()] == ["cats"]


TEXTS = ("a red cat", "a cat", "cat, cat")


def test_texts_are_shown_and_judged_by_their_places_as_images_are(store):
    add_texts(store, TEXTS)
    shown = rank.next_item(store, "Ada")
    assert shown.samples == "texts"
    assert all(each.url.startswith("api/rank/texts/") for each in shown.candidates)
    read = [text(store, token, "Ada") for token in tokens_of(shown)]
    rank.submit(store, answer(shown, ranking=[[2], [0, 1]]))
    (stored,) = store.rankings()
    named = [{store.text(stored.sample_ids[i]) for i in group} for group in stored.ranking]
    assert named == [{read[2]}, {read[0], read[1]}]


def test_a_text_is_read_by_the_annotator_it_was_shown_to_only(store, add_items):
    add_texts(store, TEXTS, overlap=2)
    token = rank.next_item(store, "Ada").candidates[0].token
    rank.next_item(store, "Eve")
    for who, asked in (("Eve", token), ("Ada", "none"), ("Ada", "../" + token)):
        with pytest.raises(StoreError, match="unknown, or issued to another annotator"):
            text(store, asked, who)
    with pytest.raises(StoreError, match="of a text, not of an image"):
        image(store, token, "Ada")


def test_each_kind_of_item_offers_reasons_of_its_own_and_takes_either(store):
    assert rank.SKIP_REASONS["texts"][0] == "broken text"
    assert rank.SKIP_REASONS["images"][0] == "broken image"
    assert rank.SKIP_REASONS["texts"][1:] == rank.SKIP_REASONS["images"][1:]
    add_texts(store, TEXTS)
    shown = rank.next_item(store, "Ada")
    rank.submit(store, answer(shown, ranking=None, verdict="skipped", reason="broken text"))
    assert [each.reason for each in store.rankings()] == ["broken text"]


# --- projects


def test_without_a_project_ranking_begins_where_there_is_something(store, add_items):
    assert chosen_project(store, None) == "default"
    add_items(1, project="cats")
    add_items(1, project="dogs")
    assert chosen_project(store, None) == "cats"
    add_items(1)
    assert chosen_project(store, None) == "default"
    assert chosen_project(store, "dogs") == "dogs"
    assert chosen_project(store, "default") == "default"


@pytest.mark.parametrize(
    ("asked", "among"),
    [
        ("birds", None),
        ("cats' OR 1=1 --", None),
        ("dogs", {"cats"}),
        ("default", {"cats", "birds"}),
        ("birds", {"cats"}),
    ],
)
def test_a_project_is_authorised_by_name(store, add_items, asked, among):
    for project in ("default", "cats", "dogs"):
        add_items(1, project=project)
    said = f"project {asked!r}: nothing to rank of that name; reload the page and choose another"
    with pytest.raises(InputError, match=re.escape(said)):
        chosen_project(store, asked, among=among)
    assert chosen_project(store, "cats", among=among) == "cats"


def test_without_a_project_ranking_begins_among_those_that_are_open(store, add_items):
    add_items(1)
    add_items(1, project="cats")
    add_items(1, project="dogs")
    assert chosen_project(store, None, among={"dogs", "cats"}) == "cats"
    assert chosen_project(store, None, first="dogs", among={"dogs", "cats"}) == "dogs"
    assert chosen_project(store, None, first="dogs") == "dogs"
    assert chosen_project(store, None, first="birds", among={"birds"}) == "birds"
    assert chosen_project(store, None, among={"birds"}) == "birds"
    with pytest.raises(InputError, match="no project is open to annotators"):
        chosen_project(store, None, among=frozenset())
    store.add_annotator("Ada")
    names = [each.name for each in own_projects(store, "Ada", among={"dogs", "birds"}).projects]
    assert names == ["dogs"]


def test_projects_are_counted_for_whoever_asks(store, add_items):
    add_items(2, project="cats", overlap=1)
    add_items(1, project="cats-compare", num_images=2)
    screen = rank.next_item(store, "Ada", project="cats")
    rank.submit(store, answer(screen))
    found = own_projects(store, "Ada").projects
    assert [(each.name, each.done, each.left) for each in found] == [
        ("cats", 1, 1),
        ("cats-compare", 0, 1),
    ]
    only = own_projects(store, "Ada", among={"cats"}).projects
    assert [each.name for each in only] == ["cats"]
    assert screen.project == "cats"
