"""One of two processes that learn together: together_child.py MODELS IMAGES OUT.

Each of `CASES` takes two iterations, and what they come to is written where `place_of` says. What
`learned` makes in one process is what it should be.
"""

import json
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

from algorithm_rows import ALGORITHMS, DRAWN, algorithm_config
from batches import batch_for, cut
from policies import KINDS as POLICIES
from policies import Models, move_weights
from safetensors.torch import save_file

from imgalign.runs.state import save_state
from imgalign.runs.world import World, join_world, share_weights
from imgalign.train.assemble import build_learner
from imgalign.train.config import OptimizerConfig

LORA_OF_IMAGES, ALL_OF_IMAGES, LORA_OF_TEXTS, ALL_OF_TEXTS = list(POLICIES)[1:]
KINDS = ((LORA_OF_IMAGES, ALL_OF_TEXTS), (ALL_OF_IMAGES, LORA_OF_TEXTS))
CASES = [
    *((kind, name, "") for number, name in enumerate(ALGORITHMS) for kind in KINDS[number % 2]),
    *((LORA_OF_IMAGES, "grpo", drawn) for drawn in DRAWN if drawn),
]
"""Each algorithm on a network of images and on one of texts, which of them is trained as a LoRA
changing from one algorithm to the next; then what may be drawn."""


class Share(NamedTuple):
    """What one process has of a batch."""

    parts: Sequence[Sequence[int]]
    """Places of its samples, in parts as they were made."""
    examples: Sequence[int]
    """Places of the examples whose likelihood is kept."""

    @property
    def singly(self) -> "Share":
        """With each sample in a part of its own."""
        return Share([[place] for part in self.parts for place in part], self.examples)


SHARES = (Share([[0, 2], [4], [6]], [0]), Share([[1, 3, 5]], [1]))
"""Of two processes: one prompt each, and not as many samples."""
ALL = Share([*SHARES[0].parts, *SHARES[1].parts], [0, 1])
CLOCK = ("seconds_learning", "peak_memory_gb")


def learned(
    kind: str,
    name: str,
    models: Models,
    images: Path,
    out: Path,
    *,
    world: World,
    share: Share,
    singly: bool,
    drawn: str = "",
    iterations: int = 2,
) -> None:
    """Write what some iterations come to.

    `singly`, one sample goes through in a pass, and there are two minibatches. Elsewhere there is
    one: what is measured after a step has its rounding in it, which Adam makes as large as a step.
    """
    policy = POLICIES[kind](models, **({"batch_size": 1} if singly else {}))
    share_weights(policy, world)
    move_weights(policy, by=0.02)
    share = share.singly if singly else share
    batch = cut(batch_for(name, images, policy), share.parts, examples=share.examples)
    learner = build_learner(
        policy,
        algorithm=algorithm_config(name, minibatches=2 if singly else 1, **DRAWN[drawn]),
        optimizer=OptimizerConfig(learning_rate=1e-3),
        seed=0,
        world=world,
    )
    metrics = [learner.update(batch, iteration=iteration) for iteration in range(iterations)]
    said = [{key: each[key] for key in each if key not in CLOCK} for each in metrics]
    out.mkdir(parents=True)
    save_state(out, "learner", learner.state_dict())
    save_file({str(place): each for place, each in enumerate(learner.weights())}, out / "weights")
    means = [learner.optimizer.state[each]["exp_avg"] for each in learner.parameters]
    save_file({str(place): each for place, each in enumerate(means)}, out / "gradients")
    (out / "metrics.json").write_text(json.dumps(said))


def place_of(out: Path, kind: str, name: str, index: int, *, singly: bool, drawn: str = "") -> Path:
    """Where a process writes it."""
    return out / kind / f"{name} {drawn}" / ("singly" if singly else "in passes") / str(index)


def main() -> None:
    models: Models = {name: Path(path) for name, path in json.loads(sys.argv[1]).items()}
    images, out, world = Path(sys.argv[2]), Path(sys.argv[3]), join_world(cure="start it again")
    for (kind, name, drawn), singly in product(CASES, (False, True)):
        learned(
            kind,
            name,
            models,
            images,
            place_of(out, kind, name, world.index, singly=singly, drawn=drawn),
            world=world,
            share=SHARES[world.index],
            singly=singly,
            drawn=drawn,
        )


if __name__ == "__main__":
    main()
