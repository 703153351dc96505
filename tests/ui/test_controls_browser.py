"""The controls of the Train page and the table of all settings, in a real browser."""

import threading

import pytest
from waited import expect

from ui.form_notes import describe

PAGES = ("rank", "train")  # others take their time to build
pytestmark = [
    pytest.mark.browser,
    # gradio counts its own calls with options of pandas that pandas is about to drop
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
]


@pytest.fixture
def train(page, address, tmp_path, monkeypatch):
    """The page, on a recipe of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "mine.yaml").write_text("# Mine.\nreward: {path: storybook}\n")
    page.goto(f"{address}/train")
    page.wait_for_function("() => document.querySelector('#recipe input:checked')?.value")
    page.locator("#recipe input[value='mine']").check()
    page.locator("#cost", has_text="40 iterations of 64 images").wait_for()
    return page


def overrides(page):
    return page.locator("#overrides textarea").input_value()


def test_a_control_writes_an_override_and_takes_it_back(train):
    train.get_by_label("Overrides").press_sequentially("# a try\n")
    iterations = train.get_by_label("Iterations", exact=True)
    expect(iterations).to_have_value("40")
    iterations.focus()
    expect(train.locator(".ct-about")).to_contain_text("run.iterations: How often a batch")
    iterations.fill("20")
    iterations.press("Enter")
    train.locator("#cost", has_text="20 iterations of 64 images").wait_for()
    assert overrides(train) == "# a try\nrun.iterations=20"

    iterations.fill("many")
    iterations.press("Tab")
    wrong = "run.iterations: expected a whole number, got 'many'"
    train.get_by_role("alert").get_by_text(wrong).wait_for()
    expect(train.locator(".ct-wrong:visible")).to_have_text(wrong)  # and at its control
    expect(iterations).to_have_value("many")  # to be mended where it was typed
    train.get_by_role("button", name="Iterations: back to 40").press("Enter")
    train.locator("#cost", has_text="40 iterations of 64 images").wait_for()
    assert overrides(train) == "# a try"
    expect(iterations).to_have_value("40")


def test_what_stands_in_a_control_is_started_with(train, tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr("ui.runs.Runs.launch", lambda *_, **run: started.append(run))
    train.get_by_label("Seed", exact=True).fill("7")  # and pressed at once, from within the control
    train.get_by_role("button", name="Start training").click()
    train.get_by_text("mine is starting").wait_for()
    assert [(run["name"], run["overrides"]) for run in started] == [("mine", ["seed=7"])]


def test_after_another_recipe_is_chosen_nothing_that_is_typed_is_lost(train, monkeypatch):
    allowed = threading.Event()

    def late(name):
        allowed.wait(60)
        return describe(name)

    monkeypatch.setattr("ui.pages.train_form.describe", late)
    train.locator("#recipe input[value='storybook_dpo']").focus()
    train.keyboard.press("Space")
    parts = (".ct-one", "#run-name", "#overrides", "#start-training")
    held = "(parts) => parts.every((part) => document.querySelector(part).closest('[inert]'))"
    train.wait_for_function(held, arg=parts)
    focused = "document.activeElement.value"
    assert train.evaluate(focused) == "storybook_dpo"  # arrow keys go on to choose
    # Others are no way around it: what somebody chooses next is what the form waits for.
    train.locator("#recipe input[value='mine']").check()
    allowed.set()
    train.wait_for_function(held.replace(" => parts.every", " => !parts.some"), arg=parts)
    expect(train.get_by_label("Name")).to_have_value("mine")
    expect(train.get_by_label("Iterations", exact=True)).to_have_value("40")


def test_any_setting_is_found_by_a_word_and_added_to_the_overrides(train):
    train.get_by_role("button", name="Settings: ").click()
    train.get_by_label("Find a setting").press_sequentially("LARGER gradients")
    train.locator("#found-settings", has_text="1 found").wait_for()
    rows = train.locator("#settings tr[data-setting]:visible")
    assert rows.evaluate_all("all => all.map((row) => row.dataset.setting)") == [
        "optimizer.max_grad_norm"
    ]
    train.get_by_role("button", name="max_grad_norm").press("Enter")
    assert overrides(train) == "optimizer.max_grad_norm=1.0"
    train.keyboard.type("0.5")  # the value is selected
    assert overrides(train) == "optimizer.max_grad_norm=0.5"
    train.get_by_label("Find a setting").focus()
    row = train.locator("#settings [data-setting='optimizer.max_grad_norm'] .value")
    row.get_by_text("0.5").wait_for()
    expect(rows).to_have_count(1)  # the table came anew, and is searched still


def test_the_controls_fit_on_a_phone(train):
    train.set_viewport_size({"width": 390, "height": 844})
    assert train.evaluate("document.documentElement.scrollWidth") == 390
    for one in train.locator(".ct-one").all():
        assert one.bounding_box()["width"] > 150


def test_until_the_controls_come_the_page_says_that_they_do(page, address, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loaded = threading.Event()
    monkeypatch.setattr("ui.recipes.load_libraries", loaded.wait)
    page.goto(f"{address}/train")
    comes = page.get_by_text("The settings come in a moment")
    comes.wait_for()
    loaded.set()
    page.get_by_label("Iterations", exact=True).wait_for()
    expect(comes).to_have_count(0)
