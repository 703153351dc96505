"""Turns at what only one may use at a time: threads in the order of asking, processes by a lock."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from imgalign.errors import InputError
from imgalign.files import lock_name

LOOK_SECONDS = 0.25
PATIENCE_SECONDS = 10.0
"""How long a change waits for the lock, which others hold until a process has started."""


@contextmanager
def alone_at(file: Path, *, doing: str) -> Iterator[None]:
    """Hold the lock beside a file; InputError where others hold it for longer than the patience."""
    with ExitStack() as stack:
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                stack.enter_context(lock_name(file, doing=doing))
                break
            except InputError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.02)
        yield


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
