"""Processes of one run, started as a launcher does, without one."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

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


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port
