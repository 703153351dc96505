"""The processes of a run: implementations of `imgalign.algorithms.interface.World`.

`Alone` is a run in one process, which changes no number. Several processes are started by
`accelerate launch -m imgalign train ...` or torchrun: see `together.py`.
"""

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch.nn import Parameter

from imgalign.algorithms.interface import World
from imgalign.errors import ConfigError

Given = TypeVar("Given")

PROCESSES = "WORLD_SIZE"
"""Where launchers say how many processes they started."""


SHARDED = {"FSDP": "ACCELERATE_USE_FSDP", "DeepSpeed": "ACCELERATE_USE_DEEPSPEED"}
"""Ways to cut one model into parts, by what accelerate's launcher puts into the environment."""


@runtime_checkable
class Joined(World, Protocol):
    """A world that a command runs in."""

    def one_voice(self) -> AbstractContextManager[None]:
        """While inside, an error that ends several processes is said by the first of them."""
        ...


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

    def one_voice(self) -> AbstractContextManager[None]:
        """Its own."""
        return nullcontext()


def join_world() -> Joined:
    """The processes that this one trains with, after it has met them, by what started it.

    Where there are GPUs, the current one is then that of this process.
    """
    if int(os.environ.get(PROCESSES, "1")) <= 1:
        return Alone()
    for name, variable in SHARDED.items():
        if os.environ.get(variable, "").lower() == "true":
            raise ConfigError(
                f"accelerate launch: {name} is not supported, as each process holds the whole "
                "model; launch with configs/accelerate/ddp.yaml"
            )
    from accelerate import PartialState

    from imgalign.train.together import join

    world = join()
    PartialState(cpu=not torch.cuda.is_available())
    return world
