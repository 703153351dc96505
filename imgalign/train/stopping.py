"""Reasons to stop before the last iteration: a signal, a held-out reward that no longer rises."""

import signal
import threading
from dataclasses import asdict, dataclass
from types import FrameType, TracebackType
from typing import Any, Literal

from imgalign.errors import CheckpointError

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """While entered, the first SIGINT or SIGTERM asks for a stop; a second one does not wait.

    Does nothing outside the main thread, where Python has no signal handlers.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __call__(self) -> bool:
        """Whether a stop has been asked for."""
        return self.signal is not None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for each in SIGNALS:
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


@dataclass(slots=True)
class BestSoFar:
    """The best held-out reward of a run, and how long ago it was.

    Example: `BestSoFar(step=40, score=0.61, since=2)`: step 40 was best, two measurements since.
    """

    step: int | None = None
    score: float | None = None
    since: int = 0
    """Measurements since the best one."""

    def add(self, step: int, score: float, *, inside_budget: bool) -> bool:
        """Take in a measurement; True when it is the best so far and inside the KL budget."""
        if inside_budget and (self.score is None or score > self.score):
            self.step, self.score, self.since = step, score, 0
            return True
        self.since += 1
        return False

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


RunEnd = Literal["finished", "kl budget", "held-out reward", "signal"]
"""Why a run ended: all iterations done, or which of the reasons came first."""
