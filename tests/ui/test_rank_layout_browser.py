"""Images on the Rank page are as large as the screen allows, and do not move meanwhile."""

import io
from typing import Any

import pytest
from PIL import Image
from provenances import provenance
from rank_page import press, ranks_on_screen, start, wait_for_progress, wait_until_seen
from touches import finger, middle

from imgalign.preferences.store import Store

pytestmark = [
    pytest.mark.browser,
    # gradio counts its own calls with options of pandas that pandas is about to drop
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
]
PAGES = ("rank",)  # others take their time to build

SQUARE, WIDE, TALL = (64, 64), (64, 36), (48, 72)
LEAST = {
    (3840, 2160): {(2, SQUARE): 1500, (4, SQUARE): 900, (9, SQUARE): 540, (4, WIDE): 1250},
    (1920, 1080): {
        (2, SQUARE): 700,
        (4, SQUARE): 440,
        (6, SQUARE): 370,
        (9, SQUARE): 260,
        (9, TALL): 240,
        (4, WIDE): 600,
    },
    (1280, 800): {
        (2, SQUARE): 480,
        (4, SQUARE): 280,
        (6, SQUARE): 230,
        (9, SQUARE): 160,
        (9, TALL): 150,
        (2, WIDE): 580,
    },
    (390, 844): {(2, WIDE): 340, (2, SQUARE): 250, (4, SQUARE): 160, (6, SQUARE): 160},
    (844, 390): {(2, SQUARE): 130, (4, SQUARE): 130, (6, SQUARE): 130, (9, TALL): 100},
}
"""Width in CSS pixels, by screen, number of images and their shape."""

BOXES = """all => all.map((each) => {
  const { left, top, width, height } = each.getBoundingClientRect();
  return [left, top + scrollY, width, height].map(Math.round);
})"""


def queue(store: Store, count: int, shape: tuple[int, int], prompt: str = "") -> None:
    """One set of images of this shape, each of another colour."""
    images = []
    for number in range(count):
        out = io.BytesIO()
        Image.new("RGB", shape, (20 * number, 90, 20 * count)).save(out, "PNG")
        images.append(store.add_image(out.getvalue(), provenance(seed=number)))
    store.add_item(prompt or f"{count} of {shape}", images, source="test")


def boxes(page: Any, selector: str) -> list[list[int]]:
    """Left, top on the page, width and height of all of them."""
    found: list[list[int]] = page.locator(selector).evaluate_all(BOXES)
    return found


def bar_is_in_view(page: Any, screen: tuple[int, int]) -> bool:
    box = page.locator(".rk-actions").bounding_box()
    return bool(box["x"] + box["width"] <= screen[0] and box["y"] + box["height"] <= screen[1])


@pytest.mark.parametrize("screen", LEAST, ids=lambda screen: "x".join(map(str, screen)))
def test_images_are_as_large_as_the_screen_allows_and_stay_where_they_are(
    page, address, store, screen
):
    for count, shape in LEAST[screen]:
        queue(store, count, shape)
    page.set_viewport_size({"width": screen[0], "height": screen[1]})
    start(page, address)
    for number, ((count, shape), least) in enumerate(LEAST[screen].items()):
        page.locator(".rk-prompt", has_text=f"{count} of {shape}").wait_for()
        page.wait_for_function(
            "() => [...document.querySelectorAll('.rk-tile img')].every((i) => i.naturalWidth)"
        )
        what = (count, shape)
        images = boxes(page, ".rk-tile img")
        widths = [width for _, _, width, _ in images]
        assert min(widths) >= least, (what, widths)
        assert max(widths) - min(widths) <= 1, (what, widths)
        # Each has the shape of its image: no grey beside it.
        assert images[0][3] == pytest.approx(images[0][2] * shape[1] / shape[0], abs=2), what
        assert bar_is_in_view(page, screen), what
        assert page.evaluate("document.documentElement.scrollWidth") <= screen[0], what
        if screen[1] >= 800 and screen[0] > 720:  # a page that needs no scrolling
            assert page.evaluate("document.documentElement.scrollHeight") <= screen[1], what
        if count > 2:
            for keys in [*map(str, range(1, count + 1)), "=", "b"]:
                press(page, keys)
                assert boxes(page, ".rk-tile img") == images, (what, keys)
                assert bar_is_in_view(page, screen), (what, keys)
        press(page, "b" if count <= 2 else "Enter")
        if number + 1 < len(LEAST[screen]):
            wait_for_progress(page, f"{number + 1} of")
    page.locator(".rk[data-state=empty]").wait_for()


def test_text_grows_with_a_very_large_screen(page, address, store):
    queue(store, 4, SQUARE)
    start(page, address)
    wait_until_seen(page)
    read = (".rk-count", ".rk-eyebrow", ".rk-prompt", ".rk-hint", ".rk-submit", ".rk-who")
    heights: dict[int, list[int]] = {}
    for width, height in ((1920, 1080), (2560, 1440), (3840, 2160)):
        page.set_viewport_size({"width": width, "height": height})
        page.evaluate(FRAMES, [width, height])
        heights[width] = [page.locator(each).first.bounding_box()["height"] for each in read]
    growth = {
        width: [each / usual for each, usual in zip(found, heights[1920], strict=True)]
        for width, found in heights.items()
    }
    assert all(1.1 < each < 1.25 for each in growth[2560]), growth[2560]
    assert all(1.3 < each < 1.5 for each in growth[3840]), growth[3840]


LONG = " ".join(
    ["a lighthouse above a stormy sea, with a small red boat and gulls in the wind,"] * 6
)
"""A prompt of 84 words."""
LAPTOPS = ((1280, 720), (1366, 768), (1920, 1080))
PADDED, GAP = 16, 12
"""Of a tile around its image, and between tiles."""
FRAMES = """async ([width, height]) => {
  const frame = () => new Promise((go) => requestAnimationFrame(go));
  while (innerWidth !== width || innerHeight !== height) await frame();
  await frame();
  await frame();
}"""
"""Waits until what follows a change of size is drawn."""


@pytest.mark.parametrize("prompt", ["a small red boat", LONG], ids=["short", "long"])
def test_every_image_is_whole_above_the_buttons_in_the_columns_that_make_it_largest(
    page, address, store, prompt
):
    sets = [(count, SQUARE) for count in range(2, 10)]
    sets += [(count, shape) for count in (4, 9) for shape in (WIDE, TALL)]
    for number, (count, shape) in enumerate(sets):
        queue(store, count, shape, f"{number}: {prompt}")
    start(page, address)
    for number, (count, shape) in enumerate(sets):
        page.locator(".rk-prompt", has_text=f"{number}: ").wait_for()
        wait_until_seen(page)
        for screen in LAPTOPS:
            page.set_viewport_size({"width": screen[0], "height": screen[1]})
            page.evaluate(FRAMES, list(screen))
            what = (count, shape, screen)
            tiles, images = boxes(page, ".rk-tile"), boxes(page, ".rk-tile img")
            bar = page.locator(".rk-actions").bounding_box()["y"]
            tray = page.locator("[data-tray=below] .rk-tray:visible")
            ranking = tray.bounding_box() if tray.count() else None
            seen = ranking is not None and ranking["y"] + ranking["height"] <= bar
            end = ranking["y"] if seen else bar
            assert max(top + height for _, top, _, height in tiles) <= bar, what
            (_, top, *_), (*_, across, down) = tiles[0], images[0]
            foot_across = tiles[0][2] - across - PADDED
            foot_down = tiles[0][3] - down - PADDED
            room = page.locator(".rk-tiles").bounding_box()["width"], end - top
            for columns in range(1, count + 1):
                rows = -(-count // columns)
                most = (room[0] - GAP * (columns - 1)) / columns - PADDED - foot_across
                high = (room[1] - GAP * (rows - 1)) / rows - PADDED - foot_down
                assert min(most, high * shape[0] / shape[1]) <= 1.2 * across, (what, columns)
        if number + 1 < len(sets):
            press(page, "s 1" if count == 2 else "s 1 Enter")


def test_on_a_phone_two_wide_images_lie_one_above_the_other(page, address, store):
    queue(store, 2, WIDE)
    page.set_viewport_size({"width": 390, "height": 844})
    start(page, address)
    page.locator(".rk-tile img").nth(1).wait_for()
    (left, top, _, height), (below_left, below, *_) = boxes(page, ".rk-tile")
    assert left == below_left
    assert below >= top + height


@pytest.mark.parametrize(("width", "count"), [(320, 4), (320, 9), (390, 9)])
def test_a_finger_at_the_edge_scrolls_the_ranking_and_drops_at_either_end(
    phone, address, store, width, count
):
    queue(store, count, SQUARE)
    phone.set_viewport_size({"width": width, "height": 700})
    start(phone, address)
    press(phone, " ".join(map(str, range(1, count + 1))))
    phone.evaluate("scrollTo(0, document.body.scrollHeight)")
    tray = "document.querySelector('.rk-tray')"

    def drag(thumb: int, to: float, until: str, gap: str) -> None:
        x, y = middle(phone.locator(".rk-thumb").nth(thumb))
        finger(
            phone,
            ("touchStart", x, y),
            ("touchMove", (x + to) / 2, y),
            ("touchMove", to, y),
            ("until", until),
            ("at", "touchMove", phone.locator(gap)),
            ("rest", 100),
            ("touchEnd",),
        )

    assert phone.evaluate(f"{tray}.scrollWidth > {tray}.clientWidth")
    end = f"() => {tray}.scrollLeft + {tray}.clientWidth >= {tray}.scrollWidth - 1"
    drag(0, width - 4, end, ".rk-gap[data-last]")
    assert ranks_on_screen(phone)[0] == f"{count}th"
    assert ranks_on_screen(phone)[1] == "1st"
    phone.wait_for_timeout(700)  # or it flings
    drag(count - 1, 4, f"() => {tray}.scrollLeft === 0", ".rk-gap >> nth=0")
    assert ranks_on_screen(phone)[0] == "1st"
    assert phone.locator(".rk-ghost").count() == 0


def test_on_a_phone_a_pair_needs_no_scrolling_and_shows_submit_where_there_is_something_to_submit(
    phone, address, store
):
    queue(store, 2, SQUARE)
    queue(store, 4, SQUARE)
    start(phone, address)
    deeper = "document.documentElement.scrollHeight - innerHeight"
    submit = phone.locator(".rk-submit")
    phone.wait_for_function(f"() => {deeper} <= 1")
    assert submit.is_hidden(), "one press is the vote"
    press(phone, "1")
    phone.locator(".rk-prompt", has_text="4 of").wait_for()
    submit.wait_for()
    phone.evaluate("scrollTo(0, document.body.scrollHeight)")
    tray = phone.locator(".rk-tray").bounding_box()
    assert tray["y"] + tray["height"] <= phone.locator(".rk-actions").bounding_box()["y"]
    phone.locator(".rk-actions [data-do=undo]").tap()
    phone.locator(".rk-prompt", has_text="2 of").wait_for()
    submit.tap()  # what was taken back counts again
    phone.locator(".rk-prompt", has_text="4 of").wait_for()
