"""Claims: on a GPU every algorithm trains, a resumed run is the uninterrupted one as far as the
operations are deterministic, and a run may go on on another device."""

import json
import math
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from imgalign.cli.main import main
from imgalign.config import dump_config
from imgalign.runs.checkpoint import checkpoints
from imgalign.runs.folder import METRICS
from imgalign.runs.metrics import read_metrics
from imgalign.runs.trained import ADAPTER
from imgalign.train.config import TrainConfig
from imgalign.train.learner import peak_memory_gb

pytestmark = pytest.mark.gpu

ROLLOUTS = {"from": "rollouts", "prompts_per_iteration": 2, "group_size": 4}
LEVELS = {"noise_levels": [0.5, 1.0], "likelihood_error": "noise"}

RUNS: dict[str, dict[str, Any]] = {
    "grpo": {"algorithm": {"name": "grpo", "credited_steps": 1, "kl_steps": 1}},
    "ppo": {
        "algorithm": {
            "name": "ppo",
            "baseline": {"kind": "value"},
            "inner_epochs": 2,
            "kl": {"kind": "adaptive", "target_nats": 1.0},
        },
        "policy": {"steps_per_pass": 2},
        "run": {"kl_budget_nats": 1e6},
    },
    "supervised": {"algorithm": {"name": "supervised", "draws": 2}, "policy": LEVELS},
    "online dpo": {
        "algorithm": {
            "name": "dpo",
            "keep_chosen": 0.5,
            "refresh": {"every": 2, "max_nats": 1e6},
            "minibatches": 2,
        },
        "policy": LEVELS | {"batch_size": 2},
        "run": {"kl_budget_nats": 1e6},
    },
    "cardinal": {"algorithm": {"name": "cardinal", "sft": 0.1}, "policy": LEVELS},
    "kto on pairs": {"algorithm": {"name": "kto", "draws": 2}, "data": {"from": "folder"}},
}


@pytest.fixture
def deterministic(monkeypatch) -> Iterator[None]:
    """Only operations that add in the same order each time."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module")
def prompts(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("prompts") / "prompts.txt"
    path.write_text("a red house\na blue boat\na green tree\ntwo red tree\n")
    return path


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    """Six pairs of images, in the layout x.png and x-rejected.png."""
    folder = tmp_path_factory.mktemp("pairs")
    for number in range(6):
        for name, colour in (("", (200, 40 * number, 0)), ("-rejected", (0, 40 * number, 200))):
            Image.new("RGB", (16, 16), colour).save(folder / f"{number}{name}.png")
        (folder / f"{number}.txt").write_text(["a red house", "a blue boat"][number % 2])
    return folder


@pytest.fixture
def recipe(tiny_pipeline_folder, prompts, pairs, gpu, tmp_path):
    """Writes the recipe of a run on the GPU."""

    def write(name: str, **run: Any) -> Path:
        own = RUNS[name]
        policy: dict[str, Any] = {
            "model": str(tiny_pipeline_folder),
            "dtype": "float32",
            "num_inference_steps": 3,
            "batch_size": 4,
        }
        data: dict[str, Any] = {"held_out": {"num_prompts": 1, "images_per_prompt": 2}}
        if "data" in own:
            data |= own["data"] | {"folder": str(pairs)}
        else:
            data |= ROLLOUTS | {"prompts": {"file": str(prompts)}}
        samples = {"every": 2, "num_prompts": 1, "images_per_prompt": 2}
        settings = {
            "policy": policy | own.get("policy", {}),
            "algorithm": own["algorithm"],
            "data": data,
            "reward": {"path": "storybook"},
            "optimizer": {"learning_rate": 0.01},
            "run": {
                "device": gpu.type,
                "iterations": 3,
                "measure_every": 2,
                "patience": None,
                "samples": samples,
                "checkpoint_every": 1,
                "keep_checkpoints": 9,
                **own.get("run", {}),
                **run,
            },
        }
        path = tmp_path / "recipe.yaml"
        dump_config(TrainConfig.model_validate(settings), path)
        return path

    return write


def imgalign(*arguments: str | Path) -> None:
    """A command that must succeed."""
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # as on the command line
        assert main([*map(str, arguments)]) == 0


def train(*arguments: str | Path) -> None:
    imgalign("train", *arguments)


def measured(run: Path) -> list[dict[str, Any]]:
    """The metrics without what a clock or an allocator says."""
    clock = ("seconds", "cpu_seconds", "images_per_second", "peak_memory_gb")
    return [
        {key: value for key, value in record.items() if not key.startswith(clock)}
        for record in read_metrics(run / METRICS)
    ]


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("name", RUNS)
def test_a_run_resumed_on_a_gpu_is_the_uninterrupted_one_bit_for_bit(name, recipe, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(recipe(name), "--out", whole)
    shutil.copytree(whole, parts)
    shutil.rmtree(checkpoints(parts)[-1])
    train(parts / "config.yaml", "--resume")
    ends = [checkpoints(folder)[-1] / ADAPTER for folder in (whole, parts)]
    assert [end.parent.name for end in ends] == ["step-000003"] * 2
    assert ends[0].read_bytes() == ends[1].read_bytes()
    assert ends[0].read_bytes() != (checkpoints(whole)[-2] / ADAPTER).read_bytes()
    assert measured(parts) == measured(whole)


@pytest.mark.parametrize("name", ["ppo", "online dpo"])
@pytest.mark.parametrize("begins_on", ["gpu", "cpu"])
def test_a_run_goes_on_on_another_device(name, begins_on, recipe, gpu, tmp_path):
    first, then = (gpu.type, "cpu") if begins_on == "gpu" else ("cpu", gpu.type)
    out = tmp_path / "run"
    train(recipe(name, device=first, iterations=2), "--out", out)
    train(out / "config.yaml", f"run.device={then}", "run.iterations=3", "--resume")
    records = measured(out)
    assert [record["step"] for record in records] == [0, 1, 2, 3]
    assert records[-1]["grad_norm"] > 0
    assert 0 < records[-1]["held_out_kl"] < 1e6
    assert checkpoints(out)[-1].name == "step-000003"


def test_bfloat16_is_chosen_where_a_gpu_multiplies_it_and_trains(recipe, gpu, tmp_path):
    if gpu.type != "cuda" or torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("needs a CUDA device that multiplies bfloat16")
    for name in ("grpo", "online dpo"):
        out = tmp_path / name
        train(recipe(name), "policy.dtype=auto", "--out", out)
        assert "dtype: bfloat16" in (out / "config.yaml").read_text()
        assert measured(out)[-1]["grad_norm"] > 0


def test_a_checkpoint_of_a_gpu_is_compared_and_reported(recipe, gpu, tmp_path):
    out, prompts = tmp_path / "run", tmp_path / "others.txt"
    prompts.write_text("a green boat\nthe blue house\n")
    train(recipe("grpo"), "--out", out)
    imgalign(
        *("evaluate", out, f"prompts={prompts}", "images_per_prompt=2", f"device={gpu.type}"),
        *("sampler.num_inference_steps=2", "sampler.scheduler=euler", "--reward", "storybook"),
    )
    found = json.loads((out / "evaluation" / "evaluation.json").read_text())
    assert all(math.isfinite(score) for pair in found["pairs"] for score in pair["proxy"])
    imgalign("report", out)
    assert (out / "report.html").is_file()


def test_the_peak_of_the_memory_is_that_of_the_gpu(gpu):
    if gpu.type != "cuda":
        pytest.skip("only CUDA counts its memory")
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    torch.zeros(100_000_000, dtype=torch.uint8, device=gpu)
    assert peak_memory_gb() == pytest.approx(before / 1e9 + 0.1, abs=0.003)
