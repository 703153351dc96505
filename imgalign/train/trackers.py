"""Logs the metrics and samples of a run to TensorBoard or Weights & Biases too (`run.trackers`).

metrics.jsonl stays the record of a run, and a tracker is a copy to look at: what fails in one is
said once, and the run goes on. They are accelerate's trackers, and see nothing of the training.
"""

import logging
import os
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from imgalign.config import read_mapping
from imgalign.errors import ConfigError, first_line
from imgalign.files import read_json, write_atomically
from imgalign.images import read_image_file
from imgalign.runs.folder import CONFIG, METRICS
from imgalign.runs.metrics import Value, read_metrics
from imgalign.train.config import flat
from imgalign.train.schedule import TrackerName

WANDB_ID = Path("wandb", "id.txt")
"""In a run folder: the run's name at Weights & Biases, under which it goes on when resumed."""

WANDB_SETTINGS = {"mode": "offline", "console": "off", "silent": True}
"""Of Weights & Biases, where the user's own WANDB_MODE, WANDB_CONSOLE or WANDB_SILENT says nothing:
no network, no copy of the output, and none of its own."""

log = logging.getLogger(__name__)


@runtime_checkable
class Tracker(Protocol):
    """The log of a run in one service."""

    is_new: bool
    """Whether nothing of this run was logged there before."""

    place: str
    """Where it is, and how to look at it, for a message."""

    def log(self, step: int, values: Mapping[str, Value]) -> None:
        """Log the metrics of an iteration."""
        ...

    def show(self, step: int, samples: Path) -> None:
        """Log the samples of an iteration: a grid in a PNG, or texts as `save_texts` writes."""
        ...

    def close(self) -> None:
        """Write what is not written yet."""
        ...


class TensorBoard:
    """Event files in RUN/tensorboard. What they hold of iterations after `step` is purged."""

    def __init__(self, out: Path, step: int) -> None:
        from accelerate import PartialState
        from accelerate.tracking import TensorBoardTracker

        folder = out / "tensorboard"
        self.is_new = not folder.exists()
        self.place = f"{folder}; look with 'tensorboard --logdir {folder}'"
        PartialState()  # accelerate's own log asks for it
        self._tracker = TensorBoardTracker(
            folder.name, logging_dir=str(out), purge_step=first_after(step)
        )
        self._tracker.start()
        settings = (out / CONFIG).read_text(encoding="utf-8")
        self._tracker.log({"config": f"```yaml\n{settings}```"}, step=step)

    def log(self, step: int, values: Mapping[str, Value]) -> None:
        """Log the metrics of an iteration, one chart each."""
        self._tracker.log(dict(values), step=step)

    def show(self, step: int, samples: Path) -> None:
        """Log a grid as an image, or texts below their prompts."""
        if samples.suffix == ".png":
            grid = pixels_of(samples)[None]
            self._tracker.log_images({"samples": grid}, step=step, dataformats="NHWC")
        else:
            texts = "\n\n".join(f"**{prompt}**\n\n{text}" for prompt, text in texts_of(samples))
            self._tracker.log({"samples": texts}, step=step)

    def close(self) -> None:
        """Write what is not written yet."""
        self._tracker.finish()


class WeightsAndBiases:
    """A run of Weights & Biases, with its files in RUN/wandb.

    Its history is only appended to, and refuses a step before its last one. So iterations are a
    metric, `step`, over which all others are drawn: those that are done again come again.
    """

    def __init__(self, out: Path, step: int) -> None:
        from accelerate import PartialState
        from accelerate.tracking import WandBTracker

        self.is_new = not (out / WANDB_ID).exists()
        if self.is_new:
            (out / WANDB_ID).parent.mkdir(exist_ok=True)
            write_atomically(out / WANDB_ID, uuid.uuid4().hex)
        PartialState()  # accelerate's own log asks for it
        self._tracker = WandBTracker(
            os.environ.get("WANDB_PROJECT", "imgalign"),
            id=(out / WANDB_ID).read_text(encoding="utf-8").strip(),
            name=out.resolve().name,
            dir=str(out),
            resume="allow",
            settings=unless_in_environment(WANDB_SETTINGS),
        )
        self._tracker.start()
        run = self._tracker.tracker
        self.place = f"{out / 'wandb'}; upload it with 'wandb sync {out / 'wandb'}/*run-*'"
        if not run.offline:
            self.place = str(run.url)
        run.define_metric("step")
        run.define_metric("*", step_metric="step")
        self._tracker.store_init_configuration(flat(read_mapping(out / CONFIG)))

    def log(self, step: int, values: Mapping[str, Value]) -> None:
        """Log the metrics of an iteration."""
        self._tracker.log({**values, "step": step})

    def show(self, step: int, samples: Path) -> None:
        """Log a grid as an image, or texts as a table."""
        if samples.suffix == ".png":
            self._tracker.log_images({"samples": [pixels_of(samples)]}, commit=False)
        else:
            rows = [list(row) for row in texts_of(samples)]
            self._tracker.log_table(
                "samples", columns=["prompt", "sample"], data=rows, commit=False
            )
        self._tracker.log({"step": step})

    def close(self) -> None:
        """Write what is not written yet; online, upload it."""
        self._tracker.finish()


TRACKERS: dict[TrackerName, Callable[[Path, int], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
}
"""Each is opened on a run folder with the number of iterations that are done."""


def refuse_missing(names: Collection[TrackerName]) -> None:
    """ConfigError for the first tracker whose library is not installed, or is broken."""
    # Weights & Biases reads this when it is imported: reports of its errors go to a network.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    for name in names:
        cure = "install 'imgalign-studio[trackers]', or leave it out"
        try:
            import_module(name)
        except ModuleNotFoundError as error:
            missing = f" (it lacks {error.name})" if error.name != name else ""
            raise ConfigError(f"run.trackers: {name} is not installed{missing}; {cure}") from None
        except Exception as error:  # a library of another's, at its worst
            raise ConfigError(
                f"run.trackers: {name} cannot be imported ({first_line(error)}); {cure}"
            ) from error


class Trackers:
    """The trackers of a run, none of which ends it: of each, the first error is said."""

    def __init__(self) -> None:
        self._open: dict[TrackerName, Tracker] = {}
        self._failed: set[TrackerName] = set()

    def open(self, name: TrackerName, out: Path, step: int) -> None:
        """Open one with the iterations that are done; log them, if they are not in it."""
        with self._apart(name, f"at iteration {step}"):
            tracker = self._open[name] = TRACKERS[name](out, step)
            log.info("%s: logs to %s", name, tracker.place)
            for record in read_metrics(out / METRICS) if tracker.is_new else ():
                values = {key: value for key, value in record.items() if key != "step"}
                tracker.log(int(record["step"] or 0), values)

    def log(self, step: int, values: Mapping[str, Value]) -> None:
        """Log the metrics of an iteration."""
        self._each(step, lambda tracker: tracker.log(step, values))

    def show(self, step: int, samples: Path) -> None:
        """Log the file with the samples of an iteration."""
        self._each(step, lambda tracker: tracker.show(step, samples))

    def close(self) -> None:
        """Close all, those that failed too."""
        for name, tracker in self._open.items():
            with self._apart(name, "when it was closed"):
                tracker.close()

    def _each(self, step: int, act: Callable[[Tracker], None]) -> None:
        for name, tracker in self._open.items():
            if name not in self._failed:
                with self._apart(name, f"at iteration {step}"):
                    act(tracker)

    @contextmanager
    def _apart(self, name: TrackerName, when: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever it is, it is not worth a run
            if name not in self._failed:
                log.warning(
                    "%s: failed %s (%s), so nothing more is logged there; the run goes on, and %s "
                    "has every iteration",
                    *(name, when, first_line(error), METRICS),
                )
            self._failed.add(name)


@contextmanager
def tracking(names: Collection[TrackerName], out: Path, step: int) -> Iterator[Trackers]:
    """While inside, the trackers of a run are open; `step` iterations are done."""
    trackers = Trackers()
    try:
        for name in names:
            trackers.open(name, out, step)
        yield trackers
    finally:
        trackers.close()


def first_after(step: int) -> int:
    """The first iteration that is logged again; a run that is begun again logs 0 again."""
    return step + 1 if step else 0


def unless_in_environment(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of Weights & Biases without those that the user's environment has."""
    return {
        name: value for name, value in settings.items() if f"WANDB_{name.upper()}" not in os.environ
    }


def pixels_of(grid: Path) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """A PNG as h w 3, from 0 to 255."""
    return np.asarray(read_image_file(grid))


def texts_of(samples: Path) -> list[tuple[str, str]]:
    """Prompts with their texts, as `save_texts` wrote them."""
    return [(prompt, text) for prompt, texts in read_json(samples).items() for text in texts]
