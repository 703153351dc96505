"""The algorithms: the union of their settings, and the class that each of them builds.

To add one, write its file and name it here twice; a loss of rankings or likes is a `DirectConfig`
of `objectives.py` and needs no name here.
"""

from typing import Any, TypeAlias

from imgalign.algorithms.direct import Direct
from imgalign.algorithms.interface import Algorithm
from imgalign.algorithms.objectives import AnyDirectConfig, DirectConfig
from imgalign.algorithms.policy_gradient import GRPOConfig, PolicyGradient, PPOConfig
from imgalign.algorithms.supervised import Supervised, SupervisedConfig
from imgalign.policy import Critic

AlgorithmConfig: TypeAlias = GRPOConfig | PPOConfig | SupervisedConfig | AnyDirectConfig

DEFAULT = GRPOConfig()
"""The algorithm of a recipe that names none."""


def build_algorithm(
    config: AlgorithmConfig, *, seed: int, critic: Critic | None = None
) -> Algorithm[Any]:
    """The algorithm that the settings describe; `seed` decides what it initialises.

    `critic` is for a baseline that is one; without it such an algorithm can only be checked.
    """
    match config:
        case GRPOConfig() | PPOConfig():
            return PolicyGradient(config, seed=seed, critic=critic)
        case SupervisedConfig():
            return Supervised(config)
        case DirectConfig():
            return Direct(config)
