"""One image or text at a time: one key or tap likes it, another does not, a third skips it."""

from collections.abc import Callable
from typing import Any

import pytest
from rank_page import press, start, stored, wait_for_progress, wait_until_seen
from texts import add_texts
from waited import expect

from imgalign.preferences.store import Store

pytestmark = [
    pytest.mark.browser,
    # gradio counts its own calls with options of pandas that pandas is about to drop
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
]
PAGES = ("rank",)  # others take their time to build
Add = Callable[..., list[str]]
LIKE, DISLIKE, SKIP = (
    *(("ranked", None, [[1]]), ("all_bad", None, [])),
    ("skipped", "cannot judge", []),
)


def test_of_one_each_key_is_a_judgement_and_undo_takes_it_back(
    page: Any, address: str, store: Store, add_items: Add
):
    add_items(7, num_images=1)
    start(page, address)
    expect(page.locator(".rk-question")).to_have_text("Do you like this image?")
    press(page, "Enter = t 2")  # which judge nothing here
    for number, key in enumerate(("ArrowUp", "ArrowDown", "s", "1", "d", "l"), start=1):
        press(page, key)
        wait_for_progress(page, f"{number} of 7")
    press(page, "u")
    wait_for_progress(page, "5 of 7")
    press(page, "b")
    wait_for_progress(page, "6 of 7")
    assert stored(store) == [LIKE, DISLIKE, SKIP, LIKE, DISLIKE, DISLIKE]
    press(page, "h")
    verdicts = page.locator(".rk-vote-about b")
    verdicts.nth(5).wait_for()
    said = ["Disliked", "Disliked", "Liked", "Skipped: cannot judge", "Disliked", "Liked"]
    expect(verdicts).to_have_text(said)
    press(page, "Escape")
    page.locator(".rk-tile").click()  # looks closely, and judges nothing
    page.locator(".rk-zoom[open]").wait_for()
    page.locator(".rk-pane").click()
    assert len(stored(store)) == 6
    press(page, "l")
    page.locator(".rk[data-state=empty]").wait_for()
    assert stored(store)[-1] == LIKE


def test_texts_and_sets_of_several_come_in_the_same_queue(page: Any, address: str, store: Store):
    add_texts(store, ["a red cat"], prompt="one")
    add_texts(store, ["a red cat", "a cat"], prompt="two")
    add_texts(store, ["a red cat", "a cat", "cats"], prompt="three")
    start(page, address)
    expect(page.locator(".rk-question")).to_have_text("Do you like this text?")
    assert page.locator(".rk-submit").is_hidden()
    page.get_by_role("button", name="Like", exact=False).first.click()
    wait_for_progress(page, "1 of 3")
    assert page.locator(".rk-like").is_hidden()
    press(page, "ArrowUp l d")  # mean nothing of two
    press(page, "1")
    wait_for_progress(page, "2 of 3")
    expect(page.locator(".rk-submit")).to_be_visible()
    press(page, "1 2 3 Enter")
    page.locator(".rk[data-state=empty]").wait_for()
    assert [len(each.ranking or ()) for each in store.rankings()] == [1, 2, 3]


def test_on_a_phone_image_and_buttons_are_in_sight_and_a_tap_judges(
    phone: Any, address: str, store: Store, add_items: Add
):
    add_items(3, num_images=1)
    start(phone, address)
    phone.locator(".rk-tile img").wait_for()
    boxes = {
        name: phone.locator(f".rk-actions {where}").bounding_box()
        for name, where in (
            *(("like", ".rk-like"), ("dislike", "[data-do=bad]"), ("skip", "[data-do=skip]")),
            ("undo", "[data-do=undo]"),
        )
    }
    for name, box in boxes.items():
        assert box["height"] >= 44, name
        assert box["width"] >= 44, name
        assert box["y"] + box["height"] <= 640, name
    image = phone.locator(".rk-tile img").bounding_box()
    assert image["y"] + image["height"] <= min(box["y"] for box in boxes.values())
    assert image["height"] >= 180
    tile = phone.locator(".rk-tile").bounding_box()  # nothing beside the image but its edge
    assert tile["y"] + tile["height"] <= image["y"] + image["height"] + 8
    assert tile["x"] + tile["width"] <= image["x"] + image["width"] + 8
    for number, where in enumerate((".rk-like", "[data-do=bad]", "[data-do=skip]"), start=1):
        wait_until_seen(phone)
        phone.locator(f".rk-actions {where}").tap()
        if number < 3:
            wait_for_progress(phone, f"{number} of 3")
    phone.locator(".rk[data-state=empty]").wait_for()
    assert stored(store) == [LIKE, DISLIKE, SKIP]
