"""Progress of long work on standard error: bars in a terminal, plain lines in a log.

`progress` is for one task with a known share done, `ProgressLine` for the iterations of a run with
progress inside the current one, `working` for a task of unknown length.
"""

import io
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO, cast

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

STDERR = 2
QUIET_SECONDS = 10.0
"""A log gets a line at least this often while something is being done."""


@contextmanager
def working(doing: str, *, shown: bool = True) -> Iterator[None]:
    """Show a spinner with the elapsed time in a terminal."""
    console = _stderr()
    if not (shown and console.is_terminal):
        yield
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        bar.add_task(doing, total=None)
        yield


@contextmanager
def progress(doing: str) -> Iterator[Callable[[float], None]]:
    """A progress bar on standard error; call the yielded function with the share done, in [0, 1].

    Without a terminal it prints lines: at the first call, at every tenth, and at least every ten
    seconds.
    """
    console = _stderr()
    if not console.is_terminal:
        yield Lines(doing)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=False),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(doing, total=1.0)
        yield lambda share: bar.update(task, completed=share)


class Lines:
    """Progress as lines of text: at the first call, for each tenth or every ten seconds."""

    def __init__(self, doing: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.doing = doing
        self.clock = clock
        self.tenths = -1
        self.started = self.said = clock()

    def __call__(self, share: float) -> None:
        """Print a line if it is time for one."""
        now, tenths = self.clock(), int(share * 10 + 1e-9)
        if tenths <= self.tenths and now - self.said < QUIET_SECONDS:
            return
        self.tenths, self.said = tenths, now
        left = (now - self.started) * (1 / share - 1) if share > 0 else None
        _write(f"{self.doing}: {100 * share:.0f} %{_left(left) if share < 1 else ''}")


class ProgressLine:
    """Finished iterations: a bar with the time left, or plain lines without a terminal.

    A second bar, or a line every ten seconds, shows progress inside the current iteration. `unit`
    is the singular of what is counted.
    """

    def __init__(
        self,
        total: int,
        *,
        done: int = 0,
        unit: str = "iteration",
        silent: bool = False,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.console = Console(quiet=True, force_terminal=False) if silent else console or _stderr()
        self.total = total
        self.done = done
        self.unit = unit
        self.clock = clock
        self.said = clock()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            TextColumn("{task.fields[numbers]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._task = self._bar.add_task("training", total=total, completed=done, numbers="")
        self._inside: TaskID | None = None
        self._doing = ""

    def advance(self, done: int, values: Mapping[str, float], *, eta_seconds: float) -> None:
        """Show how many iterations are done, and a few metrics."""
        self.done = done
        numbers = "  ".join(f"{key} {value:.4g}" for key, value in values.items())
        if self.console.is_terminal:
            self._bar.update(self._task, completed=done, numbers=numbers)
        else:
            self.say(f"{self.unit} {done}/{self.total}  {numbers}{_left(eta_seconds)}")

    def part(self, doing: str, done: int, total: int, unit: str) -> None:
        """Show progress of one part of the current iteration.

        Example: `part("sampling", 32, 64, "images")`.
        """
        if self.console.is_terminal:
            self._show_part(doing, done, total, unit)
        elif self.clock() - self.said >= QUIET_SECONDS:
            where = f"in {self.unit} {min(self.done + 1, self.total)}/{self.total}"
            self.say(f"{where}: {doing}, {done} of {total} {unit}")

    def _show_part(self, doing: str, done: int, total: int, unit: str) -> None:
        description = f"  {doing}"
        if self._inside is None or doing != self._doing:
            if self._inside is not None:
                self._bar.remove_task(self._inside)
            self._inside = self._bar.add_task(description, total=total, numbers=unit)
            self._doing = doing
        self._bar.update(self._inside, completed=done, total=total)

    def say(self, text: str) -> None:
        """Print one line above the bar."""
        self.said = self.clock()
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> "ProgressLine":
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._inside is not None:
            self._bar.remove_task(self._inside)
        self._bar.stop()


class Stderr(io.TextIOBase):
    """Standard error that ignores a closed pipe or terminal, so that output never ends the work."""

    def __init__(self) -> None:
        # The current one: a progress bar replaces it by a stream that writes to this.
        self.stream = sys.stderr

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Encoding of the stream."""
        return self.stream.encoding

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self.stream.isatty()

    def write(self, text: str) -> int:
        """Write; a closed stream is ignored."""
        try:
            self.stream.write(text)
        except OSError:
            send_nowhere(STDERR)
        return len(text)

    def flush(self) -> None:
        """Flush; a closed stream is ignored."""
        if self.stream.closed:  # also where it is closed before this is dropped, which flushes
            return
        try:
            self.stream.flush()
        except OSError:
            send_nowhere(STDERR)


def send_nowhere(descriptor: int) -> None:
    """Redirect a descriptor to the null device."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _stderr() -> Console:
    return Console(file=cast(TextIO, Stderr()))


def _write(line: str) -> None:
    stream = Stderr()
    stream.write(f"{line}\n")
    stream.flush()


def _left(seconds: float | None) -> str:
    """Example: ", 1.5 min left"."""
    return "" if seconds is None else f", {seconds / 60:.1f} min left"
