"""Commands of imgalign that the app starts as processes, by name.

Nothing is kept in memory that matters: what the app needs to know of a process is in
`<folder>/<name>.json`, and what it printed in `<name>.log` beside it. So a process outlives the
browser and the app, and is found again after a restart.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter

from imgalign.errors import InputError
from imgalign.files import read_json
from imgalign.preferences.address import URL_VARIABLE
from imgalign.runs.status import process_alive, process_birth

NEW_NAME = re.compile(r"[^\W_][\w. -]{0,63}")
"""Letters and digits of any script; what a file system, a shell and a URL all take."""
OVERRIDE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*=.*")
LOG_BYTES = 40_000
# Safe-path mode: nothing in the folder that the app was started in becomes a module.
IMGALIGN = (sys.executable, "-P", "-m", "imgalign")


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """A process started by the app. `birth` tells it from a later one with the same number."""

    pid: int
    birth: str
    command: tuple[str, ...]

    @property
    def alive(self) -> bool:
        """Whether the process still runs; its number may long belong to another one."""
        return bool(self.birth) and process_alive(self.pid, birth=self.birth)


LAUNCH = TypeAdapter(Launch)


class Processes:
    """The processes of one command of imgalign; names are those of files.

    `command` is what is started, `said` how its log calls that; arguments are appended to both.
    `database` is where it finds rankings, in the place of IMGALIGN_DATABASE, if any is named.
    """

    def __init__(
        self, folder: Path, *, command: Sequence[str], said: str, database: str | None = None
    ) -> None:
        self.folder = folder
        self.command = tuple(command)
        self.said = said
        self.database = database
        # A page's two "Stop" events come at once, in two threads.
        self._stopping = threading.Lock()

    def names(self) -> set[str]:
        """Of all that were started and not forgotten."""
        return {path.stem for path in self.folder.glob("*.json")}

    def launched(self, name: str) -> Launch | None:
        """What is known of a process; None for nothing that can be read."""
        try:
            return LAUNCH.validate_python(read_json(self.file(name)))
        except (OSError, ValueError):
            return None

    def alive(self, name: str) -> bool:
        """Whether there is a process of that name."""
        launch = self.launched(name)
        return launch is not None and launch.alive

    def stopping(self, name: str) -> bool:
        """Whether its process has been asked to stop."""
        return self._stop_path(name).exists() and self.alive(name)

    def was_stopped(self, name: str) -> bool:
        """Whether its process has ended because it was asked to."""
        return self._stop_path(name).exists() and not self.alive(name)

    def start(self, name: str, arguments: Sequence[str]) -> None:
        """Start a process that outlives the app; the log of an earlier one of that name goes on."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [*self.command, *arguments]
        self._stop_path(name).unlink(missing_ok=True)
        with self._log_path(name).open("ab") as log:
            log.write(f"$ {self.said} {shlex.join(arguments)}\n".encode())
            log.flush()
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ
                | {"PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1", "COLUMNS": "100"}
                | naming(self.database),
                start_new_session=True,  # Ctrl-C in the app's terminal is not meant for it
            )
        # Reaped as soon as it ends, also where nobody asks for it any more.
        threading.Thread(target=child.wait, name=f"{self.said} {name}", daemon=True).start()
        launch = Launch(pid=child.pid, birth=process_birth(child.pid) or "", command=tuple(command))
        unfinished = self.file(name).with_suffix(".tmp")
        try:
            unfinished.write_text(json.dumps(asdict(launch)), encoding="utf-8")
            unfinished.replace(self.file(name))
        except OSError:
            child.terminate()  # nobody would know of it
            raise

    def stop(self, name: str, *, what: Path | str) -> None:
        """Ask a process to save and end (SIGTERM), once however often this is called.

        Refuses one that is not of this app; `what` is what it makes, for the message.
        """
        with self._stopping:
            launch = self.launched(name)
            if launch is None or not launch.alive:
                if launch is None:
                    raise InputError(
                        f"{what}: not started by this app; whoever started it can stop it"
                    )
                raise InputError(
                    f"{what}: what this app started has ended already; reload the page. "
                    "If it runs, whoever started it can stop it"
                )
            try:
                self._stop_path(name).touch(exist_ok=False)
            except FileExistsError:
                return
            os.kill(launch.pid, signal.SIGTERM)

    def mark_stopped(self, name: str) -> None:
        """What has no process counts as stopped."""
        self._stop_path(name).touch()

    def forget(self, name: str) -> None:
        """Remove what is known of a process that has ended, and what it printed."""
        if self.alive(name):
            raise InputError(f"{name}: its process still runs; stop it first")
        for path in (self.file(name), self._log_path(name), self._stop_path(name)):
            path.unlink(missing_ok=True)

    def log(self, name: str) -> str:
        """The end of what a process printed; empty for one that was started elsewhere."""
        path = self._log_path(name)
        try:
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - LOG_BYTES))
                text = file.read().decode("utf-8", errors="replace")
        except OSError:
            return ""
        # A progress bar repeats its line with carriage returns: what counts is the last one.
        lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")]
        return "\n".join(lines).strip()

    def file(self, name: str) -> Path:
        """What is known of a process, on disk."""
        return self.folder / f"{name}.json"

    def _log_path(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _stop_path(self, name: str) -> Path:
        return self.folder / f"{name}.stop"


def naming(database: str | None) -> dict[str, str]:
    """What tells a process its database, in its environment: a command would show a password."""
    return {} if database is None else {URL_VARIABLE: database}


def check_name(name: str, *, what: str) -> None:
    """InputError unless it can be the name of something new."""
    if not NEW_NAME.fullmatch(name) or name != name.strip():
        raise InputError(
            f"{what} {name!r}: expected letters, digits, spaces, '.', '_' and '-', at most "
            "64, a letter or digit first"
        )


def check_overrides(overrides: Sequence[str]) -> None:
    """InputError for one that is no `section.key=value`, and might be an option."""
    for override in overrides:
        if not OVERRIDE.fullmatch(override):
            raise InputError(f"override {override!r}: expected section.key=value")


def last_line(text: str) -> str:
    """What a process said last: its error, or else its last line that is no command."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error:")]
    return (errors or [line for line in lines if not line.startswith("$")] or [""])[-1][:400]
