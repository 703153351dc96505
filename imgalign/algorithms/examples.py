"""Given examples beside the samples of a batch, whose likelihood is to be kept (PPO-ptx).

Shapes: b = examples in one forward pass.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from imgalign.algorithms.interface import World, first_position
from imgalign.errors import ConfigError
from imgalign.policy import Data, LikelihoodPolicy, Policy
from imgalign.prompts import training_seed


@dataclass(slots=True, kw_only=True)
class Examples:
    """The examples of one optimizer step."""

    data: Data | None
    seeds: list[int]
    """Of the draws with which each is scored."""
    parts: list[list[int]]
    """Places of those that go through the network together."""
    elements: float
    """Of all examples in all processes."""
    loss: float = 0.0
    """What `losses` has summed up so far."""

    @classmethod
    def of(
        cls, policy: Policy, data: Data | None, *, world: World, generator: torch.Generator
    ) -> "Examples":
        """Examples with draws that follow from their places among those of all processes."""
        key = int(torch.randint(2**63 - 1, (), generator=generator))
        if data is None:
            return cls(data=None, seeds=[], parts=[], elements=1.0)
        if not isinstance(policy, LikelihoodPolicy):
            raise ConfigError("algorithm.ptx: this kind of policy cannot score given examples")
        first = first_position(world, len(data))
        places = torch.arange(len(data))
        # Some processes, or steps, may get none: then there is nothing to measure them by.
        own = policy.elements(data).sum().item() if len(data) else 0.0
        return cls(
            data=data,
            seeds=[training_seed(key, first + place) for place in places.tolist()],
            parts=[part.tolist() for part in torch.split(places, policy.batch_size) if len(part)],
            elements=world.total(own),
        )

    def __len__(self) -> int:
        """Forward passes."""
        return len(self.parts)

    def losses(self, policy: Policy) -> Iterator[Float[Tensor, ""]]:
        """Of each forward pass its share of minus the mean log-probability of an element."""
        if self.data is None:
            return
        assert isinstance(policy, LikelihoodPolicy)
        for part in self.parts:
            data = self.data.select(part)
            draws = policy.draw(data, seeds=[self.seeds[place] for place in part])
            value = -policy.log_prob(data, draws).values.sum() / self.elements
            self.loss += value.item()
            yield value


def shared_out(data: Data | None, count: int, *, generator: torch.Generator) -> list[Data | None]:
    """Examples dealt out to `count` optimizer steps, if there are any, in random order."""
    if data is None or count == 0:
        return [None] * count
    order = torch.randperm(len(data), generator=generator)
    return [data.select(part.tolist()) for part in order.tensor_split(count)]
