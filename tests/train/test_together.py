"""Claims: `imgalign train` in two real processes makes the run of one, writes and says each thing
once, and after a worker was killed ends with one line and resumes with the same weights."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pair_runs import ITERATIONS, assert_run_of_one, train_on_pairs, weights
from processes import ONE_THREAD, Processes, free_port
from source_tree import ROOT
from waiting import wait_for
from walk_runs import measured

from imgalign.cli.main import main
from imgalign.runs.checkpoint import checkpoints
from imgalign.runs.status import read_status

CONFIG = ROOT / "configs" / "accelerate" / "ddp.yaml"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def train(tiny_pipeline_folder, tmp_path_factory) -> list[str]:
    """A command that trains on six pairs."""
    pairs = tmp_path_factory.mktemp("pairs")
    return ["imgalign", *train_on_pairs(pairs, tiny_pipeline_folder)]


@pytest.fixture(scope="module")
def run(train, tmp_path_factory) -> Path:
    """Of two processes of a launcher, from its start to its end."""
    out = tmp_path_factory.mktemp("two") / "run"
    ends = Processes(["-m", *train, "--out", out], folder=ROOT).ends()
    assert [code for code, _, _ in ends] == [0, 0], ends
    (_, said, told), (_, other, others) = ends
    assert said.startswith(f"{out}: finished at iteration {ITERATIONS}")
    assert said.count("\n") == 1
    assert told.count(f"iteration {ITERATIONS}/{ITERATIONS}") == 1
    assert other == others == ""
    return out


def test_two_processes_make_the_run_of_one(run, train, tmp_path):
    out = tmp_path / "run"
    assert main([*train[1:], "--out", str(out)]) == 0
    assert_run_of_one(run, out)


@pytest.mark.parametrize("index", [0, 1])
def test_a_killed_worker_ends_the_run_in_one_line_and_it_resumes_with_the_same_weights(
    run, train, servers, tmp_path, index
):
    out = tmp_path / "run"
    processes = servers.together([*train, "--out", out], folder=ROOT)
    wait_for(lambda: len(checkpoints(out)) >= 2, seconds=120)
    processes.each[index].kill()
    ends = processes.ends()
    assert ends[index][0] == -signal.SIGKILL
    code, said, told = ends[1 - index]
    assert (code, said) == (2, "")
    assert told.splitlines()[-1] == (
        f"error: process {1 - index} of 2: another process of this run has ended or cannot be "
        "reached; checkpoints are intact, go on with --resume"
    )
    assert "Traceback" not in told
    if index == 1:
        assert (status := read_status(out)) is not None
        assert status.state == "failed"
    ends = servers.together([*train, "--out", out, "--resume"], folder=ROOT).ends()
    assert [code for code, _, _ in ends] == [0, 0], ends
    expected, found = weights(run), weights(out)
    assert all((found[name] == weight).all() for name, weight in expected.items())


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--out", "{run}"], "{run}: already holds a run"),
        (["run.iteration=3"], "iteration"),
        (["data.rankings_per_iteration=1"], "expected 2 to 4, the number of rankings"),
        (["run.device=cuda:0"], "run.device: expected auto, cuda or cpu with 2 processes"),
    ],
)
def test_what_no_process_can_do_is_said_by_one_of_them(run, train, servers, tmp_path, more, line):
    own = [each.format(run=run) for each in more]
    own += [] if "--out" in own else ["--out", str(tmp_path / "run")]
    ends = servers.together([*train, *own], folder=tmp_path).ends()
    assert [code for code, _, _ in ends] == [2, 2], ends
    said = "".join(told for _, _, told in ends)
    assert said.count("error:") == 1, said
    assert line.format(run=run) in said


def launched(train: list[str], *, number: int, out: Path) -> dict[str, Any]:
    """The weights of a run of so many processes of accelerate's launcher."""
    how = ["--config_file", str(CONFIG), "--main_process_port", str(free_port())]
    how += ["--num_processes", str(number)]
    done = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", *how, "-m", *train, "--out", str(out)],
        cwd=out.parent,
        env={**os.environ, **ONE_THREAD},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"finished at iteration {ITERATIONS}") == 1
    return weights(out)


def test_accelerate_launches_the_processes(train, run, tmp_path):
    found = launched(train, number=2, out=tmp_path / "run")
    assert all((found[name] == weight).all() for name, weight in weights(run).items())


def test_one_process_of_the_launcher_changes_no_bit(train, tmp_path):
    found = launched(train, number=1, out=tmp_path / "launched")
    plain = tmp_path / "plain"
    command = [sys.executable, "-m", *train, "--out", str(plain)]
    subprocess.run(command, env={**os.environ, **ONE_THREAD}, check=True, capture_output=True)
    expected = weights(plain)
    assert found.keys() == expected.keys()
    assert all((found[name] == weight).all() for name, weight in expected.items())
    assert measured(tmp_path / "launched") == measured(plain)
