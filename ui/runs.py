"""Training runs as the app sees them: folders on disk, and the processes that it started.

Nothing is kept in memory that matters: a run is found by its folder, and what the app needs to
know of a process it started is in `runs/.launches/<name>.json` with its output beside it. So runs
survive a reload of the page and a restart of the app, and one started elsewhere is shown as well.
No gradio here. `imgalign.metrics` loads torch, so it is imported where it is needed: the Rank page
must not wait for it.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from imgalign.errors import InputError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
OVERRIDE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*=.*")
LAUNCHES = ".launches"
ADAPTER = "pytorch_lora_weights.safetensors"
STEP = re.compile(r"step-\d{6,}")
LOG_BYTES = 40_000
TRAIN = (sys.executable, "-m", "imgalign", "train")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Where one run stands. `state` is starting, running, stopped, finished or failed."""

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
    resumable: bool
    adapters: tuple[str, ...]
    """Checkpoint folders with weights, oldest first."""
    best: str | None
    """The one of these that did best on held-out prompts."""
    samples: tuple[str, ...]
    """Sample grids, oldest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """A process started by the app. `birth` tells it from a later one with the same number."""

    pid: int
    birth: str
    command: tuple[str, ...]


class Runs:
    """A folder of runs, and the only place where the app starts or stops processes.

    `command` is what runs the training; the recipe and its options are appended.
    """

    def __init__(self, folder: Path, *, command: Sequence[str] = TRAIN) -> None:
        self.folder = folder
        self.command = tuple(command)
        # Held so that they can be reaped; what they do is read from disk like everything else.
        self._children: list[subprocess.Popen[bytes]] = []

    def names(self) -> list[str]:
        """Every run, the one that changed last first."""
        if not self.folder.is_dir():
            return []
        found = {
            path.name
            for path in self.folder.iterdir()
            if path.is_dir()
            and NAME.fullmatch(path.name)
            and (path / "status.json").exists()  # a reward model's folder has none
        }
        found |= {path.stem for path in (self.folder / LAUNCHES).glob("*.json")}
        return sorted(found, key=lambda name: (-self._changed(name), name))

    def all(self) -> list[Run]:
        """Every run, the one that changed last first."""
        return [self.run(name) for name in self.names()]

    def run(self, name: str) -> Run:
        """One run; InputError if there is none of that name."""
        from imgalign.metrics import read_status

        folder = self.path(name)
        self._children = [child for child in self._children if child.poll() is None]
        launch = self._launch(name)
        ours = launch is not None and _alive(launch)
        status = read_status(folder)
        if launch is None and not folder.is_dir():
            raise InputError(f"{folder}: no such run")
        message = (status.message if status else None) or ""
        state = status.state if status else "starting" if ours else "failed"
        if ours and launch is not None and (status is None or status.pid != launch.pid):
            state, message = "starting", ""  # resumed: what the file says is of the process before
        if state == "failed" and not message:
            message = _last_line(self.log(name)) or "it ended before it began"
        adapters = [path.parent.name for path in folder.glob(f"step-*/{ADAPTER}")]
        samples = [path.name for path in folder.glob("samples/step-*.png")]
        return Run(
            name=name,
            state=state,
            step=status.step if status else 0,
            total=status.total if status else 0,
            eta_seconds=status.eta_seconds if status and state == "running" else None,
            message=message,
            changed=self._changed(name),
            ours=ours,
            resumable=state in ("stopped", "failed") and (folder / "config.yaml").exists(),
            adapters=tuple(sorted(name for name in adapters if STEP.fullmatch(name))),
            best=_best(folder),
            samples=tuple(sorted(samples)),
        )

    def rewards(self) -> list[Path]:
        """Fitted reward models among the runs, the newest first."""
        found = [path.parent for path in self.folder.glob("*/contract.json")]
        return sorted(found, key=lambda path: -path.stat().st_mtime)

    def path(self, name: str) -> Path:
        """The folder of a run; InputError for a name that could point anywhere else."""
        if not NAME.fullmatch(name):
            raise InputError(
                f"run name {name!r}: expected letters, digits, '.', '_' and '-', at most 64"
            )
        return self.folder / name

    def metrics(self, name: str, keys: Sequence[str]) -> dict[str, list[tuple[int, float]]]:
        """(step, value) of each key where it was measured."""
        from imgalign.metrics import read_metrics

        records = read_metrics(self.path(name) / "metrics.jsonl")
        return {
            key: [
                (int(record["step"] or 0), float(value))
                for record in records
                if isinstance(value := record.get(key), int | float)
            ]
            for key in keys
        }

    def log(self, name: str) -> str:
        """The end of what the process printed; empty for a run started elsewhere."""
        path = self._log_path(name)
        try:
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - LOG_BYTES))
                text = file.read().decode("utf-8", errors="replace")
        except FileNotFoundError:
            return ""
        # A progress bar repeats its line with carriage returns: what counts is the last one.
        lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")]
        return "\n".join(lines).strip()

    def sample(self, name: str, file: str) -> Path:
        """The path of a sample grid; InputError if the run has none of that name."""
        path = self.path(name) / "samples" / file
        if not re.fullmatch(r"step-\d+\.png", file) or not path.is_file():
            raise InputError(f"{name}: no sample grid {file!r}")
        return path

    def free_name(self, recipe: str) -> str:
        """A name for the next run of a recipe: "storybook_ppo", then "storybook_ppo-2", ..."""
        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", recipe).strip("-.") or "run"
        taken, number, name = set(self.names()), 1, stem[:56]
        while name in taken or self.path(name).exists():
            number += 1
            name = f"{stem[:56]}-{number}"
        return name

    def launch(self, recipe: Path, *, name: str, overrides: Sequence[str] = ()) -> None:
        """Start `imgalign train` on a recipe as a process that outlives the app."""
        self._refuse_taken(name)
        for override in overrides:
            if not OVERRIDE.fullmatch(override):
                raise InputError(f"override {override!r}: expected section.key=value")
        self._start(name, [str(recipe), *overrides, "--out", str(self.path(name))])

    def resume(self, name: str) -> None:
        """Go on with a run that was stopped, from its last checkpoint."""
        folder = self.path(name)
        if not self.run(name).resumable:
            raise InputError(f"{folder}: nothing to resume, it is {self.run(name).state}")
        self._start(name, [str(folder / "config.yaml"), "--out", str(folder), "--resume"])

    def stop(self, name: str) -> None:
        """Ask the process to save and end (SIGTERM). Refuses a process that is not ours."""
        launch = self._launch(name)
        if launch is None or not _alive(launch):
            raise InputError(
                f"{self.path(name)}: not running as a process of this app; "
                "stop it with Ctrl-C where it was started"
            )
        os.kill(launch.pid, signal.SIGTERM)

    def _start(self, name: str, arguments: Sequence[str]) -> None:
        launches = self.folder / LAUNCHES
        launches.mkdir(parents=True, exist_ok=True)
        command = [*self.command, *arguments]
        with self._log_path(name).open("ab") as log:
            log.write(f"$ imgalign train {shlex.join(arguments)}\n".encode())
            log.flush()
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"PYTHONUNBUFFERED": "1", "COLUMNS": "100"},
                start_new_session=True,  # Ctrl-C in the app's terminal is not meant for it
            )
        self._children.append(child)
        launch = Launch(pid=child.pid, birth=_birth(child.pid) or "", command=tuple(command))
        path = launches / f"{name}.json"
        unfinished = path.with_suffix(".tmp")
        unfinished.write_text(json.dumps(asdict(launch)), encoding="utf-8")
        unfinished.replace(path)

    def _refuse_taken(self, name: str) -> None:
        folder = self.path(name)
        launch = self._launch(name)
        busy = launch is not None and _alive(launch)
        if busy or any(folder.glob("*")):
            raise InputError(f"{folder}: there is a run of that name; choose another")

    def _launch(self, name: str) -> Launch | None:
        try:
            values = json.loads((self.folder / LAUNCHES / f"{name}.json").read_text("utf-8"))
            return Launch(
                pid=int(values["pid"]),
                birth=str(values["birth"]),
                command=tuple(values["command"]),
            )
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def _log_path(self, name: str) -> Path:
        return self.folder / LAUNCHES / f"{self.path(name).name}.log"

    def _changed(self, name: str) -> float:
        paths = [
            self.folder / name / "status.json",
            self.folder / name / "metrics.jsonl",
            self.folder / name,
            self.folder / LAUNCHES / f"{name}.json",
        ]
        return max((path.stat().st_mtime for path in paths if path.exists()), default=0.0)


def _alive(launch: Launch) -> bool:
    """Whether the process still runs; its number may long belong to another one."""
    return bool(launch.birth) and _birth(launch.pid) == launch.birth


def _birth(pid: int) -> str | None:
    """Which start of the machine and which moment since then; None if there is no such process.

    A zombie has ended. Only where /proc is: elsewhere no run counts as ours, so none is stopped.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return None
    # The program's name, in parentheses, may hold anything; field 3 is the state, 22 the start.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else f"{boot}/{fields[19]}"


def _best(folder: Path) -> str | None:
    try:
        name = json.loads((folder / "best.json").read_text(encoding="utf-8"))["checkpoint"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return name if isinstance(name, str) else None


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error:")]
    return (errors or [line for line in lines if not line.startswith("$")] or [""])[-1][:400]
