"""Claims: `imgalign train` in two processes that share frozen weights makes the run of one; after a
worker was killed it ends with one line, and resumes with the same weights; accelerate starts it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from forked_runs import RunServer, run_server
from fsdp import with_fsdp
from pair_runs import ITERATIONS, assert_run_of_one, train_on_pairs, weights
from processes import ONE_THREAD, Meeting, free_port
from run_server import Reply, Request
from source_tree import ROOT

from imgalign.runs.checkpoint import latest_checkpoint

CONFIG = ROOT / "configs" / "accelerate" / "fsdp2.yaml"

pytestmark = [with_fsdp, pytest.mark.slow, pytest.mark.timeout(600)]

Run = Callable[..., list[Reply]]


@pytest.fixture(scope="module")
def server() -> Iterator[RunServer]:
    with run_server() as running:
        yield running


@pytest.fixture(scope="module")
def train(tiny_pipeline_folder, tmp_path_factory) -> list[str]:
    """A command that trains on six pairs."""
    return train_on_pairs(tmp_path_factory.mktemp("pairs"), tiny_pipeline_folder)


@pytest.fixture(scope="module")
def alone(server, train, tmp_path_factory) -> Path:
    """The run of one process."""
    out = tmp_path_factory.mktemp("one") / "run"
    command = (*train, "--out", str(out))
    assert server.run(Request(out=str(out), command=command, warm=True)).code == 0
    return out


@pytest.fixture(scope="module")
def share(server, train, alone) -> Run:
    """Runs the command in two processes; the first may kill itself before a change of a file."""

    def run(out: Path, *more: str, operation: int | None = None) -> list[Reply]:
        meeting = Meeting(2)
        return server.together(
            [
                Request(
                    out=str(place),
                    command=(*train, "--out", str(out), *more),
                    environment={**meeting.environment(index), "ACCELERATE_USE_FSDP": "true"},
                    operation=None if index else operation,
                )
                for index, place in enumerate((out, out.with_name("other")))
            ]
        )

    return run


@pytest.fixture(scope="module")
def whole_run(share, tmp_path_factory) -> tuple[Path, int]:
    """A run of two processes from its start to its end, and how often it changed a file."""
    out = tmp_path_factory.mktemp("two") / "run"
    first, second = share(out)
    assert (first.code, second.code) == (0, 0), (first.said, second.said)
    assert first.said.count(f"finished at iteration {ITERATIONS}") == 1
    assert second.said == ""
    return out, first.operations


def test_two_processes_that_share_weights_make_the_run_of_one(whole_run, alone):
    run, _ = whole_run
    assert_run_of_one(run, alone)


def test_a_killed_worker_ends_the_run_in_one_line_and_it_resumes_with_the_same_weights(
    share, whole_run, tmp_path
):
    run, operations = whole_run
    out = tmp_path / "run"
    killed, other = share(out, operation=operations * 2 // 3)
    assert killed.code == -signal.SIGKILL
    assert other.code == 2
    assert other.said == (
        "error: process 1 of 2: another process of this run has ended or cannot be reached; "
        "checkpoints are intact, go on with --resume\n"
    )
    newest = latest_checkpoint(out)
    assert newest is not None
    assert newest.name < f"step-{ITERATIONS:06d}"
    first, second = share(out, "--resume")
    assert (first.code, second.code) == (0, 0), (first.said, second.said)
    expected, found = weights(run), weights(out)
    assert all((found[name] == weight).all() for name, weight in expected.items())


def test_weights_that_are_all_trained_are_refused_in_one_line(share, tmp_path):
    out = tmp_path / "run"
    replies = share(out, "policy.train=full")
    assert [reply.code for reply in replies] == [2, 2]
    said = "".join(reply.said for reply in replies)
    assert said.count("error:") == 1
    assert said.endswith(
        "error: policy.train: expected lora with FSDP, which shares the weights that are not "
        "trained, got full; set policy.train=lora, or launch with configs/accelerate/ddp.yaml\n"
    )
    assert not out.exists()


def test_accelerate_launches_processes_that_share_weights_with_the_settings_of_the_repository(
    tmp_path,
):
    launch, said = "accelerate.commands.launch", tmp_path / "said.py"
    said.write_text("import json, os\nprint(json.dumps(dict(os.environ)))\n")
    how = ["--config_file", str(CONFIG), "--main_process_port", str(free_port())]
    done = subprocess.run(
        [sys.executable, "-m", launch, *how, str(said)],
        cwd=tmp_path,
        env={**os.environ, **ONE_THREAD},
        capture_output=True,
        text=True,
        check=True,
    )
    places = [json.loads(line) for line in done.stdout.splitlines()]
    assert sorted(place["RANK"] for place in places) == ["0", "1"]
    for place in places:
        assert place["ACCELERATE_USE_FSDP"] == "true"
        assert place["FSDP_VERSION"] == "2"
