"""Texts of a model, and what oracle, reward and the model itself say of them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imgalign.language.config import FullLanguageConfig
from imgalign.language.loading import load_language_model
from imgalign.language.policy import LanguagePolicy
from imgalign.prompts import EVALUATION_SEEDS
from imgalign.statistics import clustered_mean
from imgalign.storybook.demonstrations import FlawRates, demonstrations
from imgalign.storybook.ideas import sample_ideas
from reward_models.loading import load as load_reward


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much is trained on and judged."""

    ideas: int = 1920
    """Of which candidates are ranked."""
    weak_rankings: int = 512
    """From which the weak reward model learns."""
    held_out_ideas: int = 96
    """By which is judged."""
    texts_of_each: int = 4
    given_texts: int = 400
    """Of each kind of example, whose likelihood is measured."""
    best_of: Sequence[int] = (4, 16)
    """Texts of which the best is taken, without training."""
    settings: Sequence[str] = ()
    """For every algorithm beside supervised fine-tuning, after those of a variant."""
    reward_settings: Sequence[str] = ()


def loaded(run: Path | str, reference: Path | str | None = None) -> LanguagePolicy:
    """The model of a run; with a `reference`, that of another run as what it is compared with."""
    config = FullLanguageConfig(batch_size=128, dtype="float32")
    policy = LanguagePolicy(
        load_language_model(str(reference or run), device=torch.device("cpu")), config
    )
    if reference is not None:
        own = load_language_model(str(run), device=torch.device("cpu")).model
        policy.network.model.load_state_dict(own.state_dict())
    return policy


@torch.no_grad()
def texts_of(policy: LanguagePolicy, ideas: Sequence[str], seeds: Sequence[int]) -> list[str]:
    """One text for each idea and seed."""
    found: list[str] = []
    for start in range(0, len(ideas), policy.batch_size):
        part = slice(start, start + policy.batch_size)
        found += policy.decode(policy.sample(ideas[part], seeds=seeds[part]))
    return found


@torch.no_grad()
def likelihood(policy: LanguagePolicy, rows: Sequence[Mapping[str, str]]) -> float:
    """Mean log-probability of a token of given texts, in nats."""
    total = tokens = 0.0
    rows = sorted(
        rows, key=lambda row: len(row["completion"])
    )  # which need little padding together
    for start in range(0, len(rows), policy.batch_size):
        part = rows[start : start + policy.batch_size]
        data = policy.encode([r["prompt"] for r in part], [r["completion"] for r in part])
        scored = policy.log_prob(data, policy.draw(data, seeds=[0] * len(part)))
        total += scored.values.sum().item()
        tokens += policy.elements(data).sum().item()
    return total / tokens


def evaluation_seeds(count: int, *, skip: int = 0) -> Sequence[int]:
    """That no training uses."""
    first = 20_000 + skip
    return EVALUATION_SEEDS[first : first + count]


def held_out_ideas(sizes: Sizes) -> list[str]:
    """Each as often as texts are judged for it."""
    ideas = sample_ideas(sizes.held_out_ideas, seed=77, held_out=True)
    return [idea for idea in ideas for _ in range(sizes.texts_of_each)]


def examples_of(count: int, *, rates: FlawRates, seed: int) -> list[dict[str, str]]:
    """Texts that nobody trained on."""
    made = demonstrations(count, seed=seed, rates=rates, held_out=True)
    return [{"prompt": each.prompt, "completion": each.completion[:200]} for each in made]


def compared(ideas: Sequence[str], after: Tensor, before: Tensor) -> dict[str, Any]:
    """With 95 % intervals by idea; equal texts are half a win."""
    change = (after - before).numpy()
    wins = np.where(change > 0, 1.0, np.where(change < 0, 0.0, 0.5))
    values = {"utility": after.numpy(), "change": change, "win_rate": wins}
    return {
        name: asdict(clustered_mean(value, clusters=ideas, seed=0))
        for name, value in values.items()
    }


def scores_of(reward: Path, ideas: Sequence[str], texts: Sequence[str]) -> Tensor:
    """Of a reward model; one for each text."""
    return load_reward(reward).score(prompts=list(ideas), samples=list(texts))
