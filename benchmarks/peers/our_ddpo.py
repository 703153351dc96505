"""imgalign on images at the settings of a peer: CPU seconds of each iteration, passes, memory.

    python benchmarks/peers/our_ddpo.py --reference-passes 1 --out ours.json

`compare_peers.py` calls it beside the peer. Policies, algorithms and optimizer steps are those of a
training run.
"""

import argparse
import logging
from pathlib import Path
from typing import Any

import torch
from measuring import Meter, peak_memory_gb, write
from torch import Tensor

from imgalign.algorithms.kl import FixedKLConfig
from imgalign.algorithms.policy_gradient import GRPOConfig
from imgalign.diffusion.config import LoraDiffusionConfig
from imgalign.diffusion.loading import load_pipeline
from imgalign.diffusion.policy import DiffusionPolicy
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
            batch_size=given.in_pass or given.batch,
            lora_rank=given.rank,
            channels_last=given.channels_last,
            steps_per_pass=given.steps_per_pass,
        ),
    )
    algorithm = GRPOConfig(
        kl=FixedKLConfig(coefficient=0.0 if given.reference_passes == 0 else 0.02),
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


def main() -> None:
    """Measure and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--batches", type=int, default=4, help="Batches of an iteration.")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--guidance", type=float, default=5.0)
    parser.add_argument("--in-pass", type=int, help="Images in a pass, if not those of a batch.")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--steps-per-pass", type=int, default=1)
    parser.add_argument("--reference-passes", type=int, default=None)
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    imported = peak_memory_gb()
    meter = ddpo(given)
    write(given.out, rows=[meter.found() | {"imported_gb": imported}])


if __name__ == "__main__":
    main()
