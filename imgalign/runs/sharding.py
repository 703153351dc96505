"""Frozen weights that processes share: each keeps a part, and a block is whole during its passes.

Cutting, gathering and freeing are done by PyTorch's FSDP2 (`fully_shard`), which expects that all
processes make the same passes. Here they make other numbers of them, of other kinds, so each
gathering is agreed on first. In a round every process says which block it needs, or that it waits
for the others elsewhere; then all of them gather the blocks that were named, also those that do not
need them. No process goes on from another collective before nobody needs a block. So they call the
same collectives in the same order, whatever passes each of them makes.

What is trained stays whole: gradients, optimizers and files are those of processes without FSDP.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from imgalign.errors import ConfigError

NOTHING = -1
"""What a process needs that waits for the others elsewhere."""

WITHOUT_FSDP = "launch with configs/accelerate/ddp.yaml"

# Torch has renamed it.
_gather: Any = (
    dist.all_gather_single if hasattr(dist, "all_gather_single") else dist.all_gather_into_tensor
)


class SharedWeights:
    """The frozen weights of a network, of which each process keeps a part from now on.

    `call` calls a collective with its arguments. `group` is one that nothing else uses: DTensor
    keeps what it has seen for ever, and were that the group of all collectives, a thread of Gloo
    that still drops their tensors at exit would end the process. ConfigError for what FSDP cannot
    cut.
    """

    def __init__(
        self, network: nn.Module, *, group: dist.ProcessGroup, call: Callable[..., object]
    ) -> None:
        self._call = call
        self._size = dist.get_world_size()
        trained = {each for each in network.parameters() if each.requires_grad}
        frozen = [each for each in network.parameters() if not each.requires_grad]
        refuse(frozen)
        mesh = DeviceMesh.from_group(group, frozen[0].device.type)
        self._blocks: list[Block] = []
        for module in blocks_of(network):
            fully_shard(module, mesh=mesh, ignored_params=trained, reshard_after_forward=True)
            own = [each for each in module.parameters() if isinstance(each, DTensor)]
            known = {id(each) for block in self._blocks for each in block.parameters}
            new = [each for each in own if id(each) not in known]
            if new:
                self._blocks.append(Block(self, len(self._blocks), new, processes=self._size))
                module.set_custom_all_gather(self._blocks[-1])
                module.unshard()  # which tries it out
                module.reshard()

    def obtain(self, number: int, whole: Tensor) -> None:
        """Gather a block, and meanwhile those that other processes need."""
        needed: list[int] = []
        while number not in needed:
            needed = self._round(number)
            for each in needed:
                self._gather(each, whole if each == number else None)

    def help_others(self) -> None:
        """Return when nobody needs a block; every process comes here."""
        while needed := self._round(NOTHING):
            for each in needed:
                self._gather(each, None)

    def _round(self, mine: int) -> list[int]:
        said = [torch.empty(1, dtype=torch.int64) for _ in range(self._size)]
        self._call(dist.all_gather, said, torch.tensor([mine]))
        return sorted({int(each) for each in said} - {NOTHING})

    def _gather(self, number: int, whole: Tensor | None) -> None:
        own = self._blocks[number].part()
        self._call(_gather, own.new_empty(self._size * len(own)) if whole is None else whole, own)


class Block:
    """Weights that are gathered at once; for FSDP, what gathers them."""

    def __init__(
        self, shared: SharedWeights, number: int, parameters: Sequence[DTensor], *, processes: int
    ) -> None:
        self.parameters = parameters
        self._shared = shared
        self._number = number
        self._processes = processes
        self._tried = False

    def part(self) -> Tensor:
        """What this process keeps of them, laid out as FSDP gathers it."""
        parts = [padded_part(each, self._processes) for each in self.parameters]
        if len({part.dtype for part in parts}) > 1:
            parts = [part.view(torch.uint8) for part in parts]
        return torch.cat(parts)

    def allocate(self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Memory for all of them."""
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(
        self,
        output_tensor: Tensor,
        input_tensor: Tensor,
        group: dist.ProcessGroup,
        async_op: bool = False,
    ) -> None:
        """Fill the output with the inputs of all processes, before it returns."""
        if not self._tried:
            self._tried = True
            if not torch.equal(input_tensor, self.part()):
                raise ConfigError(
                    f"accelerate launch: torch {torch.__version__} lays out the weights that FSDP "
                    f"gathers in another way than expected; {WITHOUT_FSDP}, or with another torch"
                )
        self._shared.obtain(self._number, output_tensor)


def padded_part(parameter: DTensor, processes: int) -> Tensor:
    """What this process keeps of a parameter, with as many elements in each of them."""
    rows, *others = parameter.shape
    own = parameter.to_local().flatten()
    missing = -(-rows // processes) * torch.Size(others).numel() - len(own)
    return torch.cat([own, own.new_zeros(missing)]) if missing else own


def blocks_of(network: nn.Module) -> Iterator[Any]:
    """What is gathered at once, inner modules first: what its library does not split, and the rest.

    Without such names, the members of the outermost lists of layers.
    """
    names = getattr(network, "_no_split_modules", None) or ()
    found = [each for each in network.modules() if type(each).__name__ in names]
    yield from reversed(found or listed(network))
    yield network


def listed(module: nn.Module) -> list[nn.Module]:
    """The members of the outermost lists in a module."""
    if isinstance(module, nn.ModuleList):
        return list(module)
    return [each for child in module.children() for each in listed(child)]


def refuse(frozen: Sequence[nn.Parameter]) -> None:
    """ConfigError for weights, and a torch, with which FSDP cannot do it."""
    if not hasattr(FSDPModule, "set_custom_all_gather"):
        raise ConfigError(
            "accelerate launch: FSDP needs a torch whose FSDPModule has set_custom_all_gather, "
            f"got {torch.__version__}; update torch, or {WITHOUT_FSDP}"
        )
    if not all(each.is_contiguous() for each in frozen):
        raise ConfigError(
            "policy.channels_last: expected false with FSDP, which cuts weights by their rows, got "
            f"true; leave it out, or {WITHOUT_FSDP}"
        )
