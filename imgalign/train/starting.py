"""Starts and resumes a run in its folder, which is never overwritten.

runs/<name>/config.yaml      settings, so that the run can be repeated
            prompts.json     the prompts themselves: their file may be moved or edited later
            rewards.json     where the rewards were and what they are: another may take their place
            images.json      what the given images are, where a run learns from such
            left_out.txt     which given files or rows cannot be used, and why, if any
            metrics.jsonl    one object per iteration
            status.json      running, stopped, finished or failed; time left
            samples/         step-000010.png, ...
            step-000010/     trained weights, trainer state, manifest
            best.json        latest.json
"""

import json
import logging
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from imgalign.algorithms.objectives import DirectConfig
from imgalign.config import dump_config, load_config
from imgalign.errors import CheckpointError, ConfigError, InputError
from imgalign.files import (
    UNFINISHED,
    remove_unfinished,
    reporting_full_disk,
    write_atomically,
)
from imgalign.prompts import Prompts
from imgalign.runs.checkpoint import (
    checkpoints,
    latest_checkpoint,
    marked_step,
    step_folder,
    step_of,
)
from imgalign.runs.folder import CONFIG, METRICS, PROMPTS, SAMPLES, run_prompts
from imgalign.runs.metrics import Value, read_metrics
from imgalign.runs.old_format import refuse_old
from imgalign.runs.state import load_state
from imgalign.runs.status import RunStatus, written_status
from imgalign.train.config import TrainConfig, flat
from imgalign.train.reward_record import REWARDS, recorded_rewards, same_rewards
from imgalign.train.stopping import BestSoFar

STATE = "trainer"
BEGINNING = f"{UNFINISHED}{CONFIG}"
"""There before anything else of a run is, until its settings are: by it `claim` knows that what
else lies there is of a start that was cut off."""
PROMPT_FILES = ("data.prompts.file", "data.held_out.file")
"""Settings that may name another path where the same prompts are."""
BATCH_SIZE = "policy.batch_size"
"""A matter of memory and rounding, which may differ where a run is resumed."""
RESUMED = (f"{STATE}.json", f"{STATE}.safetensors")
"""The files of a checkpoint that training goes on from, beside the trained weights."""
TRAINER_PARTS: dict[str, Any] = {
    "step": int,
    "learner": {"optimizer": {}, "algorithm": {}},
    "best": {},
    "rng": {"cpu": torch.Tensor, "cuda": list},
}
"""What a trainer's state has at least: types by name."""

log = logging.getLogger(__name__)


def claim(out: Path, *, resume: bool) -> None:
    """Check that a run may use a folder, before anything slow is done; changes nothing.

    Without `resume` it must be new or empty, with it there must be a run. InputError otherwise.
    """
    for place in (out, *out.parents):
        if place.exists() and not place.is_dir():
            raise InputError(f"{place}: expected a folder for the run, got a file")
    begun = (out / CONFIG).is_file()
    if resume and not begun:
        raise InputError(f"{out}: no run to resume here (no {CONFIG}); start one without --resume")
    if resume:
        refuse_old(out)
    if not resume and begun and holds_work(out):
        saved = ", ".join(path.name for path in checkpoints(out)) or "no checkpoint yet"
        raise InputError(
            f"{out}: already holds a run ({saved}); go on with --resume, or choose another folder"
        )
    if not resume and not begun and out.exists() and not (out / BEGINNING).exists():
        names = sorted(path.name for path in out.iterdir())
        strange = [name for name in names if name != ".lock" and not name.startswith(UNFINISHED)]
        if strange:
            raise InputError(
                f"{out}: expected a new or empty folder, found {strange[0]!r}; choose another"
            )


def holds_work(out: Path) -> bool:
    """Whether a run has metrics or checkpoints; one that failed before may be begun again."""
    return bool(checkpoints(out) or read_metrics(out / METRICS))


def begin(out: Path, settings: TrainConfig, prompts: Prompts, *, resume: bool) -> Path | None:
    """Write settings, prompts and what the data is; returns the checkpoint to resume from, if any.

    The caller holds the folder's lock. ConfigError where a resumed run would become another one;
    CheckpointError where its checkpoints are gone, or none verifies.
    """
    if not resume:
        with reporting_full_disk(out, "writing the settings"):
            dump_config(settings, out / BEGINNING)
    for place in (out, out / SAMPLES):
        remove_unfinished(place, but=BEGINNING)
    found, now = None, recorded_rewards(settings.reward, out)
    if resume:
        before = load_config(TrainConfig, out / CONFIG)
        refuse_changes(before, settings, proven=proven_equal(out, before, settings, prompts))
        found = newest_of(out, before)
    with reporting_full_disk(out, "writing the settings"):
        if not resume:
            settings.data.keep(out)
            # Not beside the settings of another run, should this one be killed in between.
            (out / PROMPTS).unlink(missing_ok=True)
        dump_config(settings, out / BEGINNING)
        (out / BEGINNING).replace(out / CONFIG)  # by it `claim` knows that the folder is a run's
        write_atomically(out / REWARDS, json.dumps(now, indent=1) + "\n")
        if not (out / PROMPTS).exists():
            write_atomically(out / PROMPTS, json.dumps(prompts._asdict(), indent=1) + "\n")
    return found


def newest_of(out: Path, before: TrainConfig) -> Path | None:
    """The checkpoint that a run resumes from; None for one that had not saved any.

    CheckpointError where there were some and none is left: beginning at iteration 0 would drop the
    metrics of that training.
    """
    needs = [before.policy.always_saved, *RESUMED]
    found, named = latest_checkpoint(out, needs=needs), marked_step(out, "latest")
    if found is not None:
        if named is not None and step_of(found) < named and not step_folder(out, named).exists():
            log.warning(
                "%s: latest.json names %s, which is gone; going on from %s",
                out,
                step_folder(out, named).name,
                found.name,
            )
        return found
    if checkpoints(out):
        raise CheckpointError(
            f"{out}: none of its {len(checkpoints(out))} checkpoints is whole; "
            "start again in another folder"
        )
    marked = named is not None or marked_step(out, "best") is not None
    status, records = written_status(out), read_metrics(out / METRICS)
    made = max((int(record["step"] or 0) for record in records), default=0)
    back_at_start = status is not None and (status.state, status.step) == ("finished", 0)
    if marked or ended_saved(status) or (not back_at_start and must_have_saved(records, before)):
        raise CheckpointError(
            f"{out}: its checkpoints are gone, of {made} iterations in {METRICS}, and resuming "
            "would begin at iteration 0 and drop these; put them back, or start a new run in "
            "another folder"
        )
    log.warning(
        "%s: ended before its first checkpoint, after %s; it begins again at iteration 0",
        out,
        "1 iteration" if made == 1 else f"{made} iterations",
    )
    return None


def ended_saved(status: RunStatus | None) -> bool:
    """Whether a run finished, or was stopped after an iteration: both end with a checkpoint."""
    if status is None or status.step == 0:
        return False
    insisted = status.message == KeyboardInterrupt.__name__  # the last Ctrl-C, which saves nothing
    return status.state == "finished" or (status.state == "stopped" and not insisted)


def must_have_saved(records: Sequence[Mapping[str, Value]], before: TrainConfig) -> bool:
    """Whether metrics continue after an iteration that a run saves: a periodic or a best one."""
    steps = [int(record["step"] or 0) for record in records]
    made, budget, best = max(steps, default=0), before.run.kl_budget_nats, BestSoFar()
    algorithm = before.algorithm
    limit = algorithm.max_chosen_drop if isinstance(algorithm, DirectConfig) else None
    for step, record in zip(steps, records, strict=True):
        reward, loss, kl = (
            number(record.get(f"held_out_{name}")) for name in ("reward", "preference_loss", "kl")
        )
        drop = -number(record.get("held_out_chosen_log_ratio"))
        allowed = (budget is None or kl <= budget) and not (limit is not None and drop > limit)
        score = reward if "held_out_reward" in record else -loss
        if not math.isnan(score) and best.add(step, score, allowed=allowed) and 0 < step < made:
            return True
    return made > before.run.checkpoint_every


def number(value: Value) -> float:
    """A measured number; NaN for the null that stands in metrics for one that was not finite."""
    return float(value) if isinstance(value, int | float) else math.nan


def prompts_to_use(out: Path, settings: TrainConfig, *, resume: bool) -> Prompts:
    """The prompts that a run recorded, or for a new run those that its settings name."""
    if resume and ((out / PROMPTS).exists() or holds_work(out)):
        return run_prompts(out)
    return settings.data.load_prompts()


def refuse_data(
    settings: TrainConfig, prompts: Prompts, *, resume: bool, num_processes: int
) -> None:
    """ConfigError or InputError where a run could not learn from its data; a new one in particular.

    A resumed run has the data that it began with.
    """
    settings.data.refuse_amounts(prompts, num_processes=num_processes)
    if not resume:
        settings.data.refuse_rankings(settings.algorithm, prompts, num_processes=num_processes)


def refuse_changes(before: TrainConfig, now: TrainConfig, *, proven: Collection[str] = ()) -> None:
    """ConfigError for the first setting that differs and may not, except those in `proven`."""
    old, new = flat(settings_dump(before)), flat(settings_dump(now))
    for key in sorted(old.keys() | new.keys()):
        if key.startswith("run.") or key in (BATCH_SIZE, *proven):
            continue
        if old.get(key) != new.get(key):
            raise ConfigError(
                f"{key}: the run began with {old.get(key)!r}, got {new.get(key)!r}; "
                "resume with the old value, or start a new run"
            )


def proven_equal(
    out: Path, before: TrainConfig, now: TrainConfig, prompts: Prompts
) -> frozenset[str]:
    """Settings whose path may differ, because the content there is what the run began with."""
    proven = {f"reward.{key}" for key in same_rewards(out, now.reward)}
    if before.data.source == now.data.source:
        proven |= {f"data.{name}" for name in now.data.moved(out)}
    old, new = flat(settings_dump(before)), flat(settings_dump(now))
    changed = {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)}
    moved = changed & set(PROMPT_FILES)
    if moved and not any(key.startswith("data.") for key in changed - moved):
        named = [new.get(key) for key in PROMPT_FILES]
        there = all(path is None or Path(str(path)).is_file() for path in named)
        if there and now.data.load_prompts() == prompts:
            proven |= moved
    return frozenset(proven)


def settings_dump(settings: TrainConfig) -> dict[str, Any]:
    """All settings under their names in files."""
    return settings.model_dump(mode="json", by_alias=True)


def load_trainer_state(checkpoint: Path) -> dict[str, Any]:
    """The trainer's part of a checkpoint; CheckpointError where it is not one."""
    state = load_state(checkpoint, STATE)
    missing = missing_parts(state, TRAINER_PARTS)
    if not missing and (inside := state.get("inside")) is not None:
        missing = missing_parts(inside, {"weights": list, "state": TRAINER_PARTS, "budget": float})
    if missing:
        raise CheckpointError(
            f"{checkpoint}: its trainer state is not that of a training run ({missing[0]} is "
            "missing or of another kind); resume from another checkpoint"
        )
    return dict(state)


def missing_parts(state: Any, parts: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Names of the parts that nested state lacks or has with another type."""
    if not isinstance(state, dict):
        return [prefix.rstrip(".") or "all of it"]
    missing = []
    for name, kind in parts.items():
        if isinstance(kind, dict):
            missing += missing_parts(state.get(name), kind, f"{prefix}{name}.")
        elif not isinstance(state.get(name), kind):
            missing.append(f"{prefix}{name}")
    return missing
