"""A batch whose images depend on each other in the loss, shared by several processes.

Each process puts its part through the networks, gathers what the others found, and computes the
loss of the whole batch. Its gradient reaches the process's own part alone, so that the gradients of
all add up to that of one process with the whole batch (as with a distributed contrastive loss,
arXiv:2103.00020, section 2.5). Batch normalisation goes over all of the batch too. One process
keeps every bit.

Shapes: b = images of the batch, n = processes, c = channels.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from imgalign.runs.world import World, writes_files


def gathered(world: World, own: Tensor) -> Tensor:
    """The rows of all processes in their order; a gradient reaches those of this process."""
    if world.size == 1:
        return own
    parts = world.gather(own.detach())
    parts[world.index] = own
    return torch.cat(parts)


def counted_once(world: World, value: Tensor) -> Tensor:
    """A value that all processes have in their loss of the whole batch: one has its gradient."""
    return value if writes_files(world) else value.detach()


def share_batch_norm(module: nn.Module, world: World) -> None:
    """Let each batch normalisation in `module` go over the images of all processes."""
    if world.size == 1:
        return
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, SharedBatchNorm(child, world))
        else:
            share_batch_norm(child, world)


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch normalisation over the images of all processes, which torch's own does on GPUs only."""

    def __init__(self, given: nn.BatchNorm2d, world: World) -> None:
        super().__init__(
            given.num_features, eps=given.eps, momentum=given.momentum, dtype=given.weight.dtype
        )
        self.load_state_dict(given.state_dict())
        self._world = world

    def forward(self, input: Tensor) -> Tensor:
        """Normalised by the mean and variance of all of the batch in training."""
        if not self.training:
            return super().forward(input)
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        mean = x.mean((0, 2, 3))
        squares = (x - mean[:, None, None]).square().sum((0, 2, 3))
        count = torch.full_like(mean, x.numel() // x.shape[1])
        means, squares, counts = _of_each(self._world, torch.stack([mean, squares, count])).unbind(
            1
        )
        total = counts.sum(0)
        mean = (counts * means).sum(0) / total
        squares = (squares + counts * (means - mean).square()).sum(0)
        self._remember(mean.detach(), (squares / (total - 1)).detach())
        scale = self.weight * (squares / total + self.eps).rsqrt()
        normal = (x - mean[:, None, None]) * scale[:, None, None] + self.bias[:, None, None]
        return normal.to(input.dtype)

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


class _OfEach(Function):
    """What each process gives, `n ...`; the gradient is that of all losses together."""

    @staticmethod
    def forward(ctx: Any, world: World, own: Tensor) -> Tensor:
        ctx.world = world
        return torch.stack(world.gather(own.detach()))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        (gradient,) = gradients
        found = torch.stack(ctx.world.gather(gradient)).sum(0)
        return None, found[ctx.world.index]


def _of_each(world: World, own: Tensor) -> Tensor:
    found: Tensor = _OfEach.apply(world, own)
    return found
