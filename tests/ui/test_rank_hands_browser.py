"""Keys, mouse and fingers on the Rank page, and what must not be lost or overlooked there."""

import pytest
from rank_page import press, ranks_on_screen, start, stored, wait_for_progress
from touches import finger, middle, spread
from waited import expect

pytestmark = [
    pytest.mark.browser,
    # gradio counts its own calls with options of pandas that pandas is about to drop
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
]
PAGES = ("rank",)  # others take their time to build

TYPE = """([key, code, ctrlKey]) => document.dispatchEvent(
    new KeyboardEvent("keydown", {key, code, ctrlKey, bubbles: true, cancelable: true}))"""


@pytest.fixture
def phone(chromium):
    """A tab of a phone, to be touched."""
    context = chromium.new_context(viewport={"width": 360, "height": 740}, has_touch=True)
    page = context.new_page()
    page.set_default_timeout(60_000)
    yield page
    context.close()


# --- two candidates


def test_of_two_one_key_is_a_judgement_and_undo_takes_it_back(page, address, store, add_items):
    add_items(5, num_images=2)
    start(page, address)
    expect(page.locator(".rk-hint")).to_contain_text("better")
    for number, keys in enumerate(("2", "=", "b", "s 4"), start=1):
        press(page, keys)
        wait_for_progress(page, f"{number} of 5")
    press(page, "u")
    wait_for_progress(page, "3 of 5")
    press(page, "1")
    wait_for_progress(page, "4 of 5")
    page.locator(".rk-tile").nth(0).click()
    page.locator(".rk[data-state=empty]").wait_for()
    assert stored(store) == [
        ("ranked", None, [[2], [1]]),
        ("ranked", None, [[1, 2]]),
        ("all_bad", None, []),
        ("ranked", None, [[1], [2]]),
        ("ranked", None, [[1], [2]]),
    ]


def test_a_held_key_judges_one_pair_only(page, address, store, add_items):
    add_items(3, num_images=2)
    start(page, address)
    page.keyboard.down("1")
    wait_for_progress(page, "1 of 3")
    for _ in range(5):
        page.keyboard.down("1")  # what a browser sends while a key is held
    page.wait_for_timeout(300)
    assert len(stored(store)) == 1


# --- nothing is lost


def test_every_judgement_that_is_taken_back_keeps_a_draft_of_its_own(
    page, address, store, add_items
):
    add_items(3)
    start(page, address)
    press(page, "1 2 3 4 Enter")
    wait_for_progress(page, "1 of 3")
    press(page, "b Enter")
    wait_for_progress(page, "2 of 3")
    press(page, "4 3")
    press(page, "u u u")
    page.locator(".rk-verdict").wait_for()
    press(page, "u u")
    page.locator(".rk-prompt", has_text="number 0").wait_for()
    press(page, "Enter")
    page.locator(".rk-prompt", has_text="number 1").wait_for()
    expect(page.locator(".rk-verdict")).to_contain_text("All bad")
    press(page, "Enter")
    page.locator(".rk-prompt", has_text="number 2").wait_for()
    assert [verdict for verdict, *_ in stored(store)] == ["ranked", "all_bad"]


def test_a_set_that_was_judged_in_another_tab_is_said_in_words_for_people(
    page, address, store, add_items
):
    add_items(2)
    start(page, address)
    other = page.context.new_page()
    other.goto(address)
    other.locator(".rk[data-state=ranking]").wait_for()
    press(other, "b Enter")
    wait_for_progress(other, "1 of 2")
    press(page, "1 2 3 4 Enter")
    alert = page.locator(".rk-alert")
    alert.wait_for()
    expect(alert).to_contain_text("was judged already, perhaps in another tab")
    expect(alert.get_by_role("button")).to_have_text("Go on to the next one")
    press(page, "Enter")
    page.locator(".rk-prompt", has_text="number 1").wait_for()
    assert len(stored(store)) == 1


def test_it_works_where_the_browser_blocks_storage(page, address, store, add_items):
    add_items(2)
    page.add_init_script(
        "Object.defineProperty(window, 'localStorage', {get() { throw new Error('blocked'); }})"
    )
    start(page, address)
    press(page, "1 2 3 4 Enter")
    wait_for_progress(page, "1 of 2")
    assert len(stored(store)) == 1


def test_an_image_that_could_not_be_loaded_cannot_be_ranked_and_is_tried_again(
    page, address, store, add_items
):
    add_items(1)
    refused = []

    def refuse_one(route):
        if not refused or route.request.url == refused[0]:
            refused.append(route.request.url)
            route.abort()
        else:
            route.continue_()

    page.route("**/api/rank/images/**", refuse_one)
    start(page, address)
    broken = page.locator(".rk-tile .rk-broken")
    broken.wait_for()
    position = page.locator(".rk-tile:has(.rk-broken)").get_attribute("data-position")
    others = [key for key in "1234" if key != str(int(position) + 1)]
    press(page, f"{' '.join(others)} Enter")
    alert = page.locator(".rk-alert")
    alert.wait_for()
    expect(alert).to_contain_text(f"Image {int(position) + 1} could not be loaded")
    assert stored(store) == []
    page.unroute("**/api/rank/images/**")
    page.get_by_role("button", name="Try again").click()
    page.wait_for_function("() => !document.querySelector('.rk-tile .rk-broken')")
    press(page, "Enter Enter")
    page.locator(".rk[data-state=empty]").wait_for()
    assert len(stored(store)) == 1


@pytest.mark.parametrize(
    ("number", "keys"), [(1, "d"), (1, "l"), (2, "b"), (2, "1"), (4, "b Enter")]
)
def test_a_set_without_an_image_takes_no_verdict_but_can_be_skipped(
    page, address, store, add_items, number, keys
):
    add_items(1, num_images=number)
    page.route("**/api/rank/images/**", lambda route: route.abort())
    start(page, address)
    expect(page.locator(".rk-tile .rk-broken")).to_have_count(number)
    press(page, keys)
    page.wait_for_timeout(500)
    assert stored(store) == []
    press(page, "s")
    if number > 1:
        page.locator("dialog.rk-skip[open]").wait_for()
        press(page, "1")
    if number > 2:
        press(page, "Enter")
    page.locator(".rk[data-state=empty]").wait_for()
    assert [verdict for verdict, _, _ in stored(store)] == ["skipped"]


def test_what_others_hold_is_told_apart_from_all_done_and_comes_by_itself(
    page, address, store, add_items
):
    add_items(1, overlap=1)
    store.add_annotator("bob")
    assert store.next_item("bob") is not None
    page.goto(address)
    page.get_by_label("Your name or initials").fill("Ada")
    page.keyboard.press("Enter")
    page.locator(".rk-empty", has_text="1 more is with other annotators now").wait_for()
    store.add_item(
        "a new one", [c.stem for c in list(store.images.root.glob("*/*.png"))[:3]], source="test"
    )
    page.locator(".rk-prompt", has_text="a new one").wait_for(timeout=30_000)


# --- keys


@pytest.mark.parametrize(
    ("key", "code", "shown"), [("и", "KeyB", "All bad"), ("ы", "KeyS", "Why skip this one?")]
)
def test_letters_are_found_by_their_place_on_a_keyboard_of_another_script(
    page, address, add_items, key, code, shown
):
    add_items(1)
    start(page, address)
    page.evaluate(TYPE, [key, code, False])
    page.locator(".rk-verdict:visible, dialog[open] h3", has_text=shown).wait_for()


def test_control_z_undoes_on_a_keyboard_of_another_script(page, address, add_items):
    add_items(1)
    start(page, address)
    press(page, "2")
    page.evaluate(TYPE, ["я", "KeyZ", True])
    assert ranks_on_screen(page) == ["", "", "", ""]


def test_the_tab_key_reaches_an_image_and_enter_places_it(page, address, add_items):
    add_items(1)
    start(page, address)
    while not page.evaluate("document.activeElement.matches('.rk-tile[data-position=\"1\"]')"):
        page.keyboard.press("Tab")
    press(page, "Enter")
    assert ranks_on_screen(page) == ["", "1st", "", ""]


def test_after_submitting_the_focus_is_at_the_next_prompt(page, address, add_items):
    add_items(2)
    start(page, address)
    page.get_by_role("button", name="All bad").click()
    page.get_by_role("button", name="Submit").click()
    wait_for_progress(page, "1 of 2")
    assert page.evaluate("document.activeElement.className") == "rk-prompt"
    assert page.title() == "1 of 2 - Rank - imgalign"
    expect(page.locator("h1")).to_have_text("Rank")


# --- mouse and fingers


def test_whatever_is_dropped_on_the_empty_place_or_behind_the_last_takes_the_next_rank(
    page, address, add_items
):
    add_items(1)
    start(page, address)
    tiles, free = page.locator(".rk-tile"), page.locator(".rk-free")
    expect(free.locator("b")).to_have_text("1st")
    tiles.nth(2).drag_to(free)
    assert ranks_on_screen(page) == ["", "", "1st", ""]
    expect(free.locator("b")).to_have_text("2nd")
    press(page, "1 2 4")
    assert free.count() == 0
    page.locator(".rk-thumb").nth(0).drag_to(page.locator(".rk-gap[data-last]"))
    assert ranks_on_screen(page) == ["1st", "2nd", "4th", "3rd"]


def test_a_finger_drags_what_is_in_the_ranking(phone, address, add_items):
    add_items(1)
    start(phone, address)
    for position in (0, 1):
        phone.locator(".rk-tile").nth(position).tap()
        phone.locator(".rk-thumb").nth(position).wait_for()
    phone.evaluate("scrollTo(0, document.body.scrollHeight)")
    thumbs = phone.locator(".rk-thumb")
    x, y = middle(thumbs.nth(1))
    to_x, to_y = middle(phone.locator(".rk-slot").nth(0))
    finger(
        phone,
        ("touchStart", x, y),
        ("touchMove", (x + to_x) / 2, y),
        ("touchMove", to_x, to_y),
        ("rest", 300),  # or it flings, and a tap soon after only ends that
        ("touchMove", to_x, to_y),
        ("touchEnd",),
    )
    assert ranks_on_screen(phone)[:2] == ["=1st", "=1st"]
    assert phone.locator(".rk-ghost").count() == 0
    phone.wait_for_timeout(700)
    thumbs.nth(1).tap()
    thumbs.nth(1).wait_for(state="detached")
    assert ranks_on_screen(phone)[:2] == ["1st", ""]


def test_two_fingers_zoom_and_one_moves_all_images(phone, address, add_items):
    add_items(1)
    start(phone, address)
    phone.get_by_role("button", name="Zoom").tap()
    scale = phone.locator(".rk-scale")
    phone.get_by_role("button", name="1:1").tap()
    x, y = middle(phone.locator(".rk-pane").nth(0))
    spread(phone, x, y, apart=40)
    assert float(scale.text_content().removesuffix(":1")) == pytest.approx(2, rel=0.1)
    images = phone.locator(".rk-pane img")
    before = images.evaluate_all("all => all.map((i) => i.style.transform)")
    finger(phone, ("touchStart", x, y), ("touchMove", x + 30, y), ("touchEnd",))
    after = images.evaluate_all("all => all.map((i) => i.style.transform)")
    assert len(set(after)) == 1
    assert after != before
    assert ranks_on_screen(phone) == ["", "", "", ""]


def test_in_zoom_keys_and_clicks_judge_and_the_next_set_opens_there_too(
    page, address, store, add_items
):
    add_items(2)
    start(page, address)
    press(page, "Space")
    page.locator(".rk-pane").nth(2).click()
    press(page, "1 u 2 4 1")
    expect(page.locator(".rk-pane .rk-rank")).to_have_text(["4th", "2nd", "1st", "3rd"])
    press(page, "Enter")
    page.locator(".rk-zoom-prompt", has_text="number 1").wait_for()
    expect(page.locator(".rk-zoom[open]")).to_have_count(1)
    press(page, "b Enter")
    page.locator(".rk[data-state=empty]").wait_for()
    assert stored(store) == [("ranked", None, [[3], [2], [4], [1]]), ("all_bad", None, [])]


# --- what is seen


@pytest.mark.parametrize(("count", "least"), [(2, 700), (4, 440), (9, 260)])
def test_images_use_the_screen_and_zoom_shows_their_pixels(page, address, add_items, count, least):
    add_items(1, num_images=count, size=1024)
    page.set_viewport_size({"width": 1920, "height": 1080})
    start(page, address)
    page.wait_for_function(
        "() => [...document.querySelectorAll('.rk-tile img')].every((i) => i.complete)"
    )
    widths = page.locator(".rk-tile img").evaluate_all("all => all.map((i) => i.clientWidth)")
    assert min(widths) >= least
    assert max(widths) - min(widths) <= 1
    bottom = page.locator(".rk-actions").bounding_box()
    assert bottom["y"] + bottom["height"] <= 1080
    press(page, "Space")
    page.wait_for_function("() => document.querySelector('.rk-scale').textContent.endsWith(':1')")


def test_a_prompt_that_does_not_fit_says_so_and_submit_stays_in_view(
    page, address, store, add_items
):
    add_items(1)
    images = [c.stem for c in list(store.images.root.glob("*/*.png"))[:4]]
    store.add_item("a long story of a lighthouse " * 40, images, source="test")
    start(page, address)
    assert not page.locator(".rk-more").is_visible()
    press(page, "b Enter")
    more = page.get_by_role("button", name="Show the whole prompt")
    more.wait_for()
    submit = page.locator(".rk-submit").bounding_box()
    assert submit["y"] + submit["height"] <= 800
    more.click()
    prompt = page.locator(".rk-prompt")
    assert prompt.evaluate("p => p.scrollHeight <= p.clientHeight + 2")
    page.get_by_role("button", name="Show less").click()
    assert prompt.evaluate("p => p.scrollHeight > p.clientHeight + 2")


@pytest.mark.parametrize("width", [320, 360, 768, 1024])
def test_every_button_is_whole_and_large_enough_to_press(page, address, add_items, width):
    add_items(1)
    page.set_viewport_size({"width": width, "height": 700})
    start(page, address)
    for where in (".rk-actions", ".rk-zoom header"):
        if "zoom" in where:
            press(page, "Space")
        for box in page.locator(f"{where} .rk-btn:visible").evaluate_all(
            "all => all.map((b) => b.getBoundingClientRect().toJSON())"
        ):
            assert box["left"] >= 0
            assert box["right"] <= width
            assert min(box["width"], box["height"]) >= 24
    assert page.evaluate("document.documentElement.scrollWidth") <= width
