"""Whoever judges in the zoom of the Rank page sees and reaches there all that they need."""

from typing import Any

import pytest
from rank_page import press, start, stored, wait_for_progress
from waited import expect

pytestmark = [
    pytest.mark.browser,
    # gradio counts its own calls with options of pandas that pandas is about to drop
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
]
PAGES = ("rank",)  # others take their time to build
LONG = " ".join(f"word{number}" for number in range(64))

SEEN = """node => {
  const box = node.getBoundingClientRect();
  const at = document.elementFromPoint(box.left + box.width / 2, box.top + box.height / 2);
  const unmet = getComputedStyle(node).pointerEvents === "none" && node.checkVisibility();
  return node.contains(at) || (unmet && document.querySelector(".rk-zoom").contains(node));
}"""
"""Nothing covers it; what no pointer meets lies in the dialog, which covers the page."""


def seen(page: Any, selector: str) -> bool:
    return bool(page.locator(selector).evaluate(SEEN))


def in_zoom(page: Any, address: str) -> None:
    start(page, address)
    press(page, "Space")
    page.locator(".rk-zoom[open]").wait_for()


def test_verdict_and_hint_are_seen_in_zoom_and_gone_when_taken_back(page, address, add_items):
    add_items(1)
    in_zoom(page, address)
    assert seen(page, ".rk-hint")
    expect(page.locator(".rk-hint")).to_have_text("Press a number: best first")
    press(page, "b")
    expect(page.locator(".rk-verdict")).to_contain_text("All bad")
    assert seen(page, ".rk-verdict")
    press(page, "b")
    expect(page.locator(".rk-verdict")).to_be_hidden()
    press(page, "s 2")
    expect(page.locator(".rk-verdict")).to_contain_text("Skip, ")
    assert seen(page, ".rk-verdict")


@pytest.mark.parametrize(("count", "keys"), [(4, "1 2 3 4 Enter"), (2, "1")])
def test_without_a_network_zoom_says_that_nothing_is_saved_and_sends_it_later(
    page, address, store, add_items, count, keys
):
    add_items(2, num_images=count)
    in_zoom(page, address)
    page.context.set_offline(True)
    press(page, keys)
    alert = page.locator(".rk-alert")
    expect(alert).to_contain_text("Not saved yet")
    assert seen(page, ".rk-alert")
    assert seen(page, ".rk-submit")
    page.context.set_offline(False)
    page.get_by_role("button", name="Try again").click()
    wait_for_progress(page, "1 of 2")
    expect(page.locator(".rk-zoom[open]")).to_have_count(1)
    assert seen(page, ".rk-toast")
    assert len(stored(store)) == 1


def test_a_finger_places_sends_and_takes_back_in_zoom(phone, address, store, add_items):
    add_items(2)
    start(phone, address)
    phone.get_by_role("button", name="Zoom").tap()
    zoom = phone.locator(".rk-zoom")
    for position in (3, 1, 0):
        phone.locator(".rk-pane").nth(position).tap()
    for _ in range(2):  # the last one is placed first
        zoom.get_by_role("button", name="Submit").tap()
    phone.locator(".rk-zoom-prompt", has_text="number 1").wait_for()
    zoom.get_by_role("button", name="Undo").tap()
    phone.locator(".rk-zoom-prompt", has_text="number 0").wait_for()
    zoom.get_by_role("button", name="Submit").tap()
    phone.locator(".rk-zoom-prompt", has_text="number 1").wait_for()
    zoom.get_by_role("button", name="All bad").tap()
    zoom.get_by_role("button", name="Submit").tap()
    phone.locator(".rk[data-state=empty]").wait_for()
    assert stored(store) == [("ranked", None, [[4], [2], [1], [3]]), ("all_bad", None, [])]


@pytest.mark.parametrize("way", ["Space", "Escape"])
def test_the_buttons_are_back_on_the_page_after_zoom(page, address, add_items, way):
    add_items(1)
    start(page, address)
    before = page.locator(".rk-submit").bounding_box()
    press(page, f"Space b {way}")
    page.locator(".rk-zoom").wait_for(state="hidden")
    page.wait_for_function("() => !document.querySelector('.rk-zoom .rk-submit')")
    assert page.locator(".rk-submit").bounding_box() == before
    expect(page.locator(".rk-verdict")).to_be_visible()


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
def test_a_long_prompt_in_zoom_says_that_it_is_cut_and_opens(
    page, address, add_items, width, height
):
    add_items(2, prompts=[LONG, "a house"])
    page.set_viewport_size({"width": width, "height": height})
    in_zoom(page, address)
    prompt = page.locator(".rk-zoom-prompt")
    assert prompt.evaluate("p => p.scrollHeight > p.clientHeight + 2")
    zoom = page.locator(".rk-zoom")
    zoom.get_by_role("button", name="Show the whole prompt").click()
    assert prompt.evaluate("p => p.scrollHeight <= p.clientHeight + 2")
    zoom.get_by_role("button", name="Show less").click()
    assert prompt.evaluate("p => p.scrollHeight > p.clientHeight + 2")
    press(page, "b Enter")
    expect(prompt).to_have_text("a house")
    expect(page.locator(".rk-zoom-more")).to_be_hidden()
