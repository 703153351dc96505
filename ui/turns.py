"""Turns at what only one may use at a time, in the order of asking."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LOOK_SECONDS = 0.25


class Turns:
    """A queue in which each knows how many come before it. Thread-safe."""

    def __init__(self) -> None:
        self._queue: deque[object] = deque()
        self._moved = threading.Condition()

    @contextmanager
    def turn(self, on_wait: Callable[[int], None]) -> Iterator[None]:
        """Inside, it is this caller's turn.

        Until then `on_wait` is called with the number of those before it, at once and several times
        a second; what it raises gives the place in the queue up.
        """
        ticket = object()
        with self._moved:
            self._queue.append(ticket)
        try:
            while ahead := self._ahead(ticket):
                on_wait(ahead)
                with self._moved:
                    self._moved.wait_for(lambda: self._queue[0] is ticket, LOOK_SECONDS)
            yield
        finally:
            with self._moved:
                self._queue.remove(ticket)
                self._moved.notify_all()

    def _ahead(self, ticket: object) -> int:
        with self._moved:
            return self._queue.index(ticket)
