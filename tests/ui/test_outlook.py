"""What a shipped recipe will cost is said before its first run, as an estimate or as not known."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from imgalign.diffusion.loading import load_pipeline
from imgalign.diffusion.model_names import STORYBOOK
from imgalign.diffusion.policy import DiffusionPolicy
from imgalign.language.loading import STORYBOOK as LANGUAGE
from ui import outlook, recipes
from ui.measured import MEASURED, num_trained
from ui.runs import Runs

UNET = "diffusion_pytorch_model.safetensors"
OF_THE_HUB = {"sd15_dpo"}
BY_HEADER = {"rewriter_ppo"}
"""Whose time is in its header alone."""
SHIPPED = {*recipes.GOALS, *BY_HEADER}


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    monkeypatch.chdir(tmp_path)
    return Runs(tmp_path / "runs")


def lines(runs: Runs, name: str, *overrides: str) -> dict[str, str]:
    recipe = recipes.read(name)
    reward = ["reward.path=runs/reward"] if recipe.needs_reward else []
    settings = recipes.settings_with(recipe, [*reward, *overrides])
    return {term: text for term, text in outlook.outlook(settings, recipe, runs)}


def weights_in(file: Path) -> int:
    return sum(each.numel() for each in load_file(file).values())


def test_time_memory_and_disk_of_every_shipped_recipe_are_said_before_its_first_run(
    runs: Runs,
) -> None:
    assert set(recipes.names()) == SHIPPED == {*MEASURED, *OF_THE_HUB, *BY_HEADER}
    for name in SHIPPED - OF_THE_HUB:
        said = lines(runs, name)
        # Of one epoch the header knows it: the number of its iterations is not in the settings.
        assert re.match(r"about (a minute|\d+ (s|min))|three minutes, says", said["Time"]), name
        assert said["Memory"].endswith(" GB, as this recipe was measured"), name
        assert " MB: " in said["Disk"], name
        assert "by the number of trained weights" in said["Disk"], name


@pytest.mark.parametrize(
    ("name", "time", "memory", "disk"),
    [
        # 160 times 1.8 s; four checkpoints of 27,104 weights for each of 4 ranks, of 4 bytes, with
        # two moments, twice for the KL budget.
        ("storybook_dpo", "5 min", "1.5 GB", "10.4 MB: 4 checkpoints of 2.6 MB"),
        ("storybook_grpo", "5 min", "1.5 GB", "10.4 MB: 4 checkpoints of 2.6 MB"),
        # All weights, 1,446,144, and no KL budget.
        ("rewriter_grpo", "2 min", "1.2 GB", "104 MB: 6 checkpoints of 17.4 MB"),
    ],
)
def test_what_was_measured_is_told_of_the_run_and_of_nothing_else(
    runs: Runs, name: str, time: str, memory: str, disk: str
) -> None:
    said = lines(runs, name)
    core = "one core of an AMD EPYC" + " with AVX-512" * name.startswith("storybook")
    assert said["Time"] == f"about {time} on {core}; elsewhere it differs"
    assert said["Memory"].startswith(f"about {memory}, ")
    assert said["Disk"].startswith(f"up to about {disk}, ")


def test_the_estimate_follows_the_settings(runs: Runs) -> None:
    half = lines(runs, "storybook_grpo", "data.group_size=4", "run.iterations=8")
    assert half["Time"].startswith("about 47 s ")
    full = lines(runs, "storybook_dpo", "policy.train=full", "run.kl_budget_nats=null")
    assert "4 checkpoints of 85.7 MB" in full["Disk"]
    assert full["Memory"].startswith("not known before a first run of this kind")
    critic = lines(runs, "rewriter_ppo")  # as large as the network
    assert "6 checkpoints of 34.7 MB" in critic["Disk"]
    other = lines(runs, "storybook_dpo", "policy.target_modules=[to_q]")
    assert "4 checkpoints, as large as those of a first run will be" in other["Disk"]


def test_of_a_model_of_the_hub_it_says_what_is_not_known(runs: Runs) -> None:
    said = lines(runs, "sd15_dpo", "data.folder=pairs")
    unknown = (
        "not known before a first run of this kind with stable-diffusion-v1-5/stable-diffusion-v1-5"
    )
    assert said["Time"] == said["Memory"] == unknown
    assert said["Machine"] == "one GPU with 12 GB or more, says the recipe"
    assert "as large as those of a first run will be" in said["Disk"]


def test_ones_own_recipe_of_the_same_name_was_not_measured(runs: Runs, tmp_path: Path) -> None:
    text = recipes.read("storybook_dpo").path.read_text()
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "storybook_dpo.yaml").write_text(text)
    assert lines(runs, "storybook_dpo")["Memory"].startswith("not known before a first run")


def test_the_numbers_of_weights_are_those_of_the_shipped_models() -> None:
    settings = recipes.settings_with(recipes.read("storybook_dpo"))
    pipeline = load_pipeline("storybook", device=torch.device("cpu"))
    config: Any = settings.policy
    weights = DiffusionPolicy(pipeline, config).trainable_parameters()
    expected = sum(each.numel() for each in weights)
    assert num_trained(settings) == expected
    for recipe, changes, file in (
        ("storybook_dpo", ["policy.train=full"], STORYBOOK / "unet" / UNET),
        ("rewriter_sft", [], LANGUAGE / "model.safetensors"),
    ):
        settings = recipes.settings_with(recipes.read(recipe), changes)
        assert num_trained(settings) == weights_in(file)
