"""How much of a policy gradient is signal, by layer and by denoising step, before training begins.

    python benchmarks/gradient_noise.py --reward demo/reward --results benchmarks/results

Draws independent batches of images from the pretrained model and takes the policy gradient of each
with respect to fresh LoRA matrices. The mean cosine between the gradients of two batches is 0 where
there is only noise; a value of c means that the mean of n batches has about n c / (1 - c) times as
much signal as noise. Directions and not sizes are compared, as after gradient clipping: a few
batches have gradients many times as large. Intervals are at 95 %, by bootstrap over batches. The
control, which must show no signal, has rewards permuted among the images. Writes
gradient_noise.json and prints a table.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from algorithms import record
from torch import Tensor

import reward_models
from imgalign.advantages import group_advantages
from imgalign.demo import ShuffledReward
from imgalign.diffusion.config import LoraDiffusionConfig
from imgalign.diffusion.loading import load_pipeline
from imgalign.diffusion.policy import DiffusionPolicy
from imgalign.environment import choose_dtype
from imgalign.policy import RewardModel
from imgalign.runs.progress import progress
from imgalign.storybook.scenes import evaluation_prompts

LAYERS = {
    "attention": ("to_q", "to_k", "to_v", "to_out.0"),
    "time_emb_proj": ("time_emb_proj",),
    "conv1": ("conv1",),
    "conv2": ("conv2",),
    "conv_out": ("conv_out",),
}
GROUP, GROUPS = 8, 4
"""Images of a prompt, and prompts, in one batch."""
CPU = torch.device("cpu")
SEED = 10_000_000
RESAMPLES = 500

Gradients = dict[tuple[str, int], Tensor]
"""By layers and step."""


def batch_gradients(
    policy: DiffusionPolicy,
    rewards: dict[str, RewardModel],
    prompts: Sequence[str],
    *,
    number: int,
) -> dict[str, Gradients]:
    """The gradient of each reward from one batch."""
    repeated = [prompt for prompt in prompts for _ in range(GROUP)]
    first = SEED + number * len(repeated)
    with torch.no_grad():
        trajectory = policy.sample(repeated, seeds=range(first, first + len(repeated)))
    group = torch.arange(len(prompts)).repeat_interleave(GROUP)
    named = {
        name: [
            parameter
            for full, parameter in policy.family.network.named_parameters()
            # lora_B starts at zero, where lora_A has no gradient.
            if "lora_B" in full and any(f".{layer}." in f".{full}" for layer in layers)
        ]
        for name, layers in LAYERS.items()
    }
    flat = [parameter for own in named.values() for parameter in own]
    found: dict[str, Gradients] = {name: {} for name in rewards}
    advantages = {
        name: group_advantages(
            reward.score(prompts=repeated, samples=trajectory.samples).detach(), group
        )
        for name, reward in rewards.items()
    }
    for step in trajectory.mask[0].nonzero().flatten().tolist():
        log_prob = policy.log_prob(trajectory, torch.tensor([step]))[:, 0]
        for name, advantage in advantages.items():
            gradients = torch.autograd.grad((advantage * log_prob).sum(), flat, retain_graph=True)
            by_parameter = dict(zip(map(id, flat), gradients, strict=True))
            for layers, own in named.items():
                vector = torch.cat([by_parameter[id(p)].flatten() for p in own])
                found[name][layers, step] = vector
    return found


def measured(batches: Sequence[Tensor], rng: np.random.Generator) -> dict[str, float]:
    """Mean cosine with an interval; a batch is never compared with itself."""
    vectors = torch.nn.functional.normalize(torch.stack(list(batches)).double(), dim=1).numpy()
    cosines = vectors @ vectors.T
    n = len(cosines)
    values = []
    for _ in range(RESAMPLES):
        pick = rng.integers(n, size=n)
        values.append(cosines[np.ix_(pick, pick)][pick[:, None] != pick[None, :]].mean())
    low, high = np.quantile(values, (0.025, 0.975))
    mean = (cosines.sum() - cosines.trace()) / (n * (n - 1))
    return {"value": float(mean), "low": float(low), "high": float(high)}


def summed(weights: dict[int, float]) -> Callable[[Gradients, str], Tensor]:
    """The gradient of several steps together, each with its weight."""
    return lambda gradients, layers: torch.stack(
        [weight * gradients[layers, step] for step, weight in weights.items()]
    ).sum(0)


def noise_levels(policy: DiffusionPolicy, steps: Sequence[int]) -> list[float]:
    """Standard deviation of the noise that each step adds."""
    with torch.no_grad():
        trajectory = policy.sample(["a red house"], seeds=[SEED])
        normal = policy.step_distributions(trajectory, torch.tensor(steps))
    return [float(each.flatten()[0]) for each in normal.stddev[0]]


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reward", required=True, help="A fitted reward, as of `imgalign demo`.")
    parser.add_argument("--batches", type=int, default=32)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args()
    policy = DiffusionPolicy(
        load_pipeline("storybook", device=CPU, dtype=choose_dtype("auto", CPU)),
        LoraDiffusionConfig(
            batch_size=GROUP * GROUPS,
            lora_rank=4,
            target_modules=tuple(layer for layers in LAYERS.values() for layer in layers),
        ),
    )
    reward = reward_models.load(given.reward)
    rewards = {"fitted": reward, "shuffled": ShuffledReward(reward, seed=0)}
    prompts = evaluation_prompts(GROUPS * given.batches, seed=SEED, held_out=False)
    batches = []
    with progress("taking gradients") as on_progress:
        for number in range(given.batches):
            own = prompts[number * GROUPS : (number + 1) * GROUPS]
            batches.append(batch_gradients(policy, rewards, own, number=number))
            on_progress((number + 1) / given.batches)
    steps = sorted({step for _, step in batches[0]["fitted"]})
    equal = dict.fromkeys(steps, 1.0)
    levels = dict(zip(steps, noise_levels(policy, steps), strict=True))
    choices = {"all": equal}
    choices |= {f"all, by noise^{n}": {s: levels[s] ** n for s in steps} for n in (1, 2, 4)}
    choices |= {f"first {n}": dict.fromkeys(steps[:n], 1.0) for n in (1, 2, 3, 4, 5)}
    choices |= {f"step {step + 1}": {step: 1.0} for step in steps}
    rng = np.random.default_rng(0)
    table = {
        name: {
            layers: {
                chosen: measured([summed(own)(each[name], layers) for each in batches], rng)
                for chosen, own in choices.items()
            }
            for layers in LAYERS
        }
        for name in rewards
    }
    norms = {
        layers: [
            float(np.median([each["fitted"][layers, step].norm() for each in batches]))
            for step in steps
        ]
        for layers in LAYERS
    }
    record(
        given.results / "gradient_noise.json",
        f"python benchmarks/gradient_noise.py --reward demo/reward --batches {given.batches}",
        images_per_batch=GROUP * GROUPS,
        noise_by_step=list(levels.values()),
        mean_cosine=table,
        median_norm_by_step=norms,
    )
    for name, by_layers in table.items():
        print(
            f"{name}: mean cosine of batches of {GROUP * GROUPS} images, by steps that are credited"
        )
        for layers, found in by_layers.items():
            shown = "  ".join(
                f"{chosen} {each['value']:.3f} ({each['low']:.3f} to {each['high']:.3f})"
                for chosen, each in found.items()
                if not chosen.startswith("step")
            )
            print(f"  {layers:<14}{shown}")


if __name__ == "__main__":
    main()
