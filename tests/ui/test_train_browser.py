"""What the Train page says and does, in a real browser, on runs as they lie on disk."""

import json
import os
import threading
from pathlib import Path

import pytest
from PIL import Image
from waited import expect

from imgalign.config import dump_config, load_config
from imgalign.errors import InputError
from imgalign.train.config import TrainConfig
from ui.builds import Built

PAGES = ("rank", "train", "generate")  # others take their time to build
pytestmark = [
    pytest.mark.browser,
    # gradio counts its own calls with options of pandas that pandas is about to drop
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with a recipe that needs a reward model, and a run of each kind."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "mine.yaml").write_text("# Mine. Time: an hour.\nseed: 7\n")
    write_run(tmp_path, "done", state="finished", begun=3)
    write_run(tmp_path, "half", state="stopped", begun=2)
    failed = write_run(tmp_path, "broken", state="failed", begun=1)
    for path in (failed / "step-000006", failed / "samples"):
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    (failed / "metrics.jsonl").write_text("")
    return tmp_path


MESSAGES = {
    "finished": "finished at iteration 6",
    "stopped": "stopped at iteration 6; resume with --resume",
    "failed": "reward.path: runs/gone: no contract.json here; fit it with 'imgalign reward train'",
}


def write_run(root, name, *, state, begun):
    folder = root / "runs" / name
    (folder / "step-000006").mkdir(parents=True)
    (folder / "step-000006" / "pytorch_lora_weights.safetensors").touch()
    (folder / "samples").mkdir()
    Image.new("RGB", (64, 64), "teal").save(folder / "samples" / "step-000006.png")
    (folder / "best.json").write_text('{"checkpoint": "step-000006"}')
    status = {"state": state, "pid": 1, "step": 6, "total": 24, "message": MESSAGES[state]}
    (folder / "status.json").write_text(json.dumps(status))
    lines = [{"step": at, "held_out_reward": at / 10, "held_out_kl": at} for at in (0, 6)]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    changed = ["reward.path=runs/gone", "seed=3"]
    settings = load_config(TrainConfig, Path("configs/mine.yaml"), changed)
    dump_config(settings, folder / "config.yaml")
    prompts = {"training": ["a red house"], "held_out": ["a blue boat", "a green tree"]}
    (folder / "prompts.json").write_text(json.dumps(prompts))
    os.utime(folder / "prompts.json", (1e9 + begun, 1e9 + begun))
    return folder


def open_train(page, address):
    page.goto(f"{address}/train")
    page.wait_for_function("() => document.querySelector('#recipe input:checked')?.value")


def choose(page, name):
    page.locator(f"[data-run='{name}']").click()
    page.locator(".mo-run h3", has_text=name).wait_for()


def names(page):
    return page.locator(".mo-chip b").all_text_contents()


def test_a_run_says_what_it_came_to_what_its_prompts_are_and_what_to_do_next(page, here, address):
    open_train(page, address)
    choose(page, "done")
    verdict = page.locator(".mo-verdict")
    verdict.get_by_role("heading", name="Use iteration 6: its held-out reward is the").wait_for()
    expect(verdict).to_contain_text("0 at the start, 0.6 at iteration 6")
    assert str(here / "runs" / "done" / "step-000006") in verdict.text_content()
    assert "imgalign export runs/done --format kohya" in verdict.text_content().replace(
        str(here) + "/", ""
    )
    prompts = page.get_by_role("list", name="Prompts of the rows").get_by_role("listitem")
    expect(prompts).to_have_text(["a blue boat", "a green tree", "a red house"])
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    verdict.get_by_text("On a terminal").click()
    verdict.get_by_role("button", name="Copy: imgalign evaluate").click()
    verdict.get_by_text("Copied").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == f"imgalign evaluate {here / 'runs' / 'done'}"


def test_the_iteration_that_is_recommended_is_the_one_that_generate_compares(page, here, address):
    later = here / "runs" / "done" / "step-000012"
    later.mkdir()
    (later / "pytorch_lora_weights.safetensors").touch()
    newer = write_run(here, "newer", state="finished", begun=4)
    (newer / "step-000006").rename(newer / "step-000002")
    open_train(page, address)
    choose(page, "done")
    verdict = page.locator(".mo-verdict")
    verdict.get_by_role("heading", name="Use iteration 6: its held-out reward is the").wait_for()
    verdict.get_by_role("link", name="Compare it on Generate").click()
    expect(page.locator("#checkpoint input")).to_have_value("done, iteration 6 (best)")


def test_its_checkpoint_is_taken_home_for_another_tool(page, here, address, monkeypatch):
    asked = []
    may_end = threading.Event()

    def exported(runs, checkpoint, layout, into):
        asked.append((checkpoint, layout))
        may_end.wait(30)
        if layout == "peft":
            raise InputError("export peft: runs/gone: no such folder")
        (into / "made.zip").write_bytes(b"zip")
        return Built(into / "made.zip", "half-step-000006-kohya.zip", "half-step-000006-kohya.zip")

    monkeypatch.setattr("ui.api.studio.zipped_export", exported)
    open_train(page, address)
    choose(page, "half")
    home = page.locator(".mo-home")
    buttons = home.get_by_role("button")
    expect(buttons).to_have_text(["ComfyUI, AUTOMATIC1111, Forge", "diffusers", "peft"])
    with page.expect_download() as download:
        buttons.first.click()
        expect(home.get_by_role("status")).to_have_text(
            "Writing the LoRA for ComfyUI, AUTOMATIC1111, Forge …"
        )
        for each in buttons.all():
            expect(each).to_be_disabled()
        may_end.set()
    assert download.value.suggested_filename == "half-step-000006-kohya.zip"
    said = "ComfyUI, AUTOMATIC1111, Forge: half-step-000006-kohya.zip"
    expect(home.get_by_role("status")).to_have_text(said)
    buttons.last.click()
    expect(home.get_by_role("alert")).to_have_text("export peft: runs/gone: no such folder")
    expect(home.get_by_role("status")).to_have_text("")
    expect(buttons.first).to_be_enabled()
    assert asked == [("half/step-000006", "kohya"), ("half/step-000006", "peft")]
    choose(page, "broken")
    page.locator(".mo-verdict").wait_for(state="hidden")  # it saved nothing


def test_a_stopped_run_names_the_button_and_a_failed_one_its_reason(page, here, address):
    open_train(page, address)
    choose(page, "half")
    page.locator(".mo-where", has_text="stopped at iteration 6; go on with Resume").wait_for()
    assert "--resume" not in page.locator("#monitor").inner_text()
    choose(page, "broken")
    page.locator(
        ".mo-where", has_text="runs/gone: no contract.json here; fit it on Learn"
    ).wait_for()
    assert page.locator(".mo-log").get_attribute("open") is not None
    expect(page.locator(".mo-chart")).to_have_count(0)  # nothing was measured, and nothing comes


def test_nothing_is_started_without_the_reward_that_it_needs(page, here, address):
    open_train(page, address)
    choose_recipe(page, "mine")
    page.get_by_text("Cannot be started yet.").wait_for()
    page.get_by_role("button", name="Start training").click()
    alert = page.locator("#refusal [role=alert]")
    alert.get_by_text("reward.path: expected a reward model").wait_for()
    # What is explained of the form does not take its place, as late as it may come.
    page.get_by_label("Overrides").press_sequentially("seed=2")
    alert.wait_for(state="detached")
    page.get_by_role("button", name="Start training").click()
    alert.wait_for()
    assert sorted(os.listdir(here / "runs")) == ["broken", "done", "half"]
    assert len(names(page)) == 3


def choose_recipe(page, name):
    page.locator(f"#recipe input[value='{name}']").check()


def test_a_failed_run_is_deleted_once_confirmed_and_one_with_work_by_its_name(page, here, address):
    open_train(page, address)
    choose(page, "broken")
    page.get_by_role("button", name="Delete …").click()
    page.get_by_role("button", name="Keep it").click()
    assert (here / "runs" / "broken").exists()
    page.get_by_role("button", name="Delete …").click()
    page.get_by_role("button", name="Delete for good").click()
    page.wait_for_function("() => document.querySelectorAll('.mo-chip').length === 2")
    assert not (here / "runs" / "broken").exists()

    choose(page, "done")
    page.get_by_role("button", name="Delete …").click()
    page.get_by_text("done holds 1 checkpoint").wait_for()
    forever = page.get_by_role("button", name="Delete for good")
    box = page.get_by_label("Type done to delete it")
    box.fill("don")
    expect(forever).to_be_disabled()
    box.fill("done")
    forever.click()
    page.wait_for_function("() => document.querySelectorAll('.mo-chip').length === 1")
    assert os.listdir(here / "runs") == ["half"]


def test_a_typing_error_is_offered_its_cure_and_the_form_survives_a_reload(page, here, address):
    open_train(page, address)
    choose_recipe(page, "mine")
    page.wait_for_function(
        "() => document.querySelector('#run-name :is(input, textarea)').value === 'mine'"
    )
    page.get_by_label("Name").fill("my run")
    overrides = page.get_by_label("Overrides")
    overrides.fill("# a try\niterations = 20")
    overrides.blur()
    page.get_by_role("button", name="Use run.iterations=20").click()
    page.wait_for_function(
        "() => document.querySelector('#overrides textarea').value.endsWith('run.iterations=20')"
    )
    page.locator("#cost", has_text="20 iterations of 64 images, 1,280 in all").wait_for()
    said = "an hour, says the recipe, for its 40 iterations"
    expect(page.locator("#cost")).to_contain_text(said, use_inner_text=True)
    page.get_by_role("button", name="Use run.iterations=20").wait_for(state="hidden")

    page.reload()
    page.wait_for_function("() => document.querySelector('#overrides textarea')?.value")
    assert overrides.input_value() == "# a try\nrun.iterations=20"
    expect(page.get_by_label("Name")).to_have_value("my run")
    expect(page.locator("#recipe input[value='mine']")).to_be_checked()


def test_a_run_is_copied_into_the_form_with_its_changes(page, here, address):
    open_train(page, address)
    page.get_by_label("Overrides").fill("of another run")
    choose(page, "half")
    page.get_by_role("button", name="Copy with changes").click()
    page.wait_for_function(
        "() => document.querySelector('#overrides textarea').value.includes('seed=3')"
    )
    typed = page.get_by_label("Overrides").input_value()
    assert "another" not in typed
    assert 'reward.path="runs/gone"' in typed  # it is not there, and none is taken in its place
    page.get_by_text("reward.path: runs/gone: expected the folder of a reward model").wait_for()
    expect(page.locator("#recipe input[value='mine']")).to_be_checked()
    expect(page.get_by_label("Name")).to_have_value("mine")


def test_chips_keep_their_places_and_no_run_is_never_said_while_there_are_some(page, here, address):
    page.add_init_script(
        """const look = () => {
          const none = document.querySelector(".mo-none");
          if (none && none.checkVisibility()) window.lied = true;
          requestAnimationFrame(look);
        }; look();"""
    )
    open_train(page, address)
    page.locator(".mo-chip").nth(2).wait_for()
    assert names(page) == ["done", "half", "broken"]
    status = here / "runs" / "broken" / "status.json"
    status.write_text(status.read_text().replace('"step": 6', '"step": 5'))
    page.locator(".mo-chip", has_text="iteration 5").wait_for()
    assert names(page) == ["done", "half", "broken"]
    assert not page.evaluate("Boolean(window.lied)")


def test_the_button_and_the_samples_stay_in_view(page, here, address):
    open_train(page, address)
    start = page.get_by_role("button", name="Start training")
    start.wait_for()
    top = start.bounding_box()["y"]
    assert 700 < top < 800 - 40  # at the bottom of the window, above the end of the form
    choose(page, "done")
    page.evaluate("document.querySelector('.mo-charts').style.minHeight = '3000px'")
    page.evaluate("document.querySelector('.mo-log').scrollIntoView(false)")
    page.wait_for_function(
        "() => document.querySelector('.mo-samples').getBoundingClientRect().bottom > 400"
    )


def test_on_a_phone_the_watched_run_comes_before_the_form(page, here, address):
    page.set_viewport_size({"width": 390, "height": 844})
    open_train(page, address)
    choose(page, "done")
    tops = [
        page.locator(each).bounding_box()["y"]
        for each in (".mo-run h3", ".mo-samples", "#recipe", "#settings")
    ]
    assert tops == sorted(tops)
    assert tops[0] < 400
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.get_by_role("button", name="New run").click()
    page.wait_for_function(
        "() => document.querySelector('#recipe').getBoundingClientRect().top < 200"
    )
    page.set_viewport_size({"width": 1280, "height": 800})
    assert page.get_by_role("button", name="New run").is_hidden()  # the form is beside it
    left, right = (page.locator(each).bounding_box()["x"] for each in ("#recipe", ".mo-run h3"))
    assert left < right


def test_without_any_run_the_page_says_so(page, tmp_path, monkeypatch, address):
    monkeypatch.chdir(tmp_path)
    open_train(page, address)
    page.get_by_role("heading", name="No runs yet").wait_for()
    page.set_viewport_size({"width": 390, "height": 844})
    form, none = (page.locator(each).bounding_box()["y"] for each in ("#recipe", ".mo-none"))
    assert form < none


def test_without_browser_storage_the_page_works(page, here, address):
    page.add_init_script(
        """Object.defineProperty(window, "localStorage", {
          get() { throw new DOMException("denied", "SecurityError"); } });"""
    )
    page.goto(f"{address}/train")
    page.locator(".mo-chip").nth(2).wait_for()
    choose(page, "half")


@pytest.mark.slow
def test_after_the_server_was_killed_the_page_says_that_it_is_gone(page, here, process, store):
    process.start()
    process.wait_until_ready()
    open_train(page, process.address)
    page.locator(".mo-chip").nth(2).wait_for()
    process.end()
    page.locator(".mo-gone", has_text="The app is gone").wait_for(timeout=60_000)
    page.locator("#alive", has_text="does not respond").wait_for(timeout=60_000)
    page.locator(".toast-body").first.wait_for(state="attached", timeout=60_000)
    expect(page.locator(".toast-body").first).to_be_hidden()  # it is said once
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.locator("#alive").bounding_box()["width"] > 300
    assert names(page) == ["done", "half", "broken"]
    assert page.locator(".mo-none").is_hidden()
