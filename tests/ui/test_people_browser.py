"""The People page in a browser: a lead sees who judges how, excludes and includes them, marks gold
items, adds attention items, writes guidelines that annotators then see, and asks for a
qualification."""

from typing import Any

import pytest
from rank_page import press, start, wait_for_progress
from submissions import judge
from waited import expect, unfold

from imgalign.preferences.accounts import Accounts
from imgalign.preferences.attention import add_attention, attention_items
from imgalign.preferences.exclusions import all_exclusions
from imgalign.preferences.gold import gold_items, mark_gold
from imgalign.preferences.guidelines import guidelines_of
from imgalign.preferences.qualification import Qualification, qualification_of
from imgalign.preferences.queue_order import queue_order_of
from imgalign.preferences.store import Store

PASSWORD = "four odd green words"

PAGES = ("rank", "people", "candidates")  # others take their time to build
pytestmark = [
    pytest.mark.browser,
    # gradio counts its own calls with options of pandas that pandas is about to drop
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
]


@pytest.fixture
def judged(store: Store, add_items: Any) -> list[str]:
    item_ids: list[str] = add_items(3)
    for who in ("Ann", "Bob"):
        store.add_annotator(who)
        while (item := store.next_item(who)) is not None:
            store.submit(judge(item, who, client_ms=2000))
    return item_ids


def test_a_lead_excludes_and_includes_and_the_page_follows(
    page: Any, address: str, store: Store, judged: list[str]
):
    Accounts(store.database).add("Lea", PASSWORD, role="admin", group="default")
    page.goto(f"{address}/people")
    page.get_by_label("Name").fill("Lea")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.locator("header.top").get_by_role("link", name="People").click()
    people = page.locator("#people")
    people.get_by_text("Of 18 pairs of 3 prompts").wait_for()
    page.get_by_role("button", name="Exclude Bob").click()
    page.get_by_role("button", name="Include Bob").wait_for()
    people.get_by_text("No two annotators have ordered the same pair").wait_for()
    assert [each.annotator_id for each in all_exclusions(store.database)] == ["bob"]
    page.get_by_role("button", name="Include Bob").click()
    people.get_by_text("Of 18 pairs of 3 prompts").wait_for()
    assert all_exclusions(store.database) == []


def test_a_set_becomes_gold_and_is_none_again(
    page: Any, address: str, store: Store, judged: list[str]
):
    page.goto(f"{address}/people")
    page.locator("#gold").get_by_text("No gold items yet").wait_for()
    unfold(page, "Add a gold item")
    page.get_by_role("button", name="Make it gold").click()
    page.get_by_text("set: choose one first").wait_for()
    page.locator("#gold-set input").click()
    page.get_by_role("option", name="a house, number 1").click()
    image = page.get_by_alt_text("Candidate D")
    image.wait_for()
    page.wait_for_function("image => image.naturalWidth > 0", arg=image.element_handle())
    page.locator("#gold-order input").fill("c > a = b")
    page.get_by_role("button", name="Make it gold").click()
    page.locator("#gold").get_by_text("C > A = B > D").wait_for()
    assert [each.item_id for each in gold_items(store, "default")] == [judged[1]]
    page.locator("#people").get_by_text("Gold", exact=True).wait_for()
    page.get_by_role("button", name="Gold no more: a house, number 1").click()
    page.locator("#gold").get_by_text("No gold items yet").wait_for()
    assert gold_items(store, "default") == []


def test_guidelines_reach_the_rank_page_of_their_project(
    page: Any, address: str, store: Store, judged: list[str]
):
    store.add_item("more", next(store.rankings()).sample_ids, source="test", project="cats")
    page.goto(f"{address}/people")
    page.locator("#people table").wait_for()
    unfold(page, "Guidelines")
    page.locator("#people-guidelines textarea").fill("Hands first.\n<b>Then</b> faces.")
    page.get_by_role("button", name="Save").click()
    page.get_by_text("Annotators see them").wait_for()
    start(page, f"{address}/?project=default")
    page.locator(".rk-guide[open]").wait_for()
    text = page.locator(".rk-guide-text")
    assert text.text_content() == "Hands first.\n<b>Then</b> faces."
    page.keyboard.press("Escape")
    page.locator(".rk-project select").select_option("cats")
    page.locator(".rk-who", has_text="Ada").wait_for()
    page.wait_for_function("() => !document.querySelector('.rk-guide-text').textContent")
    assert page.get_by_role("button", name="Guidelines").is_hidden()
    page.goto(f"{address}/people")
    page.locator("#people table").wait_for()
    unfold(page, "Guidelines")
    expect(page.locator("#people-guidelines textarea")).to_have_value(
        "Hands first.\n<b>Then</b> faces."
    )
    page.locator("#people-guidelines textarea").fill(" ")
    page.get_by_role("button", name="Save").click()
    page.get_by_text("annotators see no guidelines").wait_for()
    assert guidelines_of(store.database, "default") == ""


def test_who_does_not_qualify_is_told_and_a_lead_admits_them(
    page: Any, address: str, store: Store, judged: list[str]
):
    mark_gold(store, judged[2], ((0,), (1,), (2, 3)))
    page.goto(f"{address}/people")
    page.locator("#people table").wait_for()
    unfold(page, "Qualification")
    first = page.get_by_label("Gold items that come first")
    expect(first).to_have_value("0")
    first.fill("2")
    page.locator("#save-qualification").click()
    page.get_by_text("expected at most 1, the gold items of project").wait_for()
    first.fill("1")
    page.locator("#save-qualification").click()
    page.get_by_text("Gold items that come first now: 1").wait_for()
    assert qualification_of(store.database, "default") == Qualification(num_items=1, share=0.6)
    start(page, address)
    wait_for_progress(page, "0 of 3, the next 1 to qualify")
    press(page, "b Enter")
    page.get_by_text("Thank you, that is all for you here").wait_for()
    assert page.get_by_role("button", name="Change my last ranking").is_hidden()
    assert [each.item_id for each in store.history("Ada")] == [judged[2]]

    page.goto(f"{address}/people")
    page.locator("#people").get_by_text("not qualified").first.wait_for()
    unfold(page, "Qualification")
    expect(page.get_by_label("Gold items that come first")).to_have_value("1")
    page.get_by_role("button", name="Admit Ada").click()
    page.wait_for_function("() => !document.querySelector('#people [aria-label=\"Admit Ada\"]')")
    page.goto(address)
    wait_for_progress(page, "1 of 3")
    press(page, "b Enter")
    wait_for_progress(page, "2 of 3")
    assert [each.item_id for each in store.history("Ada")] == [judged[0], judged[2]]


def test_attention_items_are_added_and_who_fails_them_is_seen(
    page: Any, address: str, store: Store, add_items: Any
):
    add_items(3, prompts=("a red fox", "an old castle", "two cups of coffee"))
    page.goto(f"{address}/people")
    page.locator("#gold").get_by_text("No gold items yet").wait_for()
    unfold(page, "Add attention items")
    page.get_by_role("button", name="Add them").click()
    page.get_by_text("expected at most 3, got 5").wait_for()
    page.get_by_label("Attention items to add").fill("2")
    page.get_by_label("Annotators who shall judge each").fill("1")
    page.get_by_role("button", name="Add them").click()
    page.get_by_text("Attention items added: 2").wait_for()
    store.add_annotator("Ann")
    while (item := store.next_item("ann")) is not None:
        store.submit(judge(item, "ann", verdict="all_bad", ranking=None))
    page.reload()
    row = page.locator("#people tbody tr")
    expect(row.locator('[data-label="Attention"]')).to_contain_text("0 % of 2")
    expect(row.locator('[data-label="Votes"]')).to_have_text("5")


def test_an_attention_item_is_withdrawn_once_confirmed_and_brought_back(
    page: Any, address: str, store: Store, add_items: Any
):
    add_items(2, prompts=("a red fox", "an old castle"))
    add_attention(store, "default", count=1, overlap=1)
    prompt = attention_items(store, "default")[0].prompt
    page.goto(f"{address}/people")
    items = page.locator("#attention")
    image = items.get_by_alt_text("Belongs to the prompt")
    image.wait_for()
    image.scroll_into_view_if_needed()
    page.wait_for_function("image => image.naturalWidth > 0", arg=image.element_handle())
    assert items.get_by_alt_text("Of another prompt").count() == 3
    ask = page.get_by_role("button", name=f"Withdraw: {prompt}")
    ask.focus()
    page.keyboard.press("Enter")
    keep = page.get_by_role("button", name="Keep it")
    expect(keep).to_be_focused()
    page.keyboard.press("Enter")
    expect(ask).to_be_focused()
    expect(keep).to_be_hidden()
    assert attention_items(store, "default")[0].withdrawn_since is None
    ask.click()
    page.get_by_role("button", name="Withdraw it").click()
    back = page.get_by_role("button", name=f"Bring back: {prompt}")
    back.wait_for()
    items.get_by_text("withdrawn since").wait_for()
    store.add_annotator("ann")
    assert store.counts("ann").left == 2
    back.click()
    ask.wait_for()
    assert store.counts("ann").left == 3
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_sets_are_asked_again(page: Any, address: str, store: Store, judged: list[str]):
    page.goto(f"{address}/people")
    page.locator("#people table").wait_for()
    team = page.locator("#people .team").first
    expect(team).to_contain_text("0 of 3 sets")
    unfold(page, "Ask sets again")
    page.get_by_role("button", name="Queue them").click()
    page.get_by_text("expected at most 3, got 5").wait_for()
    page.get_by_label("Sets to ask again").fill("2")
    page.get_by_role("button", name="Queue them").click()
    page.get_by_text("Queued again: 2").wait_for()
    expect(team).to_contain_text("0 of 5 sets")
    assert store.counts("ann").left == store.counts("bob").left == 2


def test_a_lead_chooses_what_is_ranked_next(
    page: Any, address: str, store: Store, judged: list[str]
):
    page.goto(f"{address}/people")
    page.locator("#people table").wait_for()
    assert page.get_by_label("Oldest first").is_checked()
    page.get_by_label("What tells most first").check()
    page.get_by_text("fit a reward on the Learn page to compute it").wait_for()
    assert queue_order_of(store.database, "default") == "informative"
    page.reload()
    page.locator("#people table").wait_for()
    expect(page.get_by_label("What tells most first")).to_be_checked()
    page.get_by_label("Oldest first").check()
    page.get_by_text("The oldest sets are ranked first now").wait_for()
    assert queue_order_of(store.database, "default") == "oldest"


def test_without_judgements_the_page_says_what_is_missing(page: Any, address: str, add_items: Any):
    page.goto(f"{address}/people")
    page.locator("#people").get_by_role("link", name="Candidates").wait_for()
    add_items(1)
    page.get_by_text("Nobody has judged anything in this project yet").wait_for()
    expect(page.locator("#people-project input")).to_have_value("default")


def test_on_a_phone_nothing_is_wider_than_the_screen(
    page: Any, address: str, judged: list[str], store: Store
):
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{address}/people")
    page.locator("#people table").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    nav = page.locator("header nav")
    assert nav.evaluate("node => node.scrollWidth - node.clientWidth") == 0


CUT = """(buttons) => buttons.filter((button) => {
  const own = button.getBoundingClientRect();
  const place = button.closest(".wide").getBoundingClientRect();
  return own.left < place.left || own.right > place.right + 0.5;
}).map((button) => button.ariaLabel)"""


def test_what_is_done_to_a_row_is_in_sight_at_any_width(
    page: Any, address: str, store: Store, add_items: Any
):
    prompts = ("a red fox", "an old castle", "two cups of coffee", "green hills")
    items = add_items(4, prompts=prompts)
    people = Accounts(store.database)
    people.add("Ida", PASSWORD, role="admin", group="default")
    people.add("Maximilian Oberhuber", PASSWORD, role="annotator", group="default")
    for item in items[:2]:
        mark_gold(store, item, ((0,), (1, 2, 3)), overlap=3)
    add_attention(store, "default", count=2, overlap=2, seed=1)
    for who in ("Ann", "Maximilian Oberhuber"):
        store.add_annotator(who)
        while (item := store.next_item(who)) is not None:
            store.submit(judge(item, who, client_ms=2000))
    page.goto(f"{address}/enter")
    page.get_by_label("Name").fill("Ida")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.locator(".rk").wait_for()
    page.goto(f"{address}/people")
    buttons = page.locator(".people table .btn:visible")
    page.get_by_role("button", name="Reset password: Maximilian Oberhuber").wait_for()
    assert buttons.count() >= 8
    for width in (320, 390, 800, 1024, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        assert buttons.evaluate_all(CUT) == [], width
    page.set_viewport_size({"width": 390, "height": 800})
    unnamed = "(cells) => cells.filter((c) => c.innerText && !('label' in c.dataset)).length"
    assert page.locator(".people td").evaluate_all(unnamed) == 0  # without the heads of columns


def test_a_lead_takes_rankings_home_and_is_told_what_comes_in(
    page: Any, address: str, judged: list[str], tmp_path: Any
):
    page.goto(f"{address}/people")
    page.get_by_role("button", name="Rankings as files").click()
    with page.expect_download() as taking:
        page.get_by_role("button", name="All rankings", exact=True).click()
    file = tmp_path / "mine.jsonl"
    taking.value.save_as(file)
    assert taking.value.suggested_filename == "default-rankings.jsonl"
    sending = page.locator("#bring-rankings")
    sending.locator("input").set_input_files(file)
    expect(sending.get_by_role("status")).to_have_text(
        "mine.jsonl: nothing is new; its rankings are here already"
    )
    (tmp_path / "wrong.jsonl").write_text("[]\n")
    sending.locator("input").set_input_files(tmp_path / "wrong.jsonl")
    expect(sending.get_by_role("alert")).to_contain_text("wrong.jsonl:1: expected")
    assert page.get_by_role("button", name="HPDv3").is_visible()
