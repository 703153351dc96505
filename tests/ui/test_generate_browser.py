"""The Generate page in a real browser: wrong numbers, waiting, several checkpoints, sending."""

import re
from pathlib import Path
from typing import Any

import pytest
from generate_page import choose, generate, open_page, write_runs
from waited import expect

from imgalign.preferences.store import Store

PAGES = ("rank", "generate")  # others take their time to build
pytestmark = [
    pytest.mark.browser,
    # gradio counts its own calls with options of pandas that pandas is about to drop
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
]


@pytest.fixture
def runs(tmp_path: Path, model: Path) -> Path:
    return write_runs(tmp_path / "runs", model)


def test_a_number_that_cannot_be_is_one_line_at_the_form_and_the_page_goes_on(
    model: Path, page: Any, address: str
):
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    open_page(page, address)
    alert = page.locator("#notes [role=alert]")
    for numbers, line in (
        ({"first_seed": 2**64}, "to 9007199254740987, got 18446744073709551616"),
        ({"first_seed": 2**53 + 1}, "to 9007199254740987, got 9007199254740993"),
        ({"first_seed": -1}, "first seed: expected a whole number from 0 to"),
        ({"first_seed": "seven"}, "got seven"),
        ({"first_seed": ""}, "first seed: fill in a number"),
        ({"first_seed": 1, "images_each": 4.5}, "images each: expected .* got 4.5"),
        ({"images_each": 0}, "images each: expected a whole number from 1 to 128, got 0"),
        ({"images_each": 100, "steps": 10**9}, "steps: expected .* 1 to 200, got 1000000000"),
        ({"steps": 2, "guidance": 0.5}, r"guidance: expected 1 \(off\) to 20, got 0.5"),
        ({"guidance": ""}, "guidance: fill in a number"),
        ({"guidance": 1, "images_each": 128, "prompts": "a\nb"}, "256 images: expected at most"),
    ):
        generate(page, **numbers)
        alert.filter(has_text=re.compile(line)).wait_for()
        expect(alert).to_have_count(1)
        assert page.locator(".toast-wrap .toast-body").count() == 0
        place = alert.bounding_box()
        assert place["width"] < 340, "beside the form, and not over the images"
    generate(page, images_each=2, prompts="a red house", first_seed=2**53 - 3)
    page.locator(".co-cell img").nth(1).wait_for()
    assert alert.count() == 0
    seeds = page.locator(".co-table > span").all_text_contents()
    assert seeds == ["seed", "9007199254740989", "9007199254740990"]
    assert errors == []


def test_a_second_tab_says_that_it_waits_and_comes_next(model: Path, page: Any, address: str):
    open_page(page, address)
    generate(page, prompts="a red house", images_each=128, steps=200)
    doing = page.locator(".co-doing")
    doing.filter(
        has_text=re.compile(r"with the base model, step \d+ of 200 of \d+ images")
    ).wait_for()
    expect(page.locator(".co-count")).to_have_text("0 of 128 images", use_inner_text=True)

    other = page.context.new_page()
    other.set_default_timeout(60_000)
    open_page(other, address)
    generate(other, prompts="a red house", images_each=1, steps=2)
    other.get_by_text("Another page is drawing; yours comes next").wait_for(timeout=10_000)
    assert other.locator(".co-cell img").count() == 0
    page.get_by_role("button", name="Stop").click()
    page.get_by_text(re.compile(r"Stopped at \d+ of 128 images")).wait_for()
    other.locator(".co-cell img").wait_for()


def test_images_that_are_there_stay_the_same_elements_while_others_are_drawn(
    model: Path, page: Any, address: str
):
    open_page(page, address)
    generate(page, prompts="a red house", images_each=64, steps=40)
    first = page.locator(".co-cell img").first
    first.wait_for()
    page.locator(".co-count").filter(has_text=re.compile(r"about \d+ (s|min) left")).wait_for()
    first.evaluate("image => { image.dataset.seen = 'yes'; image.closest('button').focus(); }")
    page.locator(".co-cell img").nth(63).wait_for(timeout=120_000)
    expect(page.locator(".co-cell img[data-seen=yes]")).to_have_count(1)
    label = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert label == "Base, seed 1, show large"


def test_three_checkpoints_and_the_base_are_compared_and_sent_once(
    runs: Path, page: Any, address: str, store: Store
):
    open_page(page, address)
    assert page.locator("#checkpoint-3").is_hidden()
    choose(page, "checkpoint", "lora, iteration 20")
    choose(page, "checkpoint-2", "full, iteration 10")
    choose(page, "checkpoint-3", "lora, iteration 10")
    generate(page, prompts="a red house", images_each=2, steps=3)
    page.locator(".co-cell img").nth(7).wait_for()
    names = ["Base", "lora, iteration 20", "full, iteration 10", "lora, iteration 10"]
    expect(page.locator(".co-table b")).to_have_text(names)
    page.locator(".co-cell").nth(2).click()
    expect(page.locator(".co-pair figcaption")).to_have_text(names)
    sources = page.locator(".co-pair img").evaluate_all("all => all.map((each) => each.src)")
    assert len(set(sources)) == 4
    page.get_by_role("button", name="Close").click()

    # Proposed: base and checkpoints are not mixed unasked into what others learn from.
    page.get_by_text("a reward must not learn from its own test").wait_for()
    page.wait_for_function(
        "() => document.querySelector('#project input').value === 'default-compare'"
    )
    send = page.get_by_role("button", name="Send to ranking")
    send.dblclick()
    page.get_by_text(re.compile("6 items .*in the project default-compare")).wait_for()
    send.click()
    again = "Nothing was sent again: 6 items are in the project default-compare"
    page.get_by_text(again).wait_for()
    page.get_by_text("Checkpoints against each other").click()
    page.locator("#project input").fill("my own")
    page.locator("#project input").press("Enter")
    send.click()
    page.get_by_text("Stored 6 items in the project my own").wait_for()
    store.add_annotator("Ada")
    left = [store.counts("Ada", project=name).left for name in ("default-compare", "my own")]
    assert [*left, store.counts("Ada").left] == [6, 6, 0]

    page.reload()
    page.locator(".co-cell img").nth(7).wait_for()
    expect(page.locator(".co-table b")).to_have_text(names)


def test_a_divider_moves_between_two_images_of_a_seed(runs: Path, page: Any, address: str):
    open_page(page, address)
    choose(page, "checkpoint", "lora, iteration 20")
    generate(page, prompts="a red house", images_each=2, steps=3, first_seed=1)
    page.locator(".co-cell img").nth(3).wait_for()
    page.get_by_role("button", name="Base, seed 1, show large").click()
    page.get_by_role("button", name="Slider").click()
    over = page.locator(".co-over")
    divider = page.get_by_label(re.compile("^Divider: "))
    expect(divider).to_have_value("50")
    page.keyboard.press("ArrowRight")
    expect(divider).to_have_value("51")
    box = page.locator(".co-stack").bounding_box()
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 10)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 20)
    page.mouse.up()
    assert divider.input_value() in ("74", "75", "76")
    shown = over.evaluate("image => getComputedStyle(image).clipPath")
    assert re.fullmatch(r"inset\(0(px)? 2[4-6](\.\d+)?% 0(px)? 0(px)?\)", shown)
    image = over.locator("img")
    before = image.get_attribute("src")
    page.get_by_label("Left image").select_option(index=1)
    assert image.get_attribute("src") != before
    seed = image.get_attribute("src")
    page.get_by_role("button", name="Next seed").click()
    assert image.get_attribute("src") != seed
    assert divider.input_value() in ("74", "75", "76")
    page.get_by_role("button", name="Slider").click()
    expect(page.locator(".co-pair figure")).to_have_count(2)
    page.get_by_role("button", name="Slider").click()


def test_a_checkpoint_has_a_strength_while_it_is_chosen(
    runs: Path, page: Any, address: str, store: Store
):
    open_page(page, address)
    choose(page, "checkpoint", "lora, iteration 20")
    choose(page, "checkpoint-2", "lora, iteration 20")
    page.locator("#strength-2 input[type=number]").fill("0.6")
    page.locator("#strength-2 input[type=number]").press("Tab")
    assert page.locator("#strength-3").is_hidden()
    generate(page, prompts="a red house", images_each=1, steps=2)
    page.locator(".co-cell img").nth(2).wait_for()
    names = ["Base", "lora, iteration 20", "lora, iteration 20 at 0.6"]
    expect(page.locator(".co-table b")).to_have_text(names)
    choose(page, "checkpoint-2", "No other")
    page.locator("#strength-2").wait_for(state="hidden")
    choose(page, "checkpoint-2", "full, iteration 10")
    page.locator("#strength-2").wait_for()
    expect(page.locator("#strength-2 input[type=number]")).to_have_value("1")
    page.locator("#strength-2 input[type=number]").fill("0.5")
    page.locator("#strength-2 input[type=number]").press("Tab")
    page.get_by_role("button", name="Generate", exact=True).click()
    page.get_by_text("has all weights of the network").wait_for()


def test_a_link_chooses_a_checkpoint_and_its_strength(
    runs: Path, page: Any, address: str, store: Store
):
    for told, shown in (("&strength=0.6", "0.6"), ("", "1"), ("&strength=nan", "1")):
        page.goto(f"{address}/generate?checkpoint=lora/step-000010{told}")
        expect(page.locator("#checkpoint input")).to_have_value("lora, iteration 10")
        expect(page.locator("#strength-1 input[type=number]")).to_have_value(shown)


def test_a_checkpoint_that_is_taken_back_takes_those_after_it_along(
    runs: Path, page: Any, address: str
):
    open_page(page, address)
    choose(page, "checkpoint", "lora, iteration 20")
    choose(page, "checkpoint-2", "full, iteration 10")
    page.locator("#checkpoint-3 input").wait_for()
    choose(page, "checkpoint", "Base model only")
    page.locator("#checkpoint-2 input").wait_for(state="hidden")
    generate(page, prompts="a red house", images_each=1, steps=2)
    page.locator(".co-cell img").wait_for()
    expect(page.locator(".co-table b")).to_have_text(["Base"])


def test_what_was_drawn_before_comes_back_until_the_server_has_forgotten_it(
    model: Path, page: Any, address: str
):
    open_page(page, address)
    assert page.locator(".co-history").is_hidden()
    for prompt in ("a red house", "a tree"):
        page.get_by_label("Prompts").fill(prompt)
        generate(page, images_each=1, steps=2)
        page.locator(".co-prompt h3", has_text=prompt).wait_for()
        page.locator("button.co-cell").wait_for()
    page.reload()
    page.locator(".co-prompt h3", has_text="a tree").wait_for()
    page.locator(".co-history summary").click()
    earlier = page.locator(".co-history li")
    expect(earlier.locator("b")).to_have_text(["a tree", "a red house"])
    earlier.nth(1).click()
    page.locator(".co-prompt h3", has_text="a red house").wait_for()
    assert page.locator("button.co-cell img").evaluate("i => i.decode().then(() => i.naturalWidth)")
    expect(earlier).to_have_count(2)  # looking at one makes no other

    page.evaluate(
        """() => {
          const name = "imgalign.generate.history";
          const kept = localStorage.getItem(name);
          localStorage.setItem(name, kept.replace(/"base":"[^"]+"/g, '"base":"x"'));
        }"""
    )
    earlier.nth(0).click()
    page.get_by_text("These images are not kept any more").wait_for()
    page.evaluate("localStorage.setItem('imgalign.generate.history', '[{}, 3, null]')")
    page.reload()
    page.locator(".none-yet").wait_for()
