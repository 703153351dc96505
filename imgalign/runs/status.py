"""status.json of a run: whether its process is alive, its progress, and its last message."""

import json
import logging
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import TypeAdapter, ValidationError

from imgalign.files import read_json, write_atomically

log = logging.getLogger(__name__)

STATUS = "status.json"
KILLED = "the process ended abruptly"
"""How the message of a run begins whose process is gone without a word."""

RunState: TypeAlias = Literal["running", "stopped", "finished", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """State and progress of a run.

    Example: `{"state": "running", "pid": 4242, "step": 12, "total": 40, "eta_seconds": 420.0}`
    """

    state: RunState
    pid: int
    step: int
    """Iterations that are done."""
    total: int
    eta_seconds: float | None = None
    """Estimated time to the end; None before the first iteration and after the last."""
    message: str | None = None
    """One line of text: why it stopped, what failed, how to continue."""
    birth: str | None = None
    """Start of the process as `process_birth` gives it: its pid may have been reused."""

    @staticmethod
    def of_this_process(
        state: RunState,
        step: int,
        total: int,
        *,
        eta_seconds: float | None = None,
        message: str | None = None,
    ) -> "RunStatus":
        """A status with the pid and birth of this process."""
        return RunStatus(
            state=state,
            pid=os.getpid(),
            step=step,
            total=total,
            eta_seconds=eta_seconds,
            message=message,
            birth=process_birth(os.getpid()),
        )


RUN_STATUS = TypeAdapter(RunStatus)


def write_status(run: Path, status: RunStatus) -> None:
    """Replace `status.json` atomically."""
    write_atomically(run / STATUS, json.dumps(asdict(status)) + "\n")


def read_status(run: Path) -> RunStatus | None:
    """The status of a run; None when there is none, or when it cannot be read.

    A run whose status is "running" while its process is gone was killed: it is reported as stopped.
    """
    status = written_status(run)
    if (
        status is not None
        and status.state == "running"
        and not process_alive(status.pid, birth=status.birth)
    ):
        return replace(
            status,
            state="stopped",
            eta_seconds=None,
            message=f"{KILLED} after iteration {status.step}; resume to continue",
        )
    return status


def written_status(run: Path) -> RunStatus | None:
    """The content of status.json, whether the process that wrote it is alive or not.

    None when there is none, or when it cannot be read.
    """
    path = run / STATUS
    try:
        return RUN_STATUS.validate_python(read_json(path))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "all of it"
        log.warning("%s: damaged (%s: %s); ignored", path, where, first["msg"].lower())
        return None
    except ValueError as error:
        log.warning("%s: damaged (%s); ignored", path, error)
        return None


def process_alive(pid: int, *, birth: str | None = None) -> bool:
    """Whether a process with this pid is running; a zombie is not.

    With the `birth` that `process_birth` gave, whether it is still the same process.
    """
    if pid <= 0:  # kill(2) takes these for process groups
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # it exists and belongs to another user
    fields = process_facts(pid)
    if fields is None:
        return True  # no /proc here
    return fields[0] not in "ZX" and birth in (None, process_birth(pid))


def process_birth(pid: int) -> str | None:
    """Boot id and start time in clock ticks since boot; None without such a process or /proc.

    Example: "4f1c.../8123456".
    """
    fields = process_facts(pid)
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return None if fields is None else f"{boot}/{fields[19]}"


def process_facts(pid: int) -> list[str] | None:
    """Fields of /proc/<pid>/stat from the state on; the name before it may contain spaces."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return stat.rpartition(")")[2].split()
