"""Held-out measurements and sample grids of a run.

Left out: early stopping by them (loop.py, stopping.py).
"""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from imgalign.algorithms.batches import reward_metrics
from imgalign.algorithms.kl import total_kl
from imgalign.files import reporting_full_disk, write_atomically
from imgalign.policy import Images, Policy, RewardModel, StepPolicy, Texts
from imgalign.prompts import EVALUATION_SEEDS, Prompts
from imgalign.runs.checkpoint import how_to_resume
from imgalign.runs.world import World
from imgalign.train.data.rollouts import collect
from imgalign.train.schedule import SamplesConfig
from imgalign.train.watcher import Watcher

HELD_OUT_SEEDS = EVALUATION_SEEDS[10_000:]
"""Disjoint from training seeds, and from the small seeds that are usual for generation."""
FALLBACK_PROMPTS = 8
"""Training prompts on which the KL is measured where no prompt is held out."""
GAP = 2
"""Pixels between two images of a grid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A held-out measurement; `reward` is None without held-out prompts or a reward model."""

    reward: float | None
    kl: float

    def metrics(self) -> dict[str, float]:
        """Under the keys of docs/metrics.md."""
        reward = {} if self.reward is None else {"held_out_reward": self.reward}
        return {**reward, "held_out_kl": self.kl}


class Constant:
    """A reward of zero for every sample, where only the KL is measured."""

    def score(self, *, prompts: Sequence[str], samples: Images | Texts) -> Float[Tensor, " b"]:
        """Zeros."""
        return torch.zeros(len(prompts))


def measure(
    policy: StepPolicy,
    reward: RewardModel | None,
    prompts: Prompts,
    *,
    images_per_prompt: int,
    unfinished_penalty: float = 0.0,
    world: World,
    watcher: Watcher,
) -> Measured:
    """Reward and KL on held-out prompts and seeds, the same every time.

    Without held-out prompts the KL is measured on some of those that are trained on. Each process
    samples its share of the prompts, and all get the same numbers: they decide when a run stops.
    """
    chosen = prompts.held_out or prompts.training[:FALLBACK_PROMPTS]
    places = [
        place * images_per_prompt + each
        for place in world.deal(len(chosen))
        for each in range(images_per_prompt)
    ]
    rollout = collect(
        policy,
        reward or Constant(),
        [chosen[place // images_per_prompt] for place in places],
        seeds=[HELD_OUT_SEEDS[place] for place in places],
        unfinished_penalty=unfinished_penalty,
        world=world,
        watcher=watcher,
    )
    nats, images = total_kl(policy, rollout.batch), float(len(rollout))
    rewards = torch.cat(world.gather(rollout.rewards))
    counts = reward is not None and bool(prompts.held_out)
    return Measured(
        reward=reward_metrics(rewards)["reward_mean"] if counts else None,
        kl=world.total(nats) / world.total(images),
    )


def draw_samples(policy: Policy, prompts: Prompts, config: SamplesConfig, path: Path) -> Path:
    """Write previews, held-out prompts first, one row each, seeds 0, 1, 2, ...; returns the file.

    `path` has no ending: images are a grid in one PNG, texts a JSON object of lists by prompt.
    """
    rows = (prompts.held_out + prompts.training)[: config.num_prompts]
    columns = config.images_per_prompt
    samples = previews(
        policy, [prompt for prompt in rows for _ in range(columns)], [*range(columns)] * len(rows)
    )
    with reporting_full_disk(path.parent.parent, f"writing {path.name}", advice=how_to_resume):
        if isinstance(samples, Tensor):
            path = path.with_suffix(".png")
            save_grid(samples, path, columns=columns)
        else:
            path = path.with_suffix(".json")
            save_texts(rows, samples, path)
    return path


@torch.no_grad()
def previews(
    policy: Policy, prompts: Sequence[str], seeds: Sequence[int]
) -> Float[Tensor, "n 3 h w"] | list[str]:
    """One preview per prompt and seed, images on the CPU, in batches of the policy's size."""
    size = policy.batch_size
    parts = [slice(start, start + size) for start in range(0, len(prompts), size)]
    each = [policy.preview(prompts[part], seeds=seeds[part]) for part in parts]
    if isinstance(each[0], Tensor):
        return torch.cat([images.cpu() for images in each])
    return [text for texts in each for text in texts]


def save_texts(prompts: Sequence[str], texts: Sequence[str], path: Path) -> None:
    """Write the texts of each prompt, which follow each other. Example: {"a cat": ["...", ...]}."""
    columns = len(texts) // len(prompts)
    rows = {
        prompt: list(texts[place * columns : (place + 1) * columns])
        for place, prompt in enumerate(prompts)
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(rows, indent=1, ensure_ascii=False) + "\n")


def save_grid(images: Float[Tensor, "n 3 h w"], path: Path, *, columns: int) -> None:
    """Write images row by row into one PNG, with a thin white gap between them."""
    height, width = images.shape[2] + GAP, images.shape[3] + GAP
    rows = -(-len(images) // columns)
    grid = torch.ones(3, rows * height + GAP, columns * width + GAP)
    for number, image in enumerate(images):
        top, left = GAP + number // columns * height, GAP + number % columns * width
        grid[:, top : top + image.shape[1], left : left + image.shape[2]] = image
    pixels = (grid.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, buffer.getvalue())
