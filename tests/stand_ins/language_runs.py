"""Runs of tiny language models, whose reward is how many letters of a text are an e."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tiny_language import LETTERS, TEMPLATE, build_tokenizer, write_language_model
from torch import Tensor

from imgalign.policy import RewardModel
from imgalign.train import run as train
from imgalign.train.config import TrainConfig
from imgalign.train.schedule import RunConfig
from imgalign.unions import with_tags

PROMPTS = ("a boat", "the tree", "a red house", "a gate", "the sun", "two geese")


class LettersE:
    """The share of a text that is the letter e; 0 for an empty one."""

    def score(self, *, prompts: Sequence[str], samples: Sequence[str]) -> Tensor:
        return torch.tensor([text.count("e") / max(len(text), 1) for text in samples])


def write_talker(folder: Path) -> Path:
    """A model whose texts are a few letters and often end, with a chat template."""
    tokenizer = build_tokenizer(letters=LETTERS, template=TEMPLATE)
    return write_language_model(folder, "llama", tokenizer, spread=0.3)


def language_settings(model: Path, **changes: Any) -> TrainConfig:
    """A run of few iterations on its own samples; settings of `run` may be given by name alone."""
    prompts = model.parent / "prompts.txt"
    if not prompts.exists():
        prompts.write_text("".join(f"{each}\n" for each in PROMPTS), encoding="utf-8")
    policy: dict[str, object] = {
        "kind": "language",
        "model": str(model),
        "dtype": "float32",
        "max_new_tokens": 8,
        "batch_size": 8,
    }
    data: dict[str, object] = {
        "prompts": {"file": str(prompts)},
        "prompts_per_iteration": 4,
        "group_size": 4,
        "held_out": {"num_prompts": 2},
    }
    run: dict[str, object] = {
        "measure_every": 1,
        "patience": None,
        "samples": {"every": 1, "num_prompts": 3, "images_per_prompt": 2},
        "iterations": 2,
        "checkpoint_every": 1,
    }
    run |= {name: value for name, value in changes.items() if name in RunConfig.model_fields}
    sections: dict[str, object] = {
        "policy": policy | dict(changes.pop("policy", {})),
        "algorithm": {"name": "grpo"},
        "data": data,
        "optimizer": {"learning_rate": 0.02},
        **{name: value for name, value in changes.items() if name not in run},
    }
    return TrainConfig.model_validate(with_tags(TrainConfig, sections | {"run": run}))


def start_language(
    out: Path,
    settings: TrainConfig,
    *,
    resume: bool = False,
    reward: RewardModel | None = None,
) -> train.RunResult:
    if settings.data.gives == "rollouts":
        reward = reward or LettersE()
    return train.run(settings, reward=reward, out=out, resume=resume)
