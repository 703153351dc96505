"""Claims: where either of two processes that train together is killed -9 at a random moment, the
other ends in one clear line, and both resume to the weights of the undisturbed run, be the frozen
weights whole in each process (DDP) or shared by both (FSDP2).

In the long form only: tests/train/test_together.py and test_sharded.py do it once.
"""

import random
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
from fault_counts import LONG, repeated
from forked_runs import RunServer
from fsdp import with_fsdp
from pair_runs import train_on_pairs, weights
from processes import Meeting
from run_server import Reply, Request

from imgalign.runs.folder import CONFIG

pytestmark = LONG

MET = 0.5
"""Seconds after which two forks have found each other: before, a launcher ends whoever waits."""


@pytest.fixture(scope="module")
def train(tiny_pipeline_folder, tmp_path_factory) -> list[str]:
    return train_on_pairs(tmp_path_factory.mktemp("pairs"), tiny_pipeline_folder)


@dataclass(frozen=True)
class Pair:
    """A run in two processes of one engine, and the same run undisturbed."""

    server: RunServer
    train: list[str]
    engine: str

    def run(
        self,
        out: Path,
        *,
        victim: int | None = None,
        seconds: float | None = None,
        operation: int | None = None,
    ) -> list[Reply]:
        """Begin or resume it, where one process may be killed."""
        meeting = Meeting(2)
        resume = ["--resume"] if (out / CONFIG).exists() else []
        shared = {"ACCELERATE_USE_FSDP": "true"} if self.engine == "fsdp2" else {}
        return self.server.together(
            [
                Request(
                    # Where it counts its file operations, and beside which it writes what it says.
                    out=str(out if index == 0 else out.with_name("other")),
                    command=(*self.train, "--out", str(out), *resume),
                    environment=meeting.environment(index) | shared,
                    seconds=seconds if index == victim else None,
                    operation=operation if index == victim else None,
                )
                for index in range(2)
            ]
        )


@pytest.fixture(scope="module", params=["ddp", pytest.param("fsdp2", marks=with_fsdp)])
def pair(request, server, train) -> Pair:
    return Pair(server, train, request.param)


@pytest.fixture(scope="module")
def whole(pair, tmp_path_factory) -> tuple[Path, Reply]:
    """The run that nothing happened to."""
    folder = tmp_path_factory.mktemp("two")
    # So that forks find what they need imported.
    command = (*pair.train, "--out", str(folder / "warm"))
    pair.server.run(Request(out=str(folder / "warm"), command=command, warm=True))
    replies = pair.run(folder / "run")
    assert [each.code for each in replies] == [0, 0], replies
    return folder / "run", replies[0]


def killed(pair: Pair, out: Path, reply: Reply, number: int) -> list[Reply]:
    """How a run ended of which one process was killed; one that was over before is tried again."""
    chance, victim = random.Random(f"{pair.engine}, two processes, {number}"), number % 2
    while True:
        seconds: float | None = chance.uniform(MET, max(MET, reply.seconds))
        operation = None
        if victim == 0 and chance.random() < 0.5:  # the one that writes
            seconds, operation = None, chance.randint(20, reply.operations)
        ends = pair.run(out, victim=victim, seconds=seconds, operation=operation)
        if ends[victim].code == -signal.SIGKILL:
            return ends
        assert [each.code for each in ends] == [0, 0], ends
        shutil.rmtree(out)


@repeated(0.4)
def test_a_killed_process_ends_the_other_in_one_line_and_both_resume_to_the_same_weights(
    pair, whole, tmp_path, faults, number
):
    undisturbed, reply = whole
    victim, out = number % 2, tmp_path / "run"
    ends = killed(pair, out, reply, number)
    other = ends[1 - victim]
    with faults.inject(f"kill -9, one of two processes, {pair.engine}"):
        if other.code:
            assert other.code == 2, other.said
            assert other.said.splitlines()[-1] == (
                f"error: process {1 - victim} of 2: another process of this run has ended or "
                "cannot be reached; checkpoints are intact, go on with --resume"
            )
            assert "Traceback" not in other.said
        again = pair.run(out)
        assert [each.code for each in again] == [0, 0], again
        expected, found = weights(undisturbed), weights(out)
        assert expected.keys() == found.keys()
        assert all((found[name] == weight).all() for name, weight in expected.items())
        assert not list(out.rglob(".tmp-*"))
