"""What takes long to work out and is the same until something has changed."""

import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

V = TypeVar("V")


@dataclass(slots=True)
class _Entry(Generic[V]):
    lock: threading.Lock = field(default_factory=threading.Lock)
    mark: Hashable = None
    value: V | None = None
    begun: float | None = None


class Kept(Generic[V]):
    """Values by key; each is made by one thread at a time, and made anew when its mark differs.

    Who asks while it is being made waits for that one, and takes it if it was begun after they
    asked: many pages that are opened at once cost no more than two.
    """

    def __init__(self, most: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._entries: dict[Hashable, _Entry[V]] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, mark: Callable[[], Hashable], make: Callable[[], V]) -> V:
        """The value; `mark` is asked before `make`, so that a change meanwhile is seen later."""
        asked = self._clock()
        entry = self._entry(key)
        with entry.lock:
            if entry.begun is not None and entry.begun >= asked:
                assert entry.value is not None
                return entry.value
            begun, now = self._clock(), mark()
            if entry.value is None or entry.mark != now:
                entry.value = make()
                entry.mark, entry.begun = now, begun
            return entry.value

    def _entry(self, key: Hashable) -> _Entry[V]:
        with self._lock:
            entry = self._entries.pop(key, None) or _Entry()
            self._entries[key] = entry  # the one that was asked for last is the last
            while len(self._entries) > self._most:
                del self._entries[next(iter(self._entries))]
            return entry
