"""Writes what a run leaves in its folder, and shows how far it is.

That is checkpoints, metrics.jsonl, status.json, sample grids and the progress line, and trackers if
the settings name some. Of several processes one writes; in the others every method does nothing, so
that the loop is the same in all.
Left out: beginning a folder and reading it again (starting.py).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TypeAlias

from imgalign.files import reporting_full_disk
from imgalign.policy import Policy
from imgalign.prompts import Prompts
from imgalign.runs.checkpoint import (
    how_to_resume,
    mark,
    remove_checkpoints_after,
    save_checkpoint,
    step_folder,
)
from imgalign.runs.folder import METRICS, SAMPLES
from imgalign.runs.metrics import MetricsWriter, Value
from imgalign.runs.progress import ProgressLine
from imgalign.runs.status import RunState, RunStatus, read_status, write_status
from imgalign.train.schedule import RunConfig
from imgalign.train.stopping import BestSoFar
from imgalign.train.trackers import Trackers, tracking
from imgalign.train.watch import draw_samples

OnStep: TypeAlias = Callable[[int, Mapping[str, Value]], None]


class Recorder:
    """The files of a run and its progress line; silent unless it `writes`.

    `on_step` is called with each iteration's number and metrics after they were written.
    """

    def __init__(
        self, out: Path, config: RunConfig, *, writes: bool, on_step: OnStep | None = None
    ) -> None:
        self.out = out
        self.config = config
        self.writes = writes
        self.on_step = on_step
        self.line = self._line(0)
        self._metrics: MetricsWriter | None = None
        self._trackers = Trackers()

    def _line(self, step: int) -> ProgressLine:
        return ProgressLine(self.config.total, done=step, silent=not self.writes)

    @contextmanager
    def open(self, step: int) -> Iterator[None]:
        """While inside, metrics are appended and progress is shown; `step` iterations are done.

        Metrics of later iterations are dropped: their work was lost and is done again.
        """
        self.line = self._line(step)
        trackers = self.config.trackers if self.writes else ()
        with (
            reporting_full_disk(self.out, "training", advice=how_to_resume),
            self._metrics_up_to(step) as self._metrics,
            tracking(trackers, self.out, step) as self._trackers,
            self.line,
        ):
            yield

    def _metrics_up_to(self, step: int) -> AbstractContextManager[MetricsWriter | None]:
        if not self.writes:
            return nullcontext()
        # A run that is begun again measures step 0 again.
        return MetricsWriter(self.out / METRICS, resume_step=step or -1)

    def record(self, step: int, values: Mapping[str, Value]) -> None:
        """Append the metrics of an iteration, if there are any."""
        if self._metrics is None or not values:
            return
        self._metrics.write(step, values)
        self._trackers.log(step, values)
        if self.on_step is not None:
            self.on_step(step, values)

    def progress(self, step: int, values: Mapping[str, float], *, seconds: Sequence[float]) -> None:
        """Update status.json and the progress line; `seconds` are those of earlier iterations."""
        if not self.writes:
            return
        total, eta = self.config.total, None
        if seconds:
            eta = sum(seconds) / len(seconds) * (total - step)
            names = {"reward": "reward_mean", "loss": "loss", "kl": "kl"}
            names |= {"accuracy": "implicit_accuracy", "held-out": "held_out_reward"}
            if "implicit_accuracy" not in values:  # where no pair is compared
                names |= {"loss": "preference_loss" if "preference_loss" in values else "loss"}
            shown = {name: values[key] for name, key in names.items() if key in values}
            self.line.advance(step, shown, eta_seconds=eta)
        status = RunStatus.of_this_process("running", step, total, eta_seconds=eta)
        write_status(self.out, status)

    def say(self, state: RunState, step: int, *, message: str | None = None) -> None:
        """Write status.json; StorageFullError where the disk is full."""
        if not self.writes:
            return
        status = RunStatus.of_this_process(state, step, self.config.total, message=message)
        with reporting_full_disk(self.out, "writing status.json", advice=how_to_resume):
            write_status(self.out, status)

    def leave_word(self, state: RunState, error: BaseException) -> None:
        """Write the reason for stopping to status.json, best effort."""
        if not self.writes:
            return
        last = read_status(self.out)
        message = " ".join(f"{error}".split()) or type(error).__name__
        step, total = last.step if last else 0, self.config.total
        status = RunStatus.of_this_process(state, step, total, message=message)
        try:
            write_status(self.out, status)
        except OSError:
            return

    def save(self, step: int, write: Callable[[Path], None], *, best: BestSoFar) -> None:
        """Save a checkpoint that `write` fills, remove old ones, and mark the best."""
        if not self.writes:
            return
        protect = [] if best.step is None else [best.step]
        keep = self.config.keep_checkpoints
        save_checkpoint(self.out, step, write=write, keep=keep, protect=protect)
        self.mark_best(best)

    def go_back(self, step: int, *, best: BestSoFar) -> None:
        """Remove the checkpoints after an iteration, and mark the best of those that stay."""
        if not self.writes:
            return
        remove_checkpoints_after(self.out, step)
        self.mark_best(best)

    def mark_best(self, best: BestSoFar) -> None:
        """Let best.json name the best iteration, if it has a checkpoint."""
        if self.writes and best.step and best.score is not None and self.holds(best.step):
            mark(self.out, "best", best.step, {best.criterion: best.measured})

    def holds(self, step: int) -> bool:
        """Whether the folder has a checkpoint of this iteration."""
        return step_folder(self.out, step).is_dir()

    def draw(self, policy: Policy, prompts: Prompts, step: int) -> None:
        """Sample and write the previews of an iteration."""
        if not self.writes:
            return
        self.line.part("drawing samples", 0, 1, "grid")
        path = self.out / SAMPLES / step_folder(self.out, step).name
        self._trackers.show(step, draw_samples(policy, prompts, self.config.samples, path))
