"""A KL budget: knowing the last weights that were inside it, and going back to them."""

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Snapshot:
    """Everything at one step, in memory."""

    weights: list[torch.Tensor]
    state: dict[str, Any]
    budget: float
    """The KL budget, in nats, that it was kept for."""

    def state_dict(self) -> dict[str, Any]:
        """Fit for a checkpoint; its fields by name."""
        return {"weights": self.weights, "state": self.state, "budget": self.budget}


class Budget:
    """How much KL a run may spend, and the snapshots that it needs to keep to that.

    The KL of a step's weights is measured by the next iteration at the earliest, so the present
    snapshot is `pending` until then; `inside` is the last one that is known to be within.
    """

    def __init__(self, nats: float | None) -> None:
        self.nats = nats
        self.pending: Snapshot | None = None
        self.inside: Snapshot | None = None

    def spent(self, *, before: float | None, after: float | None) -> bool:
        """Whether a measured KL is above the budget; takes in what that says of the snapshots.

        `before` is of the weights before this iteration's update, which `pending` holds, `after` of
        those after it; None where it was not measured.
        """
        if self.nats is None:
            return False
        if before is not None and before <= self.nats:
            self.inside = self.pending
        return max(before or 0.0, after or 0.0) > self.nats

    def keep(self, snapshot: Snapshot | None, *, before: float | None, after: float | None) -> None:
        """Take the snapshot of this step, which was not found to be above the budget."""
        self.pending = snapshot
        # An algorithm that measures no KL of its own relies on the one on held-out prompts.
        if before is None and after is not None:
            self.inside = snapshot

    def restore(self, inside: dict[str, Any] | None) -> None:
        """Go on with the snapshot of a checkpoint, if it was kept for no more than this budget."""
        self.inside = None
        if inside is not None and self.nats is not None and inside["budget"] <= self.nats:
            self.inside = Snapshot(**inside)
