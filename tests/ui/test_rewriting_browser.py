"""The Generate page in a real browser: prompts and their rewrites, as text and never as markup."""

import re

import pytest
from waited import expect

from imgalign.preferences.store import Store

pytestmark = [
    pytest.mark.browser,
    # gradio counts its own calls with options of pandas that pandas is about to drop
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
    pytest.mark.filterwarnings("ignore:prompt. the model reads"),
]

MARKUP = "<img src=x onerror=\"document.title='bad'\"> a boat"


@pytest.fixture
def model(tmp_path, tiny_pipeline_folder, monkeypatch):
    """A working folder whose image model is the tiny one; before the app is started."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").symlink_to(tiny_pipeline_folder)


@pytest.mark.slow
def test_a_prompt_and_its_rewrite_are_shown_side_by_side(model, page, address, store: Store):
    page.goto(f"{address}/generate")
    page.locator("#rewriter input").click()
    assert not page.locator("#lock").is_visible()
    page.get_by_role("option", name="With the storybook's model").click()
    page.locator("#lock textarea, #lock input").first.fill("house, onerror")
    page.locator("#prompts textarea").fill(f"a red house\n{MARKUP}")
    page.get_by_label("Images each").fill("2")
    page.get_by_label("Steps").fill("2")
    page.get_by_role("button", name="Generate", exact=True).click()
    page.locator(".co-cell img").nth(7).wait_for(timeout=240_000)
    assert page.locator(".co-rewrite ins").first.text_content()
    first, second = page.locator(".co-prompt h3").all_text_contents()
    assert (first, second) == ("a red house", MARKUP)
    assert page.title() != "bad"
    assert page.locator(".co-prompt img[src=x]").count() == 0
    expect(page.locator(".co-table b")).to_have_text(["Base", "Base, rewritten"] * 2)
    page.locator(".co-cell").nth(2).click()
    captions = page.locator(".co-pair figcaption").all_text_contents()
    assert captions[0] == "Base"
    assert captions[1].startswith("Base, rewritten: ")
    page.get_by_role("button", name="Close").click()
    page.get_by_text("Plain against rewritten").click()
    page.get_by_role("button", name="Send to ranking").click()
    page.get_by_text(re.compile(r"Stored \d items? in the project default")).wait_for()
    store.add_annotator("Ada")
    assert store.next_item("Ada").prompt == "a red house"
