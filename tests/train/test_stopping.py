"""Claims: the first signal is answered at once and saves; no second one breaks that; a closed
terminal or a broken pipe costs nothing."""

import os
import pty
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from walk_runs import start

from imgalign.runs.checkpoint import checkpoints, step_of, verify
from imgalign.runs.status import read_status
from imgalign.train import stopping
from imgalign.train.stopping import BestSoFar

ROOT = Path(__file__).parents[2]
CHILD = ROOT / "tests" / "stand_ins" / "train_child.py"
ANSWER = "stopping after this batch; saving"


@contextmanager
def child(out, *arguments, **options):
    """A run in a process of its own, which never outlives the test."""
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    process = subprocess.Popen(
        [sys.executable, str(CHILD), str(out), *arguments],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        **settings,
    )
    deadline = threading.Timer(120, process.kill)
    deadline.start()
    try:
        with process:
            yield process
            process.kill()
    finally:
        process.kill()
        deadline.cancel()


def read_until(stream, text):
    for line in stream:
        if text in line:
            return
    pytest.fail(f"the child ended without {text!r}")


def assert_saved_and_stopped(out):
    status = read_status(out)
    assert status is not None
    assert status.state == "stopped"
    newest = checkpoints(out)[-1]
    verify(newest)
    assert step_of(newest) == status.step > 0
    assert not list(out.glob(".tmp-*"))


@pytest.mark.parametrize(
    ("signals", "code"),
    [
        ([signal.SIGTERM, signal.SIGINT, signal.SIGTERM], 143),
        ([signal.SIGHUP, signal.SIGTERM, signal.SIGHUP], 129),
        ([signal.SIGINT] * 6, 130),  # a key that is held
    ],
)
def test_signals_that_follow_the_first_do_not_break_the_save(tmp_path, signals, code):
    with child(tmp_path / "run", "slowly") as process:
        read_until(process.stdout, "step 2")
        for number in signals:
            process.send_signal(number)
            time.sleep(0.03)
        _, said = process.communicate(timeout=120)
    assert process.returncode == code
    assert_saved_and_stopped(tmp_path / "run")
    assert said.count(ANSWER) == 1


def test_the_first_signal_is_answered_while_the_batch_still_goes_on(tmp_path):
    with child(tmp_path / "run") as process:
        read_until(process.stdout, "step 5")  # it waits here for ten minutes
        process.send_signal(signal.SIGTERM)
        read_until(process.stderr, ANSWER)
        assert process.poll() is None


def test_a_closed_terminal_saves_and_says_stopped(tmp_path):
    # The process is the leader of the terminal's session, as a shell's job is.
    parent, terminal = pty.openpty()
    program = (
        "import fcntl, os, sys, termios\n"
        "fcntl.ioctl(2, termios.TIOCSCTTY, 0)\n"
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(CHILD), str(tmp_path / "run"), "slowly"],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TERM": "xterm"},
        start_new_session=True,
    )
    deadline = threading.Timer(120, process.kill)
    deadline.start()
    try:
        os.close(terminal)
        seen = b""
        while b"step 2" not in seen:
            seen += os.read(parent, 1000)
        os.close(parent)
        process.wait(120)
    finally:
        deadline.cancel()
        process.kill()
        process.wait()
    assert process.returncode == 129
    assert_saved_and_stopped(tmp_path / "run")


def test_a_reader_of_the_output_that_died_of_the_same_ctrl_c_costs_nothing(tmp_path):
    with child(tmp_path / "run", "slowly") as process:
        read_until(process.stdout, "step 2")
        process.stderr.close()  # as `2>&1 | tee log` does
        process.send_signal(signal.SIGINT)
        read_until(process.stdout, "saving")
        process.wait(120)
    assert process.returncode == 130
    assert_saved_and_stopped(tmp_path / "run")


def test_nohup_stays_in_force(tmp_path):
    def ignore():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    with child(tmp_path / "run", "slowly", preexec_fn=ignore) as process:
        read_until(process.stdout, "step 2")
        process.send_signal(signal.SIGHUP)
        read_until(process.stdout, "step 9")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=120)
    assert process.returncode == 143


def test_ctrl_c_for_the_third_time_ends_at_once_and_leaves_what_was_saved(tmp_path, monkeypatch):
    monkeypatch.setattr(stopping, "PATIENCE_SECONDS", 0.0)

    def on_step(step, values):
        if step == 3:
            for _ in range(3):
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        start(tmp_path / "run", on_step=on_step)
    assert [path.name for path in checkpoints(tmp_path / "run")] == ["step-000002"]
    status = read_status(tmp_path / "run")
    assert status is not None
    assert status.state == "stopped"


def test_no_number_of_other_signals_insists(tmp_path, monkeypatch):
    monkeypatch.setattr(stopping, "PATIENCE_SECONDS", 0.0)

    def on_step(step, values):
        if step == 3:
            for _ in range(5):
                signal.raise_signal(signal.SIGTERM)

    assert start(tmp_path / "run", on_step=on_step).step == 3


def test_a_better_score_that_is_not_allowed_is_known_and_does_not_count():
    best = BestSoFar()
    best.add(0, 1.0, allowed=True)
    best.add(2, 0.5, allowed=False)
    assert not best.refused
    best.add(4, 2.0, allowed=False)
    assert (best.step, best.refused) == (0, True)


def test_one_low_measurement_of_the_best_images_is_no_fall_for_good():
    best = BestSoFar()
    fell = []
    for drop in (None, 1.5, None, 1.5, 1.6):
        best.note_drop(drop)
        best = BestSoFar.from_state(best.state_dict())
        fell.append(best.fell_for_good)
    assert fell == [False, False, False, False, True]
