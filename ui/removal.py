"""Removes the folder of a run, and says what work would be lost with it.

A run that trains holds a lock on its folder, whoever started it, so none is removed while it does.
Left out: which run, and whether somebody may (runs.py).
"""

import shutil
from pathlib import Path

from imgalign.errors import InputError
from imgalign.files import UNFINISHED, lock_folder
from imgalign.runs.checkpoint import STEP
from imgalign.runs.folder import CONFIG, METRICS, PROMPTS, SAMPLES
from imgalign.runs.status import STATUS

LEFT_BY_A_FAILURE = {
    *(CONFIG, PROMPTS, METRICS, STATUS, "rewards.json", "images.json", "texts.json"),
    *("best.json", "latest.json", "left_out.txt", ".lock"),
}
"""What a run writes before it has done anything that is worth keeping."""


def holdings(folder: Path) -> str:
    """What a run's folder holds that took work. Example: "2 checkpoints"; empty for nothing.

    Anything that a run does not write itself counts as work.
    """
    if folder.is_symlink() or not folder.is_dir():
        return "something that is no folder" if folder.is_symlink() or folder.exists() else ""
    try:
        names = sorted(path.name for path in folder.iterdir())
        measured = (folder / METRICS).is_file() and (folder / METRICS).stat().st_size > 0
    except OSError as error:
        return f"what cannot be read ({error.strerror})"
    steps = [name for name in names if STEP.fullmatch(name)]
    if steps:
        return f"{len(steps)} checkpoint{'s' if len(steps) > 1 else ''}"
    if measured:
        return "measurements"
    others = [
        name
        for name in names
        if name not in LEFT_BY_A_FAILURE and not name.startswith(UNFINISHED) and name != SAMPLES
    ]
    return f"{others[0]!r}, which no failed run leaves" if others else ""


def remove_run(folder: Path) -> None:
    """Remove the folder with everything in it; InputError while a process trains in it."""
    if folder.is_symlink():
        folder.unlink()
        return
    if not folder.exists():
        return
    try:
        with lock_folder(folder, doing="training"):
            shutil.rmtree(folder)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be deleted ({error.strerror}); check the rights of the folder"
        ) from None
