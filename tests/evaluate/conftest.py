"""Fixtures of the evaluation's tests."""

import json
from pathlib import Path

import pytest

from imgalign.config import dump_config
from imgalign.runs.checkpoint import save_checkpoint
from imgalign.runs.metrics import MetricsWriter
from imgalign.runs.trained import ADAPTER
from imgalign.train.config import TrainConfig
from imgalign.train.data.rollouts import PromptsConfig, RolloutsConfig
from imgalign.train.data.source import HeldOutConfig
from imgalign.train.schedule import RunConfig


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "lora"
    folder.mkdir()
    (folder / ADAPTER).write_bytes(b"")
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with one checkpoint, step 3, and metrics around it."""
    folder = tmp_path / "run"

    def write(checkpoint: Path) -> None:
        (checkpoint / ADAPTER).write_bytes(b"")

    save_checkpoint(folder, 3, write=write)
    settings = TrainConfig(
        data=RolloutsConfig(
            prompts=PromptsConfig(num_storybook=5), held_out=HeldOutConfig(num_prompts=4)
        ),
        run=RunConfig(kl_budget_nats=12.0),
    )
    dump_config(settings, folder / "config.yaml")
    kept = settings.data.load_prompts()._asdict()
    (folder / "prompts.json").write_text(json.dumps(kept))
    with MetricsWriter(folder / "metrics.jsonl") as metrics:
        metrics.write(3, {"kl": 1.0})
        metrics.write(4, {"kl": 2.5})
    return folder
