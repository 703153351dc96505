"""Training runs as the app sees them: folders on disk, and the processes that it started.

Nothing is kept in memory that matters: a run is found by its folder, and what the app needs to
know of a process it started is in `runs/.launches/<name>.json` with its output beside it. So runs
survive a reload of the page and a restart of the app, and one started elsewhere is shown as well.
Neither gradio nor torch here: the Rank page must not wait for them.
"""

import glob
import json
import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from imgalign.errors import ImgalignError, InputError
from imgalign.files import read_json
from imgalign.preferences.address import chosen, shown
from imgalign.runs.checkpoint import STEP
from imgalign.runs.folder import CONFIG, METRICS, PROMPTS, SAMPLES
from imgalign.runs.metrics import read_metrics
from imgalign.runs.status import RUN_STATUS, STATUS, RunStatus, read_status
from imgalign.runs.trained import holds_weights
from ui.processes import IMGALIGN, Processes, check_name, check_overrides, last_line
from ui.removal import holdings, remove_run

NO_PATH = re.compile(r"[^/\\\x00-\x1f\x7f]+")
LONGEST_NAME = 200
"""Bytes: with what is appended to it, a name must still be one of a file."""
LAUNCHES = ".launches"
LARGEST_PID = 2**31
LARGEST_COUNT = 2**53
"""Whole numbers below it are the same in Python and in a browser."""
TRAIN = (*IMGALIGN, "train")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Where one run stands.

    `state` is starting, running, stopping, stopped, finished, failed or damaged; `message` says why
    it is damaged.
    """

    name: str
    state: str
    step: int
    total: int
    eta_seconds: float | None
    message: str
    changed: float
    """When anything in it changed last, in seconds since 1970."""
    ours: bool
    """Whether its process is alive and was started by this app, so that it may be stopped here."""
    stopping: bool
    """Whether that process has been asked to stop."""
    resumable: bool
    adapters: tuple[str, ...]
    """Checkpoint folders with weights, oldest first."""
    best: str | None
    """The one of these that did best on held-out prompts."""
    samples: tuple[str, ...]
    """Sample grids, oldest first."""

    @property
    def recommended(self) -> str | None:
        """The checkpoint to use: the best, or the last where none is marked; None without any."""
        return self.best if self.best in self.adapters else next(reversed(self.adapters), None)


class Runs:
    """A folder of runs, and the only place where the app starts or stops processes.

    `command` is what runs the training; the recipe and its options are appended. `database` is
    where it finds rankings, in the place of IMGALIGN_DATABASE, if any is named.
    """

    def __init__(
        self, folder: Path, *, command: Sequence[str] = TRAIN, database: str | None = None
    ) -> None:
        self.folder = folder
        self.database = database
        self.processes = Processes(
            folder / LAUNCHES, command=command, said="imgalign train", database=database
        )

    @property
    def app(self) -> str:
        """Working folder and store of this app: only there what waits means the same."""
        return f"{Path.cwd()} on {shown(chosen(self.database))}"

    def names(self) -> list[str]:
        """Every run, the one that changed last first."""
        found = {path.name for path in _entries(self.folder) if _is_run(path)}
        found |= self.processes.names()
        return sorted(found, key=lambda name: (-self._changed(name), name))

    def all(self) -> list[Run]:
        """Every run, the one that changed last first; one that cannot be read is damaged."""
        return [self._run_or_damage(name) for name in self.names()]

    def run(self, name: str) -> Run:
        """One run; InputError if there is none of that name, or if it is damaged."""
        folder = self.path(name)
        launch = self.processes.launched(name)
        if launch is None and not folder.is_dir():
            raise InputError(f"{folder}: no such run")
        status = _status(folder)
        ours = launch is not None and launch.alive
        stopping = ours and self.processes.stopping(name)
        message = (status.message if status else None) or ""
        state: str = status.state if status else "starting" if ours else "failed"
        if ours and launch is not None and (status is None or status.pid != launch.pid):
            state, message = "starting", ""  # resumed: what the file says is of the process before
        if stopping and state in ("starting", "running"):
            state, message = "stopping", "Stopping; everything is saved first"
        if state == "failed" and not message:
            message = last_line(self.log(name)) or "it ended before it began"
        adapters = [path.name for path in folder.glob("step-*") if holds_weights(path)]
        samples = [path.name for path in folder.glob(f"{SAMPLES}/step-*.png")]
        return Run(
            name=name,
            state=state,
            step=status.step if status else 0,
            total=status.total if status else 0,
            eta_seconds=status.eta_seconds if status and state == "running" else None,
            message=message,
            changed=self._changed(name),
            ours=ours,
            stopping=stopping,
            resumable=state in ("stopped", "failed") and (folder / CONFIG).exists(),
            adapters=tuple(sorted(name for name in adapters if STEP.fullmatch(name))),
            best=_best(folder),
            samples=tuple(sorted(samples)),
        )

    def _run_or_damage(self, name: str) -> Run:
        try:
            return self.run(name)
        except (ImgalignError, OSError) as error:
            return Run(
                # A name that is not UTF-8 cannot be sent to a page as it is.
                name=os.fsencode(name).decode("utf-8", errors="replace"),
                state="damaged",
                step=0,
                total=0,
                eta_seconds=None,
                message=" ".join(str(error).split()),
                changed=self._changed(name),
                ours=False,
                stopping=False,
                resumable=False,
                adapters=(),
                best=None,
                samples=(),
            )

    def rewards(self) -> list[Path]:
        """Fitted reward models among the runs, the newest first."""
        found = [path for path in _entries(self.folder) if (path / "contract.json").is_file()]
        return sorted(found, key=lambda path: (-_mtime(path / "contract.json"), path.name))

    def path(self, name: str) -> Path:
        """The folder of a run; InputError for a name that could point anywhere else."""
        try:
            size = len(name.encode())
        except UnicodeEncodeError:
            raise InputError(f"run name {name!r}: not UTF-8; rename its folder") from None
        if not 0 < size <= LONGEST_NAME or name.startswith(".") or not NO_PATH.fullmatch(name):
            raise InputError(
                f"run name {name!r}: expected a folder's name, not hidden and of at most "
                f"{LONGEST_NAME} bytes"
            )
        return self.folder / name

    def metrics(self, name: str, keys: Sequence[str]) -> dict[str, list[tuple[int, float]]]:
        """(iteration, value) of each key where it was measured; InputError for a damaged file."""
        path = self.path(name) / METRICS
        try:
            records = read_metrics(path)
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: cannot be read ({error})") from None
        return {
            key: [
                (step, float(value))
                for record in records
                if isinstance(value := record.get(key), int | float)
                and isinstance(step := record.get("step"), int)
                and step in range(LARGEST_COUNT)
                and abs(value) < LARGEST_COUNT
            ]
            for key in keys
        }

    def log(self, name: str) -> str:
        """The end of what the process printed; empty for a run started elsewhere."""
        return self.processes.log(self.path(name).name)

    def sample(self, name: str, file: str) -> Path:
        """The path of a sample grid; InputError if the run has none of that name."""
        path = self.path(name) / SAMPLES / file
        if not re.fullmatch(r"step-\d+\.png", file) or not path.is_file():
            raise InputError(f"{name}: no sample grid {file!r}")
        return path

    def free_name(self, recipe: str, *, besides: Collection[str] = ()) -> str:
        """A name for the next run of a recipe: "storybook_grpo", then "storybook_grpo-2", ..."""
        stem = re.sub(r"[^\w.-]+", "-", recipe).strip("-._") or "run"
        taken, number, name = {*self.names(), *besides}, 1, stem[:56]
        while name in taken or self.path(name).exists():
            number += 1
            name = f"{stem[:56]}-{number}"
        return name

    def launch(self, recipe: Path, *, name: str, overrides: Sequence[str] = ()) -> None:
        """Start `imgalign train` on a recipe as a process that outlives the app."""
        check_name(name, what="run name")
        self.refuse_taken(name)
        check_overrides(overrides)
        self.processes.start(name, [str(recipe), *overrides, "--out", str(self.path(name))])

    def resume(self, name: str) -> None:
        """Go on with a run that was stopped, from its last checkpoint."""
        folder = self.path(name)
        if not self.run(name).resumable:
            raise InputError(f"{folder}: nothing to resume, it is {self.run(name).state}")
        self.processes.start(name, [str(folder / CONFIG), "--out", str(folder), "--resume"])

    def stop(self, name: str) -> None:
        """Ask the process to save and end (SIGTERM), once however often this is called.

        Refuses a process that is not ours.
        """
        self.processes.stop(name, what=self.path(name))

    def refuse_taken(self, name: str) -> None:
        """InputError for the name of a run that there is already."""
        folder = self.path(name)
        if self.processes.alive(name) or any(folder.glob("*")):
            raise InputError(f"{folder}: there is a run of that name; choose another")

    def form_path(self, name: str) -> Path:
        """Where the form that a run was started from is kept: once, and never written again."""
        return self.folder / LAUNCHES / f"{self.path(name).name}.form"

    def begun(self, name: str) -> float:
        """When a run began, in seconds since 1970: stopping and resuming it changes nothing."""
        once = (self.form_path(name), self.folder / name / PROMPTS)
        return next((at for path in once if (at := _mtime(path))), self._changed(name))

    def delete(self, name: str, *, typed: str = "") -> None:
        """Delete a run that has ended; one that holds work only if its name is `typed` as well."""
        folder = self.path(name)
        if name not in self.names():
            raise InputError(f"{folder}: no such run; nothing was deleted")
        if self.processes.alive(name):
            raise InputError(f"{folder}: still running; stop it before it is deleted")
        if typed != name and (work := holdings(folder)):
            raise InputError(
                f"{folder}: holds {work}; type the name of the run, {name!r}, to delete it, "
                f"got {typed!r}"
            )
        remove_run(folder)
        for path in (self.folder / LAUNCHES).glob(f"{glob.escape(name)}.*"):
            if path.stem == name:
                path.unlink(missing_ok=True)

    def _changed(self, name: str) -> float:
        paths = [
            self.folder / name / STATUS,
            self.folder / name / METRICS,
            self.folder / name,
            self.processes.file(name),
        ]
        return max(map(_mtime, paths))


def _status(folder: Path) -> RunStatus | None:
    """The status of a run, None if it has none yet; InputError if it cannot be used."""
    path = folder / STATUS
    try:
        # As JSON, because strict mode in Python takes no mapping for a record.
        said = RUN_STATUS.validate_json(json.dumps(read_json(path)), strict=True)
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "content"
        raise InputError(f"{path}: {where}: {first['msg']}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    counts_fit = all(count in range(LARGEST_COUNT) for count in (said.step, said.total))
    if said.pid not in range(1, LARGEST_PID) or not counts_fit:
        raise InputError(f"{path}: pid, step or total out of range")
    return read_status(folder)


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder; nothing if there is no such folder."""
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror})") from None


def _is_run(path: Path) -> bool:
    """Whether it is a run: a folder with a status. A reward model's folder has none."""
    if path.name.startswith("."):
        return False
    try:
        return os.path.lexists(path / STATUS)
    except OSError:
        return True  # it cannot be looked into: shown, with the reason


def _mtime(path: Path) -> float:
    """When it changed last; 0 if that cannot be known."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _best(folder: Path) -> str | None:
    try:
        name = read_json(folder / "best.json")["checkpoint"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return name if isinstance(name, str) else None
