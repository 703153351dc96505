"""Rewards of texts with random heads."""

from pathlib import Path
from typing import Any

import torch
from tiny_language import Kind, build_tokenizer, write_language_model
from transformers import PreTrainedTokenizerFast

from imgalign.language.loading import load_language_model
from reward_models.contract import Scale
from reward_models.text import TextReward
from reward_models.text_models import scalar_model

CPU = torch.device("cpu")
WEIGHT = 0.3
"""Of the log-likelihood."""
PROMPTS = ["a cat", "a long prompt about dogs", "x", "a cat"]
TEXTS = ["a red cat in the snow", "dogs", "", "a cat"]


def make_reward(
    folder: Path,
    kind: Kind = "llama",
    tokenizer: PreTrainedTokenizerFast | None = None,
    *,
    likelihood: bool = True,
    **options: Any,
) -> TextReward:
    """A reward with a random head, its scale far from 0 and 1."""
    write_language_model(folder, kind, tokenizer or build_tokenizer(), **options)
    found = load_language_model(str(folder), device=CPU)
    model = scalar_model(found.model, likelihood=likelihood)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        model.head.weight.normal_(generator=generator)
        if model.likelihood is not None:
            model.likelihood.fill_(WEIGHT)
    reward = TextReward(
        model,
        found.tokenizer,
        context_length=found.context_length,
        scale=Scale(mean=0.5, std=2.0, log_odds=0.7),
        log_tie=(-1.0, -2.0),
    )
    return reward.requires_grad_(False)
