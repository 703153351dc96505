"""Choosing a project on the Rank page, in a real browser."""

from dataclasses import replace
from typing import Any

import pytest
from rank_page import press, wait_until
from served_app import served
from waited import expect

pytestmark = pytest.mark.browser
PAGES = ("rank",)  # others take their time to build


def enter(page: Any, address: str) -> None:
    page.goto(address)
    page.get_by_label("Your name or initials").fill("Ada")
    page.get_by_role("button", name="Start ranking").click()
    page.locator(".rk-tile").first.wait_for()


def test_a_project_is_chosen_and_remembered(page: Any, address: str, add_items: Any) -> None:
    add_items(2)
    add_items(1, project="cats-compare", num_images=2)
    enter(page, address)
    chooser = page.get_by_label("Project")
    chooser.wait_for()
    options = chooser.locator("option").all_text_contents()
    assert options == ["cats-compare (1 left)", "default (2 left)"]
    press(page, "2")  # half done, and still there afterwards
    page.locator(".rk-thumb").wait_for()

    chooser.select_option("cats-compare")
    page.locator(".rk[data-quick]").wait_for()
    expect(page.locator(".rk-count")).to_have_text("0 of 1")
    page.reload()
    page.locator(".rk[data-quick]").wait_for()
    page.locator(".rk-tile").first.wait_for()
    press(page, "1")
    page.get_by_role("heading", name="All done, thank you").wait_for()
    page.get_by_role("button", name="Go to default: 2 left").click()
    page.locator(".rk-tile").nth(3).wait_for()
    page.locator(".rk-thumb").wait_for()
    page.keyboard.press("h")
    page.locator(".rk-votes[open]").get_by_text("None yet").wait_for()  # those of this project


def test_a_link_names_a_project_and_one_that_is_gone_is_forgotten(
    page: Any, address: str, add_items: Any
) -> None:
    add_items(1)
    add_items(1, project="cats & dogs", num_images=3)
    enter(page, f"{address}/?project=cats+%26+dogs")
    page.locator(".rk-tile").nth(2).wait_for()
    expect(page.locator(".rk-tile")).to_have_count(3)
    page.goto(f"{address}/?project=birds")
    page.locator(".rk-tile").nth(3).wait_for()
    assert page.locator(".rk-alert").is_hidden()
    page.goto(address)
    page.locator(".rk-tile").nth(3).wait_for()


def test_the_project_of_the_command_line_is_the_only_one(
    page: Any, store: Any, settings: Any, add_items: Any
) -> None:
    add_items(1)
    add_items(1, project="cats", num_images=2)
    with served(replace(settings, project="default"), store) as address:
        enter(page, f"{address}/?project=cats")
        expect(page.locator(".rk-tile")).to_have_count(4)
        assert page.get_by_label("Project").is_hidden()


def test_a_project_is_chosen_on_a_phone(page: Any, address: str, add_items: Any) -> None:
    page.set_viewport_size({"width": 320, "height": 700})
    add_items(1)
    add_items(1, project="a project with a name that is far too long for a phone", num_images=2)
    enter(page, address)
    page.get_by_label("Project").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") == 320


def test_a_project_chosen_while_a_judgement_is_saved_comes_after_it(
    page: Any, address: str, store: Any, add_items: Any
) -> None:
    add_items(2)
    add_items(1, project="cats", num_images=3)
    enter(page, f"{address}/?project=default")
    chooser = page.get_by_label("Project")
    chooser.wait_for()
    held: list[Any] = []
    page.route("**/api/rank/submit", lambda route: held.append(route))
    press(page, "b Enter")
    wait_until(page, lambda: held)
    chooser.select_option("cats")
    held.pop().continue_()
    expect(page.locator(".rk-tile")).to_have_count(3)
    expect(page.locator(".rk-count")).to_have_text("0 of 1")
    assert [each.item_id for each in store.history("Ada")] != []
    press(page, "b Enter")
    wait_until(page, lambda: held)
    chooser.select_option("default")
    held.pop().abort()
    page.get_by_text("Not saved yet").wait_for()
    expect(chooser).to_have_value("cats")
    expect(page.locator(".rk-tile")).to_have_count(3)
