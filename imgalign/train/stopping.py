"""Early stopping: by a signal, or by what is measured on held-out prompts."""

import errno
import math
import os
import signal
import termios
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from types import FrameType, TracebackType
from typing import Any, Literal, TypeAlias

from imgalign.errors import CheckpointError
from imgalign.runs.progress import STDERR, send_nowhere

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INSISTENCE = 3
"""The third Ctrl-C ends the run at once."""
PATIENCE_SECONDS = 2.0
"""Signals within this time of the first count as one request: a double click, a held key, a closing
terminal that sends several."""
STDOUT = 1


class StopRequest:
    """While entered, the first SIGINT, SIGTERM or SIGHUP asks for a stop, and is answered at once.

    Further ones change nothing, so that none breaks the save. Only who presses Ctrl-C for the third
    time, and not within `PATIENCE_SECONDS`, gets a KeyboardInterrupt. A SIGHUP that was ignored
    before (nohup) stays so. Does nothing outside the main thread, where Python has no handlers.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._count = 0
        self._since = 0.0
        self._previous: dict[signal.Signals, Any] = {}

    def __call__(self) -> bool:
        """Whether a stop has been asked for."""
        return self.signal is not None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        if number == signal.SIGHUP:
            leave_dead_terminal()
        if self.signal is None:
            self.signal, self._since = signal.Signals(number), time.monotonic()
            tell("stopping after this batch; saving")
        elif number == signal.SIGINT:
            patient = time.monotonic() - self._since < PATIENCE_SECONDS
            if self._count >= INSISTENCE and not patient:
                raise KeyboardInterrupt
            tell("still saving; Ctrl-C in a while ends at once, without what was not saved yet")

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for each in SIGNALS:
                if each is signal.SIGHUP and signal.getsignal(each) is signal.SIG_IGN:
                    continue
                self._previous[each] = signal.signal(each, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()


def tell(text: str) -> None:
    """Write a line to standard error from a signal handler, where Python's streams may be busy."""
    with suppress(OSError):
        os.write(STDERR, f"{text}\n".encode())


def leave_dead_terminal() -> None:
    """Send output nowhere where its terminal was closed, so that no line that is printed fails."""
    for descriptor in (STDOUT, STDERR):
        try:
            termios.tcgetattr(descriptor)
        except termios.error as error:
            if error.args[0] != errno.EIO:  # no terminal at all: a file or a pipe
                continue
            send_nowhere(descriptor)


Criterion: TypeAlias = Literal["held_out_reward", "held_out_preference_loss"]
"""The metric that decides which weights of a run are best."""

FOR_GOOD = 2
"""Measurements in a row: one of a few held-out rankings may be low by chance."""


@dataclass(slots=True)
class BestSoFar:
    """The best held-out reward or loss of a run, and how long ago it was.

    Example: `BestSoFar(step=40, score=0.61, since=2)`: step 40 was best, two measurements since.
    """

    step: int | None = None
    score: float | None = None
    """The reward, or minus the loss."""
    since: int = 0
    """Measurements since the best one."""
    criterion: Criterion = "held_out_reward"
    chosen_drop: float | None = None
    """How much less likely the best of held-out rankings had become, in nats, where that was more
    than `algorithm.max_chosen_drop` in the last measurement."""
    drops: int = 0
    """Measurements in a row in which it was."""
    refused: bool = False
    """Whether weights had a better score, and did not count since they were not allowed."""

    @property
    def fell_for_good(self) -> bool:
        """Whether the best of held-out rankings became less likely and stayed so."""
        return self.drops >= FOR_GOOD

    @property
    def measured(self) -> float:
        """The best value of the criterion; NaN before any."""
        if self.score is None:
            return math.nan
        return self.score if self.criterion == "held_out_reward" else -self.score

    def add(self, step: int, score: float, *, allowed: bool) -> bool:
        """Take in a measurement; True when it is the best so far.

        `allowed`: inside the KL budget, and whatever else weights must keep to.
        """
        if allowed and (self.score is None or score > self.score):
            self.step, self.score, self.since = step, score, 0
            return True
        self.refused |= not allowed and self.score is not None and score > self.score
        self.since += 1
        return False

    def note_drop(self, drop: float | None) -> None:
        """Take in how much less likely the best became, None where that is allowed."""
        self.chosen_drop = drop
        self.drops = 0 if drop is None else self.drops + 1

    def state_dict(self) -> dict[str, Any]:
        """Fit for JSON."""
        return asdict(self)

    @staticmethod
    def from_state(state: dict[str, Any]) -> "BestSoFar":
        """Go on from a `state_dict`."""
        try:
            return BestSoFar(**state)
        except TypeError as error:
            raise CheckpointError(f"trainer state: held-out record damaged ({error})") from None


RunEnd = Literal[
    "finished", "kl budget", "held-out reward", "held-out loss", "chosen drop", "signal"
]
"""Why a run ended: all iterations done, or which of the reasons came first."""
