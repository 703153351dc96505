"""The algorithms: the union of their settings, and the class that each of them builds.

To add one, write its file and name it here twice.
"""

from typing import Any, TypeAlias

from imgalign.algorithms.direct import Direct
from imgalign.algorithms.interface import Algorithm
from imgalign.algorithms.objectives import (
    AnyDirectConfig,
    CardinalConfig,
    DPOConfig,
    IPOConfig,
    KTOConfig,
)
from imgalign.algorithms.policy_gradient import GRPOConfig, PolicyGradient, PPOConfig
from imgalign.algorithms.supervised import Supervised, SupervisedConfig

AlgorithmConfig: TypeAlias = GRPOConfig | PPOConfig | SupervisedConfig | AnyDirectConfig

DEFAULT = GRPOConfig()
"""The algorithm of a recipe that names none."""


def build_algorithm(config: AlgorithmConfig, *, seed: int) -> Algorithm[Any]:
    """The algorithm that the settings describe; `seed` decides what it initialises."""
    match config:
        case GRPOConfig() | PPOConfig():
            return PolicyGradient(config, seed=seed)
        case SupervisedConfig():
            return Supervised(config)
        case DPOConfig() | IPOConfig() | KTOConfig() | CardinalConfig():
            return Direct(config)
