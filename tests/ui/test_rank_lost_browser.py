"""The Rank page where answers are lost on the way, and where the server was upgraded meanwhile."""

import pytest
from rank_page import press, ranks_on_screen, start, stored, wait_for_progress, wait_until_seen
from waited import expect

pytestmark = [
    pytest.mark.browser,
    # gradio counts its own calls with options of pandas that pandas is about to drop
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
]
PAGES = ("rank",)  # others take their time to build
FORWARD, BACKWARD = [[1], [2], [3], [4]], [[4], [3], [2], [1]]


def lose(page, fates, *, of="submit"):
    """Lose the answers to the first requests; "arrived" are those that the server heard of."""
    left = list(fates)

    def handle(route):
        if not left:
            route.continue_()
            return
        if left.pop(0) == "arrived":
            route.fetch()
        route.abort()

    page.route(f"**/api/rank/{of}", handle)


def wait_until_lost(page):
    page.locator(".rk-alert", has_text="Not saved yet").wait_for()


def rank_and_lose(page, address):
    """Rank the first four images as they stand; the server has it, and its answer is lost."""
    start(page, address)
    lose(page, ["arrived"])
    press(page, "1 2 3 4 Enter")
    wait_until_lost(page)


def reload(page):
    page.reload()
    page.locator(".rk[data-state=ranking]").wait_for()
    wait_until_seen(page)


def number_of_records(store):
    return len(list(store.rankings(include_undone=True)))


@pytest.mark.parametrize("first", ["arrived", "lost"])
@pytest.mark.parametrize("second", ["arrived", "lost"])
def test_the_last_of_several_corrections_counts_whichever_of_the_others_arrived(
    page, address, store, add_items, first, second
):
    add_items(2)
    start(page, address)
    lose(page, [first, second])
    press(page, "1 2 3 4 Enter")
    wait_until_lost(page)
    press(page, "b Enter")
    wait_until_lost(page)
    press(page, "b 1 2 3 4 4 3 2 1 Enter")
    wait_for_progress(page, "1 of 2")
    page.locator(".rk-prompt", has_text="number 1").wait_for()
    assert stored(store) == [("ranked", None, BACKWARD)]
    assert number_of_records(store) == 1 + [first, second].count("arrived")


@pytest.mark.parametrize("reloaded", [False, True])
def test_a_pair_whose_answer_was_lost_can_be_judged_otherwise(
    page, address, store, add_items, reloaded
):
    add_items(2, num_images=2)
    start(page, address)
    lose(page, ["arrived", "lost"])
    press(page, "1")
    wait_until_lost(page)
    press(page, "=")
    wait_until_lost(page)
    if reloaded:  # what was sent last is what counts, and a set that is saved does not come again
        reload(page)
        page.locator(".rk-prompt", has_text="number 1").wait_for()
        wait_for_progress(page, "1 of 2")
        assert stored(store) == [("ranked", None, [[1, 2]])]
        press(page, "u")
        page.locator(".rk-prompt", has_text="number 0").wait_for()
    press(page, "2")
    page.locator(".rk-prompt", has_text="number 1").wait_for()
    wait_for_progress(page, "1 of 2")
    assert stored(store) == [("ranked", None, [[2], [1]])]


@pytest.mark.parametrize("fate", ["arrived", "lost"])
def test_a_correction_that_was_begun_goes_on_after_a_reload(page, address, store, add_items, fate):
    add_items(2)
    start(page, address)
    lose(page, [fate])
    press(page, "1 2 3 4 Enter")
    wait_until_lost(page)
    press(page, "1 2 3 4 4 3")
    reload(page)
    expect(page.locator(".rk-prompt")).to_have_text("a house, number 0")
    assert ranks_on_screen(page) == ["", "", "2nd", "1st"]
    assert stored(store) == []
    press(page, "2 1 Enter")
    wait_for_progress(page, "1 of 2")
    assert stored(store) == [("ranked", None, BACKWARD)]


def test_a_correction_that_was_begun_waits_while_another_project_is_ranked(
    page, address, store, add_items
):
    add_items(2)
    add_items(1, project="cats")
    rank_and_lose(page, address)
    press(page, "b")
    page.get_by_label("Project").select_option("cats")
    wait_for_progress(page, "0 of 1")
    wait_until_seen(page)
    page.get_by_label("Project").select_option("default")
    wait_for_progress(page, "0 of 2")
    page.locator(".rk-prompt", has_text="number 0").wait_for()
    wait_until_seen(page)
    press(page, "Enter")
    wait_for_progress(page, "1 of 2")
    assert stored(store) == [("all_bad", None, [])]


def test_a_vote_whose_taking_back_had_no_answer_comes_up_as_it_was_judged(
    page, address, store, add_items
):
    add_items(2)
    start(page, address)
    press(page, "4 3 2 1 Enter")
    page.locator(".rk-prompt", has_text="number 1").wait_for()
    lose(page, ["arrived"], of="undo")
    wait_until_seen(page)
    press(page, "u")
    page.locator(".rk-alert").wait_for()
    assert stored(store) == []
    reload(page)
    page.locator(".rk-prompt", has_text="number 0").wait_for()
    assert ranks_on_screen(page) == ["4th", "3rd", "2nd", "1st"]
    press(page, "Enter")
    wait_for_progress(page, "1 of 2")
    assert stored(store) == [("ranked", None, BACKWARD)]


def test_what_was_taken_back_in_another_tab_counts_once_it_is_sent_again(
    page, address, store, add_items
):
    add_items(2)
    rank_and_lose(page, address)
    other = page.context.new_page()
    other.goto(address)
    other.locator(".rk-prompt", has_text="number 1").wait_for()
    wait_until_seen(other)
    press(other, "u")
    other.locator(".rk-prompt", has_text="number 0").wait_for()
    assert stored(store) == []
    page.bring_to_front()
    press(page, "Enter")
    wait_for_progress(page, "1 of 2")
    assert stored(store) == [("ranked", None, FORWARD)]


def test_the_same_again_after_a_correction_was_begun_and_reloaded_counts(
    page, address, store, add_items
):
    add_items(2)
    rank_and_lose(page, address)
    press(page, "4")
    reload(page)
    assert ranks_on_screen(page) == ["1st", "2nd", "3rd", ""]
    press(page, "4 Enter")
    wait_for_progress(page, "1 of 2")
    assert stored(store) == [("ranked", None, FORWARD)]


def test_what_arrived_is_not_asked_for_again_after_a_reload(page, address, store, add_items):
    add_items(2)
    start(page, address)
    lose(page, ["arrived"])
    press(page, "4 3 2 1 Enter")
    wait_until_lost(page)
    reload(page)
    page.locator(".rk-prompt", has_text="number 1").wait_for()
    assert number_of_records(store) == 1
    press(page, "1 2 3 4 Enter")
    page.locator(".rk[data-state=empty]").wait_for()
    assert stored(store) == [("ranked", None, BACKWARD), ("ranked", None, FORWARD)]


def name_as_before(page):
    """The server names its sets as an older one did, and knows these names no more."""

    def answer(route):
        given = route.fetch()
        screen = given.json()
        for each in (screen, *screen["after"]):
            if each["item"]:
                each["item"] = f"older-{each['item'][:20]}"
        route.fulfill(response=given, json=screen)

    page.route("**/api/rank/next", answer)


def test_a_ranking_under_way_is_saved_by_a_server_that_has_new_names_for_its_sets(
    page, address, store, add_items
):
    add_items(3)
    name_as_before(page)
    start(page, address)
    press(page, "4 3 2 1")
    page.unroute("**/api/rank/next")
    press(page, "Enter")
    wait_for_progress(page, "1 of 3")
    page.locator(".rk-prompt", has_text="number 1").wait_for()
    press(page, "1 2 3 4 Enter")
    wait_for_progress(page, "2 of 3")
    assert page.locator(".rk-alert").is_hidden()
    assert stored(store) == [("ranked", None, BACKWARD), ("ranked", None, FORWARD)]


def test_a_draft_is_found_under_the_new_name_of_its_set(page, address, store, add_items):
    add_items(2)
    name_as_before(page)
    start(page, address)
    press(page, "2 4 =")
    page.unroute("**/api/rank/next")
    for _ in range(2):
        reload(page)
        assert ranks_on_screen(page) == ["", "=1st", "", "=1st"]
    press(page, "1 3 Enter")
    wait_for_progress(page, "1 of 2")
    assert stored(store) == [("ranked", None, [[2, 4], [1], [3]])]


@pytest.mark.parametrize("keys", ["Enter", "1 2 3 4 4 3 2 1 Enter"])
def test_a_judgement_whose_answer_was_lost_before_an_upgrade_is_neither_lost_nor_doubled(
    page, address, store, add_items, keys
):
    add_items(2)
    name_as_before(page)
    start(page, address)

    def as_before(route):  # the older server knew its names
        sent = route.request.post_data_json | {"item": store.next_item("Ada").issued_name}
        route.fetch(post_data=sent)
        route.abort()

    page.route("**/api/rank/submit", as_before)
    press(page, "1 2 3 4 Enter")
    wait_until_lost(page)
    assert stored(store) == [("ranked", None, FORWARD)]
    page.unroute("**/api/rank/submit")
    page.unroute("**/api/rank/next")
    press(page, keys)
    wait_for_progress(page, "1 of 2")
    expected = FORWARD if keys == "Enter" else BACKWARD
    assert stored(store) == [("ranked", None, expected)]


def test_a_set_that_the_server_does_not_know_is_not_called_judged(page, address, store, add_items):
    add_items(2)
    name_as_before(page)
    start(page, address)
    press(page, "4 3 2 1 Enter")
    alert = page.locator(".rk-alert", has_text="does not know this set any more")
    alert.wait_for()
    assert "judged" not in alert.inner_text()
    assert stored(store) == []
    reload(page)
    assert ranks_on_screen(page) == ["4th", "3rd", "2nd", "1st"]
