"""Claims: a reward model of which any file is damaged, its contract among them, scores as it did or
is refused by a CheckpointError or InputError of one line; it never runs code."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from damages import Damage, damages, with_damage
from fault_counts import LONG, check_line, examples
from hypothesis import example, given
from text_rewards import PROMPTS, TEXTS, make_reward
from tiny_clip import write_clip

from imgalign.errors import CheckpointError, InputError
from reward_models import load
from reward_models.clip import ClipReward, load_towers
from reward_models.contract import Scale
from reward_models.head import PreferenceHead

pytestmark = LONG

IMAGE_PROMPTS = ["a red fox", "a house", "a cat"]


def some_images() -> torch.Tensor:
    return torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(3))


def image_scores(reward: Any) -> torch.Tensor:
    return torch.as_tensor(reward.score(prompts=IMAGE_PROMPTS, samples=some_images()))


def text_scores(reward: Any) -> torch.Tensor:
    return torch.as_tensor(reward.score(prompts=PROMPTS, samples=TEXTS))


def save_images_reward(folder: Path) -> None:
    towers = load_towers(write_clip(folder.parent / "clip"))
    plain = ClipReward.zero_shot(towers)
    reward = ClipReward(
        towers,
        [head for head in plain.heads if isinstance(head, PreferenceHead)],
        head=plain.head_config,
        scale=Scale(mean=0.5, std=2.0, log_odds=1.5),
        log_tie=(-1.0,),
    ).requires_grad_(False)
    reward.save(folder, golden=list(zip(IMAGE_PROMPTS, some_images(), strict=True)))


def save_text_reward(folder: Path) -> None:
    reward = make_reward(folder.parent / "model")
    reward.save(folder, golden=list(zip(PROMPTS, TEXTS, strict=True)))


def rewritten(folder: Path, **fields: Any) -> Damage:
    """Of a contract, by hand."""
    was = (folder / "contract.json").read_bytes()
    return Damage("contract.json", was, json.dumps(json.loads(was) | fields).encode())


REWARDS: dict[str, tuple[Callable[[Path], None], Callable[[Any], torch.Tensor]]] = {
    "images": (save_images_reward, image_scores),
    "texts": (save_text_reward, text_scores),
}


@pytest.mark.parametrize("kind", REWARDS)
def test_a_damaged_reward_model_scores_as_before_or_is_refused(tmp_path, faults, kind):
    save, scores = REWARDS[kind]
    folder = tmp_path / "reward"
    save(folder)
    expected = scores(load(folder))

    @examples(60)
    @given(damage=damages(folder))
    @example(damage=rewritten(folder, scale={"mean": 0.0, "std": 1.0, "log_odds": 1.0}, files=None))
    @example(damage=rewritten(folder, kind="sounds"))
    @example(damage=rewritten(folder, format=10**400))
    @example(damage=rewritten(folder, files={"../model.safetensors": "0" * 64}))
    @example(damage=rewritten(folder, backbone=[[]]))
    def check(damage: Damage) -> None:
        with faults.inject(f"reward models, {kind}"), with_damage(folder, damage):
            try:
                found = scores(load(folder))
            except (CheckpointError, InputError) as error:
                check_line(error)
            else:
                assert torch.allclose(found, expected, atol=1e-4), damage

    check()
