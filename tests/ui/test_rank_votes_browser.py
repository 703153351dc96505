"""The list of one's own votes on the Rank page: paging, correcting, and coming back."""

import pytest
from rank_page import press, ranks_on_screen, start, stored, wait_for_progress
from submissions import judge
from texts import add_texts
from waited import expect

pytestmark = [
    pytest.mark.browser,
    # gradio counts its own calls with options of pandas that pandas is about to drop
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
]
PAGES = ("rank",)  # others take their time to build


def vote_straight(store, num, annotator="ada"):
    """Votes as if they had been made before."""
    store.add_annotator(annotator)
    for number in range(num):
        store.submit(judge(store.next_item(annotator), annotator, key=f"before {number}"))


def open_list(page):
    """Press the key and wait for the votes; their prompts."""
    press(page, "h")
    page.locator(".rk-votes[open] .rk-vote").first.wait_for()
    return page.locator(".rk-vote-prompt").all_text_contents()


def focused(page):
    """The prompt of the vote that has the focus."""
    return page.evaluate(
        "document.activeElement.querySelector('.rk-vote-prompt')?.textContent ?? null"
    )


def wait_for_prompt(page, number):
    page.locator(".rk-prompt", has_text=f"number {number}").wait_for()


def test_an_old_vote_is_corrected_by_keyboard_alone_and_the_set_that_was_left_comes_back(
    page, address, store, add_items
):
    add_items(4)
    start(page, address)
    press(page, "3 1 2 = 4 Enter")
    wait_for_progress(page, "1 of 4")
    press(page, "b Enter")
    wait_for_progress(page, "2 of 4")
    press(page, "4 2")  # half done when the list is opened
    assert open_list(page) == ["a house, number 1", "a house, number 0"]
    assert focused(page) == "a house, number 1"
    press(page, "1 b u")  # keys of the set below do nothing here
    press(page, "ArrowDown")
    assert focused(page) == "a house, number 0"
    press(page, "Enter")
    wait_for_prompt(page, 0)
    wait_for_progress(page, "1 of 4")
    assert ranks_on_screen(page) == ["=2nd", "=2nd", "1st", "3rd"]
    press(page, "1 2 3 4 4 3 2 1 Enter")
    wait_for_progress(page, "2 of 4")
    wait_for_prompt(page, 2)
    assert ranks_on_screen(page) == ["", "2nd", "", "1st"]
    assert stored(store) == [("all_bad", None, []), ("ranked", None, [[4], [3], [2], [1]])]
    kept = [(each.verdict, each.undone_at is None) for each in store.rankings(include_undone=True)]
    assert kept == [("ranked", False), ("all_bad", True), ("ranked", True)]
    assert open_list(page) == ["a house, number 0", "a house, number 1"]
    press(page, "h")
    assert page.locator(".rk-votes[open]").count() == 0


def test_a_vote_opened_for_correction_is_there_after_a_reload_with_all_other_drafts(
    page, address, store, add_items
):
    add_items(3)
    start(page, address)
    press(page, "1 2 3 4 Enter")
    wait_for_progress(page, "1 of 3")
    press(page, "3")
    open_list(page)
    press(page, "Enter")
    wait_for_prompt(page, 0)
    press(page, "4")
    page.reload()
    wait_for_prompt(page, 0)
    assert ranks_on_screen(page) == ["1st", "2nd", "3rd", ""]
    press(page, "Enter Enter")
    wait_for_prompt(page, 1)
    assert ranks_on_screen(page) == ["", "", "1st", ""]
    assert [each.prompt for each in store.rankings()] == ["a house, number 0"]


def test_many_votes_are_read_in_pages(page, address, store, add_items):
    add_items(24, num_images=2)
    vote_straight(store, 23)
    asked = []
    page.on("request", lambda r: asked.append(r.url) if "/small/" in r.url else None)
    start(page, address)
    numbers = [int(prompt.split()[-1]) for prompt in open_list(page)]
    assert numbers == list(range(22, 12, -1))
    status = page.locator(".rk-votes-status")
    expect(status).to_have_text("Votes 1 to 10, newest first")
    expect(page.get_by_role("button", name="Newer")).to_be_disabled()
    press(page, "ArrowRight")
    page.locator(".rk-vote-prompt", has_text="number 12").wait_for()
    assert focused(page) == "a house, number 12"
    page.get_by_role("button", name="Older").click()
    page.locator(".rk-vote-prompt", has_text="number 0").wait_for()
    expect(status).to_have_text("Votes 21 to 23, newest first")
    expect(page.get_by_role("button", name="Older")).to_be_disabled()
    press(page, "ArrowRight ArrowLeft")
    page.locator(".rk-vote-prompt", has_text="number 3").wait_for()
    expect(status).to_have_text("Votes 11 to 20, newest first")
    assert asked


def test_pictures_stand_in_the_order_given_with_what_was_judged(page, address, store, add_items):
    add_items(3)
    start(page, address)
    press(page, "3 1 2 = 4 Enter")
    wait_for_progress(page, "1 of 3")
    press(page, "s 4 Enter")
    wait_for_progress(page, "2 of 3")
    press(page, "b Enter")
    page.locator(".rk[data-state=empty]").wait_for()
    open_list(page)  # also where nothing is left to rank
    orders = page.locator(".rk-vote-order").all_text_contents()
    assert orders == ["1234", "1234", "3›1=2›4"]
    assert page.locator(".rk-vote-about b").all_text_contents() == [
        "All bad",
        "Skipped: prompt unclear",
        "Ranked",
    ]
    page.wait_for_function(
        "() => [...document.querySelectorAll('.rk-vote img')].every((i) => i.naturalWidth)"
    )
    (bad, skipped, ranked) = page.locator(".rk-vote").evaluate_all(
        "all => all.map((e) => e.getAttribute('aria-label'))"
    )
    assert ranked.startswith("a house, number 0. Images: 1st 3, 2nd 1 and 2, 3rd 4. Today, ")
    assert bad.startswith("a house, number 2. All bad. Today, ")
    assert "Skipped: prompt unclear" in skipped
    moment = page.locator(".rk-vote time").last.get_attribute("datetime")
    assert moment.startswith(f"{next(iter(store.rankings())).created_at:%Y-%m-%dT%H:%M}")


def test_texts_are_listed_as_typed_and_corrected_on_a_phone(chromium, address, store):
    typed = ("<b>one</b> cat", "two cats")
    add_texts(store, typed, prompt="<i>cats</i>")
    add_texts(store, typed, prompt="more cats")
    context = chromium.new_context(viewport={"width": 360, "height": 740}, has_touch=True)
    page = context.new_page()
    start(page, address)
    page.locator(".rk-tile .rk-foot").nth(1).tap()
    wait_for_progress(page, "1 of 2")
    page.get_by_role("button", name="My votes").tap()
    vote = page.locator(".rk-vote")
    vote.wait_for()
    page.wait_for_function(
        "() => [...document.querySelectorAll('.rk-snippet')].every((e) => e.textContent)"
    )
    assert sorted(page.locator(".rk-vote .rk-snippet").all_text_contents()) == sorted(typed)
    expect(page.locator(".rk-vote-prompt")).to_have_text("<i>cats</i>")
    box = page.locator(".rk-votes").bounding_box()
    assert (box["width"], box["height"]) == (360, 740)
    assert page.locator(".rk-votes").evaluate("e => e.scrollWidth <= e.clientWidth")
    vote.tap()
    page.locator(".rk-prompt", has_text="<i>cats</i>").wait_for()
    page.locator(".rk-tile .rk-foot").nth(0).tap()
    page.locator(".rk-prompt", has_text="more cats").wait_for()
    assert stored(store) == [("ranked", None, [[1], [2]])]
    context.close()


def test_a_vote_that_another_tab_has_changed_is_said_and_stays_as_it_is(
    page, address, store, add_items
):
    add_items(2)
    start(page, address)
    press(page, "1 2 3 4 Enter")
    wait_for_progress(page, "1 of 2")
    open_list(page)
    (sent,) = store.rankings()
    store.undo("ada", sent.key)
    again = store.issued_item(sent.item_id, "ada")
    store.submit(judge(again, "ada", key="in another tab", ranking=((3,), (0, 1, 2))))
    press(page, "Enter")
    alert = page.locator(".rk-alert")
    alert.wait_for()
    expect(alert).to_contain_text("changed in another tab")
    assert stored(store) == [("ranked", None, [[4], [1, 2, 3]])]
    press(page, "Enter")
    page.locator(".rk-vote-order", has_text="4›1=2=3").wait_for()


def test_a_list_that_cannot_be_loaded_says_so_and_loads_once_it_can(page, address, add_items):
    add_items(2)
    start(page, address)
    press(page, "b Enter")
    wait_for_progress(page, "1 of 2")
    page.route("**/api/rank/votes", lambda route: route.abort())
    press(page, "h")
    page.locator(".rk-votes-status", has_text="cannot be reached").wait_for()
    page.unroute("**/api/rank/votes")
    press(page, "h")
    assert open_list(page) == ["a house, number 0"]


def test_who_has_no_votes_yet_is_told_so(page, address, add_items):
    add_items(1)
    start(page, address)
    press(page, "h")
    page.locator(".rk-votes-status", has_text="None yet").wait_for()
    press(page, "Escape 1")
    assert ranks_on_screen(page) == ["1st", "", "", ""]


def test_the_list_stays_open_while_the_page_looks_for_new_sets(page, address, store, add_items):
    add_items(1)
    start(page, address)
    press(page, "b Enter")
    page.locator(".rk[data-state=empty]").wait_for()
    open_list(page)
    looked = []
    page.on("response", lambda r: looked.append(r) if r.url.endswith("/next") else None)
    page.wait_for_timeout(11_000)
    assert looked
    expect(page.locator(".rk-votes[open]")).to_have_count(1)
