"""How often each name may ask for something: a burst at once, then so many a second.

A token bucket for each name, in memory; no gradio and no database here.
"""

import time
from collections.abc import Callable
from threading import Lock

import fastapi

SECONDS_TO_WAIT = 1
"""What who is too fast is told."""
MOST_NAMES = 10_000
"""Beyond these, names whose buckets are full are forgotten: they lose nothing by it."""


class Pace:
    """At most `burst` requests of one name at once, and `per_second` in the long run."""

    def __init__(
        self, *, burst: int, per_second: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.burst = burst
        self.per_second = per_second
        self._clock = clock
        self._left: dict[str, tuple[float, float]] = {}  # requests left, and when that was
        self._lock = Lock()

    def allows(self, name: str) -> bool:
        """Whether this name may ask now; if so, the request is counted."""
        return self.take(name) >= 1

    def require(self, name: str, what: str) -> None:
        """Count a request, or raise 429 with the seconds after which to send it again.

        A name has a bucket for each `what`.
        """
        if not self.allows(f"{what} {name}"):
            raise fastapi.HTTPException(
                429,
                f"{what}: more than {self.per_second:.0f} a second of {name!r}; send it again in "
                f"{SECONDS_TO_WAIT} second",
                headers={"Retry-After": str(SECONDS_TO_WAIT)},
            )

    def take(self, name: str) -> float:
        """How many requests this name had left, `burst` after a rest; from 1 on one is counted."""
        now = self._clock()
        with self._lock:
            left = self._now(name, now)
            if left < 1:
                return left
            self._left[name] = (left - 1, now)
            if len(self._left) > MOST_NAMES:
                self._left = {
                    each: kept
                    for each, kept in self._left.items()
                    if self._now(each, now) < self.burst
                }
            return left

    def give_back(self, name: str) -> None:
        """Let a request that was counted be none."""
        now = self._clock()
        with self._lock:
            self._left[name] = (self._now(name, now) + 1, now)

    def _now(self, name: str, now: float) -> float:
        left, then = self._left.get(name, (float(self.burst), now))
        return min(float(self.burst), left + (now - then) * self.per_second)
