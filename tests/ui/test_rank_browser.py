import pytest
from rank_page import press, ranks_on_screen, start, stored, wait_for_progress
from waited import expect

pytestmark = [
    pytest.mark.browser,
    # gradio counts its own calls with options of pandas that pandas is about to drop
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
]
PAGES = ("rank",)  # others take their time to build


def test_items_are_ranked_by_keyboard_only(page, address, store, add_items):
    add_items(4)
    start(page, address)
    expect(page.locator(".rk-prompt")).to_have_text("a house, number 0")

    press(page, "3 1 2 = 4")
    assert ranks_on_screen(page) == ["=2nd", "=2nd", "1st", "3rd"]
    press(page, "Enter")
    wait_for_progress(page, "1 of 4")

    press(page, "b Enter")
    wait_for_progress(page, "2 of 4")

    press(page, "s 4 Enter")
    wait_for_progress(page, "3 of 4")

    # Undo of local steps, then of what was submitted; the earlier verdict comes back.
    press(page, "2 2 1 u")
    assert ranks_on_screen(page) == ["", "", "", ""]
    press(page, "Control+z Control+z Control+z")
    wait_for_progress(page, "2 of 4")
    expect(page.locator(".rk-verdict")).to_contain_text("prompt unclear")
    press(page, "4 3 2 Enter")
    assert ranks_on_screen(page) == ["4th", "3rd", "2nd", "1st"]
    press(page, "Enter")
    wait_for_progress(page, "3 of 4")

    assert stored(store) == [
        ("ranked", None, [[3], [1, 2], [4]]),
        ("all_bad", None, []),
        ("ranked", None, [[4], [3], [2], [1]]),
    ]


def test_a_started_ranking_survives_a_reload_and_a_killed_server(page, process, store, add_items):
    add_items(2)
    process.start()
    process.wait_until_ready()
    start(page, process.address)
    press(page, "2 4 =")
    page.reload()
    page.locator(".rk[data-state=ranking]").wait_for()
    assert ranks_on_screen(page) == ["", "=1st", "", "=1st"]

    process.end()
    press(page, "1 3 Enter")
    alert = page.locator(".rk-alert")
    alert.wait_for()
    expect(alert).to_contain_text("Not saved yet")
    assert ranks_on_screen(page) == ["2nd", "=1st", "3rd", "=1st"]
    assert stored(store) == []

    process.start()
    process.wait_until_ready()
    page.get_by_role("button", name="Try again").click()
    wait_for_progress(page, "1 of 2")
    assert stored(store) == [("ranked", None, [[2, 4], [1], [3]])]
    page.reload()
    page.locator(".rk-prompt", has_text="a house, number 1").wait_for()
    assert ranks_on_screen(page) == ["", "", "", ""]


def test_a_lost_answer_and_a_second_submission_give_one_row(page, address, store, add_items):
    add_items(1)
    start(page, address)
    lost = []

    def lose_the_first(route):
        if lost:
            route.continue_()
        else:
            lost.append(route.fetch())  # the server has stored it, the browser never hears
            route.abort()

    page.route("**/api/rank/submit", lose_the_first)
    press(page, "1 2 3 4 Enter")
    page.locator(".rk-alert").wait_for()
    assert len(stored(store)) == 1
    assert page.locator(".rk-toast.rk-on").count() == 0
    press(page, "Enter")
    page.locator(".rk[data-state=empty]").wait_for()
    assert len(list(store.rankings(include_undone=True))) == 1


def test_pressing_enter_twice_at_once_gives_one_row(page, address, store, add_items):
    add_items(2)
    start(page, address)
    press(page, "1 2 3 4 Enter Enter Enter")
    wait_for_progress(page, "1 of 2")
    assert len(stored(store)) == 1


def test_the_next_images_are_loaded_before_they_are_needed(page, address, add_items):
    add_items(2)
    loaded = []
    page.on("response", lambda r: loaded.append(r.url) if "/images/" in r.url else None)
    start(page, address)
    page.wait_for_function(
        "() => performance.getEntriesByType('resource')"
        ".filter((e) => e.name.includes('/images/')).length >= 8"
    )
    before = set(loaded)
    press(page, "b Enter")
    page.locator(".rk-prompt", has_text="number 1").wait_for()
    sources = page.locator(".rk-tile img").evaluate_all("all => all.map((i) => i.src)")
    assert len(sources) == 4
    assert set(sources) <= before


def test_the_mouse_does_what_the_keys_do(page, address, store, add_items):
    add_items(1)
    start(page, address)
    tiles = page.locator(".rk-tile")
    for index in (1, 0, 2):
        tiles.nth(index).click()
    assert ranks_on_screen(page) == ["2nd", "1st", "3rd", ""]
    thumb = page.locator(".rk-thumb")
    thumb.nth(2).drag_to(page.locator(".rk-slot").nth(0))
    assert ranks_on_screen(page) == ["2nd", "=1st", "=1st", ""]
    thumb.nth(1).drag_to(page.locator(".rk-gap").nth(0))
    assert ranks_on_screen(page) == ["3rd", "2nd", "1st", ""]
    tiles.nth(3).drag_to(page.locator(".rk-slot").nth(2))
    page.get_by_role("button", name="Submit").click()
    page.locator(".rk[data-state=empty]").wait_for()
    assert stored(store) == [("ranked", None, [[3], [2], [1, 4]])]


def test_keys_are_left_alone_while_typing_and_in_dialogs(page, address, add_items):
    add_items(1)
    start(page, address)
    page.locator(".rk-who").click()
    page.get_by_label("Your name or initials").fill("")
    page.keyboard.type("b 1 Ada")
    expect(page.get_by_label("Your name or initials")).to_have_value("b 1 Ada")
    page.keyboard.press("Enter")
    page.locator(".rk[data-state=ranking]").wait_for()
    assert ranks_on_screen(page) == ["", "", "", ""]
    press(page, "? 1 b")
    expect(page.locator(".rk-help[open]")).to_have_count(1)
    press(page, "Escape")
    assert ranks_on_screen(page) == ["", "", "", ""]
    press(page, "Space 2")
    expect(page.locator(".rk-zoom[open]")).to_have_count(1)
    press(page, "Space")
    assert page.locator(".rk-zoom[open]").count() == 0
    assert ranks_on_screen(page) == ["", "1st", "", ""]


def test_zoom_moves_all_images_together(page, address, add_items):
    add_items(1)
    start(page, address)
    press(page, "Space + ArrowLeft")
    moved = page.locator(".rk-pane img").evaluate_all("all => all.map((i) => i.style.transform)")
    assert len(moved) == 4
    assert len(set(moved)) == 1
    page.get_by_role("button", name="1:1").click()
    expect(page.locator(".rk-scale")).to_have_text("1:1")


def test_every_image_and_button_has_a_name_for_a_screen_reader(page, address, add_items):
    add_items(1)
    start(page, address)
    press(page, "2 3 =")
    tile = page.locator(".rk-tiles").get_by_role("button", name="Image 2, 1st, tied with 3")
    expect(tile).to_have_count(1)
    expect(page.get_by_role("button", name="Image 1, not placed")).to_have_count(1)
    page.keyboard.press("Tab")
    names = page.locator(".rk button:visible").evaluate_all(
        "all => all.map((b) => b.getAttribute('aria-label') || b.textContent.trim())"
    )
    assert all(names)


def test_a_prompt_is_text_and_never_markup(page, address, store, add_items):
    add_items(1)
    prompt = '<img src=x onerror="window.hacked=1"> ${alert(1)} {{value}} `tick`'
    (one, two, *_) = [p.stem for p in store.images.root.glob("*/*.png")]
    store.add_item(prompt, [one, two], source="test")
    start(page, address)
    press(page, "b Enter")
    page.locator(".rk-prompt", has_text="onerror").wait_for()
    expect(page.locator(".rk-prompt")).to_have_text(prompt)
    assert page.evaluate("window.hacked") is None
