"""What nobody can see yet takes no judgement on the Rank page, in a real browser."""

import pytest
from rank_page import press, ranks_on_screen, stored, wait_for_progress
from texts import add_texts
from waited import expect

pytestmark = [
    pytest.mark.browser,
    # gradio counts its own calls with options of pandas that pandas is about to drop
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
]
PAGES = ("rank",)  # others take their time to build


class Slow:
    """Candidates that come when they are let go; without `only_one`, all of them."""

    def __init__(self, page, path="images", *, only_one=False):
        self.page, self.path, self.routes = page, f"**/api/rank/{path}/**", []
        self.only_one = only_one
        page.route(self.path, self._hold)

    def _hold(self, route):
        if self.only_one and self.routes and route.request.url != self.routes[0].request.url:
            route.continue_()
        else:
            self.routes.append(route)

    def let_go(self):
        for route in self.routes:
            route.continue_()
        self.page.unroute(self.path)
        expect(self.page.locator(".rk-tile[aria-busy=true]")).to_have_count(0)


def begin(page, address, *, loading):
    """Give a name, and look at a set of which so many candidates are loading."""
    page.goto(address)
    page.get_by_label("Your name or initials").fill("Ada")
    page.keyboard.press("Enter")
    expect(page.locator(".rk-tile[aria-busy=true]")).to_have_count(loading)


def press_early(page, keys):
    """Keys by somebody who does not wait until there is anything to see."""
    for key in keys.split():
        page.keyboard.press(key)
    page.wait_for_timeout(300)


@pytest.mark.parametrize(
    ("number", "keys", "verdict"),
    [
        (1, "l", "ranked"),
        (1, "d", "all_bad"),
        (2, "1", "ranked"),
        (2, "=", "ranked"),
        (2, "b", "all_bad"),
        (4, "1 2 3 4 Enter", "ranked"),
        (4, "b Enter", "all_bad"),
    ],
)
def test_a_judgement_of_images_that_are_loading_is_not_taken_and_the_page_says_so(
    page, address, store, add_items, number, keys, verdict
):
    add_items(1, num_images=number)
    slow = Slow(page)
    begin(page, address, loading=number)
    press_early(page, keys)
    assert stored(store) == []
    assert ranks_on_screen(page) == [""] * number
    expect(page.locator(".rk-toast.rk-on")).to_contain_text("still loading")
    expect(page.locator(".rk-hint")).to_contain_text("still loading")
    slow.let_go()
    expect(page.locator(".rk-hint")).not_to_contain_text("still loading")
    assert stored(store) == []
    if number == 4 and verdict == "all_bad":
        keys = "Enter"  # what was said of the set is kept, and was not sent
    press(page, keys)
    page.locator(".rk[data-state=empty]").wait_for()
    assert [each for each, *_ in stored(store)] == [verdict]


def test_clicks_judge_no_pair_of_which_one_image_is_loading(page, address, store, add_items):
    add_items(1, num_images=2)
    slow = Slow(page, only_one=True)
    begin(page, address, loading=1)
    for tile in page.locator(".rk-tile").all():
        tile.click()
    for button in ("Equal", "Both bad"):
        page.get_by_role("button", name=button).click()
    page.wait_for_timeout(300)
    assert stored(store) == []
    slow.let_go()
    page.locator(".rk-tile").nth(1).click()
    page.locator(".rk[data-state=empty]").wait_for()
    assert stored(store) == [("ranked", None, [[2], [1]])]


def test_what_is_seen_can_be_placed_while_another_image_is_loading(page, address, store, add_items):
    add_items(1)
    slow = Slow(page, only_one=True)
    begin(page, address, loading=1)
    waiting = int(page.locator(".rk-tile[aria-busy=true]").get_attribute("data-position"))
    others = [place for place in range(4) if place != waiting]
    press_early(page, " ".join(str(place + 1) for place in [waiting, *others]))
    placed = {place: f"{rank}" for place, rank in zip(others, ("1st", "2nd", "3rd"), strict=True)}
    assert ranks_on_screen(page) == [placed.get(place, "") for place in range(4)]
    press_early(page, "Enter Enter")
    assert stored(store) == []
    expect(page.locator(".rk-hint")).to_have_text(f"Image {waiting + 1} is still loading")
    slow.let_go()
    press(page, "Enter Enter")
    page.locator(".rk[data-state=empty]").wait_for()
    assert stored(store) == [("ranked", None, [[place + 1] for place in [*others, waiting]])]


@pytest.mark.parametrize(("number", "keys"), [(1, "s"), (2, "s 2"), (4, "s 2 Enter")])
def test_a_set_that_is_loading_can_be_skipped(page, address, store, add_items, number, keys):
    add_items(2, num_images=number)
    slow = Slow(page)
    begin(page, address, loading=number)
    press_early(page, keys)
    wait_for_progress(page, "1 of 2")
    assert [verdict for verdict, *_ in stored(store)] == ["skipped"]
    slow.let_go()


def test_in_zoom_an_image_that_is_loading_is_not_judged(page, address, store, add_items):
    add_items(1, num_images=2)
    slow = Slow(page)
    begin(page, address, loading=2)
    press_early(page, "Space 1")
    expect(page.locator(".rk-zoom[open] .rk-pane")).to_have_count(2)
    assert stored(store) == []
    slow.let_go()
    expect(page.locator(".rk-pane[aria-busy=true]")).to_have_count(0)
    press_early(page, "2")
    page.locator(".rk[data-state=empty]").wait_for()
    assert stored(store) == [("ranked", None, [[2], [1]])]


def test_a_text_that_is_loading_is_not_judged(page, address, store):
    add_texts(store, ["a fox", "a red fox"])
    slow = Slow(page, "texts")
    begin(page, address, loading=2)
    press_early(page, "1")
    expect(page.locator(".rk-hint")).to_have_text("2 texts are still loading")
    assert stored(store) == []
    slow.let_go()
    press(page, "1")
    page.locator(".rk[data-state=empty]").wait_for()
    assert stored(store) == [("ranked", None, [[1], [2]])]
