"""Forks training runs: what they import is loaded once, so a run that is killed costs little.

Reads requests from stdin, one `Request` in JSON a line, and answers each with a `Reply`. A run is a
process of its own. It can be killed after some time by this process, its parent, or at one of its
own file operations below the run's folder, before which it kills itself.
"""

import gc
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

import torch
from language_runs import LettersE
from random_walk import Brightness, RandomWalk

from imgalign.cli.main import main as command
from imgalign.config import load_config
from imgalign.errors import ImgalignError
from imgalign.train import run as train
from imgalign.train.config import TrainConfig

CHANGES = {"os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.link", "os.truncate"}
"""Audit events of what changes a folder, beside opening a file to write."""
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
LONGEST = 240.0
"""Seconds after which a fork is killed: it hangs."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """A run, or with `command` the arguments of `imgalign`."""

    out: str
    settings: str = ""
    """A YAML file."""
    walk: bool = True
    """Whether the policy is a random walk, and not the model that the settings name."""
    warm: bool = False
    """Whether it runs in the server itself, so that forks find imported what it needs."""
    resume: bool = False
    seconds: float | None = None
    """After which it is killed."""
    operation: int | None = None
    """Before which it kills itself; the first is 1."""
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] | None = None


@dataclass(frozen=True, kw_only=True)
class Reply:
    """How a run ended."""

    code: int
    """Of the process; minus the signal that ended it."""
    seconds: float
    operations: int
    """Of a run that was not killed."""
    said: str
    """On stdout and stderr."""


class Operations:
    """An audit hook that counts what changes a folder, and kills the process before one of them."""

    def __init__(self, folder: str, kill_before: int | None) -> None:
        self.folder = folder
        self.kill_before = kill_before
        self.count = 0

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event != "open" and event not in CHANGES:
            return
        if event == "open" and not arguments[2] & WRITES:
            return
        path = arguments[0]
        if not isinstance(path, str | os.PathLike):
            return
        name = os.fspath(path)
        # shutil.rmtree names what it removes relative to a folder that it holds open.
        if not (name.startswith(self.folder) or (event != "open" and not os.path.isabs(name))):
            return
        self.count += 1
        if self.count == self.kill_before:
            os.kill(os.getpid(), signal.SIGKILL)


def files_of(out: str) -> tuple[Path, Path]:
    """Where a run writes what it says, and how many operations it made."""
    folder = Path(out)
    return folder.with_name(f"{folder.name}.said"), folder.with_name(f"{folder.name}.operations")


def begin(request: Request) -> int:
    """Fork the run; returns its pid. Only the parent returns."""
    said, count = files_of(request.out)
    count.unlink(missing_ok=True)
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.environ.update(request.environment or {})
        operations = Operations(request.out, request.operation)
        sys.addaudithook(operations)
        code = made(request)
        count.write_text(str(operations.count))
    except ImgalignError as error:
        os.write(2, f"error: {error}\n".encode())
        code = error.exit_code
    except SystemExit as end:  # of a process that leaves the word to another
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def made(request: Request) -> int:
    """Run it, in the fork; returns the exit code."""
    if request.command:
        return command(request.command)
    settings = load_config(TrainConfig, Path(request.settings))
    texts = settings.policy.samples == "texts"
    return train.run(
        settings,
        reward=LettersE() if texts else Brightness(),
        out=Path(request.out),
        resume=request.resume,
        policy=RandomWalk(num_steps=3) if request.walk else None,
    ).exit_code


def ended(pid: int, request: Request, *, begun: float) -> Reply:
    """Wait for a fork, and kill it when its time has come: its own, or that of any."""
    seconds, killed = LONGEST if request.seconds is None else request.seconds, False
    while not (over := os.waitpid(pid, os.WNOHANG))[0]:
        if not killed and time.monotonic() - begun >= seconds:
            os.kill(pid, signal.SIGKILL)
            killed = True
        time.sleep(0.001)
    status = over[1]
    said, count = files_of(request.out)
    counted = count.read_text() if count.exists() else ""  # nothing if it was killed while it wrote
    return Reply(
        code=os.waitstatus_to_exitcode(status),
        seconds=time.monotonic() - begun,
        operations=int(counted or 0),
        said=said.read_text(errors="replace") if said.exists() else "",
    )


def main() -> None:
    """Serve until stdin ends; a line holds the requests that run at the same time."""
    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a command that runs here prints, too
    for line in sys.stdin:
        requests = [Request(**each) for each in json.loads(line)]
        begun = time.monotonic()
        if requests[0].warm:
            code = made(requests[0])
            gc.freeze()  # else the collector of each fork would touch, and so copy, all of it
            reply = Reply(code=code, seconds=time.monotonic() - begun, operations=0, said="")
            say(answers, [reply])
            continue
        pids = [begin(each) for each in requests]
        # Those that are killed first, so that nobody's moment passes while another is waited for.
        order = sorted(range(len(requests)), key=lambda each: requests[each].seconds is None)
        replies = {each: ended(pids[each], requests[each], begun=begun) for each in order}
        say(answers, [replies[each] for each in range(len(requests))])


def say(answers: TextIO, replies: Sequence[Reply]) -> None:
    answers.write(json.dumps([asdict(each) for each in replies]) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
