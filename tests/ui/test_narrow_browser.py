"""On a phone of 320 pixels every page can be reached, read and worked with."""

from collections.abc import Callable
from typing import Any

import pytest
from rank_page import wait_until_seen
from reported_runs import fitted_reward

from imgalign.preferences.accounts import Accounts
from ui.heading import PAGES as ALL

pytestmark = [
    pytest.mark.browser,
    # gradio counts its own calls with options of pandas that pandas is about to drop
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
]
LINKS = """() => [...document.querySelectorAll("header.top nav a")].map((link) => {
  const box = link.getBoundingClientRect();
  const at = document.elementFromPoint(box.left + box.width / 2, box.top + box.height / 2);
  const seen = box.left >= 0 && box.right <= innerWidth;
  return [link.textContent, seen, box.height >= 36, at === link];
})"""
SIDEWAYS = "() => document.documentElement.scrollWidth > innerWidth"


def test_every_page_is_one_tap_away_from_every_other(phone: Any, address: str):
    for name in ALL:
        phone.goto(f"{address}/{'' if name == 'rank' else name}")
        phone.get_by_role("link", name="Results").click(trial=True)  # nothing covers it any more
        for width in (320, 375, 414, 480):
            phone.set_viewport_size({"width": width, "height": 640})
            found = phone.evaluate(LINKS)
            assert found == [[label, True, True, True] for label in ALL.values()], (name, width)
            assert not phone.evaluate(SIDEWAYS), (name, width)


def test_with_accounts_the_pages_and_the_way_out_are_one_tap_away(
    phone: Any, address: str, store: Any
):
    password = "four odd green words"
    Accounts(store.database).add("Leontine Falk", password, role="admin", group="default")
    phone.goto(f"{address}/enter")
    phone.get_by_label("Name").fill("Leontine Falk")
    phone.get_by_label("Password").fill(password)
    phone.get_by_role("button", name="Log in").tap()
    phone.locator(".rk").wait_for()
    for name in ("", "results"):
        phone.set_viewport_size({"width": 320, "height": 640})
        phone.goto(f"{address}/{name}")
        phone.get_by_role("button", name="Log out").click(trial=True)
        for width in (320, 375, 414, 480, 800, 1000, 1280):
            phone.set_viewport_size({"width": width, "height": 640})
            found = phone.evaluate(LINKS)
            assert found == [[label, True, True, True] for label in ALL.values()], (name, width)
            box = phone.get_by_role("button", name="Log out").bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width
            assert not phone.evaluate(SIDEWAYS), (name, width)


def test_a_set_is_ranked_by_taps_and_what_is_opened_begins_at_its_beginning(
    phone: Any, address: str, add_items: Callable[..., list[str]], store: Any
):
    add_items(1)
    phone.goto(address)
    phone.get_by_label("Your name or initials").fill("Ada")
    phone.get_by_role("button", name="Start ranking").tap()
    phone.locator(".rk-tile img").nth(3).wait_for()
    wait_until_seen(phone)
    phone.get_by_role("button", name="Keys").tap()
    phone.locator(".rk-help h3").wait_for()
    assert phone.locator(".rk-help").evaluate("(dialog) => dialog.scrollTop") == 0
    phone.locator(".rk-help").get_by_role("button").tap()
    shadow = "(tile) => getComputedStyle(tile).boxShadow"
    before = {phone.locator(".rk-tile").nth(k).evaluate(shadow) for k in range(4)}
    assert len(before) == 1
    for position in (2, 0, 3, 1):
        phone.locator(".rk-tile").nth(position).tap()
    phone.locator(".rk-tile").nth(1).tap()  # taken out again
    phone.wait_for_timeout(300)  # a shadow fades in
    assert phone.locator(".rk-tile").nth(1).evaluate(shadow) in before
    phone.locator(".rk-tile").nth(1).tap()
    box = phone.locator(".rk-submit").bounding_box()
    assert box["width"] >= 100
    assert box["y"] + box["height"] <= 640
    phone.locator(".rk-submit").tap()
    phone.locator(".rk[data-state=empty]").wait_for()
    assert [len(each.ranking) for each in store.rankings()] == [4]


@pytest.mark.usefixtures("here")
def test_what_is_made_comes_before_the_form_that_makes_it_which_opens_by_a_tap(
    phone: Any, address: str, settings: Any, add_items: Any, tmp_path: Any
):
    add_items(3)
    settings.runs.mkdir()
    fitted_reward(settings.runs / "taste")
    (settings.runs / "taste" / "contract.json").write_text("{}")
    phone.set_viewport_size({"width": 390, "height": 844})
    for name, first, heading, field in (
        ("candidates", ".ba-standing", "New candidates", "#candidate-prompts"),
        ("learn", ".le-verdict", "New reward model", "#reward-name"),
        ("results", ".none-yet", "Who is preferred", "#results-project"),
    ):
        phone.goto(f"{address}/{name}")
        phone.locator(first).first.wait_for()
        assert phone.locator(first).first.bounding_box()["y"] < 500, name
        assert phone.locator(field).is_hidden(), name
        phone.get_by_role("heading", name=heading).tap()
        phone.locator(field).wait_for()
        assert phone.locator(field).bounding_box()["y"] < 844, name
        assert not phone.evaluate(SIDEWAYS), name
    phone.goto(f"{address}/people")  # what a lead looks up comes before what a lead sets
    phone.locator("#people h3, #people p").first.wait_for()
    told = [phone.locator(each).first for each in ("#people", "#gold", ".fold")]
    heights = [each.bounding_box()["y"] for each in told]
    assert heights == sorted(heights)
    assert not phone.evaluate(SIDEWAYS)
    phone.goto(f"{address}/generate")  # nothing was made here yet, so that the form is open
    phone.locator("#prompts").wait_for()
    assert phone.locator("#prompts").bounding_box()["y"] < 844
    assert not phone.evaluate(SIDEWAYS)


def test_that_a_judgement_was_not_saved_is_seen_whole_where_one_is(
    phone: Any, address: str, add_items: Any
):
    add_items(2)
    phone.goto(address)
    phone.get_by_label("Your name or initials").fill("Ada")
    phone.get_by_role("button", name="Start ranking").tap()
    phone.locator(".rk-tile img").nth(3).wait_for()
    wait_until_seen(phone)
    phone.route("**/api/rank/submit", lambda route: route.abort())
    phone.locator(".rk-actions [data-do=bad]").tap()
    phone.locator(".rk-submit").tap()
    phone.locator(".rk-alert", has_text="Not saved yet").wait_for()
    phone.get_by_role("button", name="Try again").click(trial=True)
    for down in (0, 200):
        phone.evaluate("(down) => scrollTo(0, down)", down)
        box = phone.locator(".rk-alert").bounding_box()
        assert box["y"] >= 0
        assert box["y"] + box["height"] <= phone.locator(".rk-actions").bounding_box()["y"]
