"""Aligned checkpoints as files to take home: a LoRA in the layout of another tool, with its card.

The export itself is that of `imgalign export`, a process of its own, in the run's `export` folder;
it counts the blind votes on the checkpoint and keeps the verdict in the run, for the card. Here it
becomes a zip. Whole models are left out: they are large, and the command writes folders.
"""

import os
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import NamedTuple, get_args
from urllib.parse import quote

from imgalign.errors import InputError
from imgalign.runs.exporting import Layout, name_of, target_of
from imgalign.runs.trained import ADAPTER, LANGUAGE_ADAPTER, find_weights, weight_files
from ui.download import zip_folder
from ui.image_request import checkpoint_folder
from ui.processes import IMGALIGN, naming
from ui.runs import Runs

TOOLS: dict[Layout, str] = {
    "kohya": "ComfyUI, AUTOMATIC1111, Forge",
    "diffusers": "diffusers",
    "peft": "peft",
}
"""Where each layout is read, the one that most people need first."""

_ONE_AT_A_TIME = threading.Lock()  # each loads the base model


class Download(NamedTuple):
    """A checkpoint for a tool. Example: ("peft", "api/exports/first/step-000024/peft")."""

    tool: str
    address: str
    """From where the app is served."""


def downloads(checkpoint: Path) -> list[Download]:
    """What a checkpoint, such as runs/first/step-000024, can be taken home as."""
    place = f"{quote(checkpoint.parent.name)}/{quote(checkpoint.name)}"
    return [
        Download(TOOLS[layout], f"api/exports/{place}/{layout}") for layout in layouts(checkpoint)
    ]


def layouts(checkpoint: Path) -> tuple[Layout, ...]:
    """Those of a run's checkpoint; none where all weights were trained."""
    names = [file.name for file in weight_files(checkpoint)]
    if ADAPTER in names:
        return tuple(TOOLS)
    return ("peft",) if LANGUAGE_ADAPTER in names else ()


def zipped_export(runs: Runs, checkpoint: str, layout: str) -> tuple[str, Path]:
    """Export a checkpoint, unless that is done; the name of a zip of it, and where it lies.

    The zip is a temporary file, for the caller to remove. InputError for a layout that it has not.
    """
    source = checkpoint_folder(runs, checkpoint)
    offered = layouts(source)
    if layout not in offered:
        known = ", ".join(offered or get_args(Layout))
        raise InputError(
            f"export {layout}: expected {known} for {checkpoint}; others are written by"
            " `imgalign export`"
        )
    weights = find_weights(source)
    with _ONE_AT_A_TIME, tempfile.TemporaryDirectory() as elsewhere:
        there = os.access(source.parent, os.W_OK)  # a run may be on a disk that is read-only
        out = None if there else Path(elsewhere) / f"{name_of(weights)}-{layout}"
        folder = target_of(weights, layout, out)
        options = [] if out is None else ["--out", str(out)]
        _run("export", str(source), "--format", layout, *options, database=runs.database)
        with tempfile.NamedTemporaryFile(suffix=".zip", delete=False) as file:
            zip_folder(Path(file.name), folder)
    return f"{folder.name}.zip", Path(file.name)


def _run(*arguments: str, database: str | None) -> None:
    """A command of imgalign to its end; InputError with what it said where it failed."""
    done = subprocess.run(
        [*IMGALIGN, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | naming(database),
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise InputError(lines[-1].removeprefix("error: "))
