"""Runs on the random walk, and what is compared of them."""

from collections.abc import Mapping
from pathlib import Path

import torch
from random_walk import Brightness, RandomWalk, walk_settings
from safetensors.torch import load_file

from imgalign.policy import RewardModel, StepPolicy
from imgalign.runs.checkpoint import checkpoints
from imgalign.runs.metrics import Value, read_metrics
from imgalign.runs.trained import ADAPTER
from imgalign.train import run as train
from imgalign.train.config import TrainConfig
from imgalign.train.recorder import OnStep

CLOCK = {"seconds", "cpu_seconds", "images_per_second", "peak_memory_gb"}


class Killed(BaseException):
    """Raised by an observer, it ends a run before anything more is saved, as kill -9 does."""


def killed_at(number: int) -> OnStep:
    def on_step(step: int, values: Mapping[str, Value]) -> None:
        if step == number:
            raise Killed

    return on_step


def start(
    out: Path,
    *,
    settings: TrainConfig | None = None,
    resume: bool = False,
    policy: StepPolicy | None = None,
    reward: RewardModel | None = None,
    on_step: OnStep | None = None,
) -> train.RunResult:
    policy = policy or RandomWalk(num_steps=3)
    return train.run(
        settings or walk_settings(),
        reward=reward or Brightness(),
        out=out,
        resume=resume,
        policy=policy,
        on_step=on_step,
    )


def weights(out: Path) -> torch.Tensor:
    return load_file(checkpoints(out)[-1] / ADAPTER)["shift"]


def measured(out: Path) -> list[dict[str, Value]]:
    """The metrics without what a clock or the operating system says."""
    return [
        {
            key: value
            for key, value in record.items()
            if key not in CLOCK and not key.startswith("seconds_")
        }
        for record in read_metrics(out / "metrics.jsonl")
    ]


def trainer_files(out: Path) -> list[bytes]:
    newest = checkpoints(out)[-1]
    return [(newest / name).read_bytes() for name in ("trainer.json", "trainer.safetensors")]
