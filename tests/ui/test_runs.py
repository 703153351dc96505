import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from imgalign.errors import InputError
from ui.runs import LAUNCHES, Runs

# A trainer that keeps the promises of a real one: status, metrics, and saving on SIGTERM.
TRAINER = """
import json, os, signal, sys, time
from pathlib import Path
arguments = sys.argv[1:]
out = Path(arguments[arguments.index("--out") + 1])
out.mkdir(parents=True, exist_ok=True)
def status(state, step, message=None):
    text = json.dumps({"state": state, "pid": os.getpid(), "step": step, "total": 1000,
                       "eta_seconds": 7.0, "message": message})
    (out / "new.tmp").write_text(text)
    (out / "new.tmp").replace(out / "status.json")
if "fail=yes" in arguments:
    print("error: reward.path: expected a reward model")
    sys.exit(2)
stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
(out / "config.yaml").write_text("model: tiny")
first = 0
if "--resume" in arguments:
    first = json.loads((out / "status.json").read_text())["step"]
print("training " + " ".join(arguments))
for step in range(first, 1000):
    with (out / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, "reward_mean": step / 10, "kl": None}) + chr(10))
    status("running", step)
    if stop:
        status("stopped", step, f"stopped at step {step}; resume with --resume")
        sys.exit(143)
    time.sleep(0.02)
"""


def wait_for(condition, *, seconds=60):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return value


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("# A recipe\nmodel: tiny\n")
    return path


@pytest.fixture
def command(tmp_path):
    trainer = tmp_path / "trainer.py"
    trainer.write_text(TRAINER)
    return sys.executable, str(trainer)


@pytest.fixture
def runs(tmp_path, command):
    runs = Runs(tmp_path / "runs", command=command)
    yield runs
    for run in runs.all():
        if run.ours:
            with suppress(InputError):  # it may end between the two looks
                runs.stop(run.name)
    for child in runs._children:
        child.wait(30)


def started(runs, name, recipe, **options):
    runs.launch(recipe, name=name, **options)
    return wait_for(lambda: (run := runs.run(name)).state == "running" and run)


def pid_of(runs, name):
    return json.loads((runs.folder / LAUNCHES / f"{name}.json").read_text())["pid"]


def test_a_run_is_launched_watched_stopped_and_resumed(runs, recipe):
    run = started(runs, "a", recipe, overrides=["iterations=3"])
    assert (run.ours, run.total, run.eta_seconds) == (True, 1000, 7.0)
    assert f"training {recipe} iterations=3 --out {runs.folder / 'a'}" in runs.log("a")
    wait_for(lambda: len(runs.metrics("a", ["reward_mean"])["reward_mean"]) > 2)
    runs.stop("a")
    stopped = wait_for(lambda: (run := runs.run("a")).state == "stopped" and run)
    wait_for(lambda: not runs.run("a").ours)
    assert stopped.message == f"stopped at step {stopped.step}; resume with --resume"
    assert runs.run("a").resumable
    runs.resume("a")
    again = wait_for(lambda: (run := runs.run("a")).state == "running" and run)
    assert again.step >= stopped.step
    assert "--resume" in runs.log("a")


def test_runs_are_found_on_disk_by_an_app_that_did_not_start_them(runs, recipe):
    started(runs, "a", recipe)
    later = Runs(runs.folder)
    assert [(run.name, run.state, run.ours) for run in later.all()] == [("a", "running", True)]
    later.stop("a")
    wait_for(lambda: later.run("a").state == "stopped")


def test_the_run_that_changed_last_comes_first(runs):
    for age, name in enumerate(("new", "older", "oldest")):
        folder = runs.folder / name
        folder.mkdir(parents=True)
        (folder / "status.json").write_text("{}")
        for path in (folder / "status.json", folder):
            os.utime(path, (1e9 - age, 1e9 - age))
    assert runs.names() == ["new", "older", "oldest"]


def test_a_killed_run_reads_as_stopped(runs, recipe):
    started(runs, "a", recipe)
    os.kill(pid_of(runs, "a"), signal.SIGKILL)
    run = wait_for(lambda: (run := runs.run("a")).state == "stopped" and run)
    assert run.resumable
    assert not run.ours


def test_a_process_of_somebody_else_is_never_signalled(runs, recipe):
    """The process number of a finished launch may belong to anything by now."""
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        launches = runs.folder / LAUNCHES
        launches.mkdir(parents=True)
        launch = {"pid": stranger.pid, "birth": "another boot/123", "command": ["x"]}
        (launches / "a.json").write_text(json.dumps(launch))
        status = {"state": "running", "pid": stranger.pid, "step": 1, "total": 9}
        (runs.folder / "a").mkdir()
        (runs.folder / "a" / "status.json").write_text(json.dumps(status))
        assert not runs.run("a").ours
        with pytest.raises(InputError, match="where it was started"):
            runs.stop("a")
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_run_that_fails_at_once_says_why(runs, recipe):
    runs.launch(recipe, name="a", overrides=["fail=yes"])
    run = wait_for(lambda: (run := runs.run("a")).state == "failed" and run)
    assert run.message == "error: reward.path: expected a reward model"
    assert not run.resumable


@pytest.mark.parametrize("name", ["../evil", "a/b", ".hidden", "", "-x", "a" * 65, "a\n"])
def test_a_name_cannot_point_outside_the_folder_of_runs(runs, recipe, name):
    for act in (runs.path, runs.stop, runs.resume, runs.log, runs.run):
        with pytest.raises(InputError, match="run name"):
            act(name)
    with pytest.raises(InputError, match="run name"):
        runs.launch(recipe, name=name)


@pytest.mark.parametrize("override", ["--out=/tmp", "-x", "iterations", "=3", "a b=3", ""])
def test_an_override_is_never_an_option(runs, recipe, override):
    with pytest.raises(InputError, match=r"expected section\.key=value"):
        runs.launch(recipe, name="a", overrides=[override])
    assert runs.names() == []


def test_a_name_that_is_taken_is_refused_and_a_free_one_is_offered(runs, recipe):
    assert runs.free_name("recipe") == "recipe"
    started(runs, "recipe", recipe)
    with pytest.raises(InputError, match="choose another"):
        runs.launch(recipe, name="recipe")
    assert runs.free_name("recipe") == "recipe-2"


@pytest.mark.parametrize("file", ["../status.json", "step-1.txt", "step-000001.png/..", ""])
def test_a_sample_cannot_be_any_other_file(runs, file):
    folder = runs.folder / "a" / "samples"
    folder.mkdir(parents=True)
    (folder / "step-000001.png").write_bytes(b"png")
    (folder / "step-1.txt").write_bytes(b"text")
    assert runs.sample("a", "step-000001.png").read_bytes() == b"png"
    with pytest.raises(InputError):
        runs.sample("a", file)


def test_of_a_progress_bar_only_the_last_state_is_in_the_log(runs):
    (runs.folder / LAUNCHES).mkdir(parents=True)
    (runs.folder / LAUNCHES / "a.log").write_bytes(b"one\r\ntwo 1%\rtwo 50%\rtwo 99%\r\nthree")
    assert runs.log("a") == "one\ntwo 99%\nthree"


def test_a_reward_model_is_no_run_but_a_reward(runs):
    folder = runs.folder / "reward"
    folder.mkdir(parents=True)
    (folder / "contract.json").write_text("{}")
    (folder / "config.yaml").write_text("a: 1")
    assert runs.names() == []
    assert runs.rewards() == [folder]
