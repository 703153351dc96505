"""The next set on the Rank page is there as soon as the last judgement is on disk."""

import pytest
from rank_page import press, ranks_on_screen, start, stored, wait_for_progress, wait_until
from waited import expect

pytestmark = [
    pytest.mark.browser,
    # gradio counts its own calls with options of pandas that pandas is about to drop
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
]
PAGES = ("rank",)  # others take their time to build


class Held:
    """Requests of a path that wait until they are let go."""

    def __init__(self, page, path):
        self.page, self.path, self.routes = page, path, []
        page.route(path, lambda route: self.routes.append(route))

    def let_go(self):
        for route in self.routes:
            route.continue_()
        self.page.unroute(self.path)


def wait_until_ahead(page, sets):
    """Wait until the images of so many sets of four have been loaded."""
    page.wait_for_function(
        "(num) => performance.getEntriesByType('resource')"
        ".filter((e) => e.name.includes('/images/')).length >= num",
        arg=4 * sets,
    )


def test_a_page_that_is_too_fast_waits_and_goes_on_by_itself_with_every_vote(
    page, address, store, add_items
):
    add_items(3)
    refused = []

    def refuse_once(route):
        path, key = route.request.url.rpartition("/")[2], route.request.post_data_json.get("key")
        if path in [each for each, _ in refused]:
            route.continue_()
            return
        refused.append((path, key))
        route.fulfill(status=429, headers={"Retry-After": "1"}, json={"error": "too fast"})

    page.route("**/api/rank/next", refuse_once)
    start(page, address)
    wait_for_progress(page, "0 of 3")
    page.route("**/api/rank/submit", refuse_once)
    press(page, "b Enter")
    page.locator(".rk-hint", has_text="very fast").wait_for()
    assert page.locator(".rk-alert").is_hidden()
    wait_for_progress(page, "1 of 3")
    assert [path for path, _ in refused] == ["next", "submit"]
    assert [each.key for each in store.history("Ada")] == [refused[1][1]]


def test_the_next_set_is_shown_without_waiting_for_the_one_after_it(
    page, address, store, add_items
):
    add_items(5)
    start(page, address)
    wait_until_ahead(page, 3)
    held = Held(page, "**/api/rank/next")
    for number in (1, 2):
        press(page, "b Enter")
        page.locator(".rk-prompt", has_text=f"number {number}").wait_for()
        wait_for_progress(page, f"{number} of 5")
        assert len(held.routes) == number
        assert page.locator(".rk-tile img").evaluate_all("all => all.every((i) => i.naturalWidth)")
    press(page, "2 1")  # and it can be worked on
    assert ranks_on_screen(page) == ["2nd", "1st", "", ""]
    held.let_go()
    wait_until_ahead(page, 5)
    assert ranks_on_screen(page) == ["2nd", "1st", "", ""]
    press(page, "3 4 Enter")
    page.locator(".rk-prompt", has_text="number 3").wait_for()
    press(page, "u u")  # the key of the last judgement is known without an answer
    page.locator(".rk-prompt", has_text="number 2").wait_for()
    assert ranks_on_screen(page) == ["2nd", "1st", "3rd", "4th"]
    assert stored(store) == [("all_bad", None, [])] * 2


def test_a_judgement_that_overtakes_the_answer_is_neither_lost_nor_doubled(
    page, address, store, add_items
):
    add_items(5, num_images=2)
    start(page, address)
    wait_until_ahead(page, 1.5)
    held = Held(page, "**/api/rank/next")
    press(page, "1")
    page.locator(".rk-prompt", has_text="number 1").wait_for()
    press(page, "2")
    wait_until(page, lambda: len(stored(store)) == 2)
    held.let_go()
    page.locator(".rk-prompt", has_text="number 2").wait_for()
    press(page, "=")
    wait_for_progress(page, "3 of 5")
    assert stored(store) == [
        ("ranked", None, [[1], [2]]),
        ("ranked", None, [[2], [1]]),
        ("ranked", None, [[1, 2]]),
    ]
    judged = [each.prompt for each in store.rankings(include_undone=True)]
    assert judged == [f"a house, number {number}" for number in range(3)]


def test_an_answer_that_a_judgement_overtook_still_brings_the_sets_that_it_names(
    page, address, store, add_items
):
    add_items(6, num_images=2)
    start(page, address)
    wait_until_ahead(page, 1.5)
    held = []  # the first answer is of before the next judgement, the second never comes

    def hold(route):
        held.append((route, None if held else route.fetch()))

    page.route("**/api/rank/next", hold)
    press(page, "1")
    page.locator(".rk-prompt", has_text="number 1").wait_for()
    wait_until(page, lambda: held)
    press(page, "1")
    page.locator(".rk-prompt", has_text="number 2").wait_for()
    wait_for_progress(page, "2 of 6")
    wait_until(page, lambda: len(held) == 2)
    [(route, answer), (unanswered, _)] = held
    assert [each["prompt"] for each in answer.json()["after"]] == [
        "a house, number 2",
        "a house, number 3",
    ]
    route.fulfill(response=answer)
    wait_until_ahead(page, 2)
    wait_for_progress(page, "2 of 6")  # the numbers of an older answer are not taken
    press(page, "1")
    page.locator(".rk-prompt", has_text="number 3").wait_for()
    assert len(stored(store)) == 3
    unanswered.abort()


def test_nothing_is_shown_as_saved_before_the_receipt(page, address, store, add_items):
    add_items(2)
    start(page, address)
    wait_until_ahead(page, 2)
    page.route("**/api/rank/submit", lambda route: route.abort())
    press(page, "4 3 2 1 Enter")
    page.locator(".rk-alert", has_text="Not saved yet").wait_for()
    expect(page.locator(".rk-prompt")).to_have_text("a house, number 0")
    assert ranks_on_screen(page) == ["4th", "3rd", "2nd", "1st"]
    page.unroute("**/api/rank/submit")
    press(page, "Enter")
    page.locator(".rk-prompt", has_text="number 1").wait_for()
    assert stored(store) == [("ranked", None, [[4], [3], [2], [1]])]


def test_a_set_that_another_tab_took_back_waits_until_this_one_is_judged(
    page, address, store, add_items
):
    add_items(4)
    start(page, address)
    press(page, "b Enter")
    wait_for_progress(page, "1 of 4")
    wait_until_ahead(page, 4)
    store.undo("ada", next(iter(store.rankings())).key)
    press(page, "b Enter")
    page.locator(".rk-prompt", has_text="number 2").wait_for()
    page.wait_for_timeout(1500)
    expect(page.locator(".rk-prompt")).to_have_text("a house, number 2")
    press(page, "b Enter")
    page.locator(".rk-prompt", has_text="number 0").wait_for()
    assert len(stored(store)) == 2


def without_any_ahead(page):
    """From now on the page gets one set at a time."""

    def answer(route):
        given = route.fetch()
        route.fulfill(response=given, json=given.json() | {"after": []})

    page.route("**/api/rank/next", answer)


@pytest.mark.parametrize("meant_for_it", ["2", "1", "u", "s 1"])
def test_what_is_pressed_between_a_receipt_and_the_next_set_is_for_neither_of_them(
    page, address, store, add_items, meant_for_it
):
    add_items(3, num_images=2)
    without_any_ahead(page)
    start(page, address)
    held = Held(page, "**/api/rank/next")
    press(page, "1")
    page.locator(".rk-hint", has_text="Saved").wait_for()
    press(page, meant_for_it)
    page.wait_for_timeout(200)
    assert page.locator(".rk-alert").is_hidden()
    assert stored(store) == [("ranked", None, [[1], [2]])]
    held.let_go()
    page.locator(".rk-prompt", has_text="number 1").wait_for()
    wait_for_progress(page, "1 of 3")
    assert ranks_on_screen(page) == ["", ""]
    assert page.locator(".rk-skip[open]").count() == 0
    press(page, "2")
    wait_for_progress(page, "2 of 3")
    assert page.locator(".rk-alert").is_hidden()
    press(page, "u")  # what is taken back is the judgement of this set
    page.locator(".rk-prompt", has_text="number 1").wait_for()
    wait_for_progress(page, "1 of 3")
    assert page.locator(".rk-alert").is_hidden()
    assert [each.prompt for each in store.rankings()] == ["a house, number 0"]


def test_a_judged_set_stays_closed_where_the_next_one_cannot_be_had_and_enter_goes_on(
    page, address, store, add_items
):
    add_items(2, num_images=2)
    without_any_ahead(page)
    start(page, address)
    page.unroute("**/api/rank/next")
    page.route("**/api/rank/next", lambda route: route.abort())
    press(page, "1")
    page.locator(".rk-alert", has_text="Nothing you submitted is lost").wait_for()
    press(page, "2")
    page.reload()  # and no draft of it is left behind
    page.unroute("**/api/rank/next")
    press(page, "Enter")
    page.locator(".rk-prompt", has_text="number 1").wait_for()
    assert ranks_on_screen(page) == ["", ""]
    assert stored(store) == [("ranked", None, [[1], [2]])]


def test_keys_during_the_way_back_to_a_set_that_is_taken_back_judge_nothing(
    page, address, store, add_items
):
    add_items(3, num_images=2)
    start(page, address)
    press(page, "1")
    page.locator(".rk-prompt", has_text="number 1").wait_for()
    held = Held(page, "**/api/rank/next")
    with page.expect_response("**/api/rank/undo"):
        press(page, "u")
    press(page, "2")
    held.let_go()
    page.locator(".rk-prompt", has_text="number 0").wait_for()
    page.wait_for_timeout(200)
    assert ranks_on_screen(page) == ["1st", "2nd"]
    assert stored(store) == []


RAW = "key '6e117': nothing by annotator 'ada' to undo"


@pytest.mark.parametrize(
    ("path", "keys", "shown", "status", "said"),
    [
        ("undo", "b Enter; u", ".rk-alert p", 409, "it is not among yours"),
        ("submit", "b Enter", ".rk-alert p", 409, "was judged already"),
        ("submit", "b Enter", ".rk-alert p", 503, "Not saved yet: The server cannot read or save"),
        ("submit", "b Enter", ".rk-alert p", 507, "disk of the server is full"),
        ("votes", "h", ".rk-votes-status", 409, "Your votes have changed"),
        ("votes", "h", ".rk-votes-status", 418, "has a fault (418)"),
        ("next", "b Enter; b Enter", ".rk-alert p", 503, "cannot read or save anything"),
    ],
)
def test_no_words_of_the_store_reach_an_annotator(
    page, address, add_items, path, keys, shown, status, said
):
    add_items(2)
    start(page, address)
    wait_until_ahead(page, 2)
    page.route(f"**/api/rank/{path}", lambda r: r.fulfill(status=status, json={"error": RAW}))
    for done, each in enumerate(keys.split("; ")):
        wait_for_progress(page, f"{done} of 2")
        press(page, each)
    page.locator(shown, has_text=said).wait_for()
    assert RAW not in page.locator("body").inner_text()
