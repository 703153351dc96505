"""The Results page in a browser: a blind comparison of the Generate page is voted on until it is
decided, and what is shown follows the votes and what is chosen.
"""

import re
import threading
import zipfile
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from generate_page import choose as choose_by_id
from generate_page import generate, open_page, write_runs
from PIL import Image
from provenances import provenance
from rank_page import press, wait_for_progress
from safetensors.torch import load, load_file
from submissions import judge, on_screen
from waited import expect

from imgalign.errors import InputError
from imgalign.images import png
from imgalign.preferences.store import Store
from imgalign.runs.trained import weights_hash
from ui import exports
from ui.builds import Built
from ui.runs import Runs

pytestmark = [
    pytest.mark.browser,
    # gradio counts its own calls with options of pandas that pandas is about to drop
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
]
PAGES = ("rank", "generate", "results")  # others take their time to build


@pytest.fixture
def runs(tmp_path: Path, model: Path) -> Path:
    return write_runs(tmp_path / "runs", model)


def compare(
    store: Store, count: int, project: str, *, adapter: str = "runs/mine", weights: str = ""
) -> None:
    """Queue pairs of a base's image and a checkpoint's."""
    base: dict[str, Any] = {"adapter": None, "adapter_hash": None}
    made = {"adapter": adapter, "adapter_hash": weights or adapter}
    for number in range(count):
        prompt = f"{project} {number}"
        ids = [
            store.add_image(
                png(Image.new("RGB", (8, 8), (len(project), number, 90 * k))),
                provenance(prompt=prompt, **by),
            )
            for k, by in enumerate((base, made))
        ]
        store.add_item(prompt, ids, source="test", project=project)


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


def place_of_checkpoint(page: Any, store: Store, who: str) -> int:
    """Which image on the screen is the checkpoint's, from 1; the page does not know it."""
    sources = page.locator(".rk-tile img").evaluate_all("all => all.map((each) => each.src)")
    tokens = [re.search(r"/images/([^?]+)", source)[1] for source in sources]
    made = [store.provenance(store.image_for_token(token, who).stem) for token in tokens]
    return [each.adapter is not None for each in made].index(True) + 1


def results_of(page: Any, address: str) -> Any:
    page.goto(f"{address}/results")
    duel = page.locator(".duels section")
    expect(duel).to_have_count(1)
    return duel


def test_a_comparison_made_on_generate_is_voted_on_until_results_has_its_verdict(
    page: Any, runs: Path, address: str, store: Store
):
    open_page(page, address)
    choose_by_id(page, "checkpoint", "lora, iteration 20")
    things = product(("red", "blue", "green"), ("house", "tree", "boat"))
    prompts = [f"a {colour} {noun}" for colour, noun in things][:8]
    generate(page, prompts="\n".join(prompts), images_each=1, steps=2)
    page.locator("button.co-cell img").nth(15).wait_for()
    page.wait_for_function(
        "() => document.querySelector('#project input').value === 'default-compare'"
    )
    page.get_by_role("button", name="Send to ranking").click()
    page.get_by_text("Stored 8 items in the project default-compare").wait_for()
    page.get_by_role("link", name="Rank them").click()
    page.get_by_label("Your name or initials").fill("Ada")
    page.keyboard.press("Enter")
    page.locator(".rk[data-state=ranking]").wait_for()
    other = page.context.new_page()
    for done in range(1, 9):
        page.locator(".rk-tile img").nth(1).wait_for()
        press(page, str(place_of_checkpoint(page, store, "Ada")))
        wait_for_progress(page, f"{done} of 8")
        if done == 7:
            duel = results_of(other, address)
            expect(duel.locator(".duel")).to_have_attribute("data-state", "open")
            expect(duel).to_contain_text("Not decided by 7 prompts judged completely")
            expect(duel).to_contain_text("(48 to 100 % over these, whenever asked)")
    page.locator(".rk-empty").get_by_text("All done, thank you").wait_for()

    duel = results_of(other, address)
    expect(duel.locator(".duel")).to_have_attribute("data-state", "won")
    name = str(runs / "lora" / "step-000020")
    said = re.compile(rf"^100 % \S+ \+ {name} was preferred to \S+ in 100 % of 8 blind votes")
    expect(duel.locator("h3")).to_have_text(said)
    decided = rf"Decided: \S+ \+ {name} is preferred, by 8 prompts judged completely"
    expect(duel).to_contain_text(re.compile(decided))
    low = re.match(r"(\d+) to 100 %", duel.locator(".range").get_attribute("aria-label"))
    assert int(low[1]) >= 50
    buttons = duel.get_by_role("button")
    expect(buttons).to_have_text(["ComfyUI, AUTOMATIC1111, Forge", "diffusers", "peft"])
    ratings, against = other.locator(".results table").first, other.locator(".results table").last
    expect(ratings.locator("tbody th")).to_have_text([re.compile(name), re.compile("/model$")])
    expect(ratings.locator("tbody td:last-child")).to_have_text(["8", "8"])
    won = sorted(text for text in against.locator("td").all_inner_texts() if text.strip())
    assert won == ["0 % 8", "100 % 8"]


def test_a_winner_is_taken_home_from_its_card(
    page: Any, runs: Path, address: str, store: Store, monkeypatch: pytest.MonkeyPatch
):
    may_end = threading.Event()

    def exported(_: Runs, checkpoint: str, layout: str, into: Path) -> Built:
        may_end.wait(30)
        if layout == "peft":
            raise InputError(f"export peft: {checkpoint}: its model is gone")
        (into / "made.zip").touch()
        return Built(into / "made.zip", "made.zip", "a LoRA")

    offered = exports.downloads(runs / "lora" / "step-000020")
    shown = exports.buttons(offered, "Take lora/step-000020 home for", "to be used at strength 0.6")
    monkeypatch.setattr("ui.pages.results.downloads", lambda *_: shown)
    monkeypatch.setattr("ui.api.studio.zipped_export", exported)
    compare(store, 4, "cats")
    vote(store, "ann", "cats", group="warm", won=4)
    duel = results_of(page, address)
    buttons = duel.get_by_role("button")
    with page.expect_download() as taking:
        buttons.first.click()
        said = "Writing the LoRA for ComfyUI, AUTOMATIC1111, Forge …"
        expect(duel.get_by_role("status")).to_have_text(said)
        expect(buttons.last).to_be_disabled()
        may_end.set()
    assert taking.value.suggested_filename == "made.zip"
    buttons.last.click()
    wrong = "export peft: lora/step-000020: its model is gone"
    expect(duel.get_by_role("alert")).to_have_text(wrong)
    expect(buttons.first).to_be_enabled()
    assert page.url == f"{address}/results"


def test_the_file_that_is_taken_home_has_the_weights_that_won(
    page: Any, runs: Path, address: str, store: Store
):
    checkpoint = runs / "lora" / "step-000020"
    compare(store, 8, "cats", adapter=str(checkpoint), weights=weights_hash(checkpoint))
    vote(store, "ann", "cats", group="warm", won=8)
    duel = results_of(page, address)
    expect(duel).to_contain_text("Take lora/step-000020 home for")
    with page.expect_download(timeout=120_000) as taking:
        duel.get_by_role("button", name="peft").click()
    with zipfile.ZipFile(taking.value.path()) as taken:
        assert taken.testzip() is None
        card = taken.read("README.md").decode()
        (weights,) = (name for name in taken.namelist() if name.endswith(".safetensors"))
        found = load(taken.read(weights))
    assert "## Training" in card
    own = load_file(checkpoint / "pytorch_lora_weights.safetensors")
    assert len(found) == len(own) > 0
    total = sum(float(each.double().square().sum()) for each in own.values())
    taken_home = sum(float(each.double().square().sum()) for each in found.values())
    assert taken_home == pytest.approx(total)


def test_what_is_chosen_changes_comparisons_ratings_and_the_chart_over_time(
    page: Any, address: str, store: Store
):
    compare(store, 4, "cats")
    compare(store, 4, "dogs")
    vote(store, "ann", "cats", group="warm", won=4)
    vote(store, "bob", "dogs", group="cool", won=1)
    page.goto(f"{address}/results")
    head, chart = page.locator(".duel h3"), page.locator(".history svg")

    def shows(share: str, votes: int) -> None:
        expect(head).to_contain_text(f"in {share} of {votes} blind votes")
        expect(chart.locator("text").last).to_have_text(f"{votes} rankings")
        expect(page.locator(".results tbody td:last-child").first).to_have_text(str(votes))

    shows("62 %", 8)
    for label, option, share, everything in (
        ("Project", "cats: 4 rankings", "100 %", "all"),
        ("Project", "dogs: 4 rankings", "25 %", "all"),
        ("Rankings of", "warm", "100 %", "everybody"),
        ("Rankings of", "cool", "25 %", "everybody"),
        ("Prompts", "those of cats", "100 %", "all"),
    ):
        choose(page, label, option)
        shows(share, 4)
        choose(page, label, everything)
        shows("62 %", 8)

    assert page.get_by_label("List of prompts").is_hidden()
    choose(page, "Prompts", "those of a list")
    page.get_by_label("List of prompts").fill("cats 0\n Cats  1\ndogs 3")
    page.get_by_role("button", name="Show the results on these").click()
    shows("67 %", 3)
    choose(page, "Prompts", "all")
    shows("62 %", 8)

    # The chart ends where the table stands, in its unit, and is drawn anew for another.
    folded = page.locator(".history details")
    folded.locator("summary").click()
    ratings = page.locator(".results table").first.locator("tbody tr td:nth-child(2)")
    best, worst = (float(text) for text in ratings.all_inner_texts())
    last = folded.locator("tbody tr").first.locator("td").last
    assert float(last.inner_text()) == pytest.approx(best - worst, abs=0.011)
    drawn = chart.locator("polyline.line-0").get_attribute("points")
    choose(page, "Project", "dogs: 4 rankings")
    shows("25 %", 4)
    assert chart.locator("polyline.line-0").get_attribute("points") != drawn
    choose(page, "Rating", "Elo")
    page.locator(".results").get_by_text("Points as in chess").wait_for()
    points = folded.locator("tbody td").last.text_content()
    assert re.fullmatch(r"[+-]\d{2,}", points), points
    shows("25 %", 4)
