"""The large view of the Generate page in a browser: how many pixels an image gets, and where."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from generate_page import choose, generate, open_page, write_runs
from PIL import Image
from touches import finger, middle, spread
from waited import expect

from imgalign.images import png

pytestmark = [
    pytest.mark.browser,
    # gradio counts its own calls with options of pandas that pandas is about to drop
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
]
PAGES = ("rank", "generate")  # others take their time to build
SIZE = 512
"""Pixels of an image that is shown, both ways."""
WHERE = """all => all.map((image) => {
  const of = [image, image.closest(".co-pane")];
  const [box, pane] = of.map((each) => each.getBoundingClientRect());
  return [box.left - pane.left, box.top - pane.top, box.width].map((each) => Math.round(each));
})"""
"""Where each image lies in its pane, and how wide it is, in CSS pixels."""
GO_ON = """() => {
  const key = new KeyboardEvent("keydown", {key: "PageDown", bubbles: true});
  document.querySelector(".co-large").dispatchEvent(key);
  return [...document.querySelectorAll(".co-pane img")].map((image) => image.style.transform);
}"""
"""Press PageDown, and tell at once how the images of the next seed are transformed."""


@pytest.fixture
def phone(chromium: Any) -> Iterator[Any]:
    """A tab of a phone whose screen has two pixels for each of CSS, both ways."""
    context = chromium.new_context(
        viewport={"width": 390, "height": 844}, device_scale_factor=2, has_touch=True
    )
    page = context.new_page()
    page.set_default_timeout(60_000)
    yield page
    context.close()


@pytest.fixture
def runs(tmp_path: Path, model: Path) -> Path:
    return write_runs(tmp_path / "runs", model)


def open_large(page: Any, address: str) -> None:
    """Base and checkpoint of two seeds, the first of them large; the tiny model's are replaced."""
    drawn = png(Image.radial_gradient("L").resize((SIZE, SIZE)).convert("RGB"))
    page.route(
        re.compile(r"/api/generated/[^/]+$"),
        lambda route: route.fulfill(body=drawn, content_type="image/png"),
    )
    open_page(page, address)
    choose(page, "checkpoint", "lora, iteration 20")
    generate(page, prompts="a red house", images_each=2, steps=2)
    page.locator("button.co-cell").nth(3).wait_for()
    page.get_by_role("button", name="Base, seed 1, show large").click()
    page.wait_for_function(
        "() => document.querySelector('.co-pane img')?.naturalWidth === 512"
        " && document.querySelector('[data-whole]')"
    )


def where(page: Any) -> list[int]:
    """Where the images lie, which is the same place in all of them."""
    found = page.locator(".co-pane img").evaluate_all(WHERE)
    assert len(found) == 2
    assert found[0] == found[1]
    return list(found[0])


def test_all_images_of_a_seed_are_seen_at_one_scale_and_place(runs: Path, page: Any, address: str):
    open_large(page, address)
    scale = page.locator(".co-scale")
    pane = page.locator(".co-pane").nth(1)
    fitted = where(page)
    assert fitted[2] == round(min(pane.bounding_box()[side] for side in ("width", "height")))
    page.get_by_role("button", name="1:1").click()
    expect(scale).to_have_text("1:1")
    assert where(page)[2] == SIZE

    # The wheel keeps what is under the pointer where it is.
    left, top, _ = where(page)
    box = pane.bounding_box()
    page.mouse.move(box["x"] + left + 0.25 * SIZE, box["y"] + top + 0.5 * SIZE)
    page.mouse.wheel(0, -100)
    expect(scale).to_have_text("2:1")
    wide, high, width = where(page)
    assert width == 2 * SIZE
    assert wide == pytest.approx(left - 0.25 * SIZE, abs=1)
    assert high == pytest.approx(top - 0.5 * SIZE, abs=1)

    for key, text in (("+", "3:1"), ("=", "4:1"), ("-", "3:1"), ("-", "2:1"), ("1", "1:1")):
        page.keyboard.press(key)
        expect(scale).to_have_text(text)
    page.get_by_role("button", name="Zoom in").click()
    expect(scale).to_have_text("2:1")
    before = where(page)
    page.keyboard.press("ArrowLeft")  # what lies to the left comes into view
    page.keyboard.press("ArrowDown")
    after = where(page)
    assert after == [before[0] + 40, before[1] - 40, before[2]]
    x, y = middle(pane)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 25, y + 35)
    page.mouse.up()
    assert where(page) == [after[0] - 25, after[1] + 35, after[2]]

    transforms = page.evaluate(GO_ON)  # the same place of the next seed, from the first frame
    assert len(transforms) == 2
    assert all(transforms)
    page.get_by_text("a red house, seed 2").wait_for()
    page.wait_for_function("() => document.querySelectorAll('.co-pane img')[1].naturalWidth")
    assert where(page) == [after[0] - 25, after[1] + 35, after[2]]
    page.keyboard.press("0")
    assert where(page) == fitted
    page.keyboard.press("ArrowLeft")  # of whole images there is nothing to move
    page.get_by_text("a red house, seed 1").wait_for()
    page.get_by_role("button", name="Pixels").click()
    page.keyboard.press("1")
    shown = "image => getComputedStyle(image).imageRendering"
    assert page.locator(".co-pane img").first.evaluate(shown) == "auto"
    page.keyboard.press("p")
    assert page.locator(".co-pane img").first.evaluate(shown) == "pixelated"


def test_with_a_divider_both_images_are_moved_and_it_stays(runs: Path, page: Any, address: str):
    open_large(page, address)
    page.get_by_role("button", name="Slider").click()
    page.wait_for_function("() => document.querySelectorAll('.co-layer img')[1]?.naturalWidth")
    divider = page.get_by_label(re.compile("^Divider: "))
    page.locator(".co-pair").focus()
    page.keyboard.press("ArrowRight")
    expect(divider).to_have_value("51")
    x, y = middle(page.locator(".co-stack"))
    page.mouse.move(x, y)
    for _ in range(3):
        page.mouse.wheel(0, -100)
    expect(page.locator(".co-scale")).to_have_text(re.compile(r"^[34]:1$"))
    before = where(page)
    page.mouse.move(x - 100, y)
    page.mouse.down()
    page.mouse.move(x - 70, y + 20)
    page.mouse.up()
    assert where(page) == [before[0] + 30, before[1] + 20, before[2]]
    expect(divider).to_have_value("51")
    box = page.locator(".co-stack").bounding_box()
    page.mouse.move(box["x"] + 0.51 * box["width"], y)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.3 * box["width"], y)
    page.mouse.up()
    expect(divider).to_have_value("30")
    assert where(page) == [before[0] + 30, before[1] + 20, before[2]]
    page.get_by_role("button", name="Slider").click()
    page.wait_for_function("() => document.querySelectorAll('figure img')[1]?.naturalWidth")
    assert where(page)[2] == before[2]


def test_two_fingers_scale_and_one_moves_and_a_pixel_is_one_of_the_screen(
    runs: Path, phone: Any, address: str
):
    open_large(phone, address)
    assert not phone.evaluate("document.documentElement.scrollWidth > innerWidth")
    phone.get_by_role("button", name="1:1").tap()
    assert where(phone)[2] == SIZE / 2
    x, y = middle(phone.locator(".co-pane").nth(0))
    spread(phone, x, y, apart=80)
    scale = phone.locator(".co-scale").text_content()
    assert float(scale.removesuffix(":1")) == pytest.approx(2, rel=0.1)
    before = where(phone)
    finger(phone, ("touchStart", x, y), ("touchMove", x + 30, y + 10), ("touchEnd",))
    assert where(phone) == [before[0] + 30, before[1] + 10, before[2]]
    phone.keyboard.press("0")
    before = where(phone)
    finger(phone, ("touchStart", x, y), ("touchMove", x + 30, y), ("touchEnd",))
    assert where(phone) == before  # nothing to move
