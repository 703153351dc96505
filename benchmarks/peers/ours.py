"""imgalign at the settings of a peer: CPU seconds of each iteration, passes, memory.

    python benchmarks/peers/ours.py ddpo --reference-passes 1 --out ours.json

`compare_peers.py` calls it beside the peer. Policies, algorithms and optimizer steps are those of a
training run.
"""

import argparse
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from measuring import Meter, peak_memory_gb, write
from torch import Tensor

from imgalign.algorithms.kl import FixedKLConfig
from imgalign.algorithms.objectives import DPOConfig
from imgalign.algorithms.policy_gradient import GRPOConfig
from imgalign.algorithms.rankings import RankedBatch
from imgalign.diffusion.config import LoraDiffusionConfig
from imgalign.diffusion.loading import load_pipeline
from imgalign.diffusion.policy import DiffusionPolicy
from imgalign.language.config import FullLanguageConfig
from imgalign.language.loading import load_language_model
from imgalign.language.policy import LanguagePolicy
from imgalign.runs.world import Alone
from imgalign.train.assemble import build_learner
from imgalign.train.config import OptimizerConfig
from imgalign.train.data.rollouts import collect

PROMPTS = ("a red fox on a hill", "a blue boat at sea", "a green house", "two yellow birds")
CPU = torch.device("cpu")


class Brightness:
    """A reward that costs nothing."""

    def score(self, *, prompts: Any, samples: Tensor) -> Tensor:
        """The mean of all pixels."""
        return samples.mean(dim=(1, 2, 3))


def ddpo(given: argparse.Namespace) -> Meter:
    """Iterations of GRPO: a group of each prompt, and an optimizer step for each batch."""
    policy = DiffusionPolicy(
        load_pipeline("storybook", device=CPU),
        LoraDiffusionConfig(
            num_inference_steps=given.steps,
            guidance_scale=given.guidance,
            batch_size=given.batch,
            lora_rank=given.rank,
            channels_last=given.channels_last,
        ),
    )
    algorithm = GRPOConfig(
        kl=FixedKLConfig(coefficient=0.02),
        minibatches=given.batches,
        reference_passes=given.reference_passes,
    )
    learner = build_learner(
        policy, algorithm=algorithm, optimizer=OptimizerConfig(), seed=0, world=Alone()
    )
    images = given.batches * given.batch
    prompts = [PROMPTS[number * len(PROMPTS) // images] for number in range(images)]
    meter = Meter()
    meter.watch(policy.family.network)
    for iteration in range(given.epochs):
        seeds = range(iteration * images, (iteration + 1) * images)
        with meter.phase("total"):
            with meter.phase("sampling"):
                rollout = collect(policy, Brightness(), prompts, seeds=seeds, world=Alone())
            with meter.phase("learning"):
                learner.update(rollout, iteration=iteration)
    return meter


def language_dpo(given: argparse.Namespace) -> Meter:
    """Optimizer steps of DPO on pairs of texts, all weights, in one forward pass."""
    loaded = load_language_model("storybook", device=CPU)
    config = FullLanguageConfig(batch_size=2 * given.batch)
    policy, meter = LanguagePolicy(loaded, config), Meter()
    learner = build_learner(
        policy, algorithm=DPOConfig(), optimizer=OptimizerConfig(), seed=0, world=Alone()
    )
    meter.watch(loaded.model)
    lines = [json.loads(line) for line in given.data.read_text(encoding="utf-8").splitlines()]
    size = given.batch
    meter.begin()
    for iteration in range(given.epochs):
        pairs = [lines[(iteration * size + number) % len(lines)] for number in range(size)]
        prompts = [pair["prompt"] for pair in pairs for _ in range(2)]
        texts = [text for pair in pairs for text in (pair["chosen"], pair["rejected"])]
        batch = RankedBatch(
            data=policy.encode(prompts, texts),
            index=torch.arange(2 * size).view(size, 2),
            ranks=torch.tensor([[0, 1]] * size),
            all_bad=torch.zeros(size, dtype=torch.bool),
            all_good=torch.zeros(size, dtype=torch.bool),
            weights=torch.ones(size),
        )
        learner.update(batch, iteration=iteration)
        meter.lap("total")
    return meter


WORK: Mapping[str, Callable[[argparse.Namespace], Meter]] = {
    "ddpo": ddpo,
    "language-dpo": language_dpo,
}


def main() -> None:
    """Do one kind of work and write what it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", choices=WORK)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="Lines of prompt, chosen and rejected.")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--batches", type=int, default=4, help="Batches of an iteration.")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--guidance", type=float, default=5.0)
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--reference-passes", type=int, default=None)
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    imported = peak_memory_gb()
    meter = WORK[given.work](given)
    write(given.out, rows=[meter.found() | {"imported_gb": imported}])


if __name__ == "__main__":
    main()
