"""One of two processes that share a small network's frozen weights and make other passes.

Says in JSON, for each stretch between two meetings, whether what it computed has the bits of the
same network as a whole; and which sizes its parts have. With the word DIES the second process dies
before it shares anything.
"""

import atexit
import copy
import json
import os
import signal
import sys
import weakref

import torch
import torch.distributed as dist
from torch import Tensor, nn

from imgalign.runs.together import join
from imgalign.runs.world import outside_passes

STRETCHES = (("fbfbfb", ""), ("ffff", "fb"), ("", "fb"), ("fbf", "ffb"), ("o", "fb"), ("", ""))
"""Passes of both processes: forward without gradients, forward and then backward, and a use of the
first layer by itself."""

DIES = "dies"
OUTLIVES = "the group of all collectives outlives the run"
kept: list[weakref.ref[object]] = []


class Layer(nn.Module):
    """Frozen weights of two number types and of rows that two do not divide, and a trained one."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Linear(6, 5).requires_grad_(False)
        self.out = nn.Linear(5, 6, bias=False, dtype=torch.bfloat16).requires_grad_(False)
        self.scale = nn.Parameter(torch.ones(6))

    def forward(self, values: Tensor) -> Tensor:
        inner = self.into(values).tanh().bfloat16()
        scaled: Tensor = self.scale * self.out(inner).float()
        return values + scaled


class Network(nn.Module):
    """Three such layers, and weights that belong to none: one of them is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 6).requires_grad_(False)
        self.layers = nn.ModuleList(Layer() for _ in range(3))
        self.last = nn.Linear(4, 6, bias=False).requires_grad_(False)
        self.last.weight = self.first.weight

    def forward(self, values: Tensor) -> Tensor:
        values = self.first(values)
        for layer in self.layers:
            values = layer(values)
        return values @ self.last.weight


def gradients(network: nn.Module) -> list[Tensor]:
    return [each.grad for each in network.parameters() if each.grad is not None]


def same(one: nn.Module, other: nn.Module, passes: str) -> bool:
    """Whether two networks make the same of some passes."""
    for number, kind in enumerate(passes):
        values = torch.randn(3, 4, generator=torch.Generator().manual_seed(number))
        made = []
        for network in (one, other):
            network.zero_grad()
            with torch.set_grad_enabled(passes[number : number + 2] == "fb"):
                if kind == "o":
                    with outside_passes(network):
                        made.append(network.get_submodule("first")(values))
                if kind == "f":
                    made.append(network(values))
                    if torch.is_grad_enabled():
                        made[-1].square().sum().backward()
        if made and not torch.equal(*made):
            return False
        if not all(map(torch.equal, gradients(one), gradients(other))):
            return False
    return True


def say_what_is_kept() -> None:
    if kept and kept[0]() is not None:
        sys.stderr.write(OUTLIVES)


def main() -> None:
    atexit.register(say_what_is_kept)  # the last of all, as it is the first to register
    torch.set_num_threads(1)
    torch.manual_seed(0)
    whole = Network()
    network = copy.deepcopy(whole)
    world = join(cure="start it again", shares_weights=True)
    kept.append(weakref.ref(dist.group.WORLD))
    if DIES in sys.argv:
        world.wait()
        if world.index == 1:
            os.kill(os.getpid(), signal.SIGKILL)
    world.share(network)
    found = []
    for passes in STRETCHES:
        found.append(same(whole, network, passes[world.index]))
        assert world.total(1.0) == 2.0
    parts = {name: list(each.shape) for name, each in network.named_parameters()}
    own = {
        name: each.to_local().numel() if hasattr(each, "to_local") else each.numel()
        for name, each in network.named_parameters()
    }
    json.dump({"same": found, "shapes": parts, "own": own}, sys.stdout)


if __name__ == "__main__":
    main()
