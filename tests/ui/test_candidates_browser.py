"""The Candidates page in a real browser: from an empty folder to ranked images of the storybook."""

import io
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rank_page import press
from waited import expect, unfold

from ui.batch_request import makers
from ui.pages import candidates

pytestmark = [
    pytest.mark.browser,
    # gradio counts its own calls with options of pandas that pandas is about to drop
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
]


def open_form(page: Any, address: str) -> None:
    page.goto(f"{address}/candidates")
    page.wait_for_function("() => document.title === 'Candidates - imgalign'")
    page.wait_for_function("() => document.querySelector('#maker input')?.value === 'storybook'")


def write(page: Any, prompts: str) -> None:
    box = page.get_by_label("Prompts").last
    box.fill("")
    box.press_sequentially(prompts)
    box.blur()


def set_steps(page: Any, steps: int) -> None:
    unfold(page, "More")
    page.get_by_label("Steps").fill(str(steps))
    page.get_by_label("Steps").blur()


def begin(page: Any) -> None:
    page.get_by_role("button", name="Make them").click()


def wait_until(page: Any, state: str) -> None:
    page.locator(f".ba-batch[data-state={state}]").wait_for(timeout=240_000)


def small_png(number: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (24, 24), (80 * number, 90, 120)).save(out, "PNG")
    return out.getvalue()


def test_what_is_pasted_is_reckoned_at_once_however_long_the_page_was_open(
    page: Any, address: str
) -> None:
    asked: list[str] = []
    page.on("requestfinished", lambda request: asked.append(request.url))
    open_form(page, address)
    seen = 0
    while seen != len(asked):  # nothing that loading began is on its way
        seen = len(asked)
        page.wait_for_timeout(1500)
    page.get_by_label("Prompts").last.click()
    page.keyboard.insert_text("a red fox\ntwo boats")  # and the focus stays there
    page.locator("#cost", has_text="2 prompts, 8 images").wait_for()
    page.keyboard.insert_text("\na house")
    page.locator("#cost", has_text="3 prompts, 12 images").wait_for()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("here")
def test_an_empty_folder_becomes_ranked_candidates(page: Any, address: str, store: Any) -> None:
    page.goto(address)
    page.get_by_label("Your name or initials").fill("Ada")
    page.get_by_role("button", name="Start ranking").click()
    page.get_by_role("heading", name="Nothing to rank yet").wait_for()
    page.get_by_role("link", name="Make candidates").click()
    page.get_by_role("heading", name="Here it begins").wait_for()
    page.wait_for_function("() => document.querySelector('#maker input')?.value === 'storybook'")

    begin(page)
    refusal = page.locator("#refusal [role=alert]")
    refusal.get_by_text("prompts: write at least one, one per line").wait_for()
    write(page, "a red house\na blue boat")
    page.locator("#refusal [role=alert]").wait_for(state="hidden")
    page.get_by_text("2 prompts, 8 images, 160 sampling steps").wait_for()
    set_steps(page, 2)
    page.get_by_text("2 prompts, 8 images, 16 sampling steps").wait_for()
    page.get_by_label("Of each prompt").fill("12")
    begin(page)
    page.get_by_text("candidates of a prompt: expected a whole number from 1 to 9").last.wait_for()
    assert not Path("runs").exists()
    page.get_by_label("Of each prompt").fill("3")
    begin(page)
    wait_until(page, "making")
    page.reload()  # it goes on without the page
    wait_until(page, "made")
    assert page.locator(".ba-said").text_content().startswith("2 sets queued for ranking.")
    page.locator(".ba-set").nth(1).wait_for()
    expect(page.locator(".ba-set > p")).to_have_text(["a red house", "a blue boat"])
    expect(page.locator(".ba-set img")).to_have_count(6)
    image = page.locator(".ba-set img").first
    assert image.evaluate("i => i.decode().then(() => i.naturalWidth)") == 64
    standing = page.locator(".ba-standing")
    assert (
        standing.text_content() == "default: 2 prompts, 6 images, 0 of 2 sets ranked. Rank 2 sets"
    )

    page.get_by_role("link", name="Rank them").click()
    for prompt in ("a red house", "a blue boat"):
        page.locator(".rk-prompt", has_text=prompt).wait_for()
        press(page, "2 1 3 Enter")
    page.get_by_role("heading", name="All done, thank you").wait_for()
    assert [each.prompt for each in store.rankings()] == ["a red house", "a blue boat"]
    expect(page.get_by_role("link", name="Learn from them")).to_have_attribute("href", "learn")
    made = [store.provenance(i) for r in store.rankings() for i in r.sample_ids]
    assert {each.seed for each in made} == set(range(6))


def ask_for_one_more(page: Any, prompt: str = "two green birds") -> Any:
    """A batch of one prompt beside the one that is being made; its chip."""
    chips = page.locator(".ba-chip")
    number = chips.count()
    write(page, prompt)
    page.get_by_text("1 prompt, 4 images, ").wait_for()
    begin(page)
    expect(chips).to_have_count(number + 1)
    name = chips.first.get_attribute("data-batch")  # the newest
    return page.locator(f".ba-chip[data-batch={name}]")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_stopped_batch_goes_on_without_making_its_images_again(
    page: Any, address: str, here: Path, store: Any
) -> None:
    open_form(page, address)
    prompts = here / "prompts.txt"
    prompts.write_text("".join(f"a red house and {n} birds\n" for n in range(20)))
    page.locator(".tools input").set_input_files(str(prompts))
    page.get_by_text("20 prompts, 80 images, 1,600 sampling steps").wait_for()
    set_steps(page, 8)
    page.get_by_text("20 prompts, 80 images, 640 sampling steps").wait_for()
    begin(page)
    wait_until(page, "making")
    second = ask_for_one_more(page)
    expect(second).to_contain_text("waits")
    wait_until(page, "waiting")
    begins = "It begins by itself when the batch before it is made"
    expect(page.locator(".ba-said")).to_contain_text(begins)
    expect(page.get_by_role("button", name="Make now")).to_be_visible()
    earlier, later = (page.get_by_role("button", name=each) for each in ("Earlier", "Later"))
    expect(earlier).to_be_hidden()  # the only one
    third = ask_for_one_more(page, "three green birds")
    third.click()
    expect(later).to_be_disabled()
    expect(third).to_contain_text("waits, place 2 of 2")
    earlier.click()
    expect(third).to_contain_text("waits, place 1 of 2")
    expect(earlier).to_be_disabled()
    expect(later).to_be_enabled()
    lined = here / "runs" / ".candidates"
    since = [json.loads((lined / f"batch-{n}.waits").read_text())["since"] for n in (2, 3)]
    assert since[1] < since[0]
    later.click()
    expect(later).to_be_disabled()
    expect(earlier).to_be_enabled()
    page.get_by_role("button", name="Stop").click()
    wait_until(page, "stopped")
    page.get_by_role("button", name="Remove from the list").click()
    expect(third).to_have_count(0)
    page.locator(".ba-chip", has_text="20 prompts").click()
    page.locator(".ba-set").first.wait_for(timeout=120_000)  # as they come, not only at the end
    page.get_by_role("button", name="Stop").click()
    wait_until(page, "stopped")
    expect(second).to_contain_text("ready", timeout=120_000)  # in its turn, by itself
    sets = page.locator(".ba-set").count()
    assert 0 < sets < 20
    expect(page.locator(".ba-said")).to_contain_text("Stopped; what is made stays")
    expect(page.get_by_role("link", name="Rank them")).to_be_visible()

    page.get_by_role("button", name="Go on").click()
    wait_until(page, "made")
    page.locator(".ba-set").nth(19).wait_for()
    log = (here / "runs" / ".candidates" / "batch-1.log").read_text()
    there = int(re.search(r"(\d+) images are there already", log)[1])
    assert there >= 4 * sets
    assert f"{80 - there} images made in" in log
    store.add_annotator("Ada")
    assert store.counts("Ada").left == 21


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("here")
def test_images_are_sent_from_the_browser_to_a_project_of_their_own(
    page: Any, address: str, store: Any
) -> None:
    open_form(page, address)
    page.get_by_label("Images", exact=True).click()
    files = [
        {"name": f"{n}.png", "mimeType": "image/png", "buffer": small_png(n)} for n in range(3)
    ]
    captions = [
        {"name": f"{n}.txt", "mimeType": "text/plain", "buffer": b"a plain <b>colour</b>"}
        for n in range(3)
    ]
    chooser = page.locator(".drop input")
    chooser.set_input_files([*files, *captions])
    page.get_by_text("3 images sent.").wait_for()
    chooser.set_input_files({"name": "0.png", "mimeType": "image/png", "buffer": small_png(1)})
    page.get_by_text("0.png: there is a file of that name already; rename it").wait_for()
    project = page.get_by_label("Project", exact=True)
    project.fill("colours")
    project.press("Enter")
    page.get_by_text("3 images, up to 4 of a prompt together").wait_for()
    begin(page)
    wait_until(page, "made")
    expect(page.locator(".ba-set > p")).to_have_text(["a plain <b>colour</b>"])
    page.get_by_role("link", name="Rank them").click()
    page.get_by_label("Your name or initials").fill("Ada")
    page.get_by_role("button", name="Start ranking").click()
    page.locator(".rk-tile").nth(2).wait_for()
    assert store.counts("Ada", project="colours").left == 1


DROPPED = """(names) => {
  const input = document.querySelector(".drop input");
  const unread = (name) => ({ name, slice: () => ({ arrayBuffer: () => Promise.reject() }) });
  Object.defineProperty(input, "files", { value: names.map(unread), configurable: true });
  input.dispatchEvent(new Event("change"));
  delete input.files;
}"""
"""Chooses files that have gone meanwhile."""


def drop(page: Any, path: Path) -> None:
    """Drag a file or folder of this computer onto the place for images."""
    place = page.locator(".drop").bounding_box()
    at = {"x": place["x"] + place["width"] / 2, "y": place["y"] + 10}
    data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
    browser = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        browser.send("Input.dispatchDragEvent", {"type": kind, **at, "data": data})


def test_a_folder_is_dropped_with_what_is_in_it_and_what_cannot_be_read_is_named(
    page: Any, address: str, tmp_path: Path
) -> None:
    for name in ("set/a/0.png", "set/b/0.png", "set/b/.hidden.png", "set/notes.pdf", "bare/x.pdf"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(small_png(len(name)))
    (tmp_path / "set" / "a" / "0.txt").write_text("a plain colour")
    open_form(page, address)
    page.get_by_label("Images", exact=True).click()
    page.locator(".drop").scroll_into_view_if_needed()
    drop(page, tmp_path / "bare")
    page.get_by_text("found none in what was dropped").wait_for()
    drop(page, tmp_path / "set")
    page.get_by_text("2 images sent.").wait_for()
    expect(page.locator(".drop-wrong")).to_be_hidden()
    page.evaluate(DROPPED, ["gone.png"])
    page.get_by_text("gone.png: expected a file that can be read").wait_for()


def test_more_prompts_than_the_form_holds_are_refused_as_they_are_pasted(
    page: Any, address: str
) -> None:
    open_form(page, address)
    box = page.locator("#candidate-prompts textarea")
    box.fill("a red house")
    page.get_by_text("1 prompt, 4 images, ").wait_for()
    box.press("End")
    page.keyboard.insert_text(" beside a lake" * 25_000)
    page.get_by_text("expected at most 150 kB of prompts, got 351 kB; take a part").wait_for()
    expect(box).to_have_value("a red house")
    page.keyboard.insert_text("\na blue boat")
    page.get_by_text("2 prompts, 8 images").wait_for()
    expect(page.get_by_text("take a part of it")).to_be_hidden()


def test_what_is_typed_while_the_page_is_still_loading_stays(
    page: Any, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*given: Any) -> Any:
        time.sleep(2)
        return makers(*given)

    monkeypatch.setattr(candidates, "makers", slow)
    with page.expect_response(re.compile("queue/join")):
        page.goto(f"{address}/candidates")
    box = page.get_by_label("Prompts").last
    box.click()
    page.keyboard.insert_text("a red house\na blue boat")
    page.get_by_text("2 prompts, 8 images, 160 sampling steps").wait_for()  # after the lists came
    assert box.input_value() == "a red house\na blue boat"
    page.reload()
    page.wait_for_function(
        "() => document.querySelector('#candidate-prompts textarea')?.value.includes('blue boat')"
    )


def test_the_page_fits_on_a_phone(page: Any, address: str) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    open_form(page, address)
    page.get_by_role("heading", name="New candidates").click()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    last = page.get_by_role("link", name="Results").bounding_box()
    assert last["x"] + last["width"] <= 390
    box = page.get_by_role("button", name="Make them").bounding_box()
    assert box["width"] > 300


def test_examples_are_offered_only_where_there_are_some(page: Any, address: str) -> None:
    open_form(page, address)
    assert page.get_by_role("button", name="Add examples").count() == 0
    expect(page.get_by_text("Open a text file")).to_be_visible()


def test_projects_without_a_batch_are_reached_from_the_page(
    page: Any, address: str, add_items: Any
) -> None:
    for project in ("alpha", "beta & co"):
        add_items(2, project=project, num_images=2)
    open_form(page, address)
    line = page.locator(".ba-standing")
    expect(line).to_contain_text("alpha: 2 prompts, 4 images")
    others = page.get_by_role("navigation", name="Other projects")
    others.get_by_role("button", name="beta & co").press("Enter")
    expect(line).to_contain_text("beta & co: 2 prompts, 4 images")
    expect(others.get_by_role("button")).to_have_text(["alpha"])
    expect(others.get_by_role("button")).to_be_focused()
    assert line.get_by_role("link").get_attribute("href").endswith("/?project=beta+%26+co")
    page.reload()
    expect(line).to_contain_text("alpha: 2 prompts")
