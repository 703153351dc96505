"""The Results page in a browser: a blind comparison is voted on, and what is shown follows it."""

from typing import Any

import pytest
from PIL import Image
from provenances import provenance
from rank_page import press, start, wait_for_progress
from submissions import judge, on_screen
from waited import expect

from imgalign.images import png
from imgalign.preferences.store import Store

pytestmark = [
    pytest.mark.browser,
    # gradio counts its own calls with options of pandas that pandas is about to drop
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
]
PAGES = ("rank", "results")  # others take their time to build


def compare(store: Store, count: int, project: str) -> dict[str, str]:
    """Queue pairs of a base's image and a checkpoint's; the items by their prompts."""
    items = {}
    for number in range(count):
        ids = [
            store.add_image(
                png(Image.new("RGB", (8, 8), (len(project), number, 90 * k))),
                provenance(prompt=f"{project} {number}", adapter=adapter, adapter_hash=adapter),
            )
            for k, adapter in enumerate((None, "runs/mine"))
        ]
        prompt = f"{project} {number}"
        items[prompt] = store.add_item(prompt, ids, source="test", project=project)
    return items


def vote(store: Store, who: str, project: str, *, group: str, won: int) -> None:
    """Prefer the checkpoint in the first `won` sets, and the base in all others."""
    store.add_annotator(who, group=group)
    number = 0
    while (item := store.next_item(who, project=project)) is not None:
        order = ((1,), (0,)) if number < won else ((0,), (1,))
        store.submit(judge(item, who, ranking=on_screen(store, item, order, who)))
        number += 1


def choose(page: Any, label: str, option: str) -> None:
    page.get_by_label(label, exact=True).click()
    page.get_by_role("option", name=option, exact=True).click()


def test_a_blind_comparison_that_is_voted_on_has_its_verdict_on_the_results_page(
    page: Any, address: str, store: Store
):
    items = compare(store, 8, "default")
    start(page, address)
    for done in range(8):
        prompt = page.locator(".rk-prompt").text_content().strip()
        place = store.display_order(items[prompt], "ada").index(1)  # where the checkpoint is
        press(page, str(place + 1))
        wait_for_progress(page, f"{done + 1} of 8")
    page.goto(f"{address}/results")
    duel = page.locator(".duel")
    expect(duel).to_have_attribute("data-state", "won")
    expect(duel.locator("h3")).to_contain_text("100 %")
    expect(duel).to_contain_text("was preferred to m in 100 % of 8 blind votes")
    expect(duel).to_contain_text("Decided: m + runs/mine")
    names = page.locator(".results table").first.locator("tbody th")
    expect(names.first).to_contain_text("runs/mine")
    expect(names).to_have_count(2)


def test_project_group_and_prompts_change_what_is_shown_and_ratings_have_a_chart_over_time(
    page: Any, address: str, store: Store
):
    compare(store, 4, "cats")
    compare(store, 4, "dogs")
    vote(store, "ann", "cats", group="warm", won=4)
    vote(store, "bob", "dogs", group="cool", won=1)
    page.goto(f"{address}/results")
    head = page.locator(".duel h3")
    expect(head).to_contain_text("of 8 blind votes")
    expect(page.get_by_role("img", name="Ratings above that of")).to_have_count(1)
    choose(page, "Project", "dogs: 4 rankings")
    expect(head).to_contain_text("in 25 % of 4 blind votes")
    choose(page, "Project", "all")
    expect(head).to_contain_text("of 8 blind votes")
    choose(page, "Rankings of", "warm")
    expect(head).to_contain_text("in 100 % of 4 blind votes")
    choose(page, "Rankings of", "everybody")
    expect(head).to_contain_text("of 8 blind votes")
    choose(page, "Prompts", "those of a list")
    page.get_by_label("List of prompts").fill("cats 0\ncats 1\ndogs 3")
    page.get_by_role("button", name="Show the results on these").click()
    expect(head).to_contain_text("in 67 % of 3 blind votes")
