"""Checkpoints that survive a crash: written to a temporary folder, synced, hashed and renamed.

A run folder holds `step-000200/` folders. Each has a `manifest.json` with the size and SHA-256 of
every file in it, so that a damaged checkpoint is detected before it is loaded. `best.json` and
`latest.json` beside them name one of the folders each. Nothing is pickled: a trainer's state is
tensors in safetensors and everything else in JSON.

A folder that starts with `.tmp-` is an unfinished checkpoint; it is never read, and the next save
removes it. One process writes to a run folder at a time (`files.lock_folder`). `step` counts
iterations.
"""

import json
import logging
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from imgalign.errors import CheckpointError
from imgalign.files import (
    UNFINISHED,
    read_json,
    remove_unfinished,
    replace_folder,
    reporting_full_disk,
    set_aside,
    sha256,
    sync_tree,
    write_atomically,
)

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
STEP = re.compile(r"step-(\d{6,})")

Marker: TypeAlias = Literal["best", "latest"]


def step_folder(run: Path, step: int) -> Path:
    """Folder of the checkpoint of an iteration: `step_folder(run, 200)` ends in `step-000200`."""
    return run / f"step-{step:06d}"


def step_of(folder: Path) -> int:
    """The iteration in a checkpoint folder's name; `CheckpointError` for any other name."""
    match = STEP.fullmatch(folder.name)
    if match is None:
        raise CheckpointError(f"{folder}: expected a folder named like step-000200")
    return int(match[1])


def checkpoints(run: Path) -> list[Path]:
    """All finished checkpoint folders of a run, oldest first, whether they verify or not."""
    if not run.is_dir():
        return []
    found = [path for path in run.iterdir() if path.is_dir() and STEP.fullmatch(path.name)]
    return sorted(found, key=step_of)


def save_checkpoint(
    run: Path,
    step: int,
    *,
    write: Callable[[Path], None],
    keep: int | None = None,
    protect: Collection[int] = (),
) -> Path:
    """Write one checkpoint so that a crash at any moment leaves the older ones intact.

    `write` fills an empty folder. Once that is synced, hashed and renamed to `step-...`, all but
    the newest `keep` checkpoints are removed, except the one marked best and those in `protect`. A
    full disk raises `StorageFullError`, which names the newest checkpoint that still verifies.
    """
    final = step_folder(run, step)
    with reporting_full_disk(run, f"saving step {step}", advice=how_to_resume):
        run.mkdir(parents=True, exist_ok=True)
        remove_unfinished(run)
        unfinished = run / f"{UNFINISHED}{final.name}"
        try:
            unfinished.mkdir()
            write(unfinished)
            write_manifest(unfinished, step)
            sync_tree(unfinished)
            replace_folder(unfinished, final)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        mark(run, "latest", step)
    prune(run, keep=keep, protect=protect)
    return final


def prune(run: Path, *, keep: int | None, protect: Collection[int] = ()) -> None:
    """Remove all but the newest `keep` checkpoints, the best one and those in `protect`."""
    if keep is None:
        return
    best = read_marker(run, "best")
    stay = {*protect, *([] if best is None else [best])}
    for folder in checkpoints(run)[:-keep]:
        if step_of(folder) not in stay:
            remove_checkpoint(folder)


def remove_checkpoints_after(run: Path, step: int) -> None:
    """Remove checkpoints after an iteration and the markers that name them."""
    for folder in checkpoints(run):
        if step_of(folder) > step:
            remove_checkpoint(folder)
    newest = next(iter(reversed(checkpoints(run))), None)
    if newest is not None:
        mark(run, "latest", step_of(newest))
    for marker in get_args(Marker):
        if read_marker(run, marker) is None:
            (run / f"{marker}.json").unlink(missing_ok=True)


def remove_checkpoint(folder: Path) -> None:
    """Remove one checkpoint; it is renamed first, so that a crash leaves no partial one."""
    shutil.rmtree(set_aside(folder), ignore_errors=True)


def write_manifest(folder: Path, step: int) -> None:
    """Record size and SHA-256 of every file in `folder`.

    Example: `{"format": 1, "step": 200, "files": {"trainer.json": {"bytes": 812, "sha256": ".."}}}`
    """
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    manifest = {"format": 1, "step": step, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def verify(folder: Path, *, needs: Collection[str] = ()) -> None:
    """Check every file against the manifest; the first that differs is a `CheckpointError`.

    The manifest must list what the caller `needs`. Other files are ignored, such as notes that
    users put beside weights. Each file is read once per process.
    """
    verify_files(folder, {**read_manifest(folder), **dict.fromkeys(needs)})


def verify_files(folder: Path, names: Iterable[str]) -> None:
    """Check some files of a checkpoint, each of which its manifest must list."""
    files = read_manifest(folder)
    for name in names:
        path = folder / name
        if name not in files:
            raise CheckpointError(
                f"{path}: not listed in {MANIFEST}, so it cannot be verified; copy the whole "
                "checkpoint again"
            )
        size, expected = files[name]
        if not path.is_file():
            raise CheckpointError(f"{path}: listed in {MANIFEST}, but missing")
        if path.stat().st_size != size:
            raise CheckpointError(f"{path}: expected {size} bytes, found {path.stat().st_size}")
        if sha256(path) != expected:
            raise CheckpointError(f"{path}: its content is not what was saved (SHA-256 differs)")


def read_manifest(folder: Path) -> dict[str, tuple[int, str]]:
    """Size and SHA-256 of each file of a checkpoint by its name; `CheckpointError` without any."""
    path = folder / MANIFEST
    try:
        manifest = read_json(path)
        files = {
            name: (whole(facts["bytes"]), str(facts["sha256"]))
            for name, facts in manifest["files"].items()
        }
        step = whole(manifest["step"])
    except FileNotFoundError:
        raise CheckpointError(f"{folder}: no {MANIFEST} here, so nothing can be verified") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: damaged ({error})") from None
    outside = [name for name in files if Path(name).is_absolute() or ".." in Path(name).parts]
    if outside or not files:
        what = f"lists {outside[0]!r}, which is elsewhere" if outside else "lists no file"
        raise CheckpointError(f"{path}: {what}; copy the whole checkpoint again")
    if STEP.fullmatch(folder.name) and step != step_of(folder):
        own = step_folder(folder.parent, step).name
        raise CheckpointError(f"{folder}: holds iteration {step}; rename it to {own}")
    return files


def whole(number: object) -> int:
    """A whole number from 0 on; ValueError for anything else."""
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise ValueError(f"expected a whole number from 0 on, got {number!r:.60}")
    return number


def latest_checkpoint(run: Path, *, needs: Collection[str] = ()) -> Path | None:
    """The newest checkpoint that verifies; damaged ones are logged and skipped."""
    for folder in reversed(checkpoints(run)):
        try:
            verify(folder, needs=needs)
        except CheckpointError as error:
            log.warning("%s; falling back to an older checkpoint", error)
        else:
            return folder
    return None


def mark(run: Path, marker: Marker, step: int, facts: Mapping[str, float] | None = None) -> None:
    """Point `best.json` or `latest.json` at a checkpoint, with the numbers it was chosen by.

    Example: `{"checkpoint": "step-000040", "held_out_reward": 0.61}`; direct methods without a
    reward have `held_out_preference_loss` instead.
    """
    content = {"checkpoint": step_folder(run, step).name, **(facts or {})}
    write_atomically(run / f"{marker}.json", json.dumps(content) + "\n")


def read_marker(run: Path, marker: Marker) -> int | None:
    """The iteration that a marker names; None without a marker or without its checkpoint."""
    step = marked_step(run, marker)
    return step if step is not None and step_folder(run, step).is_dir() else None


def marked_step(run: Path, marker: Marker) -> int | None:
    """The iteration that a marker names, whether its checkpoint exists or not."""
    path = run / f"{marker}.json"
    try:
        return step_of(Path(str(read_json(path)["checkpoint"])))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, CheckpointError) as error:
        log.warning("%s: damaged (%s); ignored", path, error)
        return None


def how_to_resume(run: Path) -> str:
    """Advice after a full disk: what is saved, and how to resume."""
    good = latest_checkpoint(run)
    newest = (
        "no checkpoint had been saved before"
        if good is None
        else f"nothing older was lost, the newest good checkpoint is {good.name}"
    )
    return f"{newest}; free some space and resume"
