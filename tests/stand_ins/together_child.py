"""One of two processes that learn together: together_child.py MODELS IMAGES OUT.

Each algorithm takes two iterations on each of `KINDS`, and its weights and state are written to
OUT/KIND/ALGORITHM/PROCESS. What `learned` makes in one process is what they should come to.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from algorithms import ALGORITHMS, algorithm_config
from batches import batch_for, cut
from policies import KINDS as POLICIES
from policies import Models, move_weights
from safetensors.torch import save_file

from imgalign.algorithms.batches import Rollout
from imgalign.algorithms.interface import World
from imgalign.runs.state import save_state
from imgalign.train.assemble import build_learner
from imgalign.train.config import OptimizerConfig
from imgalign.train.world import join_world

KINDS = [kind for kind in POLICIES if kind != "random walk"]


class Share(NamedTuple):
    """What one process has of a batch."""

    parts: Sequence[Sequence[int]]
    """Places of its samples, in parts as they were made."""
    examples: Sequence[int]
    """Places of the examples whose likelihood is kept."""


SHARES = (Share([[0, 2], [4], [6]], [0]), Share([[1, 3, 5]], [1]))
"""Of two processes: one prompt each, and not as many samples."""
ALL = Share([*SHARES[0].parts, *SHARES[1].parts], [0, 1])
CLOCK = ("seconds_learning", "peak_memory_gb")


def learned(
    kind: str, name: str, models: Models, images: Path, out: Path, *, world: World, share: Share
) -> None:
    """Write what two iterations come to."""
    policy = POLICIES[kind](models)
    move_weights(policy, by=0.02)
    batch = cut(batch_for(name, images, policy), share.parts)
    if isinstance(batch, Rollout) and batch.examples is not None:
        batch = replace(batch, examples=batch.examples.select(share.examples))
    learner = build_learner(
        policy,
        algorithm=algorithm_config(name, minibatches=1),
        optimizer=OptimizerConfig(learning_rate=1e-3),
        seed=0,
        world=world,
    )
    metrics = [learner.update(batch, iteration=iteration) for iteration in range(2)]
    said = [{key: each[key] for key in each if key not in CLOCK} for each in metrics]
    out.mkdir(parents=True)
    save_state(out, "learner", learner.state_dict())
    save_file({str(place): each for place, each in enumerate(learner.weights())}, out / "weights")
    means = [learner.optimizer.state[each]["exp_avg"] for each in learner.parameters]
    save_file({str(place): each for place, each in enumerate(means)}, out / "gradients")
    (out / "metrics.json").write_text(json.dumps(said))


def main() -> None:
    models: Models = {name: Path(path) for name, path in json.loads(sys.argv[1]).items()}
    images, out, world = Path(sys.argv[2]), Path(sys.argv[3]), join_world()
    for kind in KINDS:
        for name in ALGORITHMS:
            learned(
                kind,
                name,
                models,
                images,
                out / kind / name / str(world.index),
                world=world,
                share=SHARES[world.index],
            )


if __name__ == "__main__":
    main()
