"""The record of a run's reward models: their hashes, and where to find them after a move.

rewards.json of a run: `{"path": {"name": "runs/reward", "beside": "../reward", "sha256": "5e.."}}`,
and beside `path` those that a run has of `held_out`, another reward for held-out prompts, and
`drawn.adapter`, trained weights that draw what is scored. `beside` leads there from the run's
folder, so that a project can be moved. A reward that is no folder is known by its name. Left out:
loading one.
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from imgalign.errors import CheckpointError, ConfigError
from imgalign.files import read_json, sha256
from imgalign.runs.checkpoint import checkpoints
from imgalign.runs.trained import find_weights, weights_hash
from imgalign.train.config import RewardConfig, TrainConfig

REWARDS = "rewards.json"
SCORING = (".json", ".safetensors", ".bin", ".pt")
"""Files that decide a score, whatever else lies beside them."""
REPORT = "report.json"
"""The report of a fit, which does not affect scores."""

Role = Literal["path", "held_out", "drawn.adapter"]
"""The setting under `reward` that names it."""


def recorded_rewards(reward: RewardConfig, run: Path) -> dict[str, dict[str, str]]:
    """What rewards.json holds of the rewards as they lie there now."""
    found = {}
    for role in get_args(Role):
        name = named(reward, role)
        if name is not None and (known := content_hash(name, role)) is not None:
            beside = os.path.relpath(name, run.resolve())
            found[role] = {"name": str(name), "beside": beside, "sha256": known}
    return found


def same_rewards(run: Path, reward: RewardConfig) -> frozenset[str]:
    """Which rewards are, by their content, those that the run began with.

    ConfigError for one whose content is another.
    """
    same, before = set(), read_rewards(run)
    for role, kept in before.items():
        name = named(reward, role)
        if name is None:
            continue
        now = content_hash(name, role)
        if now is not None and now != kept["sha256"]:
            what = "other weights" if role == "drawn.adapter" else "another reward"
            raise ConfigError(
                f"reward.{role}: {name} holds {what} than the run began with (SHA-256 "
                f"{kept['sha256'][:8]}, now {now[:8]}); put back what was there, or start a new run"
            )
        if now is not None:
            same.add(role)
    return frozenset(same)


def find_rewards(settings: TrainConfig, run: Path) -> TrainConfig:
    """Settings to resume with: a reward that is not where they say is looked for near the run."""
    reward = settings.reward
    for role, kept in read_rewards(run).items():
        name, near = named(reward, role), Path(os.path.normpath(run / kept["beside"]))
        if name is None or Path(name).exists() or content_hash(near, role) != kept["sha256"]:
            continue
        if role == "drawn.adapter":
            assert reward.drawn is not None
            drawn = reward.drawn.model_copy(update={"adapter": str(near)})
            reward = reward.model_copy(update={"drawn": drawn})
        else:
            reward = reward.model_copy(update={role: str(near)})
    return settings.model_copy(update={"reward": reward})


def named(reward: RewardConfig, role: Role) -> str | Path | None:
    """What the settings say."""
    match role:
        case "path":
            return reward.path
        case "held_out":
            return reward.held_out
        case "drawn.adapter":
            return None if reward.drawn is None else reward.drawn.adapter


def content_hash(name: str | Path, role: Role) -> str | None:
    """SHA-256 of what decides the scores; of an adapter, the weights that are chosen from it."""
    if role != "drawn.adapter":
        return reward_hash(name)
    path = Path(name)
    return weights_hash(find_weights(path)) if path.exists() else None


def read_rewards(run: Path) -> Mapping[Role, dict[str, str]]:
    """rewards.json; empty where a run made nothing yet.

    CheckpointError where it is damaged, or gone from a run that has checkpoints.
    """
    path = run / REWARDS
    try:
        kept: Any = read_json(path)
        return {
            role: {key: str(kept[role][key]) for key in ("beside", "sha256")}
            for role in get_args(Role)
            if role in kept
        }
    except (FileNotFoundError, NotADirectoryError):
        if checkpoints(run):
            raise CheckpointError(
                f"{path}: missing, so nobody knows which reward this run learned from; put it "
                "back, write {} into it if the reward is surely the same, or start a new run"
            ) from None
        return {}
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: damaged ({error}); start a new run") from None


def reward_hash(reward: str | Path) -> str | None:
    """SHA-256 over the files of a reward's folder that decide its scores; None for a mere name."""
    folder = Path(reward)
    if not folder.is_dir():
        return None
    paths = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix in SCORING and path.name != REPORT and path.is_file()
    ]
    lines = [f"{path.relative_to(folder).as_posix()} {sha256(path)}\n" for path in paths]
    return hashlib.sha256("".join(lines).encode()).hexdigest() if lines else None
