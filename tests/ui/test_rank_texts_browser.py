"""Texts on the Rank page: the gestures of images, and every text as it was typed."""

import pytest
from rank_page import press, ranks_on_screen, start, stored, wait_for_progress
from texts import add_texts
from waited import expect

pytestmark = [
    pytest.mark.browser,
    # gradio counts its own calls with options of pandas that pandas is about to drop
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
]
PAGES = ("rank",)  # others take their time to build

FOUR = ("a red cat in the snow", "a red cat", "cat, cat, cat", "a cat")


def texts_on_screen(page):
    """Text of each card, in the order of the screen, once all have arrived."""
    page.wait_for_function(
        "() => [...document.querySelectorAll('.rk-tile .rk-words')].every((e) => e.textContent)"
    )
    return page.locator(".rk-tile .rk-words").all_text_contents()


def test_texts_are_ranked_by_keyboard_only(page, address, store):
    for number in range(3):
        add_texts(store, FOUR, prompt=f"a cat, number {number}")
    start(page, address)
    expect(page.locator(".rk-eyebrow")).to_have_text("Which text fits this best?")
    shown = texts_on_screen(page)
    assert sorted(shown) == sorted(FOUR)

    press(page, "3 1 2 = 4")
    assert ranks_on_screen(page) == ["=2nd", "=2nd", "1st", "3rd"]
    press(page, "Enter")
    wait_for_progress(page, "1 of 3")
    (ranking,) = store.rankings()
    best = ranking.sample_ids[ranking.ranking[0][0]]
    assert store.text(best) == shown[2]

    press(page, "b Enter")
    wait_for_progress(page, "2 of 3")
    press(page, "s 1 Enter")
    page.locator(".rk[data-state=empty]").wait_for()
    press(page, "u")
    page.locator(".rk-verdict", has_text="broken text").wait_for()
    press(page, "4 3 2 1 Enter")
    page.locator(".rk[data-state=empty]").wait_for()
    assert stored(store) == [
        ("ranked", None, [[3], [1, 2], [4]]),
        ("all_bad", None, []),
        ("ranked", None, [[4], [3], [2], [1]]),
    ]
    assert all(ranking.client_ms > 0 for ranking in store.rankings())
    page.get_by_role("button", name="Change my last ranking").click()  # as the key above
    page.locator(".rk[data-state=ranking]").wait_for()
    assert len(stored(store)) == 2


def test_the_mouse_places_texts_and_moves_them_in_the_ranking(page, address, store):
    add_texts(store, FOUR)
    start(page, address)
    texts_on_screen(page)
    tiles = page.locator(".rk-tile")
    for index in (1, 0, 2):
        tiles.nth(index).click()
    assert ranks_on_screen(page) == ["2nd", "1st", "3rd", ""]
    tiles.nth(2).locator(".rk-foot").click()
    assert ranks_on_screen(page) == ["2nd", "1st", "", ""]
    tiles.nth(2).locator(".rk-words").click()
    thumb = page.locator(".rk-thumb")
    thumb.nth(2).drag_to(page.locator(".rk-slot").nth(0))
    assert ranks_on_screen(page) == ["2nd", "=1st", "=1st", ""]
    tiles.nth(3).drag_to(page.locator(".rk-slot").nth(2))
    page.get_by_role("button", name="Submit").click()
    page.locator(".rk[data-state=empty]").wait_for()
    assert stored(store) == [("ranked", None, [[2, 3], [1], [4]])]


def test_a_text_shows_as_it_was_typed_and_is_never_markup(page, address, store):
    typed = (
        '<script>window.hacked = 1</script><img src=x onerror="window.hacked=1">',
        "**bold** _it_ [link](javascript:window.hacked=1) ${alert(1)} {{value}} `tick`",
        "  two spaces\n\n\ttab &amp; &lt;b&gt; end  ",
    )
    add_texts(store, typed, prompt="<b>what</b>\n  is typed")
    start(page, address)
    assert sorted(texts_on_screen(page)) == sorted(typed)
    press(page, "1 2 3 Space")
    page.locator(".rk-pane .rk-words").first.wait_for()
    for where in (".rk-tile .rk-words", ".rk-thumb .rk-snippet", ".rk-pane .rk-words"):
        drawn = page.locator(where)
        assert sorted(drawn.all_text_contents()) == sorted(typed)
        assert drawn.evaluate_all("all => all.map((e) => e.children.length)") == [0, 0, 0]
    kept = "e => getComputedStyle(e).whiteSpace"
    assert page.locator(".rk-tile .rk-words").first.evaluate(kept) == "pre-wrap"
    assert page.locator(".rk-prompt").text_content() == "<b>what</b>\n  is typed"
    assert page.evaluate("window.hacked") is None


@pytest.mark.parametrize("width", [1280, 390])
def test_long_and_right_to_left_texts_are_read_at_any_width(page, address, store, width):
    arabic, long, word = "صباح الخير يا صديقي", "a line of words\n" * 300, "x" * 2000
    add_texts(store, (arabic, long, word))
    page.set_viewport_size({"width": width, "height": 800})
    start(page, address)
    shown = texts_on_screen(page)
    cards = page.locator(".rk-tile .rk-words")
    directions = cards.evaluate_all("all => all.map((e) => getComputedStyle(e).direction)")
    assert directions == ["rtl" if text == arabic else "ltr" for text in shown]
    heights = cards.evaluate_all("all => all.map((e) => [e.scrollHeight, e.clientHeight])")
    whole, seen = heights[shown.index(long)]
    assert whole > 5000
    assert seen < 800 * 0.5
    card = cards.nth(shown.index(long))
    card.hover()
    page.mouse.wheel(0, 400)
    page.wait_for_function("e => e.scrollTop > 0", arg=card.element_handle())
    assert ranks_on_screen(page) == ["", "", ""]
    sizes = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert sizes[0] <= sizes[1]
    overflow = cards.evaluate_all("all => all.map((e) => e.scrollWidth - e.clientWidth)")
    assert overflow == [0, 0, 0]


def test_zoom_enlarges_all_texts_and_is_left_as_it_was_entered(page, address, store):
    add_texts(store, FOUR)
    start(page, address)
    texts_on_screen(page)
    size = "all => all.map((e) => parseFloat(getComputedStyle(e).fontSize))"
    press(page, "Space 2")
    panes = page.locator(".rk-pane .rk-words")
    before = panes.evaluate_all(size)
    press(page, "+ +")
    after = panes.evaluate_all(size)
    assert len(set(after)) == 1
    assert after[0] > before[0]
    press(page, "0")
    assert panes.evaluate_all(size) == before
    press(page, "Space")
    assert page.locator(".rk-zoom[open]").count() == 0
    assert ranks_on_screen(page) == ["", "1st", "", ""]


def test_images_and_texts_follow_each_other_in_one_queue(page, address, store, add_items):
    add_items(1)
    add_texts(store, FOUR)
    add_items(1, num_images=3)
    start(page, address)
    for number, noun in enumerate(("image", "text", "image")):
        page.locator(".rk-eyebrow", has_text=f"Which {noun} fits").wait_for()
        assert page.locator(".rk-tile img").count() == (0 if noun == "text" else 4 - number // 2)
        press(page, "s")
        reason = page.locator(".rk-reasons button").first.text_content()
        assert reason == f"1Broken {noun}"
        press(page, "Escape 1 2 3 Enter Enter")
        if number < 2:
            wait_for_progress(page, f"{number + 1} of 3")
    page.locator(".rk[data-state=empty]").wait_for()
    assert [ranking.samples for ranking in store.rankings()] == ["images", "texts", "images"]


def test_a_screen_reader_finds_every_text_and_its_rank(page, address, store):
    add_texts(store, FOUR)
    start(page, address)
    texts_on_screen(page)
    press(page, "2 3 =")
    placed = page.locator(".rk-tiles").get_by_role("button", name="Text 2, 1st, tied with 3")
    expect(placed).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_role("button", name="Text 1, not placed")).to_have_count(1)
    texts = page.locator(".rk-tiles").get_by_role("article")
    expect(texts).to_have_count(4)
    assert page.locator(".rk-tile").nth(0).get_attribute("aria-pressed") is None


def test_a_text_that_cannot_be_loaded_says_so(page, address, store):
    add_texts(store, FOUR)
    page.route("**/api/rank/texts/**", lambda route: route.fulfill(status=500, body="no"))
    start(page, address)
    page.locator(".rk-tile .rk-broken").nth(3).wait_for()
    said = page.locator(".rk-tile .rk-words").all_text_contents()
    assert said == ["This text could not be loaded. Press its number to try again"] * 4
    page.unroute("**/api/rank/texts/**")
    press(page, "2")
    page.wait_for_function("() => document.querySelectorAll('.rk-tile .rk-broken').length === 3")
