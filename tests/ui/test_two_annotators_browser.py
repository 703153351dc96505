"""Two annotators rank one project at the same time, each in a browser of their own."""

from collections import Counter
from typing import Any

import pytest
from rank_page import press, start, wait_for_progress
from waited import expect

from imgalign.preferences.store import Store

pytestmark = [
    pytest.mark.browser,
    # gradio counts its own calls with options of pandas that pandas is about to drop
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
]
PAGES = ("rank",)  # others take their time to build


def test_two_who_rank_in_turn_lose_and_double_no_vote(
    page: Any, chromium: Any, address: str, store: Store, add_items: Any
):
    item_ids = add_items(3, overlap=2)
    context = chromium.new_context()
    other = context.new_page()
    other.set_default_timeout(60_000)
    start(page, address, "Ada")
    start(other, address, "Bob")
    for done in range(1, 4):
        for each in (page, other):
            press(each, "b Enter")
        for each in (page, other):
            wait_for_progress(each, f"{done} of 3")
    votes = Counter((each.item_id, each.annotator) for each in store.rankings())
    assert votes == {(item, who): 1 for item in item_ids for who in ("ada", "bob")}
    for who in ("ada", "bob"):
        assert (store.counts(who).done, store.counts(who).left) == (3, 0)
    context.close()


def test_whoever_finds_the_last_set_held_by_another_is_not_told_that_all_is_done(
    page: Any, chromium: Any, address: str, store: Store, add_items: Any
):
    add_items(1, overlap=1)
    start(page, address, "Ada")
    context = chromium.new_context()
    other = context.new_page()
    other.set_default_timeout(60_000)
    other.goto(address)
    other.get_by_label("Your name or initials").fill("Bob")
    other.keyboard.press("Enter")
    expect(other.locator(".rk-empty-title")).to_have_text("Nothing free right now")
    expect(other.locator(".rk-empty-text")).to_contain_text("1 more is with other annotators now")
    press(page, "b Enter")
    wait_for_progress(page, "1 of 1")
    (vote,) = store.rankings()
    assert vote.annotator == "ada"
    context.close()
