"""imgalign's DPO on pairs of images at the settings of a peer: CPU seconds of each step, passes.

    python benchmarks/peers/our_dpo.py --pairs pairs.jsonl --out ours.json

`compare_peers.py` calls it beside the peer. Policies, algorithms and optimizer steps are those of a
training run. An image is encoded once, before the first step, or with `--encode-each-step` whenever
it is learned from, as the peer does.
"""

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from measuring import Meter, peak_memory_gb, write

from imgalign.algorithms.beta import PerNatConfig
from imgalign.algorithms.objectives import DPOConfig
from imgalign.algorithms.rankings import RankedBatch
from imgalign.diffusion.config import LoraDiffusionConfig
from imgalign.diffusion.loading import load_pipeline
from imgalign.diffusion.policy import DiffusionPolicy
from imgalign.images import as_tensor, read_image_file
from imgalign.policy import Data, join_data
from imgalign.runs.world import Alone
from imgalign.train.assemble import build_learner
from imgalign.train.config import OptimizerConfig

Pair = dict[str, str]


def encoded(policy: DiffusionPolicy, pairs: Sequence[Pair]) -> Data:
    """The images of pairs, the better one of each first."""
    images = [
        as_tensor(read_image_file(Path(pair[which])))
        for pair in pairs
        for which in ("chosen", "rejected")
    ]
    return policy.encode([pair["prompt"] for pair in pairs for _ in range(2)], torch.stack(images))


def batch_of(parts: Sequence[Data]) -> RankedBatch:
    """Pairs as rankings of two."""
    data = join_data(parts)
    size = len(data) // 2
    return RankedBatch(
        data=data,
        index=torch.arange(2 * size).view(size, 2),
        ranks=torch.tensor([[0, 1]] * size),
        all_bad=torch.zeros(size, dtype=torch.bool),
        all_good=torch.zeros(size, dtype=torch.bool),
        weights=torch.ones(size),
    )


def measured(given: argparse.Namespace) -> Meter:
    """Optimizer steps, one draw of a noise level for each pair."""
    config = LoraDiffusionConfig(batch_size=2 * given.batch, lora_rank=given.rank)
    policy = DiffusionPolicy(load_pipeline("storybook", device=torch.device("cpu")), config)
    learner = build_learner(
        policy,
        algorithm=DPOConfig(beta=PerNatConfig(value=1.0), draws=1, minibatches=1),
        optimizer=OptimizerConfig(learning_rate=5e-4),
        seed=0,
        world=Alone(),
    )
    meter = Meter()
    meter.watch(policy.family.network)
    lines = [json.loads(line) for line in given.pairs.read_text(encoding="utf-8").splitlines()]
    known: dict[int, Data] = {}
    if not given.encode_each_step:
        with meter.phase("encoding"):
            known = {number: encoded(policy, [line]) for number, line in enumerate(lines)}
    meter.begin()
    for iteration in range(given.epochs):
        places = [(iteration * given.batch + place) % len(lines) for place in range(given.batch)]
        if given.encode_each_step:
            batch = batch_of([encoded(policy, [lines[place] for place in places])])
        else:
            batch = batch_of([known[place] for place in places])
        learner.update(batch, iteration=iteration)
        meter.lap("total")
    return meter


def main() -> None:
    """Measure and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=16, help="Pairs of a step.")
    parser.add_argument("--epochs", type=int, default=9, help="Steps.")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--encode-each-step", action="store_true")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    imported = peak_memory_gb()
    meter = measured(given)
    encoding = sum(meter.cpu.pop("encoding", []))
    meter.wall.pop("encoding", None)
    meter.rows.pop("encoding", None)
    found = meter.found() | {"imported_gb": imported, "cpu_seconds_before": encoding}
    write(given.out, rows=[found])


if __name__ == "__main__":
    main()
