"""The Train and Generate pages in a real browser, on a real, tiny diffusion model."""

import json
import os
import re
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from submissions import judge
from waited import expect

from imgalign.config import load_config
from imgalign.storybook.tokenizer import build_tokenizer
from imgalign.train.config import TrainConfig

pytestmark = [
    pytest.mark.browser,
    # gradio counts its own calls with options of pandas that pandas is about to drop
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
]

ROOT = Path(__file__).parents[2]
PROMPTS = "a red house\na blue boat\na green tree\n"


def write_clip(folder: Path) -> Path:
    """A real open_clip CLIP, tiny and random: a reward that costs nothing."""
    folder.mkdir(parents=True)
    tokenizer = build_tokenizer(["a", "red", "house", "blue", "boat"], folder, max_length=8)
    vision = {"image_size": 16, "patch_size": 8, "width": 32, "layers": 1, "head_width": 16}
    text = {"context_length": 8, "vocab_size": len(tokenizer), "width": 16, "heads": 2, "layers": 1}
    model = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_file(open_clip.CLIP(**model).state_dict(), folder / "open_clip_model.safetensors")
    config = {
        "model_cfg": model | {"text_cfg": text | {"hf_tokenizer_name": "."}},
        "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.2] * 3, "resize_mode": "squash"},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def studio(tmp_path, tiny_pipeline_folder, monkeypatch):
    """A working folder with a recipe that trains the tiny model for very long."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "model").symlink_to(tiny_pipeline_folder)
    (tmp_path / "prompts.txt").write_text(PROMPTS)
    settings = {
        "reward": {"path": str(write_clip(tmp_path / "clip"))},
        "policy": {"model": "model", "num_inference_steps": 3, "lora_rank": 2},
        "data": {
            "prompts": {"file": "prompts.txt"},
            "held_out": {"num_prompts": 1},
            "prompts_per_iteration": 2,
            "group_size": 2,
        },
        "run": {
            "device": "cpu",
            "measure_every": 1,
            "patience": None,
            "samples": {"every": 1, "num_prompts": 2, "images_per_prompt": 2},
            "checkpoint_every": 1,
            "iterations": 5000,
        },
    }
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "aaa-tiny.yaml").write_text(
        f"# A tiny run. imgalign train aaa-tiny\n{json.dumps(settings)}\n"
    )
    yield tmp_path
    for launch in (tmp_path / "runs" / ".launches").glob("*.json"):
        pid = json.loads(launch.read_text())["pid"]
        try:
            os.kill(pid, 9)
            os.waitpid(pid, 0)  # a child of this process, whose end nobody else waits for
        except (ProcessLookupError, ChildProcessError):
            continue


def wait_for_state(page, state):
    page.locator(f".mo-run[data-state={state}]").wait_for(timeout=120_000)


@pytest.mark.parametrize("name", ["Candidates", "Learn", "Train", "Generate", "Results", "People"])
def test_a_page_has_a_heading_and_a_title_of_its_own(page, address, name):
    page.goto(f"{address}/{name.lower()}")
    page.wait_for_function(f"() => document.title === '{name} - imgalign'")
    expect(page.get_by_role("heading", name=name, level=1)).to_have_count(1)


@pytest.mark.slow
def test_a_run_is_started_watched_stopped_and_compared(page, studio, address, store):
    page.goto(f"{address}/train")
    page.wait_for_function(
        "() => document.querySelector('#recipe input:checked')?.value === 'aaa-tiny'"
    )
    expect(page.locator("details.recipe")).to_contain_text("A tiny run.")
    page.get_by_label("Name").fill("first")
    page.get_by_label("Overrides").fill("run.samples.every=2")
    page.get_by_role("button", name="Start training").click()
    wait_for_state(page, "running")
    page.locator(".mo-chart circle").nth(3).wait_for(timeout=120_000)
    page.locator(".mo-samples img").wait_for()
    assert page.locator(".mo-samples img").evaluate("i => i.decode().then(() => i.naturalWidth)")

    page.reload()
    wait_for_state(page, "running")
    expect(page.locator(".mo-run h3")).to_have_text("first")
    page.get_by_role("button", name="Stop and save").click()
    wait_for_state(page, "stopped")
    expect(page.locator(".mo-where")).to_contain_text("; go on with Resume")
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
    status = json.loads((studio / "runs" / "first" / "status.json").read_text())
    assert status["state"] == "stopped"
    assert "run.samples.every=2" in (studio / "runs" / ".launches" / "first.log").read_text()

    page.goto(f"{address}/generate")
    page.wait_for_function(
        "() => /first, iteration/.test(document.querySelector('#checkpoint input')?.value)"
    )
    page.get_by_label("Prompts").fill("a red house")
    page.get_by_label("Steps").fill("3")
    page.get_by_role("button", name="Generate", exact=True).click()
    images = page.locator(".co-cell img")
    images.nth(7).wait_for(timeout=120_000)
    assert images.nth(0).evaluate("i => i.decode().then(() => i.naturalWidth)") == 16
    page.get_by_text("Base against aligned").click()
    page.get_by_text("a project of their own, default-compare").wait_for()
    page.get_by_role("button", name="Send to ranking").click()
    page.get_by_text(re.compile("Stored [34] items in the project default-compare")).wait_for()
    store.add_annotator("Ada")
    assert store.counts("Ada").left == 0
    assert store.counts("Ada", project="default-compare").left in (
        3,
        4,
    )  # equal images leave nothing to choose from

    page.reload()
    images.nth(7).wait_for()


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_its_end_with_resume(page, studio, address):
    page.goto(f"{address}/train")
    page.wait_for_function(
        "() => document.querySelector('#recipe input:checked')?.value === 'aaa-tiny'"
    )
    page.get_by_label("Name").fill("second")
    overrides = ["iterations=60", "samples.every=60", "measure_every=60", "checkpoint_every=1"]
    page.get_by_label("Overrides").fill("\n".join(f"run.{each}" for each in overrides))
    page.get_by_role("button", name="Start training").click()
    begun = page.locator(".mo-where", has_text=re.compile(r"\b[1-9]\d* of 60 iterations done"))
    begun.wait_for(timeout=120_000)
    page.get_by_role("button", name="Stop and save").click()
    wait_for_state(page, "stopped")
    folder = studio / "runs" / "second"
    status = json.loads((folder / "status.json").read_text())
    assert status["state"] == "stopped"
    assert 0 < status["step"] < 60
    before = (folder / "metrics.jsonl").read_text()

    page.get_by_role("button", name="Resume").click()
    wait_for_state(page, "finished")
    page.locator(".mo-where", has_text="finished at iteration 60").wait_for()
    expect(page.locator(".mo-bar")).to_have_attribute("aria-valuenow", "60")
    expect(page.get_by_role("button", name="Resume")).to_be_hidden()
    assert json.loads((folder / "status.json").read_text())["step"] == 60
    after = (folder / "metrics.jsonl").read_text()
    assert after.startswith(before)
    steps = [json.loads(line)["step"] for line in after.splitlines()]
    assert steps == sorted(set(steps))  # no iteration is done twice
    assert steps[-1] == 60


def test_every_setting_is_explained_and_follows_the_overrides(page, studio, address):
    page.goto(f"{address}/train")
    fold = page.get_by_role("button", name=re.compile(r"Settings: \d+ of \d+ differ"))
    fold.wait_for()
    fold.click()
    row = page.locator("[data-setting='policy.lora_rank']")
    row.wait_for()
    expect(row.locator(".value")).to_have_text("2")
    expect(row.locator(".default")).to_have_text("null", use_inner_text=True)
    expect(row.locator(".meaning")).to_contain_text("Rank of the trained matrices")
    assert page.locator("[data-setting='policy.eta']").is_hidden()
    page.get_by_text("settings with their default").click()
    expect(page.locator("[data-setting='policy.eta']")).to_be_visible()

    page.get_by_label("Overrides").fill("policy.lora_rank=many")
    page.get_by_label("Overrides").blur()
    wrong = "policy.lora_rank: expected a whole number, got 'many'"
    page.get_by_role("alert").get_by_text(wrong).wait_for()
    expect(page.locator(".ct-wrong:visible")).to_have_text(wrong)  # and at its control
    page.get_by_label("Overrides").fill("policy.lora_rank=6")
    page.get_by_label("Overrides").blur()
    page.locator("[data-setting='policy.lora_rank'] .value", has_text="6").wait_for()
    assert page.get_by_role("alert").count() == 0


def test_the_settings_fit_on_a_phone(page, studio, address):
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{address}/train")
    page.get_by_role("button", name=re.compile("Settings: ")).click()
    row = page.locator("[data-setting='policy.lora_rank']")
    row.wait_for()
    name, value, default, meaning = (
        row.locator(each).bounding_box() for each in ("th", ".value", ".default", ".meaning")
    )
    assert name["y"] == value["y"]
    assert name["y"] < default["y"] < meaning["y"]  # below one another, each as wide as the page
    assert meaning["width"] > 300
    expect(row.locator(".default")).to_have_text("default null", use_inner_text=True)
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_a_wrong_setting_is_said_on_the_page_and_an_idea_becomes_a_prompt(page, studio, address):
    page.goto(f"{address}/train")
    page.wait_for_function("() => document.querySelector('#recipe input:checked')?.value")
    page.get_by_label("Overrides").fill("--out=/tmp/elsewhere")
    page.get_by_role("button", name="Start training").click()
    page.locator("#refusal").get_by_text("expected section.key=value").wait_for()
    assert not (studio / "runs").exists()

    page.goto(f"{address}/generate")
    page.wait_for_function("() => document.querySelector('#checkpoint input')?.value")
    page.get_by_role("button", name="three orange fish by the sea").click()
    page.wait_for_function(
        "() => document.querySelector('#prompts textarea').value.endsWith('fish by the sea')"
    )
    page.get_by_label("Prompts").fill("   ")
    page.get_by_role("button", name="Generate", exact=True).click()
    page.get_by_text("write at least one, or pick an example").wait_for()


@pytest.mark.slow
def test_rankings_train_a_model_without_a_reward_model(page, studio, address, store, add_items):
    add_items(6, num_images=2)
    store.add_annotator("Ada")
    while (item := store.next_item("Ada")) is not None:
        store.submit(judge(item, "Ada", ranking=((0,), (1,))))
    settings = {
        "algorithm": {"name": "dpo"},
        "policy": {"model": "model", "num_inference_steps": 3, "lora_rank": 2, "batch_size": 4},
        "data": {"from": "rankings", "held_out": {"num_prompts": 2}},
        "run": {"device": "cpu", "iterations": 3, "measure_every": 1, "samples": {"every": 3}},
    }
    (studio / "configs" / "aa-dpo.yaml").write_text(json.dumps(settings))
    page.goto(f"{address}/train")
    page.wait_for_function(
        "() => document.querySelector('#recipe input:checked')?.value === 'aa-dpo'"
    )
    page.get_by_text("Not needed: it learns from images that are given.").wait_for()
    expect(page.locator("#reward input")).to_have_value("none")
    page.get_by_role("button", name="Start training").click()
    wait_for_state(page, "finished")
    assert load_config(TrainConfig, studio / "runs" / "aa-dpo" / "config.yaml").reward.path is None
    charts = page.locator(".mo-chart")
    charts.nth(6).wait_for()
    titles = charts.locator("h4").evaluate_all("all => all.map((h) => h.firstChild.textContent)")
    assert titles == [
        "KL to the reference",
        "Implicit accuracy",
        "Preference loss",
        "Implicit margin",
        "Log-ratios of the best and the worst",
        "Held-out log-ratios of the best and the worst",
        "Gradient factor and negative margins",
    ]
    apart = charts.nth(4).locator(".mo-key span")
    expect(apart).to_have_text(["Log-ratio of the best", "Log-ratio of the worst"])
    only = charts.nth(0).locator(".mo-key span")
    expect(only).to_have_text(["Held-out KL"])
