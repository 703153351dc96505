"""Guidelines and the word about a break on the Rank page: seen, and never in the way."""

from dataclasses import replace

import pytest
from rank_page import press, ranks_on_screen, start, wait_for_progress
from waited import expect

pytestmark = [
    pytest.mark.browser,
    # gradio counts its own calls with options of pandas that pandas is about to drop
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
]
PAGES = ("rank",)  # others take their time to build

TYPED = "Hands first.\n  <b>Then</b> faces."


@pytest.fixture
def settings(settings, tmp_path):
    file = tmp_path / "guidelines.txt"
    file.write_text(TYPED)
    return replace(settings, guidelines=file)


def test_guidelines_open_once_and_again_when_a_lead_has_changed_them(
    page, address, settings, add_items
):
    add_items(1)
    start(page, address)
    open_guide = page.locator(".rk-guide[open]")
    open_guide.wait_for()
    expect(page.locator(".rk-guide-text")).to_have_text(TYPED)
    assert page.locator(".rk-guide-text b").count() == 0
    press(page, "1 Escape 2")
    assert open_guide.count() == 0
    assert ranks_on_screen(page) == ["", "1st", "", ""]
    press(page, "g")
    open_guide.wait_for()
    press(page, "g")
    assert open_guide.count() == 0
    page.reload()
    page.get_by_role("button", name="Guidelines").wait_for()
    assert open_guide.count() == 0
    settings.guidelines.write_text("Faces first.")
    page.reload()
    open_guide.wait_for()
    expect(page.locator(".rk-guide-text")).to_have_text("Faces first.")


def test_guidelines_that_did_not_come_are_asked_for_with_the_next_set(page, address, add_items):
    add_items(2)
    lost = []
    page.route("**/api/rank/guidelines*", lambda route: (lost.append(route), route.abort()))
    start(page, address)
    press(page, "b")
    assert page.locator(".rk-guide[open]").count() == 0
    assert lost
    page.unroute("**/api/rank/guidelines*")
    press(page, "Enter")
    page.locator(".rk-guide[open]").wait_for()
    expect(page.locator(".rk-guide-text")).to_have_text(TYPED)


def test_after_long_work_a_break_is_suggested_once_between_two_sets(page, address, add_items):
    add_items(4)
    start(page, address)
    press(page, "Escape b Enter")
    wait_for_progress(page, "1 of 4")
    rest = page.locator(".rk-rest")
    assert not rest.is_visible()
    worked = "localStorage.setItem('imgalign.rank.worked.Ada', JSON.stringify({sum: %s, at: %s}))"
    page.evaluate(worked % ("1500000", "Date.now() - 301000"))  # a pause of five minutes
    press(page, "b Enter")
    wait_for_progress(page, "2 of 4")
    assert not rest.is_visible()
    page.evaluate(worked % ("1500000", "Date.now()"))
    press(page, "b Enter")
    wait_for_progress(page, "3 of 4")
    expect(rest).to_contain_text("You have ranked for 25 minutes")
    expect(rest).to_be_visible()
    press(page, "2 3")  # nothing waits for an answer
    assert ranks_on_screen(page) == ["", "1st", "2nd", ""]
    page.get_by_role("button", name="Go on").click()
    assert not rest.is_visible()
    page.reload()
    page.locator(".rk[data-state=ranking]").wait_for()
    assert not rest.is_visible()
