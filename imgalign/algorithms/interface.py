"""The interface of algorithms.

An algorithm turns a batch into losses, one at a time. Left out: optimizer steps
(train/learner.py) and where batches come from (train/data/).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from imgalign.policy import Check, Trajectory
from imgalign.runs.world import World

Batch = TypeVar("Batch", contravariant=True)

BatchKind: TypeAlias = Literal["rollouts", "demonstrations", "rankings", "labels"]
"""What a source gives: samples of the policy with rewards, or given ones: without any judgement,
with rankings, or each liked or disliked for itself."""

JUDGED: tuple[BatchKind, ...] = ("rankings", "labels")
"""Those that somebody has judged."""


class RankingCounts(NamedTuple):
    """How many given rankings there are of each kind. Example: (120, 8, 3)."""

    ordered: int
    """Prefer a sample to another."""
    tied: int
    """Tie all their samples."""
    all_bad: int
    """Judged to be all bad, without an order."""
    all_good: int = 0
    """Judged to be all good, without an order."""
    weight_bad: float = 1.0
    """Mean weight of those that are all bad, as the data gives it."""
    weight_good: float = 1.0
    """Mean weight of those that are all good."""

    def without_order(self) -> str:
        """For messages. Example: "8 that tie all their samples and 3 that are all bad"."""
        counted = {
            "that tie all their samples": self.tied,
            "that are all bad": self.all_bad,
            "that are likes": self.all_good,
        }
        said = [f"{count} {which}" for which, count in counted.items() if count]
        return " and ".join(said) or "none"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Loss:
    """The loss of one forward pass, as a part of an optimizer step."""

    value: Float[Tensor, ""] | None
    """This pass's share of the loss of the optimizer step, to be differentiated. None where this
    process has nothing to add to a step that others make."""
    ends_step: bool
    """Whether the optimizer moves the weights before the next loss is computed."""
    done: int
    """Passes up to this one."""
    total: int
    """Passes of the whole batch, for a progress bar."""


NEW_RUN = (
    "checkpoints are intact, and resuming would do the same again: start a new run with a lower "
    "optimizer.learning_rate"
)
"""The cure where numbers stay not finite: a run goes on with its own settings only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What an algorithm measured on a batch that it never learns from."""

    loss: float | None
    """Lower is better; decides which weights are best where no reward model does. None where it
    does not compare with that of other weights yet."""
    chosen_drop: float | None
    """How much less likely the best of the rankings have become, in nats, where that is more than
    the settings allow. Such weights do not count as best, and end a run."""
    metrics: Mapping[str, float]
    """Under keys that begin with held_out_."""


@runtime_checkable
class HeldOutMeasure(Protocol[Batch]):
    """An algorithm that also measures batches that it never learns from."""

    def held_out(self, policy: Any, batch: Batch, *, world: World) -> Compared | None:
        """Always with the same draws; None where there is nothing to compare."""
        ...


@runtime_checkable
class Algorithm(Protocol[Batch]):
    """Turns batches into losses, with a state that resumes exactly."""

    def losses(
        self, policy: Any, batch: Batch, *, world: World, generator: torch.Generator
    ) -> Iterator[Loss]:
        """The losses of one batch, lazily: after one that ends a step the next sees new weights.

        NumericsError where a number that must be finite is not.
        """
        ...

    def metrics(self) -> Mapping[str, float]:
        """Metrics of the last batch after its last loss, under the keys of docs/metrics.md."""
        ...

    def checks(self, policy: Any, trajectory: Trajectory, *, fresh: bool) -> list[Check]:
        """The correctness checks of this algorithm, on samples that were just made.

        `fresh`: the weights are untrained, so that the policy equals the pretrained model.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that `load_state_dict` needs to go on exactly."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`; CheckpointError where it is of other settings."""
        ...
