"""The command that trains a tiny diffusion model on six pairs of images."""

import json
from pathlib import Path

import pytest
from image_folders import put
from safetensors.torch import load_file
from torch import Tensor
from torch.testing import assert_close

from imgalign.runs.checkpoint import latest_checkpoint
from imgalign.runs.metrics import read_metrics
from imgalign.runs.trained import ADAPTER

PROMPTS = ("a red house", "a blue boat", "a green tree", "two boat", "the house", "a red boat")
ITERATIONS = 6


def train_on_pairs(folder: Path, pipeline: Path) -> list[str]:
    """Arguments of `imgalign`; images and settings are written into the folder."""
    for number, prompt in enumerate(PROMPTS):
        put(folder / "chosen" / f"{number}.png", 40 * number, caption=prompt)
        put(folder / "rejected" / f"{number}.png", 40 * number + 20)
    settings = {
        "policy": {
            "model": str(pipeline),
            "dtype": "float32",
            "batch_size": 2,
            "num_inference_steps": 3,
        },
        "algorithm": {"name": "dpo", "beta": {"kind": "per_nat", "value": 1.0}},
        "data": {"from": "folder", "folder": str(folder), "held_out": {"num_prompts": 2}},
        "optimizer": {"learning_rate": 0.01},
        "run": {
            "device": "cpu",
            "iterations": ITERATIONS,
            "checkpoint_every": 1,
            "measure_every": 3,
            "samples": {"every": 3, "num_prompts": 2},
        },
    }
    config = folder / "config.yaml"
    config.write_text(json.dumps(settings))
    return ["train", str(config)]


def weights(out: Path) -> dict[str, Tensor]:
    """The adapter at the end of a run."""
    newest = latest_checkpoint(out)
    assert newest is not None
    assert newest.name == f"step-{ITERATIONS:06d}"
    return load_file(newest / ADAPTER)


def assert_run_of_one(run: Path, alone: Path) -> None:
    """The run of two processes has the files, the weights and the metrics of that of one."""
    assert {path.name for path in run.iterdir()} == {path.name for path in alone.iterdir()}
    expected, found = weights(alone), weights(run)
    for name, weight in expected.items():
        assert_close(found[name], weight, rtol=0, atol=1e-3)
    records = [read_metrics(folder / "metrics.jsonl") for folder in (alone, run)]
    for one, both in zip(*records, strict=True):
        assert both.keys() == one.keys()
        for key in one.keys() & {"preference_loss", "held_out_preference_loss", "held_out_kl"}:
            assert both[key] == pytest.approx(one[key], rel=1e-2, abs=1e-4)
