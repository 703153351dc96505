"""Aligned checkpoints as files to take home: a LoRA in the layout of another tool, with its card.

The export itself is that of `imgalign export`, a process of its own, in the run's `export` folder;
it counts the blind votes on the checkpoint and keeps the verdict in the run, for the card. Here it
becomes a zip, which the page asks for, waits for and takes (builds.py): that takes seconds. Whole
models are left out: they are large, and the command writes folders.
"""

import os
import subprocess
import tempfile
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from imgalign.errors import InputError
from imgalign.files import reporting_full_disk
from imgalign.runs.exporting import Layout, name_of, target_of
from imgalign.runs.trained import ADAPTER, LANGUAGE_ADAPTER, find_weights, weight_files
from ui.builds import Built
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

ADDRESS = "api/exports"
"""Of the files, from where the app is served."""


class Download(NamedTuple):
    """A checkpoint for a tool. Example: ("peft", "api/exports/first/step-000024/peft")."""

    tool: str
    address: str
    """To ask for it, from where the app is served."""


def downloads(checkpoint: Path) -> list[Download]:
    """What a checkpoint, such as runs/first/step-000024, can be taken home as."""
    place = f"{quote(checkpoint.parent.name)}/{quote(checkpoint.name)}"
    return [
        Download(TOOLS[layout], f"{ADDRESS}/{place}/{layout}") for layout in layouts(checkpoint)
    ]


def buttons(offered: Sequence[Download], before: str, after: str = "") -> str:
    """To take one of these home, within a sentence, as HTML for assets/taking.js."""
    tools = "".join(
        f'<button type="button" class="btn" data-take="{escape(each.address)}">'
        f"{escape(each.tool)}</button>"
        for each in offered
    )
    return (
        f'<div class="tools" data-files="{ADDRESS}" data-what="the LoRA for ">'
        f"<span>{escape(before)}</span>{tools}<span>{escape(after)}</span>"
        '<p role="status"></p><p role="alert" hidden></p></div>'
    )


def layouts(checkpoint: Path) -> tuple[Layout, ...]:
    """Those of a run's checkpoint; none where all weights were trained."""
    names = [file.name for file in weight_files(checkpoint)]
    if ADAPTER in names:
        return tuple(TOOLS)
    return ("peft",) if LANGUAGE_ADAPTER in names else ()


def offered_layout(runs: Runs, checkpoint: str, layout: str) -> Layout:
    """One of those of a checkpoint, such as first/step-000024; InputError for any other."""
    offered = layouts(checkpoint_folder(runs, checkpoint))
    if not offered:
        raise InputError(f"export {layout}: expected a LoRA, got all weights of {checkpoint}")
    for each in offered:
        if each == layout:
            return each
    raise InputError(f"export {layout}: expected {', '.join(offered)} for {checkpoint}")


def zipped_export(runs: Runs, checkpoint: str, layout: Layout, into: Path) -> Built:
    """Export a checkpoint, unless that is done, and write a zip of it into a folder."""
    source = checkpoint_folder(runs, checkpoint)
    weights = find_weights(source)
    with tempfile.TemporaryDirectory() as elsewhere:
        there = os.access(source.parent, os.W_OK)  # a run may be on a disk that is read-only
        out = None if there else Path(elsewhere) / f"{name_of(weights)}-{layout}"
        folder = target_of(weights, layout, out)
        options = [] if out is None else ["--out", str(out)]
        _run("export", str(source), "--format", layout, *options, database=runs.database)
        name = f"{folder.name}.zip"
        with reporting_full_disk(into / name, "writing the file"):
            zip_folder(into / name, folder)
    return Built(into / name, name, name)


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
