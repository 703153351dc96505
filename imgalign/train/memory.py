"""What a run does when a batch does not fit into the device's memory: it goes on with half of it.

Batches are how many samples go through the networks at a time (`policy.batch_size`). Smaller ones
change rounding, and where an algorithm deals batches to minibatches or draws some of their passes
(`algorithm.minibatches`, `kl_steps`, `reference_passes`, `timesteps_per_update`) also which samples
come together and which passes are drawn.
"""

import gc
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from imgalign.errors import ConfigError
from imgalign.runs.world import World
from imgalign.train.config import TrainConfig

log = logging.getLogger(__name__)
T = TypeVar("T")


def within_memory(
    attempt: Callable[[TrainConfig, Path | None], T],
    settings: TrainConfig,
    checkpoint: Path | None,
    *,
    newest: Callable[[], Path | None],
    world: World,
) -> T:
    """What `attempt` returns with these settings, or with smaller batches from `newest`.

    `attempt` must leave nothing behind that refers to what it has loaded.
    """
    while True:
        try:
            return attempt(settings, checkpoint)
        except torch.OutOfMemoryError:
            smaller = with_smaller_batches(settings, world=world)
        release_memory()  # not in the handler: there the traceback holds what did not fit
        log.warning(
            "policy.batch_size: %d samples at a time do not fit into the device's memory; going on "
            "with %d at a time",
            settings.policy.batch_size,
            smaller.policy.batch_size,
        )
        settings, checkpoint = smaller, newest()


def with_smaller_batches(settings: TrainConfig, *, world: World) -> TrainConfig:
    """The settings with half of `policy.batch_size`.

    ConfigError for a single sample, and of several processes, which cannot leave each other.
    """
    size = settings.policy.batch_size
    if size == 1:
        raise ConfigError(
            "policy.batch_size: one sample at a time does not fit into the device's memory; set "
            "policy.gradient_checkpointing=true, policy.dtype=bfloat16, smaller samples, or "
            "run.device=cpu"
        )
    if world.size > 1:
        raise ConfigError(
            f"policy.batch_size: {size} samples at a time do not fit into the memory of process "
            f"{world.index} of {world.size}; go on with --resume policy.batch_size={size // 2}"
        )
    policy = settings.policy.model_copy(update={"batch_size": size // 2})
    return settings.model_copy(update={"policy": policy})


def release_memory() -> None:
    """Give back what nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
