"""Aligned checkpoints as files to take home: a LoRA in the layout of another tool, with its card.

The export itself is that of `imgalign export`, a process of its own, in the run's `export` folder;
here it becomes a zip. Whole models are left out: they are large, and the command writes folders.
"""

import subprocess
import tempfile
import threading
import zipfile
from pathlib import Path
from typing import get_args

from imgalign.errors import InputError
from imgalign.runs.exporting import Layout, target_of
from imgalign.runs.folder import samples_under
from imgalign.runs.trained import find_weights, full_weights
from ui.image_request import checkpoint_folder
from ui.processes import IMGALIGN
from ui.runs import Runs

TOOLS: dict[Layout, str] = {
    "kohya": "ComfyUI, AUTOMATIC1111, Forge",
    "diffusers": "diffusers",
    "peft": "peft",
}
"""Where each layout is read, the one that most people need first."""

_ONE_AT_A_TIME = threading.Lock()  # each loads the base model


def layouts(runs: Runs, checkpoint: str) -> tuple[Layout, ...]:
    """Those of a checkpoint, such as "first/step-000024"; none where all weights were trained."""
    folder = checkpoint_folder(runs, checkpoint)
    if full_weights(folder) is not None:
        return ()
    return ("peft",) if samples_under(folder) == "texts" else tuple(TOOLS)


def zipped_export(runs: Runs, checkpoint: str, layout: str) -> tuple[str, Path]:
    """Export a checkpoint, unless that is done; the name of a zip of it, and where it lies.

    The zip is a temporary file, for the caller to remove. InputError for a layout that it has not.
    """
    offered = layouts(runs, checkpoint)
    if layout not in offered:
        known = ", ".join(offered or get_args(Layout))
        raise InputError(
            f"export {layout}: expected {known} for {checkpoint}; others are written by"
            " `imgalign export`"
        )
    source = checkpoint_folder(runs, checkpoint)
    with _ONE_AT_A_TIME:
        _run("export", str(source), "--format", layout)
        folder = target_of(find_weights(source), layout, None)
        with tempfile.NamedTemporaryFile(suffix=".zip", delete=False) as file:
            _write(Path(file.name), folder)
    return f"{folder.name}.zip", Path(file.name)


def _run(*arguments: str) -> None:
    """A command of imgalign to its end; InputError with what it said where it failed."""
    done = subprocess.run([*IMGALIGN, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise InputError(lines[-1].removeprefix("error: "))


def _write(path: Path, folder: Path) -> None:
    """Weights hardly become smaller, so they are stored as they are."""
    with zipfile.ZipFile(path, "w") as file:
        for each in sorted(folder.rglob("*")):
            if each.is_file():
                file.write(each, each.relative_to(folder))
