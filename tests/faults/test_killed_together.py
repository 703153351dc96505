"""Claims: where either of two processes that train together is killed -9 at a random moment, the
other ends in one clear line, and both resume to the weights of the undisturbed run.

In the long form only: tests/train/test_together.py does it once with processes of a launcher.
"""

import random
import signal
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import pytest
from fault_counts import LONG, repetitions
from forked_runs import RunServer
from pair_runs import ITERATIONS, train_on_pairs
from processes import Meeting
from run_server import Reply, Request
from safetensors.torch import load_file

from imgalign.runs.checkpoint import latest_checkpoint
from imgalign.runs.folder import CONFIG
from imgalign.runs.trained import ADAPTER

pytestmark = LONG

MET = 0.5
"""Seconds after which two forks have found each other: before, a launcher ends whoever waits."""


@pytest.fixture(scope="module")
def train(tiny_pipeline_folder, tmp_path_factory) -> list[str]:
    return train_on_pairs(tmp_path_factory.mktemp("pairs"), tiny_pipeline_folder)


def both(
    server: RunServer,
    train: Sequence[str],
    out: Path,
    *,
    victim: int | None = None,
    seconds: float | None = None,
    operation: int | None = None,
) -> list[Reply]:
    """Begin or resume the run in two processes, one of which may be killed."""
    meeting = Meeting(2)
    resume = ["--resume"] if (out / CONFIG).exists() else []
    return server.together(
        [
            Request(
                # Where it counts its file operations, and beside which it writes what it says.
                out=str(out if index == 0 else out.with_name("other")),
                command=(*train, "--out", str(out), *resume),
                environment=meeting.environment(index),
                seconds=seconds if index == victim else None,
                operation=operation if index == victim else None,
            )
            for index in range(2)
        ]
    )


@pytest.fixture(scope="module")
def whole(server, train, tmp_path_factory) -> tuple[Path, Reply]:
    """A run of two processes that nothing happened to."""
    folder = tmp_path_factory.mktemp("two")
    server.run(  # so that forks find imported what they need
        Request(
            out=str(folder / "warm"), command=(*train, "--out", str(folder / "warm")), warm=True
        )
    )
    replies = both(server, train, folder / "run")
    assert [each.code for each in replies] == [0, 0], replies
    return folder / "run", replies[0]


def weights(out: Path) -> dict:
    newest = latest_checkpoint(out)
    assert newest is not None
    assert newest.name == f"step-{ITERATIONS:06d}"
    return load_file(newest / ADAPTER)


@pytest.mark.parametrize("number", repetitions(0.4))
def test_a_killed_process_ends_the_other_in_one_line_and_both_resume_to_the_same_weights(
    server, train, whole, tmp_path, faults, number
):
    undisturbed, reply = whole
    chance = random.Random(f"two processes, {number}")
    victim, out = number % 2, tmp_path / "run"
    seconds: float | None = chance.uniform(MET, max(MET, reply.seconds))
    operation = None
    if victim == 0 and chance.random() < 0.5:  # the one that writes
        seconds, operation = None, chance.randint(20, reply.operations)
    ends = both(server, train, out, victim=victim, seconds=seconds, operation=operation)
    killed, other = ends[victim].code == -signal.SIGKILL, ends[1 - victim]
    # A run that is over before its moment comes has met no fault.
    with faults.inject("kill -9, one of two processes") if killed else nullcontext():
        if other.code:
            assert killed, ends
            assert other.code == 2, other.said
            assert other.said.splitlines()[-1] == (
                f"error: process {1 - victim} of 2: another process of this run has ended or "
                "cannot be reached; checkpoints are intact, go on with --resume"
            )
            assert "Traceback" not in other.said
        again = both(server, train, out)
        assert [each.code for each in again] == [0, 0], again
        expected, found = weights(undisturbed), weights(out)
        assert expected.keys() == found.keys()
        assert all((found[name] == weight).all() for name, weight in expected.items())
        assert not list(out.rglob(".tmp-*"))
