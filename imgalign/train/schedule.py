"""Settings of how a run goes: how long, and how often it measures, saves and draws samples."""

import math
from typing import Literal, TypeAlias

from pydantic import PositiveFloat, PositiveInt, field_validator

from imgalign.config import Config, Device
from imgalign.train.data.source import Amount

TrackerName: TypeAlias = Literal["tensorboard", "wandb"]


class SamplesConfig(Config):
    """Samples of one set of prompts and seeds over time: texts, or images without noise (eta 0)."""

    every: PositiveInt = 10
    """Iterations between two of them."""

    num_prompts: PositiveInt = 6
    """Rows: held-out prompts first."""

    images_per_prompt: PositiveInt = 4
    """Columns: seeds 0, 1, 2, ..."""


class RunConfig(Config):
    """How a run goes: the settings that may be changed when it is resumed."""

    iterations: PositiveInt | None = 40
    """How often a batch is sampled or read, and learned from. Null is one epoch of given examples:
    as many as it takes to see each of them once."""

    device: Device = "auto"
    """auto takes a CUDA device where there is one; or cpu, cuda, cuda:1."""

    kl_budget_nats: PositiveFloat | None = None
    """Stop when the KL to the pretrained model, per sample, exceeds this many nats, and go back to
    the last weights that were inside. Null measures and never stops."""

    measure_every: PositiveInt = 5
    """Iterations between two measurements on held-out prompts."""

    patience: PositiveInt | None = 4
    """Stop after this many measurements in a row without a new best held-out reward, or held-out
    loss of a direct method without a reward model; null never does."""

    samples: SamplesConfig = SamplesConfig()
    """Sample grids during training."""

    checkpoint_every: PositiveInt = 10
    """Iterations between two checkpoints; the last, the best and a stopped one are always kept."""

    keep_checkpoints: PositiveInt = 3
    """How many of the newest stay, beside the best."""

    trackers: tuple[TrackerName, ...] = ()
    """Where metrics and sample grids are logged as well, beside metrics.jsonl and samples/:
    `tensorboard`, event files in the run folder; `wandb`, Weights & Biases, offline unless
    WANDB_MODE says otherwise. Both need `imgalign-studio[trackers]`."""

    @field_validator("trackers")
    @classmethod
    def _each_tracker_once(cls, value: tuple[TrackerName, ...]) -> tuple[TrackerName, ...]:
        if len(set(value)) < len(value):
            raise ValueError(f"expected each of them once, got {', '.join(value)}")
        return value

    @property
    def total(self) -> int:
        """The iterations of a run; those of an epoch are known once its data is."""
        assert self.iterations is not None, "see `within_an_epoch`"
        return self.iterations


def within_an_epoch(run: RunConfig, amount: Amount) -> RunConfig:
    """With a number of iterations: those that it takes to see every example once."""
    if run.iterations is not None:
        return run
    return run.model_copy(update={"iterations": math.ceil(amount.available / amount.asked)})
