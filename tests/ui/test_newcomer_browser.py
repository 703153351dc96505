"""What the app tells somebody who has nothing yet: what to do, and where in the app."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from finished_runs import write_finished
from served_app import served
from waited import expect

from ui.heading import PAGES as ALL
from ui.links import in_the_app, linked
from ui.pages import generate
from ui.sending import Sent

pytestmark = [
    pytest.mark.browser,
    # gradio counts its own calls with options of pandas that pandas is about to drop
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
]
COMMAND = "imgalign ui --database sqlite:///demo/imgalign.db --runs demo"


def test_no_page_sends_anybody_to_a_terminal(
    page: Any, address: str, here: Path, add_items: Any
) -> None:
    add_items(1)  # which nobody has judged
    write_finished(here / "runs" / "mine")
    shown = {}

    def look(name: str) -> None:
        shown[name] = page.locator("body").inner_text()

    filled = {"candidates": ".ba-standing", "people": ".people a", "learn": ".le-hint a"}
    for name in ALL:
        page.goto(f"{address}/{'' if name == 'rank' else name}")
        page.locator(filled.get(name, "h1")).first.wait_for()
        look(name)
    page.goto(f"{address}/train")
    verdict = page.locator(".mo-verdict")
    verdict.get_by_role("link", name="Compare it on Generate").wait_for()
    expect(verdict.get_by_role("link", name="Results")).to_have_attribute("href", "results")
    assert verdict.locator(".take code").all_text_contents()[0].endswith("step-000006")
    page.wait_for_function("() => document.querySelector('#recipe input:checked')?.value")
    page.locator("#recipe input[value=storybook_grpo]").check()
    missing = page.locator("#notes", has_text="reward.path: expected a reward model")
    missing.wait_for()
    expect(missing.get_by_role("link", name="on Learn")).to_have_attribute("href", "learn")
    look("a recipe that lacks a reward model")
    assert {name: text for name, text in shown.items() if "imgalign " in text} == {}
    verdict.get_by_text("On a terminal").click()
    expect(verdict).to_contain_text("imgalign evaluate", use_inner_text=True)


def test_messages_of_commands_name_pages_of_the_app() -> None:
    for said, heard in (
        ("rank images with imgalign ui first", "rank images on Rank first"),
        ("none here; fit it with 'imgalign reward train'", "none here; fit it on Learn"),
        ("none; 'imgalign reward train' writes one", "none; fit one on Learn"),
    ):
        assert in_the_app(said) == heard
    assert linked("<b>: fit it on Learn") == '&lt;b&gt;: fit it <a href="learn">on Learn</a>'
    sent = generate._stored(Sent(new=2, known=0, project="cats-compare"), "cats")
    assert "imgalign " not in sent
    assert "ranks the project cats alone" in sent
    assert 'href="results"' in sent


def test_a_newcomer_is_told_before_the_name_that_nothing_is_there_and_is_offered_the_demo(
    page: Any, settings: Any, store: Any, add_items: Any
) -> None:
    offering = replace(settings, pages=("rank", "candidates"), demos=(("demo", COMMAND),))
    with served(offering, store) as address:
        page.goto(address)
        page.get_by_text("Nothing is there to rank yet.").wait_for()
        welcome = page.locator(".rk-welcome")
        expect(welcome.get_by_role("link", name="Make candidates")).to_be_visible()
        welcome.get_by_role("link", name="Open a finished demo").click()
        demo = page.locator(".ba-demos .take", has_text="A finished demo is in demo")
        demo.wait_for()
        expect(demo.locator("code")).to_have_text(COMMAND)
        expect(page.locator(".ba-demos")).to_contain_text("stays on the store", use_inner_text=True)
        add_items(1)
        with page.expect_response("**/api/rank/queued"):
            page.goto(address)
        page.locator("#rk-name-input").wait_for()
        assert page.locator(".rk-nothing").is_hidden()
