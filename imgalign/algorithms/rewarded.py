"""What a baseline gets of a batch, and what every baseline can do.

Shapes: m = samples with a finite reward, t = steps of a trajectory.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from imgalign.runs.world import World

Normalise = Literal["std", "none"]
Share = Annotated[float, Field(ge=0, le=1)]

Features: TypeAlias = Mapping[str, Tensor]
"""As `StepPolicy.features` gives them, of samples that were made together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewarded:
    """What a baseline sees of a batch: samples with a finite reward."""

    rewards: Float[Tensor, "m t"]
    """Of each step; of most samples only the last one has any."""
    prompt_ids: list[str]
    mask: Bool[Tensor, "m t"]
    features: Callable[[], list[Features]]
    """What a value estimator may see, of samples that were made together; computed when asked
    for."""
    beside: Float[Tensor, " k"] = field(default_factory=lambda: torch.zeros(0))
    """Finite rewards of given samples that a group is compared with too."""
    beside_ids: Sequence[str] = ()
    """Their prompt ids."""

    @property
    def totals(self) -> Float[Tensor, " m"]:
        """The reward of each sample, over its steps."""
        return self.rewards.double().sum(dim=1).to(self.rewards)

    def of_all(self, world: World) -> "Rewarded":
        """The samples of all processes, in their order."""

        def features() -> list[Features]:
            return [features for given in world.gather(self.features()) for features in given]

        return Rewarded(
            rewards=torch.cat(world.gather(self.rewards)),
            prompt_ids=[each for ids in world.gather(self.prompt_ids) for each in ids],
            mask=torch.cat(world.gather(self.mask)),
            features=features,
        )

    def __len__(self) -> int:
        return len(self.rewards)


@runtime_checkable
class Baseline(Protocol):
    """Turns rewards into advantages of each step."""

    def advantages(
        self, batch: Rewarded, *, world: World
    ) -> tuple[Float[Tensor, "m t"], dict[str, float]]:
        """Advantages of this process's samples, and metrics of all.

        Updates the baseline's state, alike in all processes: each calls it once per batch, also
        with no sample.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that `load_state_dict` needs to go on exactly."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`; CheckpointError where it is of another baseline."""
        ...


def mismatch(kind: str) -> str:
    """Says that a checkpoint is of another kind of baseline."""
    return (
        f"baseline: the checkpoint's state is not of kind {kind!r};"
        " resume with the baseline that the run began with"
    )
