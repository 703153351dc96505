"""A run's folder: claimed once, never overwritten, and resumed only with the settings it had.

runs/<name>/config.yaml      settings, so that the run can be repeated
            prompts.json     the prompts themselves: their file may be moved or edited later
            metrics.jsonl    one object per iteration
            status.json      running, stopped, finished or failed; time left
            samples/         step-000010.png, ...
            step-000010/     adapter weights, trainer state, manifest
            best.json        latest.json
"""

import json
from pathlib import Path
from typing import Any

from imgalign.checkpoint import checkpoints, latest_checkpoint, load_state
from imgalign.config import dump_config, load_config
from imgalign.errors import CheckpointError, ConfigError, InputError
from imgalign.files import UNFINISHED, remove_unfinished, reporting_full_disk, write_atomically
from imgalign.metrics import read_metrics
from imgalign.train.config import MAY_CHANGE, TrainConfig
from imgalign.train.prompts import Prompts

CONFIG = "config.yaml"
PROMPTS = "prompts.json"
METRICS = "metrics.jsonl"
STATE = "trainer"


def claim(out: Path, *, resume: bool) -> None:
    """Refuse a folder that a run may not have, before anything slow is done; changes nothing.

    Without `resume` it must be new or empty, with it there must be a run. InputError otherwise.
    """
    for place in (out, *out.parents):
        if place.exists() and not place.is_dir():
            raise InputError(f"{place}: expected a folder for the run, got a file")
    begun = (out / CONFIG).is_file()
    if resume and not begun:
        raise InputError(f"{out}: no run to resume here (no {CONFIG}); start one without --resume")
    if not resume and begun and holds_work(out):
        saved = ", ".join(path.name for path in checkpoints(out)) or "no checkpoint yet"
        raise InputError(
            f"{out}: already holds a run ({saved}); go on with --resume, or choose another folder"
        )
    if not resume and not begun and out.exists():
        names = sorted(path.name for path in out.iterdir())
        strange = [name for name in names if name != ".lock" and not name.startswith(UNFINISHED)]
        if strange:
            raise InputError(
                f"{out}: expected a new or empty folder, found {strange[0]!r}; choose another"
            )


def holds_work(out: Path) -> bool:
    """Whether a run got further than its settings: one that failed at once may be begun again."""
    return bool(checkpoints(out) or read_metrics(out / METRICS))


def begin(out: Path, settings: TrainConfig, prompts: Prompts, *, resume: bool) -> Path | None:
    """Write settings and prompts and return the checkpoint to go on from, if there is one.

    The caller holds the folder's lock. ConfigError where a resumed run would become another one;
    CheckpointError where it has checkpoints and none verifies.
    """
    remove_unfinished(out)
    found = None
    if resume:
        refuse_changes(load_config(TrainConfig, out / CONFIG), settings)
        found = latest_checkpoint(out)
        if found is None and checkpoints(out):
            raise CheckpointError(
                f"{out}: none of its {len(checkpoints(out))} checkpoints is whole; "
                "start again in another folder"
            )
    with reporting_full_disk(out, "writing the settings"):
        unfinished = out / f"{UNFINISHED}{CONFIG}"
        dump_config(settings, unfinished)
        unfinished.replace(out / CONFIG)
        if not resume:  # after the settings, by which `claim` knows that the folder is a run's
            write_atomically(out / PROMPTS, json.dumps(prompts._asdict(), indent=1) + "\n")
    return found


def run_prompts(run: Path) -> Prompts:
    """What a run learned from, and what it was stopped and selected by, as kept at its start.

    CheckpointError where that was not kept or is damaged.
    """
    path = run / PROMPTS
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return Prompts(tuple(map(str, kept["training"])), tuple(map(str, kept["held_out"])))
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: missing, so nobody knows what this run learned from; start a new run"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: damaged ({error}); start a new run") from None


def refuse_changes(before: TrainConfig, now: TrainConfig) -> None:
    """ConfigError for the first setting that differs and may not."""
    old, new = flat(before.model_dump(mode="json")), flat(now.model_dump(mode="json"))
    for key in sorted(old.keys() | new.keys()):
        if key.split(".")[0] in MAY_CHANGE or key == "held_out.patience":
            continue
        if old.get(key) != new.get(key):
            raise ConfigError(
                f"{key}: the run began with {old.get(key)!r}, got {new.get(key)!r}; "
                "resume with the old value, or start a new run"
            )


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as `section.key`."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def load_trainer_state(checkpoint: Path) -> dict[str, Any]:
    """The trainer's part of a checkpoint; CheckpointError where it is not one."""
    state = load_state(checkpoint, STATE)
    if not isinstance(state, dict) or not isinstance(state.get("step"), int):
        raise CheckpointError(f"{checkpoint}: its trainer state is not one of a training run")
    return state
