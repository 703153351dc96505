"""A KL budget: keeps the last weights whose KL was inside it, to restore when it is exceeded."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Snapshot:
    """Weights and trainer state after one iteration, in memory."""

    weights: list[torch.Tensor]
    state: dict[str, Any]
    budget: float
    """The KL budget, in nats, that it was kept for."""
    remembered: Sequence[torch.Tensor] = ()
    """What the policy remembered then."""

    def state_dict(self) -> dict[str, Any]:
        """Fit for a checkpoint; its fields by name."""
        return {
            "weights": self.weights,
            "state": self.state,
            "budget": self.budget,
            "remembered": list(self.remembered),
        }


class Budget:
    """The KL limit of a run, and the snapshots needed to return to weights inside it.

    The KL of an iteration's weights is measured by the next iteration at the earliest, so the
    present snapshot is `pending` until then; `inside` is the last one known to be within.
    """

    def __init__(self, nats: float | None) -> None:
        self.nats = nats
        self.pending: Snapshot | None = None
        self.inside: Snapshot | None = None

    def spent(self, *, before: float | None, after: float | None) -> bool:
        """Whether a measured KL is above the budget; confirms the pending snapshot if it is not.

        `before` is of the weights before this iteration's update, which `pending` holds, `after` of
        those after it; None where it was not measured.
        """
        if self.nats is None:
            return False
        if before is not None and before <= self.nats:
            self.inside = self.pending
        return max(before or 0.0, after or 0.0) > self.nats

    def keep(self, snapshot: Snapshot | None, *, before: float | None, after: float | None) -> None:
        """Keep the snapshot of this iteration, which was not found to be above the budget."""
        self.pending = snapshot
        # An algorithm without a KL of its own relies on the one measured on held-out prompts.
        if before is None and after is not None:
            self.inside = snapshot

    def restore(self, inside: dict[str, Any] | None) -> None:
        """Go on with the snapshot of a checkpoint, if it was kept for no more than this budget."""
        self.inside = None
        if inside is not None and self.nats is not None and inside["budget"] <= self.nats:
            self.inside = Snapshot(**inside)
