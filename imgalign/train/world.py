"""The processes of a run: implementations of `imgalign.algorithms.interface.World`.

`Alone` is a run in one process, which changes no number.
"""

from collections.abc import Sequence
from typing import TypeVar

from torch.nn import Parameter

from imgalign.algorithms.interface import World

Given = TypeVar("Given")


class Alone:
    """A single process."""

    size = 1
    index = 0

    def deal(self, count: int) -> range:
        """All of them."""
        return range(count)

    def total(self, value: float) -> float:
        """The value itself."""
        return value

    def largest(self, value: float) -> float:
        """The value itself."""
        return value

    def gather(self, value: Given) -> list[Given]:
        """The value itself, as the only one."""
        return [value]

    def agree(self, flag: bool) -> bool:
        """The flag itself."""
        return flag

    def wait(self) -> None:
        """Return at once."""

    def reduce(self, parameters: Sequence[Parameter]) -> None:
        """Leave the gradients as they are."""


def join_world() -> World:
    """The processes that this one trains with: none so far, whatever started it."""
    return Alone()
