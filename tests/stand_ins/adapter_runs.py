"""Run folders whose checkpoints hold what was trained of the tiny model, with random weights."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from imgalign.config import dump_config
from imgalign.diffusion.config import AnyDiffusionConfig, FullDiffusionConfig, LoraDiffusionConfig
from imgalign.diffusion.loading import load_pipeline
from imgalign.diffusion.policy import DiffusionPolicy
from imgalign.runs.checkpoint import mark, save_checkpoint
from imgalign.runs.folder import CONFIG, METRICS
from imgalign.runs.metrics import MetricsWriter
from imgalign.train.config import TrainConfig

RANK, ALPHA = 3, 5
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
WITH_CONVOLUTIONS = (*ATTENTION, "conv2", "proj_in")
"""Also a convolution of 3 x 3 and one of 1 x 1."""


def make_run(
    folder: Path,
    model: Path,
    *,
    targets: Sequence[str] = WITH_CONVOLUTIONS,
    steps: Sequence[int] = (1,),
    best: Mapping[int, float] = {},
) -> Path:
    """A run with a checkpoint after each of `steps`; `best` is the marked one, with its reward."""
    config = LoraDiffusionConfig(
        model=str(model), lora_rank=RANK, lora_alpha=ALPHA, target_modules=tuple(targets)
    )
    return _saved(folder, config, steps=steps, best=best)


def make_full_run(
    folder: Path, model: Path, *, steps: Sequence[int] = (1,), best: Mapping[int, float] = {}
) -> Path:
    """Likewise, of a run that trained all weights."""
    return _saved(folder, FullDiffusionConfig(model=str(model)), steps=steps, best=best)


def _saved(
    folder: Path,
    config: AnyDiffusionConfig,
    *,
    steps: Sequence[int],
    best: Mapping[int, float],
) -> Path:
    pipeline = load_pipeline(config.model, device=torch.device("cpu"))
    policy = DiffusionPolicy(pipeline, config)
    # A LoRA of this size changes a weight about as much.
    size = 0.2 if isinstance(config, LoraDiffusionConfig) else 0.05
    start = [parameter.detach().clone() for parameter in policy.trainable_parameters()]
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        for parameter, value in zip(policy.trainable_parameters(), start, strict=True):
            noise = torch.randn(parameter.shape, generator=generator) * size
            parameter.data = noise if isinstance(config, LoraDiffusionConfig) else value + noise
        save_checkpoint(folder, step, write=policy.save)
    dump_config(TrainConfig(policy=config), folder / CONFIG)
    with MetricsWriter(folder / METRICS) as metrics:
        metrics.write(0, {"held_out_reward": 0.0})
    for step, reward in best.items():
        mark(folder, "best", step, {"held_out_reward": reward})
    return folder
