"""Two processes of a run as two threads, which meet wherever an algorithm asks the world."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any, TypeVar

import torch
from torch.nn import Module, Parameter

from imgalign.runs.world import World

Result = TypeVar("Result")
Given = TypeVar("Given")


class Meeting:
    """Where the values of both lie; who waits alone for 20 seconds fails, and so does the other."""

    def __init__(self) -> None:
        self.values: list[Any] = [None, None]
        self.barrier = Barrier(2, timeout=20)


class OneOfTwo:
    """A world as one of its two processes sees it."""

    size = 2
    shares_weights = False

    def __init__(self, meeting: Meeting, index: int) -> None:
        self.meeting = meeting
        self.index = index
        self.num_totals = 0

    def _both(self, value: Any) -> list[Any]:
        self.meeting.values[self.index] = value
        self.meeting.barrier.wait()
        values = list(self.meeting.values)
        self.meeting.barrier.wait()
        return values

    def deal(self, count: int) -> range:
        half = -(-count // 2)
        return range(self.index * half, min(count, (self.index + 1) * half))

    def total(self, value: float) -> float:
        self.num_totals += 1
        return float(sum(self._both(value)))

    def largest(self, value: float) -> float:
        return float(max(self._both(value)))

    def gather(self, value: Given) -> list[Given]:
        return self._both(value)

    def agree(self, flag: bool) -> bool:
        return any(self._both(flag))

    def wait(self) -> None:
        self._both(None)

    def reduce(self, parameters: Sequence[Parameter]) -> None:
        for parameter in parameters:
            own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = torch.stack(self._both(own)).sum(dim=0)

    def share(self, network: Module) -> None:
        """Threads have one model anyway."""


def in_two(work: Callable[[World], Result]) -> list[Result]:
    """What each of two processes makes of the same work."""
    meeting = Meeting()
    with ThreadPoolExecutor(2) as threads:
        return list(threads.map(work, [OneOfTwo(meeting, index) for index in range(2)]))
