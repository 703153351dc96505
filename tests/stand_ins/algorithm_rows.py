"""Every algorithm's settings, as the contract suite and the tests of resuming run them."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, TypeAdapter

from imgalign.algorithms.choice import AlgorithmConfig

FIXED_BETA = {"kind": "per_nat", "value": 0.1}

ALGORITHMS: Mapping[str, Mapping[str, object]] = {
    "grpo": {"name": "grpo", "minibatches": 2},
    "grpo, ranks": {"name": "grpo", "baseline": {"kind": "rank"}, "minibatches": 2},
    "grpo, kl in the reward, examples": {
        "name": "grpo",
        "kl": {"kind": "fixed", "coefficient": 0.02, "place": "reward"},
        "ptx": 0.5,
        "minibatches": 2,
    },
    "ppo": {"name": "ppo", "baseline": {"kind": "value"}, "minibatches": 2},
    "ppo, running": {
        "name": "ppo",
        "baseline": {"kind": "running", "min_count": 2},
        "kl": {"kind": "adaptive", "target_nats": 0.5},
        "minibatches": 2,
    },
    "supervised, best": {"name": "supervised", "draws": 4, "minibatches": 2},
    "supervised, reward": {
        "name": "supervised",
        "weighting": {"kind": "reward"},
        "draws": 4,
        "minibatches": 2,
    },
    "supervised, given images": {
        "name": "supervised",
        "weighting": {"kind": "equal"},
        "draws": 4,
        "minibatches": 2,
    },
    "dpo": {"name": "dpo", "minibatches": 2},
    "dpo, pairs": {"name": "dpo", "compare": "all_pairs", "beta": FIXED_BETA, "minibatches": 2},
    "dpo, refreshed": {
        "name": "dpo",
        "beta": FIXED_BETA,
        "refresh": {"every": 1, "max_nats": 1e3},
        "minibatches": 2,
    },
    "ipo": {"name": "ipo", "beta": {"kind": "diffusers", "value": 0.15}, "minibatches": 2},
    "kto": {"name": "kto", "beta": {"kind": "salesforce", "value": 1.2}, "minibatches": 2},
    "cardinal": {
        "name": "cardinal",
        "temperature": 0.05,  # of a reward between 0 and 1
        "largest": 3.0,
        "beta": FIXED_BETA,
        "minibatches": 2,
    },
    "dpo, given rankings": {"name": "dpo", "compare": "best_worst", "minibatches": 2},
}
GIVEN = ("supervised, given images", "dpo, given rankings")
"""Those that the contract suite gives images; they can learn from samples as well."""

DRAWN: Mapping[str, Mapping[str, object]] = {
    "": {},
    "some steps": {"timesteps_per_update": 2},
    "some steps and references": {"credited_steps": 1, "kl_steps": 1, "reference_passes": 1},
}
"""What a policy gradient learns from, of steps and passes that it draws."""

CONFIG: TypeAdapter[AlgorithmConfig] = TypeAdapter(
    Annotated[AlgorithmConfig, Field(discriminator="name")]
)


def algorithm_config(name: str, **changes: object) -> AlgorithmConfig:
    """The settings of a row of the table, some of them otherwise."""
    return CONFIG.validate_python({**ALGORITHMS[name], **changes})
