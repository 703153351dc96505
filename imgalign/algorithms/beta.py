"""Beta of the direct methods: how much implicit reward a nat of log-ratio is worth.

A large beta keeps the policy close to the pretrained model. Its scale is hard to guess, since
log-ratios grow with the number of elements of a sample and with the time one trains. So it can set
itself: see `AutoBeta`.

Units: log-ratios in nats, summed over the elements of a sample. Where the mean log-ratio of an
element is compared instead, the number of elements of a sample is 1.
"""

import math
from typing import Annotated, Any, Literal, Protocol, TypeAlias, runtime_checkable

from pydantic import Field, PositiveInt

from imgalign.config import Config
from imgalign.errors import CheckpointError

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class PerNatConfig(Config):
    """A constant, in the unit of language models."""

    kind: Literal["per_nat"] = "per_nat"
    """The kind of beta."""

    value: Positive = 0.1
    """Implicit reward per nat of log-ratio, summed over the elements of a sample, or of their mean
    where `average` says so. Larger values keep the policy closer to the pretrained model."""

    def per_nat(self, num_elements: int) -> float:
        """The value itself, for samples of any size."""
        return self.value


class SalesforceConfig(Config):
    """A constant, in the unit of the code of Diffusion-DPO."""

    kind: Literal["salesforce"] = "salesforce"
    """The kind of beta."""

    value: Positive = 5000.0
    """Half of it multiplies the mean squared error. Published values are 2000 to 5000."""

    def per_nat(self, num_elements: int) -> float:
        """For samples of so many elements."""
        return self.value / num_elements


class DiffusersConfig(Config):
    """A constant, in the unit of diffusers' script for Diffusion-DPO."""

    kind: Literal["diffusers"] = "diffusers"
    """The kind of beta."""

    value: Positive = 2500.0
    """It multiplies the mean squared error: 2500 is 5000 in the code of Diffusion-DPO."""

    def per_nat(self, num_elements: int) -> float:
        """For samples of so many elements."""
        return 2 * self.value / num_elements


class AutoBetaConfig(Config):
    """Chosen from the log-ratios of the first steps, which nothing limits, then constant."""

    kind: Literal["auto"] = "auto"
    """The kind of beta."""

    gradient_factor: Annotated[float, Field(gt=0, lt=0.5)] = 0.45
    """The weight, sigmoid(-beta * margin), that a pair with a margin of the usual size is to have
    left when beta is fixed. It is 0.5 where policy and pretrained model agree; a smaller one means
    a larger beta."""

    steps: PositiveInt = 10
    """Optimizer steps after which beta is fixed: about a sixteenth of the run. Nothing keeps the
    policy near the pretrained model before. Later means larger log-ratios and so a smaller beta."""


FixedBetaConfig: TypeAlias = PerNatConfig | SalesforceConfig | DiffusersConfig
BetaConfig: TypeAlias = AutoBetaConfig | FixedBetaConfig


@runtime_checkable
class Beta(Protocol):
    """What log-ratios are multiplied by."""

    @property
    def fixed(self) -> bool:
        """Whether it is the same from now on."""
        ...

    def value(self, num_elements: int) -> float:
        """Per nat, for samples of so many elements."""
        ...

    def update(self, margin: float) -> None:
        """Adapt to the root mean square margin of one optimizer step, as it was compared."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on exactly."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict` of the same kind; CheckpointError from another."""
        ...


class FixedBeta:
    """The same beta for the whole run."""

    fixed = True

    def __init__(self, config: FixedBetaConfig) -> None:
        self.config = config

    def value(self, num_elements: int) -> float:
        """Per nat, for samples of so many elements."""
        return self.config.per_nat(num_elements)

    def update(self, margin: float) -> None:
        """Change nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing: beta is a setting."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Accept only the empty state."""
        if state:
            raise CheckpointError(_mismatch("a constant"))


class AutoBeta:
    """Aims at a gradient factor g: beta = log(1/g - 1) / (root mean square margin).

    Not the median margin: those at high noise levels are near 0 and count little in the gradient.
    The root mean square is a running mean over optimizer steps with decay 0.9, corrected for its
    start. A step whose rankings have no order counts by what its objective compares instead, see
    `objectives.margins_without_order`. Until beta is fixed it is next to 0, so that all pairs weigh
    alike (the loss is divided by beta). Were it already the estimate, it would keep the margins as
    small as they are and so confirm itself.
    """

    DECAY = 0.9
    FREE = 1e-6

    def __init__(self, config: AutoBetaConfig) -> None:
        self.config = config
        self.steps = 0
        self.mean = 0.0

    @property
    def fixed(self) -> bool:
        """After its first steps."""
        return self.steps >= self.config.steps

    def value(self, num_elements: int) -> float:
        """Per nat, whatever the number of elements."""
        if not self.fixed:
            return self.FREE
        seen = self.mean / (1 - self.DECAY**self.steps)
        return math.log(1 / self.config.gradient_factor - 1) / seen

    def update(self, margin: float) -> None:
        """Take in the margins of one optimizer step, unless beta is fixed already."""
        # Before the first step that moves the weights all margins are 0.
        if not self.fixed and margin > 0:
            self.mean = self.DECAY * self.mean + (1 - self.DECAY) * margin
            self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        """The running mean and how many steps are in it."""
        return {"steps": self.steps, "mean": self.mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with that mean."""
        if state.keys() != {"steps", "mean"}:
            raise CheckpointError(_mismatch("auto"))
        self.steps, self.mean = int(state["steps"]), float(state["mean"])


def build_beta(config: BetaConfig) -> Beta:
    """The beta that the settings describe."""
    match config:
        case AutoBetaConfig():
            return AutoBeta(config)
        case _:
            return FixedBeta(config)


def _mismatch(kind: str) -> str:
    return (
        f"beta: the checkpoint's state is not that of {kind}; resume with the kind that the run "
        "began with"
    )
