"""The line of runs, with processes that keep the promises of a trainer."""

import json
import sys
import threading
from contextlib import suppress

import pytest
from waiting import wait_for

from imgalign.errors import InputError
from ui import monitor, run_queue, starting
from ui.forms import Form, form_of
from ui.run_queue import QUEUE, RunQueue, attended
from ui.runs import Runs

# Trains until it is told to end, by a file or by a signal.
TRAINER = """
import json, os, signal, sys, time
from pathlib import Path
out = Path(sys.argv[sys.argv.index("--out") + 1])
out.mkdir(parents=True, exist_ok=True)
(out / "config.yaml").write_text("seed: 1")
def status(state):
    text = json.dumps({"state": state, "pid": os.getpid(), "step": 1, "total": 9})
    (out / "new.tmp").write_text(text)
    (out / "new.tmp").replace(out / "status.json")
def stop(*_):
    status("stopped")
    os._exit(143)
signal.signal(signal.SIGTERM, stop)
status("running")
end = out.parent / ("end " + out.name)
while not end.exists():
    time.sleep(0.02)
if end.read_text() == "crash":
    os._exit(1)
status("finished")
"""
FORM = Form(recipe="mine", overrides="reward.path=storybook")


@pytest.fixture
def queue(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "mine.yaml").write_text("# Mine.\n")
    (tmp_path / "trainer.py").write_text(TRAINER)
    queue = line(tmp_path)
    yield queue
    for run in queue.runs.all():
        with suppress(InputError):
            queue.runs.stop(run.name)
    wait_for(lambda: not any(map(queue.runs.processes.alive, queue.runs.processes.names())))


def line(folder, **options):
    """The line as an app sees it that was just started."""
    command = (sys.executable, str(folder / "trainer.py"))
    return RunQueue(Runs(folder / "runs", command=command, **options))


def begin(queue, *names):
    for name in names:
        starting.begin(queue, FORM, name)


def names(queue):
    return [each.name for each in queue.all()]


def running(queue, name):
    wait_for(lambda: queue.runs.run(name).state == "running")


def end(queue, name, how=""):
    (queue.runs.folder / f"end {name}").write_text(how)
    wait_for(lambda: not queue.runs.processes.alive(name))


def test_a_run_starts_at_once_and_the_next_ones_wait_for_its_end(queue, tmp_path):
    begin(queue, "a", "b", "c")
    running(queue, "a")
    assert names(queue) == ["b", "c"]
    assert queue.advance() is None
    end(queue, "a")
    later = line(tmp_path)  # the app was restarted meanwhile
    assert later.advance() == "b"
    assert names(later) == ["c"]
    assert form_of(later.runs, "b") == FORM
    running(queue, "b")
    assert queue.runs.run("a").state == "finished"


@pytest.mark.parametrize("how", ["crash", "stop"])
def test_after_a_run_that_crashed_or_was_stopped_the_next_one_starts(queue, how):
    begin(queue, "a", "b")
    running(queue, "a")
    if how == "crash":
        end(queue, "a", "crash")
    else:
        queue.runs.stop("a")
        wait_for(lambda: not queue.runs.processes.alive("a"))
    assert queue.advance() == "b"


def test_the_next_one_starts_by_itself_while_the_app_is_there(queue):
    begin(queue, "a", "b")
    running(queue, "a")
    with attended(queue):
        end(queue, "a")
        wait_for(lambda: "b" in queue.runs.names())
        running(queue, "b")
    assert names(queue) == []


def test_an_unforeseen_error_is_logged_and_does_not_end_the_line(monkeypatch, caplog):
    monkeypatch.setattr(run_queue, "LOOK_SECONDS", 0.01)
    tried = []

    class Wrong:
        def advance(self) -> str | None:
            tried.append(1)
            raise ValueError("unforeseen")

    with attended(Wrong()):
        wait_for(lambda: len(tried) > 2)
    assert "unforeseen" in caplog.text


def test_two_apps_that_look_at_once_start_one_run(queue, tmp_path):
    begin(queue, "a", "b", "c")
    running(queue, "a")
    end(queue, "a")
    begun = []
    apps = [line(tmp_path) for _ in range(4)]
    threads = [threading.Thread(target=lambda app=app: begun.append(app.advance())) for app in apps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(begun, key=str) == [None, None, None, "b"]
    assert names(queue) == ["c"]


def test_runs_that_wait_can_change_places_leave_and_start_at_once(queue):
    begin(queue, "a", "b", "c", "d")
    queue.move("d", -1)
    assert names(queue) == ["b", "d", "c"]
    queue.move("b", -1)  # it is the first already
    queue.move("b", 1)
    assert names(queue) == ["d", "b", "c"]
    queue.remove("b")
    assert names(queue) == ["d", "c"]
    queue.start_now("c")
    running(queue, "a")
    running(queue, "c")
    assert names(queue) == ["d"]
    for act in (queue.remove, queue.start_now):
        with pytest.raises(InputError, match="does not wait"):
            act("c")


def test_a_name_that_waits_is_taken(queue):
    begin(queue, "a", "b")
    with pytest.raises(InputError, match="b: waits already; choose another name"):
        begin(queue, "b")
    with pytest.raises(InputError, match="there is a run of that name"):
        begin(queue, "a")
    begin(queue, "mine")
    assert queue.free_name("mine") == "mine-2"


def test_bad_settings_never_wait(queue):
    begin(queue, "a")
    with pytest.raises(InputError, match="expected section"):
        starting.begin(queue, Form(recipe="mine", overrides="--out=/tmp"), "b")
    assert names(queue) == []
    assert queue.runs.names() == ["a"]


def test_what_cannot_start_when_it_is_its_turn_is_held_with_its_reason_and_others_go_on(
    queue, tmp_path
):
    reward = tmp_path / "runs" / "reward"
    reward.mkdir(parents=True)
    (reward / "contract.json").write_text("{}")
    begin(queue, "a")
    starting.begin(queue, Form(recipe="mine", reward=str(reward)), "b")
    begin(queue, "c")
    running(queue, "a")
    (reward / "contract.json").unlink()
    end(queue, "a")
    assert queue.advance() == "c"
    assert names(queue) == ["b"]
    assert "expected the folder of a reward model" in queue.all()[0].held
    assert not (queue.runs.folder / "b").exists()
    (reward / "contract.json").write_text("{}")
    queue.start_now("b")
    running(queue, "b")


def test_a_stopped_run_is_resumed_in_its_turn(queue):
    begin(queue, "a")
    running(queue, "a")
    queue.runs.stop("a")
    wait_for(lambda: not queue.runs.processes.alive("a"))
    begin(queue, "b")
    running(queue, "b")
    queue.add("a", None)
    assert queue.advance() is None
    shown = monitor.view(queue.runs, "a", queue)
    assert [(run["name"], run["state"]) for run in shown["runs"]] == [
        ("b", "running"),
        ("a", "stopped"),
    ]
    assert shown["detail"]["waits"]["place"] == 1
    end(queue, "b")
    assert queue.advance() == "a"
    with pytest.raises(InputError, match="nothing to resume"):
        queue.add("b", None)


@pytest.mark.parametrize("launched", [True, False])
def test_an_app_that_ended_while_it_started_a_run_does_not_start_it_twice(queue, launched):
    begin(queue, "a", "b")
    running(queue, "a")
    end(queue, "a")
    (waiting,) = json.loads((queue.runs.folder / QUEUE).read_text())
    if launched:
        queue.advance()
        running(queue, "b")
        end(queue, "b")
        wait_for(lambda: queue.runs.run("b").state == "finished")
        (queue.runs.folder / "end b").unlink()
    (queue.runs.folder / QUEUE).write_text(json.dumps([{**waiting, "begun": True}]))
    assert queue.advance() == "b"
    assert names(queue) == []
    assert queue.runs.processes.alive("b") is not launched


def test_an_app_of_another_store_or_folder_leaves_a_run_waiting(queue, tmp_path, monkeypatch):
    begin(queue, "a", "b")
    running(queue, "a")
    end(queue, "a")
    other = line(tmp_path, database="postgresql://me:secret@host/name")
    assert other.advance() is None
    shown = monitor.view(other.runs, "b", other)
    assert f"only the app in {tmp_path} on sqlite" in shown["detail"]["waits"]["held"]
    starting.begin(other, FORM, "c")
    assert "secret" not in (queue.runs.folder / QUEUE).read_text()
    monkeypatch.chdir(tmp_path / "configs")
    assert queue.advance() is None


@pytest.mark.parametrize("text", ["{", "[1]", '[{"name": "a"}]', "null", "\udcff"])
def test_a_damaged_line_is_said_and_hides_no_run(queue, text):
    begin(queue, "a")
    (queue.runs.folder / QUEUE).write_bytes(text.encode("utf-8", "surrogateescape"))
    for act in (queue.all, lambda: queue.remove("a"), lambda: begin(queue, "b")):
        with pytest.raises(InputError, match="damaged, expected"):
            act()
    shown = monitor.view(queue.runs, "a", queue)
    assert shown["detail"]["name"] == "a"
    assert "delete it to go on" in shown["queue_failed"]


def test_those_that_wait_stand_before_the_run_they_wait_for(queue):
    begin(queue, "a", "b", "c")
    shown = monitor.view(queue.runs, None, queue)
    assert [run["name"] for run in shown["runs"]] == ["c", "b", "a"]
    assert shown["detail"]["name"] == "a"
    waiting = monitor.view(queue.runs, "c", queue)["detail"]
    assert (waiting["state"], waiting["blank"]) == ("waiting", True)
    assert waiting["waits"] == {
        "place": 2,
        "of": 2,
        "held": "",
        "what": "from mine with reward.path=storybook",
    }
    assert set(monitor.view(queue.runs, "a", queue)["detail"]) - {
        *("changed", "adapters", "best")
    } <= set(waiting)
    assert queue.form_of("c") == FORM
    json.dumps(shown)


def test_a_failed_run_that_waits_to_be_resumed_does_not_give_way_to_a_new_one(queue):
    begin(queue, "a")
    folder = queue.runs.path("b")
    folder.mkdir()
    (folder / "config.yaml").write_text("seed: 1")
    failed = {"state": "failed", "pid": 1, "step": 0, "total": 9, "message": "it failed"}
    (folder / "status.json").write_text(json.dumps(failed))
    queue.add("b", None)
    with pytest.raises(InputError, match="b: waits already; choose another name"):
        begin(queue, "b")
    assert (folder / "config.yaml").exists()
