"""The Tab key goes the way the eye does: down the page, at any width."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from finished_runs import write_finished
from waited import expect

pytestmark = [
    pytest.mark.browser,
    # gradio counts its own calls with options of pandas that pandas is about to drop
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
]
FOCUSED = """() => {
  const each = document.activeElement;
  if (each === document.body || each.closest("header.top")) return null;
  const { top, bottom } = each.getBoundingClientRect();
  const name = each.id || each.ariaLabel || each.innerText || each.value || each.className;
  return [top + scrollY, bottom + scrollY, name];
}"""
FILLED = {
    "candidates": ".ba-standing",
    "people": "#people p",
    "learn": ".le-hint a",
    "train": ".mo-verdict",
    "generate": "#checkpoint input",
    "results": ".none-yet",
}


@pytest.fixture
def work(here: Path, add_items: Any) -> None:
    """A queue, and a run that has ended."""
    add_items(2)
    write_finished(here / "runs" / "mine")


def tabbed(page: Any) -> list[tuple[float, float, str]]:
    """Top, bottom and name of what Tab stops at below the header, in its order."""
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    found: list[tuple[float, float, str]] = []
    for _ in range(120):
        page.keyboard.press("Tab")
        stop = page.evaluate(FOCUSED)
        if stop is not None:
            found.append(tuple(stop))
        elif found:
            return found
    raise AssertionError(found)


@pytest.mark.usefixtures("work")
def test_on_a_narrow_screen_no_stop_of_tab_is_above_the_one_before(page: Any, address: str) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    back = {}
    for name, shown in FILLED.items():
        page.goto(f"{address}/{name}")
        expect(page.locator(shown).first).to_be_visible()
        if name == "train":
            page.wait_for_function("() => document.querySelector('#recipe input:checked')?.value")
            # At its full length: a list that scrolls to what has the focus moves what was above.
            page.add_style_tag(content="#recipe .wrap { height: auto !important; }")
        if name != "generate":  # where nothing was made yet it is open
            for heading in page.locator(".unfold label").all():
                heading.click()
        stops = tabbed(page)
        assert len(stops) > 2, name
        back[name] = [(a[2], b[2]) for a, b in pairwise(stops) if b[1] <= a[0]]
    assert {name: jumps for name, jumps in back.items() if jumps} == {}


@pytest.mark.usefixtures("work")
def test_what_changes_places_as_a_window_gets_narrow_keeps_its_focus_and_what_is_in_it(
    page: Any, address: str
) -> None:
    page.set_viewport_size({"width": 1280, "height": 800})
    page.goto(f"{address}/train")
    page.locator(".mo-verdict").wait_for()
    page.wait_for_function("() => document.querySelector('#recipe input:checked')?.value")
    side, watched, settings = (page.locator(each) for each in (".side", "#monitor", "#settings"))
    name = page.get_by_label("Name")
    name.fill("half typed")

    def order() -> list[str]:
        tops = {
            key: each.bounding_box()["y"]
            for key, each in (("side", side), ("watched", watched), ("settings", settings))
        }
        return sorted(tops, key=lambda key: tops[key])

    left, right = side.bounding_box(), watched.bounding_box()
    assert left["x"] + left["width"] <= right["x"]
    assert settings.bounding_box()["x"] == pytest.approx(right["x"], abs=2)
    for width, expected in ((700, ["watched", "side", "settings"]), (1280, None)):
        page.set_viewport_size({"width": width, "height": 800})
        before = f"() => document.querySelector('.side').{'previous' if expected else 'next'}"
        page.wait_for_function(f"{before}ElementSibling.matches('.watched')")
        expect(name).to_be_focused()
        expect(name).to_have_value("half typed")
        if expected:
            assert order() == expected
