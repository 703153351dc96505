"""status.json of a run: whether its process is alive, how far it is, and its last message."""

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

RunState: TypeAlias = Literal["running", "stopped", "finished", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """Where a run stands.

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
    """One line for a person: why it stopped, what failed, how to go on."""
    birth: str | None = None
    """When the process started: another one may have its number by now."""

    @staticmethod
    def of_this_process(
        state: RunState,
        step: int,
        total: int,
        *,
        eta_seconds: float | None = None,
        message: str | None = None,
    ) -> "RunStatus":
        """A status with this process's number in it."""
        return RunStatus(
            state=state,
            pid=os.getpid(),
            step=step,
            total=total,
            eta_seconds=eta_seconds,
            message=message,
            birth=process_birth(os.getpid()),
        )


def write_status(run: Path, status: RunStatus) -> None:
    """Replace `status.json` in one move."""
    write_atomically(run / STATUS, json.dumps(asdict(status)) + "\n")


def read_status(run: Path) -> RunStatus | None:
    """The status of a run; None when there is none, or when it cannot be read.

    A run that says it is running while its process is gone was killed: it reads as stopped.
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
            message=f"the process ended abruptly after iteration {status.step}; resume to go on",
        )
    return status


def written_status(run: Path) -> RunStatus | None:
    """What status.json says, whether the process that wrote it still lives or not.

    None when there is none, or when it cannot be read.
    """
    path = run / STATUS
    try:
        return TypeAdapter(RunStatus).validate_python(read_json(path))
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
    """Whether a process of this machine has that number (a zombie has ended).

    With its `birth` as `process_birth` gave it, whether it is still the same process.
    """
    if pid <= 0:  # the system's names for groups of processes
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # it is there, and somebody else's
    fields = process_facts(pid)
    if fields is None:
        return True  # no /proc here
    return fields[0] not in "ZX" and birth in (None, process_birth(pid))


def process_birth(pid: int) -> str | None:
    """Which start of the machine and which moment since then; None without such a process or /proc.

    Example: "4f1c.../8123456".
    """
    fields = process_facts(pid)
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return None if fields is None else f"{boot}/{fields[19]}"


def process_facts(pid: int) -> list[str] | None:
    """/proc/<pid>/stat from the state on; the name before it may hold anything."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return stat.rpartition(")")[2].split()
