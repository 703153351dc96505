"""How often a network is asked: the cost of a run that no machine changes.

One pass is that of one sample, or of one token where the network reads tokens. Reference and policy
are one network here, so passes of both are counted. Left out: text encoders, autoencoders and
rewards, which cost little beside it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Passes:
    """Numbers of passes of one sample, or of one token of a text."""

    forward: int = 0
    backward: int = 0
    """Forward passes that kept a graph, so that gradients can flow back."""

    def __sub__(self, other: "Passes") -> "Passes":
        return Passes(self.forward - other.forward, self.backward - other.backward)


@runtime_checkable
class CountsPasses(Protocol):
    """A policy that knows how often its network was asked."""

    @property
    def passes(self) -> Passes:
        """Since the policy was built."""
        ...


class PassCounter:
    """Counts the passes of a network from now on."""

    def __init__(self, network: nn.Module) -> None:
        self.passes = Passes()
        network.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, _: nn.Module, inputs: Sequence[Any], named: Mapping[str, Any]) -> None:
        given = next(each for each in (*inputs, *named.values()) if isinstance(each, Tensor))
        many = given.shape[0] if given.is_floating_point() else given.numel()
        kept = many if torch.is_grad_enabled() else 0
        self.passes = Passes(self.passes.forward + many, self.passes.backward + kept)
