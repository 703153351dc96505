"""Claims: something moves inside an iteration too; a log is not flooded."""

import io
import sys

from rich.console import Console

from imgalign.runs.progress import Lines, ProgressLine, Stderr, progress, working


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def log() -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, force_terminal=False), text


def test_a_log_gets_a_line_at_first_for_each_tenth_and_every_ten_seconds(capsys):
    clock = Clock()
    lines = Lines("generating", clock=clock)
    for seconds, share in [(1, 0.01), (11, 0.02), (12, 0.03), (60, 0.1), (61, 0.11), (600, 1.0)]:
        clock.now = seconds
        lines(share)
    assert capsys.readouterr().err.splitlines() == [
        "generating: 1 %, 1.6 min left",
        "generating: 2 %, 9.0 min left",
        "generating: 10 %, 9.0 min left",
        "generating: 100 %",
    ]


def test_without_a_terminal_progress_is_one_plain_line_per_iteration():
    console, text = log()
    with ProgressLine(4, console=console) as line:
        line.advance(1, {"reward": 0.25, "kl": 1.0}, eta_seconds=90.0)
    assert text.getvalue() == "iteration 1/4  reward 0.25  kl 1, 1.5 min left\n"


def test_a_long_iteration_says_in_a_log_what_it_does():
    console, text = log()
    clock = Clock()
    with ProgressLine(4, done=2, console=console, clock=clock) as line:
        line.part("sampling", 0, 64, "images")  # too soon
        clock.now = 11
        line.part("sampling", 32, 64, "images")
        clock.now = 12
        line.part("learning", 0, 12, "parts")  # just said something
        clock.now = 25
        line.part("learning", 7, 12, "parts")
    assert text.getvalue().splitlines() == [
        "in iteration 3/4: sampling, 32 of 64 images",
        "in iteration 3/4: learning, 7 of 12 parts",
    ]


def test_on_a_terminal_a_bar_shows_the_run_and_another_the_iteration():
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=120)
    with ProgressLine(4, done=1, console=console) as line:
        line.part("sampling", 32, 64, "images")
        line._bar.refresh()
        line.advance(2, {"reward": 0.25}, eta_seconds=90.0)
        line.part("learning", 3, 12, "parts")
        line._bar.refresh()
    shown = text.getvalue()
    assert "2/4" in shown
    assert "reward 0.25" in shown
    assert "32/64" in shown
    assert "3/12" in shown


def test_a_log_hears_of_the_first_step_and_of_nothing_that_was_refused_before(capsys):
    with progress("generating") as on_progress, working("loading the model"):
        assert capsys.readouterr().err == ""
        on_progress(0.01)
    assert capsys.readouterr().err.startswith("generating: 1 %, ")


def test_a_bar_on_a_terminal_writes_each_line_once(monkeypatch):
    # A bar puts something in the place of standard error that writes to what stood there before.
    class Terminal(io.StringIO):
        encoding = "utf-8"

        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with ProgressLine(4) as progress:
        progress.say("a line of the run")
        sys.stderr.write("a line of somebody else\n")
    assert terminal.getvalue().count("a line of the run") == 1
    assert terminal.getvalue().count("a line of somebody else") == 1


def test_a_stream_that_was_closed_before_it_is_flushed_without_a_word(monkeypatch):
    with monkeypatch.context() as now:
        now.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO()))
        shown = Stderr()
        sys.stderr.close()
    shown.flush()
    shown.close()  # as where it is dropped
