"""Processes of one run, started as a launcher does, without one."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

from command_server import Command
from source_tree import ROOT
from torch.distributed.rendezvous import rendezvous

ONE_THREAD = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


class Meeting:
    """The store of a launcher, where `size` processes find each other as long as it is held."""

    def __init__(self, size: int) -> None:
        self.port = free_port()
        self.size = size
        self._store = next(rendezvous(f"tcp://127.0.0.1:{self.port}?rank=0&world_size=1"))[0]

    def environment(self, index: int) -> dict[str, str]:
        """What a launcher tells one of the processes."""
        return {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(self.port),
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "WORLD_SIZE": str(self.size),
            "RANK": str(index),
            "LOCAL_RANK": str(index),
        }


class Processes:
    """`size` of one Python command, and the store of their launcher, where they find each other."""

    def __init__(self, arguments: Sequence[str | Path], *, size: int = 2, folder: Path) -> None:
        self._meeting = Meeting(size)
        self.each = [
            subprocess.Popen(
                [sys.executable, *map(str, arguments)],
                env={
                    **os.environ,
                    **ONE_THREAD,
                    **self._meeting.environment(index),
                    "PYTHONHASHSEED": str(index),  # so that sets have another order in each
                },
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for index in range(size)
        ]

    def ends(self) -> list[tuple[int, str, str]]:
        """Exit code, output and errors of each, after all have ended."""
        said = [process.communicate(timeout=240) for process in self.each]
        return [(process.returncode, *each) for process, each in zip(self.each, said, strict=True)]


class Forked:
    """A process of a command that a `Server` was asked for."""

    def __init__(self, server: subprocess.Popen[str], folder: Path) -> None:
        self._server = server
        self._folder = folder
        self.pid = int(self._answer())

    def kill(self) -> None:
        """End it by kill -9."""
        os.kill(self.pid, signal.SIGKILL)

    def end(self) -> tuple[int, str, str]:
        """Exit code, output and errors, after it has ended."""
        code = int(self._answer())
        said, told = ((self._folder / name).read_text() for name in ("said", "told"))
        return code, said, told

    def _answer(self) -> str:
        assert self._server.stdout is not None
        return self._server.stdout.readline()


class Forks:
    """Processes of one run, forked by servers, and the store where they find each other."""

    def __init__(self, each: Sequence[Forked], meeting: Meeting) -> None:
        self.each = each
        self._meeting = meeting

    def ends(self) -> list[tuple[int, str, str]]:
        """Exit code, output and errors of each, after all have ended."""
        return [process.end() for process in self.each]


class Servers:
    """Run commands of `python -m`, without these two words, and without importing anything again.

    Each process of a run has a server of its own, so that sets have another order in each.
    """

    def __init__(self, servers: Sequence[subprocess.Popen[str]], folder: Path) -> None:
        self._servers = servers
        self._folder = folder

    def together(self, arguments: Sequence[str | Path], *, folder: Path) -> Forks:
        """Start the processes of a run, as a launcher does."""
        meeting = Meeting(len(self._servers))
        return Forks(
            [
                self._start(index, arguments, folder, meeting.environment(index))
                for index in range(meeting.size)
            ],
            meeting,
        )

    def alone(self, arguments: Sequence[str | Path], *, folder: Path) -> tuple[int, str, str]:
        """Exit code, output and errors of a process without a launcher, after it has ended."""
        return self._start(0, arguments, folder, {}).end()

    def _start(
        self,
        index: int,
        arguments: Sequence[str | Path],
        folder: Path,
        environment: Mapping[str, str],
    ) -> Forked:
        server, own = self._servers[index], self._folder / str(index)
        own.mkdir(exist_ok=True)
        command = Command(
            arguments=tuple(map(str, arguments)),
            folder=str(folder),
            environment={**os.environ, **ONE_THREAD, **environment},
            said=str(own / "said"),
            told=str(own / "told"),
        )
        assert server.stdin is not None
        server.stdin.write(json.dumps(asdict(command)) + "\n")
        server.stdin.flush()
        return Forked(server, own)


@contextmanager
def command_servers(size: int) -> Iterator[Servers]:
    """Servers until the end of the block."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = []
        for index in range(size):
            server = subprocess.Popen(
                [sys.executable, str(ROOT / "tests" / "stand_ins" / "command_server.py")],
                env={**os.environ, **ONE_THREAD, "PYTHONHASHSEED": str(index)},
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            servers.append(stack.enter_context(server))
            stack.callback(os.killpg, server.pid, signal.SIGKILL)  # with whatever it has forked
        yield Servers(servers, folder)


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port
