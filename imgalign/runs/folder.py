"""The files of a run folder, and what can be read from them without loading a model or torch."""

import os
from pathlib import Path

from imgalign.config import read_mapping
from imgalign.errors import CheckpointError
from imgalign.files import read_json
from imgalign.preferences.records import Samples
from imgalign.prompts import Prompts
from imgalign.runs.trained import ADAPTER_SETTINGS, LANGUAGE_FULL, find_weights, weight_files

CONFIG = "config.yaml"


PROMPTS = "prompts.json"


METRICS = "metrics.jsonl"


SAMPLES = "samples"


LARGEST_PROMPTS = 2**30
"""Bytes. A million prompts are a tenth of it."""


def run_prompts(run: Path) -> Prompts:
    """The training and held-out prompts of a run, as recorded at its start.

    CheckpointError where that record is missing or damaged.
    """
    path = run / PROMPTS
    try:
        kept = read_json(path, largest=LARGEST_PROMPTS)
        return Prompts(tuple(map(str, kept["training"])), tuple(map(str, kept["held_out"])))
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: missing, so the prompts of this run are unknown; start a new run"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: damaged ({error}); start a new run") from None


SHIPPED = "storybook"


def run_of(adapter: Path) -> Path | None:
    """The run that trained weights belong to; None for those from elsewhere."""
    for folder in (adapter, Path(os.path.normpath(adapter / ".."))):
        if (folder / CONFIG).is_file() and (folder / METRICS).is_file():
            return folder
    return None


def model_under(adapter: Path | None) -> str:
    """The model that a run, or one of its checkpoints, was trained on; else the shipped one.

    CheckpointError where there are no trained weights.
    """
    run = None if adapter is None else run_of(find_weights(adapter))
    return SHIPPED if run is None else _model_of(run)


def samples_under(weights: Path) -> Samples:
    """What a model with trained weights makes; images, unless a run or the files say otherwise.

    `weights` is what `find_weights` gives.
    """
    run = run_of(weights)
    if run is not None:
        policy = read_mapping(run / CONFIG).get("policy")
        is_language = isinstance(policy, dict) and policy.get("kind") == "language"
    else:
        whole = any(LANGUAGE_FULL.fullmatch(file.name) for file in weight_files(weights))
        is_language = whole or _task_of(weights / ADAPTER_SETTINGS) == "CAUSAL_LM"
    return "texts" if is_language else "images"


def _task_of(path: Path) -> object:
    """What the settings of an adapter in peft's layout say that it is for; None without any."""
    try:
        return read_json(path).get("task_type")
    except (OSError, ValueError, AttributeError):
        return None


def _model_of(run: Path) -> str:
    settings = read_mapping(run / CONFIG)
    policy = settings.get("policy")
    model = policy.get("model") if isinstance(policy, dict) else None
    model = model or settings.get("model")  # where imgalign 0.1 had it
    if not isinstance(model, str):
        raise CheckpointError(
            f"{run / CONFIG}: expected policy.model, the model that was trained; name it with "
            "--model"
        )
    return model
