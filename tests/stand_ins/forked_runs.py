"""Asks `run_server.py` for runs."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict

from processes import ONE_THREAD
from run_server import Reply, Request
from source_tree import ROOT

STAND_INS = ROOT / "tests" / "stand_ins"


class RunServer:
    """A server that runs; its processes end with it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def together(self, requests: Sequence[Request]) -> list[Reply]:
        """Runs that are begun at the same moment, after all have ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([asdict(each) for each in requests]) + "\n")
        self._process.stdin.flush()
        return [Reply(**each) for each in json.loads(self._process.stdout.readline())]

    def run(self, request: Request) -> Reply:
        """One run, after it has ended."""
        (reply,) = self.together([request])
        return reply


@contextmanager
def run_server() -> Iterator[RunServer]:
    """A server until the end of the block."""
    places = os.pathsep.join([str(ROOT), str(STAND_INS)])
    with subprocess.Popen(
        [sys.executable, str(STAND_INS / "run_server.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **ONE_THREAD, "PYTHONPATH": places},
        cwd=ROOT,
        text=True,
    ) as process:
        yield RunServer(process)
