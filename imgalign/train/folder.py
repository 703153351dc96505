"""A run's folder: claimed once, never overwritten, and resumed only with the settings it had.

runs/<name>/config.yaml      settings, so that the run can be repeated
            metrics.jsonl    one object per iteration
            status.json      running, stopped, finished or failed; time left
            samples/         step-000010.png, ...
            step-000010/     adapter weights, trainer state, manifest
            best.json        latest.json
"""

from pathlib import Path
from typing import Any

from imgalign.checkpoint import (
    checkpoints,
    latest_checkpoint,
    load_state,
    remove_unfinished,
    reporting_full_disk,
)
from imgalign.config import dump_config, load_config
from imgalign.errors import CheckpointError, ConfigError, InputError
from imgalign.metrics import read_metrics
from imgalign.train.config import MAY_CHANGE, TrainConfig

CONFIG = "config.yaml"
METRICS = "metrics.jsonl"
STATE = "trainer"


def claim(out: Path, *, resume: bool) -> None:
    """Make sure of a folder for a run, before anything slow is done; nothing in it changes.

    Without `resume` it must be new or empty, with it there must be a run. InputError otherwise.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: expected a folder for the run, got a file")
    begun = (out / CONFIG).is_file()
    if resume and not begun:
        raise InputError(f"{out}: no run to resume here (no {CONFIG}); start one without --resume")
    if not resume and begun and holds_work(out):
        saved = ", ".join(path.name for path in checkpoints(out)) or "no checkpoint yet"
        raise InputError(
            f"{out}: already holds a run ({saved}); go on with --resume, or choose another folder"
        )
    if not resume and not begun and out.exists():
        strange = sorted(path.name for path in out.iterdir() if path.name != ".lock")
        if strange:
            raise InputError(
                f"{out}: expected a new or empty folder, found {strange[0]!r}; choose another"
            )
    with reporting_full_disk(out, "making the run folder"):
        out.mkdir(parents=True, exist_ok=True)


def holds_work(out: Path) -> bool:
    """Whether a run got further than its settings: one that failed at once may be begun again."""
    return bool(checkpoints(out) or read_metrics(out / METRICS))


def begin(out: Path, settings: TrainConfig, *, resume: bool) -> Path | None:
    """Write the settings and return the checkpoint to go on from, if there is one.

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
    with reporting_full_disk(out, f"writing {CONFIG}"):
        unfinished = out / f".tmp-{CONFIG}"
        dump_config(settings, unfinished)
        unfinished.replace(out / CONFIG)
    return found


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
