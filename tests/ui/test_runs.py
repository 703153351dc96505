import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from waiting import wait_for

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
(out / "config.yaml").write_text("policy: {model: tiny}")
first = 0
if "--resume" in arguments:
    first = json.loads((out / "status.json").read_text())["step"]
print("training " + " ".join(arguments))
for step in range(first, 1000):
    with (out / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, "reward_mean": step / 10, "kl": None}) + chr(10))
    status("running", step)
    if stop:
        status("stopped", step, f"stopped at iteration {step}; resume with --resume")
        sys.exit(143)
    time.sleep(0.02)
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("# A recipe\npolicy: {model: tiny}\n")
    return path


@pytest.fixture
def command(tmp_path):
    trainer = tmp_path / "trainer.py"
    trainer.write_text(TRAINER)
    return sys.executable, str(trainer)


def test_checkpoints_of_an_adapter_and_of_full_weights_are_offered(tmp_path):
    for place in ("a/step-000001/pytorch_lora_weights.safetensors", "a/step-000002/x.json"):
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).touch()
    (tmp_path / "b" / "step-000001" / "net").mkdir(parents=True)
    (tmp_path / "b" / "step-000001" / "net" / "diffusion_pytorch_model.safetensors").touch()
    runs = Runs(tmp_path)
    assert runs.run("a").adapters == runs.run("b").adapters == ("step-000001",)


@pytest.fixture
def runs(tmp_path, command):
    runs = Runs(tmp_path / "runs", command=command)
    yield runs
    for run in runs.all():
        if run.ours:
            with suppress(InputError):  # it may end between the two looks
                runs.stop(run.name)
    ended(runs)


def ended(runs):
    """Wait for the processes of runs whose records say that they have ended."""
    wait_for(lambda: not any(map(runs.processes.alive, runs.processes.names())))


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
    assert stopped.message == f"stopped at iteration {stopped.step}; resume with --resume"
    assert runs.run("a").resumable
    runs.resume("a")
    again = wait_for(lambda: (run := runs.run("a")).state == "running" and run)
    assert again.step >= stopped.step
    assert "--resume" in runs.log("a")


def test_a_run_finds_the_rankings_of_the_app_that_started_it(tmp_path, recipe, monkeypatch):
    monkeypatch.setenv("IMGALIGN_DATABASE", "sqlite:///of-the-terminal.db")
    command = (sys.executable, "-c", "import os; print(os.environ['IMGALIGN_DATABASE'])")
    for name, database in (("a", None), ("b", "sqlite:///of-the-app.db")):
        runs = Runs(tmp_path / "runs", command=command, database=database)
        runs.launch(recipe, name=name)
        ended(runs)
        assert runs.log(name).splitlines()[-1] == (database or "sqlite:///of-the-terminal.db")


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
        with pytest.raises(InputError, match="whoever started it can stop it"):
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


@pytest.mark.parametrize(
    "name", ["../evil", "a/b", ".hidden", "", "..", "a" * 201, "a\n", "\udcff"]
)
def test_a_name_cannot_point_outside_the_folder_of_runs(runs, recipe, name):
    for act in (runs.path, runs.stop, runs.resume, runs.log, runs.run):
        with pytest.raises(InputError, match="run name"):
            act(name)
    with pytest.raises(InputError, match="run name"):
        runs.launch(recipe, name=name)


@pytest.mark.parametrize("name", ["-x", "a" * 65, " a", "a ", "a;b", "a?b", "*"])
def test_a_new_name_is_plain(runs, recipe, name):
    with pytest.raises(InputError, match="run name"):
        runs.launch(recipe, name=name)
    assert runs.names() == []


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


DAMAGE = {
    "no JSON": "{",
    "no object": "[1]",
    "no run": "{}",
    "number as text": {"state": "running", "pid": "x", "step": 1, "total": 9},
    "unknown state": {"state": "asleep", "pid": 1, "step": 1, "total": 9},
    "process of any number": {"state": "running", "pid": 10**30, "step": 1, "total": 9},
    "every process": {"state": "running", "pid": -1, "step": 1, "total": 9},
    "more steps than a browser counts": {"state": "finished", "pid": 1, "step": 2**70, "total": 9},
    "deep": "[" * 100_000,
    "not UTF-8": b"\xff",
}


def write_status(folder, status):
    folder.mkdir(parents=True)
    content = json.dumps(status) if isinstance(status, dict) else status
    content = content.encode() if isinstance(content, str) else content
    (folder / "status.json").write_bytes(content)


FINISHED = {"state": "finished", "pid": 1, "step": 9, "total": 9}


@pytest.mark.parametrize("status", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_run_is_listed_with_its_reason_and_others_stay(runs, status):
    write_status(runs.folder / "bad", status)
    write_status(runs.folder / "good", FINISHED)
    found = {run.name: run for run in runs.all()}
    assert (found["good"].state, found["bad"].state) == ("finished", "damaged")
    assert "status.json" in found["bad"].message
    assert "\n" not in found["bad"].message
    json.dumps([run.step for run in found.values()])


def test_what_cannot_even_be_looked_into_is_damaged(runs):
    write_status(runs.folder / "good", FINISHED)
    (runs.folder / "folder" / "status.json").mkdir(parents=True)
    (runs.folder / "loop").mkdir()
    (runs.folder / "loop" / "status.json").symlink_to("status.json")
    write_status(runs.folder / os.fsdecode(b"caf\xe9"), FINISHED)
    write_status(runs.folder / ("x" * 220), FINISHED)
    (runs.folder / LAUNCHES).mkdir()
    (runs.folder / LAUNCHES / "lost.json").write_text("?")
    states = sorted(run.state for run in runs.all())
    assert states == ["damaged"] * 4 + ["damaged", "finished"]
    assert all(run.name.encode() for run in runs.all())


@pytest.mark.parametrize("name", ["my run", "Катя", "猫 2", "a+b&c", "-x", "it's 100 %"])
def test_a_run_of_any_name_is_shown(runs, name):
    write_status(runs.folder / name, FINISHED)
    (runs.folder / name / "samples").mkdir()
    (runs.folder / name / "samples" / "step-000001.png").write_bytes(b"png")
    (run,) = runs.all()
    assert (run.name, run.state) == (name, "finished")
    assert runs.sample(name, "step-000001.png").read_bytes() == b"png"


@pytest.mark.parametrize("name", ["my run", "Катя"])
def test_a_new_run_may_have_a_name_of_any_script(runs, recipe, name):
    assert started(runs, name, recipe).name == name


def test_stopping_twice_sends_one_signal(runs, recipe, tmp_path):
    """A second one would end a trainer that is still saving."""
    trainer = tmp_path / "counting.py"
    counting = "stop = []\nsignal.signal(signal.SIGTERM, lambda *_: stop.append(1))\n"
    assert counting in TRAINER
    count = "time.sleep(2); (out / 'signals').write_text(str(len(stop)))"
    trainer.write_text(TRAINER.replace("    if stop:\n", f"    if stop:\n        {count}\n"))
    counted = Runs(runs.folder, command=(sys.executable, str(trainer)))
    started(counted, "a", recipe)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: counted.stop("a"), range(4)))
    Runs(runs.folder).stop("a")  # another window, after a restart of the app
    assert (counted.run("a").state, counted.run("a").stopping) == ("stopping", True)
    wait_for(lambda: counted.run("a").state == "stopped")
    assert (runs.folder / "a" / "signals").read_text() == "1"
    counted.resume("a")
    wait_for(lambda: counted.run("a").state == "running")
    counted.stop("a")
    wait_for(lambda: not counted.run("a").ours)
    ended(counted)


def test_a_module_in_the_folder_of_the_app_is_not_executed(tmp_path, recipe, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "yaml.py").write_text("open('executed', 'w').close()\nraise SystemExit(3)\n")
    runs = Runs(tmp_path / "runs")
    runs.launch(recipe, name="a")
    run = wait_for(lambda: (run := runs.run("a")).state == "failed" and run)
    ended(runs)
    assert not (tmp_path / "executed").exists()
    assert "reward.path" in run.message
