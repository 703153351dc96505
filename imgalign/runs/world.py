"""The processes that learn together: in a run, in a fit of a reward, in pretraining.

`Alone` is a single process, which changes no number. Several are started by
`accelerate launch -m imgalign ...` or torchrun: see `together.py`.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol, TypeVar, cast, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from imgalign.errors import ConfigError

Given = TypeVar("Given")
Made = TypeVar("Made")

PROCESSES = "WORLD_SIZE"
"""Where launchers say how many processes they started."""

SHARDED = {"FSDP": "ACCELERATE_USE_FSDP", "DeepSpeed": "ACCELERATE_USE_DEEPSPEED"}
"""Ways to cut one model into parts, by what accelerate's launcher puts into the environment."""
VERSION_OF_FSDP = "FSDP_VERSION"
LOADS_IN_ONE = "FSDP_CPU_RAM_EFFICIENT_LOADING"
"""Whether transformers is to load a model in the first process alone, which then sends it on."""


@runtime_checkable
class World(Protocol):
    """The processes that learn together; every denominator, gather and branch goes through it.

    Everything but properties and `deal` is called by all processes alike, and returns the same
    in all of them. An error that only one process meets, such as a NumericsError, ends that process
    alone; the others wait until the launcher ends them.
    """

    @property
    def size(self) -> int:
        """How many there are."""
        ...

    @property
    def index(self) -> int:
        """Which of them this is, from 0; see `writes_files`."""
        ...

    @property
    def shares_weights(self) -> bool:
        """Whether `share` keeps a part of a network in each process."""
        ...

    def deal(self, count: int) -> range:
        """Which of `count` this process takes: shares in order that differ by one at most.

        Of prompts or rankings and not of samples, so that those to compare stay together.
        """
        ...

    def total(self, value: float) -> float:
        """The sum of a number over all processes."""
        ...

    def largest(self, value: float) -> float:
        """The largest of a number over all processes."""
        ...

    def gather(self, value: Given) -> list[Given]:
        """What each process gave, in their order: tensors of any length, texts, numbers."""
        ...

    def agree(self, flag: bool) -> bool:
        """Whether the flag is set in any process, so that all of them take the same branch."""
        ...

    def wait(self) -> None:
        """Return when every process has come here."""
        ...

    def reduce(self, parameters: Sequence[Parameter]) -> None:
        """Sum the gradients of all processes, once per optimizer step.

        Losses are divided by what all processes count together, so their gradients add up. Each
        process may have made another number of passes by then, or none.
        """
        ...

    def share(self, network: nn.Module) -> None:
        """Keep a part of a network's frozen weights in each process, if these were launched so.

        From then on the network is whole during its passes alone; see `sharding.py`.
        """
        ...


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
    shares_weights = False

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

    def share(self, network: nn.Module) -> None:
        """Leave all of it here."""

    def one_voice(self) -> AbstractContextManager[None]:
        """Its own."""
        return nullcontext()


@runtime_checkable
class HasNetwork(Protocol):
    """A policy that trains a network, or a part of it."""

    @property
    def trained_network(self) -> nn.Module:
        """All of it."""
        ...


def share_weights(policy: Given, world: World) -> Given:
    """The policy; each process keeps a part of its frozen weights, if these were launched so."""
    if isinstance(policy, HasNetwork):
        world.share(policy.trained_network)
    return policy


@runtime_checkable
class Gathers(Protocol):
    """A network that processes share, as FSDP makes it."""

    def unshard(self) -> object:
        """Gather what belongs to none of its blocks, such as embeddings."""
        ...

    def reshard(self) -> None:
        """Free it again."""
        ...


@contextmanager
def outside_passes(network: nn.Module) -> Iterator[None]:
    """Inside, what belongs to none of its blocks can be used by itself; see `World.share`."""
    if not isinstance(network, Gathers):
        yield
        return
    network.unshard()
    yield
    network.reshard()


def first_position(world: World, count: int) -> int:
    """How many there are in the processes before this one, each of which has `count` of its own.

    That is where its own begin when all are numbered in the order of the processes.
    """
    return sum(world.gather(count)[: world.index])


def writes_files(world: World) -> bool:
    """Whether this is the one process that writes what all of them leave."""
    return world.index == 0


def in_turn(world: World, make: Callable[[], Made]) -> Made:
    """What `make` gives, in one process after the other: it may write files that the next finds."""
    for _ in range(world.index):
        world.wait()
    made = make()
    for _ in range(world.index, world.size):
        world.wait()
    return made


def from_first(world: World, make: Callable[[], Made]) -> Made:
    """What `make` gives in the process that writes files, in all of them."""
    made = world.gather(make() if writes_files(world) else None)[0]
    return cast(Made, made)


def shared_rows(
    world: World,
    count: int,
    make: Callable[[slice], Tensor],
    *,
    at_once: int,
    device: torch.device,
) -> Tensor:
    """A tensor of `count` rows, each made by one process, with the same bits in all of them.

    `make` gives at most `at_once` rows, without gradients; the result is on `device`.
    """
    own = world.deal(count)
    starts = range(own.start, own.stop, at_once)
    made = [make(slice(start, min(start + at_once, own.stop))) for start in starts]
    # From the CPU: another process has another GPU.
    found = world.gather(torch.cat(made).cpu() if made else None)
    return torch.cat([each for each in found if each is not None]).to(device)


def refuse_one_gpu_for_all(world: World, device: str, *, setting: str) -> None:
    """ConfigError where several processes were to share the GPU that `device` names."""
    if world.size > 1 and ":" in device:
        raise ConfigError(
            f"{setting}: expected auto, cuda or cpu with {world.size} processes, each of which "
            f"takes a GPU of its own, got {device}"
        )


def join_world(*, cure: str, can_share: bool = False) -> Joined:
    """The processes that this one learns with, after it has met them, by what started it.

    Where there are GPUs, the current one is then that of this process. `cure` is what to do after
    one of them has died. Example: "nothing is written; start the fit again". `can_share`: the
    caller calls `share`; ConfigError otherwise where processes are to share a model.
    """
    if int(os.environ.get(PROCESSES, "1")) <= 1:
        return Alone()
    asked = [name for name, key in SHARDED.items() if os.environ.get(key, "").lower() == "true"]
    for name in asked:
        refuse_sharding(name, can_share=can_share)
    os.environ[LOADS_IN_ONE] = "false"  # here each process loads the model, and keeps its part
    from accelerate import PartialState

    from imgalign.runs.together import join

    world = join(cure=cure, shares_weights=bool(asked))
    PartialState(cpu=not torch.cuda.is_available())
    return world


def refuse_sharding(name: str, *, can_share: bool) -> None:
    """ConfigError where a way to cut a model into parts is not supported."""
    if name == "FSDP" and can_share:
        version = os.environ.get(VERSION_OF_FSDP, "2")
        if version != "2":
            raise ConfigError(
                f"accelerate launch: fsdp_version: expected 2, got {version}; launch with "
                "configs/accelerate/fsdp2.yaml"
            )
        return
    cures = ["configs/accelerate/ddp.yaml", *(["fsdp2.yaml beside it"] if can_share else [])]
    raise ConfigError(
        f"accelerate launch: {name} is not supported here; launch with {' or '.join(cures)}"
    )
