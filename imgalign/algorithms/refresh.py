"""A reference that follows the policy, within a bound (arXiv:2505.18736, reference model update).

Every so many optimizer steps the policy as it is becomes the reference of implicit rewards, for as
long as that one stays near the pretrained model. Without a bound the paper's runs diverged.

The distance of two models is the mean of |log p - log p'| over the best samples of rankings: what
implicit rewards are made of, so no pass of the network is added. It keeps to the triangle
inequality. So the distances of all refreshes add up to a bound of that between reference and
pretrained model, which is never measured itself: exactly for the same samples and draws, else in
expectation. The paper's thresholds (0.005 and 0.002) are of another scale.

Units: nats, summed over the elements of a sample.
"""

from typing import Annotated, Any

from pydantic import Field, PositiveInt

from imgalign.config import Config
from imgalign.errors import CheckpointError
from imgalign.policy import Policy

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class RefreshConfig(Config):
    """A reference that follows the policy, within a bound."""

    every: PositiveInt = 32
    """Optimizer steps between two refreshes; 16 to 64 are published (arXiv:2505.18736)."""

    max_nats: Positive
    """No refresh after which the reference could be further from the pretrained model than this, as
    the mean size of the log-ratio of the best sample of a ranking. Metric reference_distance says
    how much of it is used."""


class Refresh:
    """State: optimizer steps so far, and how far from the pretrained model the reference may be."""

    def __init__(self, config: RefreshConfig) -> None:
        self.config = config
        self.steps = 0
        self.distance = 0.0
        """At most so many nats between reference and pretrained model."""

    def after_scoring(self, policy: Policy, log_ratio_size: float | None) -> None:
        """Count an optimizer step that is about to be made, and refresh where it is time.

        `log_ratio_size` is the mean over the best samples of this step, under the weights before it
        and in all processes together; None without any.
        """
        self.steps += 1
        if self.steps % self.config.every or log_ratio_size is None:
            return
        distance = self.distance + log_ratio_size
        if distance <= self.config.max_nats:
            policy.remember()
            self.distance = distance

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on exactly; the policy saves the reference itself."""
        return {"steps": self.steps, "distance": self.distance}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`; CheckpointError from another."""
        if state.keys() != {"steps", "distance"}:
            raise CheckpointError(
                "refresh: the checkpoint's state is of another kind; resume with the settings that "
                "the run began with"
            )
        self.steps, self.distance = int(state["steps"]), float(state["distance"])
