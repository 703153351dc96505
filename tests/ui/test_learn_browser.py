"""The Learn page in a real browser, with a real fit on a few rankings."""

from typing import Any

import pytest
from submissions import judge, on_screen
from waited import expect

pytestmark = [
    pytest.mark.browser,
    # gradio counts its own calls with options of pandas that pandas is about to drop
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("here")
def test_rankings_become_a_reward_model_that_the_train_page_offers(
    page: Any, address: str, store: Any, add_items: Any
) -> None:
    page.goto(f"{address}/learn")
    page.wait_for_function("() => document.title === 'Learn - imgalign'")
    link = page.get_by_role("link", name="Rank some images first.")
    link.wait_for()
    expect(link).to_have_attribute("href", f"{address}/")
    page.get_by_role("button", name="Fit", exact=True).click()
    page.get_by_text("rankings: there are none yet").wait_for()

    store.add_annotator("ann", group="warm")
    add_items(24, num_images=3)
    for _ in range(24):
        item = store.next_item("ann")
        order = on_screen(store, item, ((2,), (0,), (1,)))
        store.submit(judge(item, ranking=order))
    page.reload()
    page.get_by_text("Choose which rankings to learn from").wait_for()
    page.wait_for_function(
        "() => document.querySelector('#learn-from input')?.value"
        " === 'default: 24 rankings of images'"
    )
    page.get_by_label("Name").fill("my taste")
    page.get_by_role("button", name="Fit", exact=True).click()
    page.locator(".le-fit[data-state=fitting]").wait_for(timeout=120_000)

    page.reload()  # it goes on without the page
    page.locator(".le-fit[data-state=fitted]").wait_for(timeout=300_000)
    expect(page.locator(".le-said")).to_contain_text("rankings of project default")
    expect(page.locator(".le-verdict")).to_contain_text("It agrees with people on")
    assert page.locator(".le-row[data-own] span").last.text_content().endswith("%")
    images = page.locator(".le-pairs[data-kind=disagreements] img")
    agreed = page.locator(".le-pairs[data-kind=agreements]")
    assert images.count() + agreed.locator("img").count() > 0
    if agreed.is_visible():
        agreed.locator("summary").click()
    shown = page.locator(".le-pairs img:visible").first
    shown.scroll_into_view_if_needed()
    assert shown.evaluate("i => i.decode().then(() => i.naturalWidth)") == 64
    page.get_by_text("Calibration", exact=True).click()
    picture = page.locator(".le-picture")
    picture.scroll_into_view_if_needed()
    assert picture.evaluate("i => i.decode().then(() => i.naturalWidth)") > 64

    page.get_by_role("link", name="Align with it").click()
    page.wait_for_function("() => document.querySelector('#recipe input:checked')?.value")
    page.locator("#reward input").click()
    expect(page.get_by_role("option", name="my taste")).to_have_count(1)


@pytest.mark.usefixtures("here")
def test_a_name_stays_when_the_focus_passes_the_project_and_goes_when_another_is_chosen(
    page: Any, address: str, store: Any, add_items: Any
) -> None:
    store.add_annotator("ann")
    for project in ("cats", "dogs"):
        add_items(1, project=project, num_images=2)
        item = store.next_item("ann", project=project)
        store.submit(judge(item, ranking=on_screen(store, item, ((1,), (0,)))))
    page.goto(f"{address}/learn")
    project = page.locator("#learn-from input")
    expect(project).to_have_value("cats: 1 ranking of images")
    name = page.get_by_label("Name")
    name.fill("my taste")
    page.get_by_role("button", name="Fit", exact=True).click()
    refused = page.get_by_text("reward fit: 1 prompt in 1 ranking leaves")
    refused.wait_for()
    project.focus()
    project.press("Tab")
    page.locator("#learn-group input").press("Tab")
    expect(name).to_be_focused()
    expect(page.get_by_role("option")).to_have_count(0)
    page.wait_for_timeout(500)
    expect(name).to_have_value("my taste")
    assert refused.is_visible()
    project.click()
    page.get_by_role("option", name="dogs: 1 ranking of images").click()
    expect(name).not_to_have_value("my taste")
    expect(refused).to_have_count(0)


@pytest.mark.usefixtures("here")
def test_a_share_is_set_by_its_control_and_a_typing_error_is_said_at_its_line(
    page: Any, address: str
) -> None:
    page.goto(f"{address}/learn")
    share = page.get_by_role("textbox", name="Held-out share")
    expect(share).to_have_value("0.2")
    share.focus()
    expect(page.locator(".ct-about")).to_contain_text("Share of prompts for the reported numbers")
    share.fill("7")
    share.press("Enter")
    expect(page.locator("#overrides textarea")).to_have_value("test=7")
    expect(page.locator("#notes")).to_contain_text("Line 1. test: expected", use_inner_text=True)
    expect(page.locator(".ct-one[data-path=test] .ct-wrong")).to_contain_text("test: expected")
    expect(share).to_have_attribute("aria-invalid", "true")
    share.fill("0.3")
    share.press("Enter")
    expect(page.locator("#notes")).to_be_empty()
    expect(share).to_have_attribute("aria-invalid", "false")
    page.get_by_role("button", name="Settings: 1 of").click()
    page.get_by_label("Find a setting").fill("calibration")
    expect(page.locator("#settings tr[data-setting=validation]")).to_be_visible()
    expect(page.locator("#settings tr[data-setting=epochs]")).to_be_hidden()
