"""The training loop of all storybook models: AdamW, weight averaging, logging, resuming.

A training folder holds `log.jsonl` (one line every few steps: step, samples, loss terms, learning
rate, samples per second) and `state.safetensors` / `state.json` (weights, their average, optimizer,
step). Batches are a function of the step, so a resumed run sees the same batches.
Several processes share each batch (docs/processes.md).
"""

import math
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor, nn

from imgalign.environment import choose_dtype, computing_in, say_dtype
from imgalign.errors import InputError, NumericsError
from imgalign.runs.metrics import MetricsWriter
from imgalign.runs.state import load_state, save_state
from imgalign.runs.world import World, writes_files
from imgalign.storybook.train.data import shuffled_batches

LOG_EVERY = 50
Indices: TypeAlias = NDArray[np.intp]
SAVE_EVERY_SECONDS = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Learning rate: linear warm-up, a plateau, then linear decay to zero."""

    num_steps: int
    learning_rate: float
    warmup: int = 200
    fall: float = 0.3
    """Share of the steps over which the rate decays."""

    def rate(self, step: int) -> float:
        """Learning rate of `step`, counted from 0."""
        rise = min(1.0, (step + 1) / self.warmup)
        remaining = (self.num_steps - step) / max(1.0, self.fall * self.num_steps)
        return self.learning_rate * min(rise, remaining, 1.0)


class Average:
    """Exponential moving average of a module's parameters and buffers, with a warm-up.

    After n updates the decay is min(decay, (1 + n) / (10 + n)), so that early weights are
    forgotten soon.
    """

    def __init__(self, module: nn.Module, *, decay: float) -> None:
        self.module = module
        self.decay = decay
        self.values = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the average with the module's present weights; `step` counts from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in self.module.state_dict().items():
            if value.is_floating_point():
                self.values[name].lerp_(value, 1 - decay)
            else:
                self.values[name].copy_(value)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Use the averaged weights inside the block, and restore the module's own after it."""
        own = {name: value.detach().clone() for name, value in self.module.state_dict().items()}
        self.module.load_state_dict(self.values)
        try:
            yield
        finally:
            self.module.load_state_dict(own)


@contextmanager
def native_precision() -> Iterator[None]:
    """Run networks in the dtype that this CPU multiplies natively: bfloat16 or float32."""
    cpu = torch.device("cpu")
    dtype = choose_dtype("auto", cpu)
    say_dtype(dtype, cpu)
    with computing_in(dtype, cpu):
        yield


def train(
    folder: Path,
    module: nn.Module,
    loss: Callable[[Indices], tuple[Tensor, Mapping[str, float]]],
    *,
    num_images: int,
    schedule: Schedule,
    batch: int,
    weight_decay: float = 0.01,
    decay: float = 0.9995,
    betas: tuple[float, float] = (0.9, 0.99),
    on_save: Callable[[int], None] | None = None,
    world: World,
) -> None:
    """Minimise `loss(indices)` over the parameters of `module`; leave the averaged weights in it.

    `loss` takes indices of the images of a batch, the same in all processes, and returns what its
    process adds to the gradient of the scalar to minimise, and to terms to log (see `part_of`). Its
    draws are the same in all processes too. `on_save(step)` is called with the averaged weights in
    place after each save, by the process that writes files. Weights of fewer than two axes are not
    decayed. InputError for less than one batch, NumericsError where the gradient is not finite.
    """
    check_one_batch(folder, num_images, batch, schedule)
    folder.mkdir(parents=True, exist_ok=True)
    trained = [p for p in module.parameters() if p.requires_grad]
    groups = decayed_and_not(trained, weight_decay=weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=schedule.learning_rate, betas=betas)
    average = Average(module, decay=decay)
    step = 0
    if (folder / "state.json").is_file():
        state = load_state(folder, "state")
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        average.values = state["average"]
        step = int(state["step"])
        if writes_files(world):
            say(f"{folder}: resuming at step {step} of {schedule.num_steps}")

    def save() -> None:
        state = {"module": module.state_dict(), "optimizer": optimizer.state_dict()}
        save_state(folder, "state", state | {"average": average.values, "step": step})
        if on_save is not None:
            with average.applied():
                on_save(step)

    batches = shuffled_batches(num_images, batch, seed=1, start=step)
    log = Log(folder, schedule, batch=batch, start=step, world=world)
    saved = time.monotonic()
    with log:
        while step < schedule.num_steps:
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate(step)
            # A function of the step, so that a resumed run draws the same noise.
            torch.manual_seed(step)
            value, terms = loss(next(batches))
            optimizer.zero_grad(set_to_none=True)
            value.backward()  # type: ignore[no-untyped-call]
            world.reduce(trained)
            norm = float(nn.utils.clip_grad_norm_(trained, 1.0))
            if not math.isfinite(norm):
                raise NumericsError(
                    f"{folder}: the gradient's norm is {norm} at step {step}; start again in "
                    "another folder with a lower --learning-rate"
                )
            optimizer.step()
            average.update(step)
            step += 1
            log.write(step, terms, norm=norm)
            due = time.monotonic() - saved > SAVE_EVERY_SECONDS or step == schedule.num_steps
            if due and writes_files(world):
                save()
                saved = time.monotonic()
    module.load_state_dict(average.values)


def part_of(world: World, count: int) -> tuple[slice, float]:
    """Which of `count` images this process takes, and their share of them.

    A mean over its images, times the share, is what this process adds to that of all; see shared.py
    for losses in which images depend on each other.
    InputError where a process would have none.
    """
    if count < world.size:
        raise InputError(
            f"expected at most {count} processes, one for each of the {count} images or texts of a "
            f"batch, got {world.size}; start fewer"
        )
    own = world.deal(count)
    return slice(own.start, own.stop), len(own) / count


class Log:
    """Writes `log.jsonl` and one line for a person, in the process that writes files."""

    def __init__(
        self, folder: Path, schedule: Schedule, *, batch: int, start: int, world: World
    ) -> None:
        self.schedule = schedule
        self.batch = batch
        self.start = start
        self.world = world
        self.started = time.monotonic()
        self.file = None
        if writes_files(world):
            self.file = MetricsWriter(folder / "log.jsonl", resume_step=start or None)

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *exception: object) -> None:
        if self.file is not None:
            self.file.close()

    def write(self, step: int, terms: Mapping[str, float], *, norm: float) -> None:
        """Say it every LOG_EVERY steps and at the end: terms are the sum of the processes'."""
        if step % LOG_EVERY and step != self.schedule.num_steps:
            return
        terms = {name: self.world.total(term) for name, term in terms.items()}
        if self.file is None:
            return
        done, seconds = step - self.start, time.monotonic() - self.started
        values: dict[str, float | str] = {"samples": step * self.batch, **terms}
        values |= {"grad_norm": norm, "learning_rate": self.schedule.rate(step - 1)}
        speed = done * self.batch / seconds
        self.file.write(step, values | {"samples_per_second": speed, "machine": machine()})
        left = (self.schedule.num_steps - step) * seconds / done / 60
        where = f"step {step}/{self.schedule.num_steps}"
        say(f"{where}  {shown(terms)}  {speed:.0f}/s  {left:.0f} min left")


def check_one_batch(folder: Path, num_images: int, batch: int, schedule: Schedule) -> None:
    """Raise InputError for fewer images than a batch has, or samples for less than one step."""
    if num_images < batch or schedule.num_steps < 1:
        raise InputError(
            f"{folder}: expected at least one batch of {batch} images, and as many samples;"
            f" got {num_images} images and {schedule.num_steps} steps"
        )


def decayed_and_not(
    parameters: Sequence[nn.Parameter], *, weight_decay: float
) -> list[dict[str, object]]:
    """Parameter groups of an optimizer: matrices are decayed, biases and scales are not."""
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def shown(terms: Mapping[str, float]) -> str:
    """Example: "loss 0.1234  kl 0.0100"."""
    return "  ".join(f"{name} {term:.4f}" for name, term in terms.items())


def machine() -> str:
    """Name of the GPU, or a summary of the CPU, for the log."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU, {torch.get_num_threads()} threads, {platform.machine()}"


def say(text: str) -> None:
    """One line of progress on standard error."""
    Console(stderr=True, soft_wrap=True).print(text, highlight=False)
