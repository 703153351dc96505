"""Runs of imgalign 0.1, and the names that settings of an evaluation had in it.

Left out: the names of training settings (algorithms/old_names.py), and translating any. The weights
of such runs are as useful as ever; their settings are not what 0.2 would make of them.
"""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imgalign.config import read_mapping
from imgalign.errors import CheckpointError
from imgalign.runs.folder import CONFIG

EVALUATION = {
    "steps": "sampler.num_inference_steps",
    "guidance_scale": "sampler.guidance_scale",
    "eta": "sampler.eta",
    "precision": "dtype",
    "pictures": "images",
    "held_out_combinations": "unseen_combinations",
}
"""What `imgalign evaluate` has now for a setting."""


def is_old(settings: Mapping[str, Any]) -> bool:
    """Whether the settings of a run are those of imgalign 0.1, which had no section `run`."""
    return "iterations" in settings


def refuse_old(run: Path) -> None:
    """CheckpointError for a run of imgalign 0.1, with what can still be done with it."""
    if is_old(read_mapping(run / CONFIG)):
        folder = shlex.quote(str(run))
        raise CheckpointError(
            f"{run / CONFIG}: a run of imgalign 0.1, which cannot be resumed, repeated or reported "
            f"on; its weights still work: imgalign generate --adapter {folder}, imgalign evaluate "
            f"{folder}; to train on, start a new run from a recipe"
        )
