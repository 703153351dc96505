"""Given examples beside the samples of a batch, whose likelihood is to be kept (PPO-ptx).

Shapes: b = examples in one forward pass.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from imgalign.algorithms.dealing import dealt
from imgalign.errors import ConfigError
from imgalign.policy import Data, LikelihoodPolicy, Policy
from imgalign.prompts import training_seed
from imgalign.runs.world import World, first_position


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
        cls, policy: Policy, data: Data | None, *, places: Sequence[int], key: int, world: World
    ) -> "Examples":
        """Some of this process's, with draws that follow from their places among those of all."""
        if data is None:
            return cls(data=None, seeds=[], parts=[], elements=1.0)
        if not isinstance(policy, LikelihoodPolicy):
            raise ConfigError("algorithm.ptx: this kind of policy cannot score given examples")
        first, own = first_position(world, len(data)), data.select(places)
        parts = torch.split(torch.arange(len(places)), policy.batch_size)
        # Some processes, or steps, may get none: then there is nothing to measure them by.
        elements = policy.elements(own).sum().item() if len(own) else 0.0
        return cls(
            data=own,
            seeds=[training_seed(key, first + place) for place in places],
            parts=[part.tolist() for part in parts if len(part)],
            elements=world.total(elements),
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


def shared_out(
    policy: Policy, data: Data | None, count: int, *, world: World, generator: torch.Generator
) -> list[Examples]:
    """Examples of all processes dealt out to `count` optimizer steps: of each its own of them."""
    key, own = generator.initial_seed(), 0 if data is None else len(data)
    first = first_position(world, own)
    hands = dealt(int(world.total(own)), count, generator=generator)
    return [
        Examples.of(
            policy,
            data,
            places=[place - first for place in hand.tolist() if first <= place < first + own],
            key=key,
            world=world,
        )
        for hand in hands
    ]
