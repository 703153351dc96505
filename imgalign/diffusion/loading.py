"""Finding a model and loading it: the shipped one, a local folder, or one from the hub.

Weights are read from safetensors only, never from pickles. Left out: what is done with a pipeline.
"""

import json
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers.utils.logging as diffusers_logging
import torch
import transformers.utils.logging as transformers_logging
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from peft.utils import get_peft_model_state_dict
from safetensors import SafetensorError

from imgalign.diffusion.attention import Attention, first_line, warn_once
from imgalign.diffusion.families import FAMILIES, LORA_FILE, Pipeline
from imgalign.errors import CheckpointError, InputError

STORYBOOK = Path(__file__).parents[1] / "storybook" / "assets" / "pipeline"
ADAPTER = "imgalign"
INDEX = "model_index.json"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def load_pipeline(
    model: str,
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    attention: Attention = "sdpa",
) -> Pipeline:
    """The pipeline of "storybook", a local folder, or a hub id such as "owner/name".

    InputError, in one line, when there is no such model, when it is of a kind that is not
    supported, or when it can neither be fetched nor found in the hub's cache on this machine.
    """
    source, family = find_model(model)
    kind = FAMILIES[family]
    try:
        with quiet():
            pipeline: Pipeline = kind.pipeline_class.from_pretrained(
                source, dtype=dtype, use_safetensors=True, **kind.loading
            )
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(f"model: cannot load {model!r}: {first_line(error)}") from None
    pipeline.set_progress_bar_config(disable=True)  # type: ignore[no-untyped-call]
    pipeline.to(device)
    if attention == "xformers":
        try:
            pipeline.enable_xformers_memory_efficient_attention()
        except (ImportError, OSError, RuntimeError, ValueError) as error:
            pipeline.disable_xformers_memory_efficient_attention()  # type: ignore[no-untyped-call]
            warn_once(first_line(error))
    return pipeline


def find_model(model: str) -> tuple[str, str]:
    """Where the library finds a model, and the class of its pipeline; InputError if nowhere."""
    folder = STORYBOOK if model == "storybook" else Path(model).expanduser()
    if folder.is_dir():
        source = str(folder)
        index = _read_index(model, folder)
    elif model == "storybook":
        raise InputError("model: the storybook model is not part of this installation; reinstall")
    elif HUB_ID.fullmatch(model):
        source = model
        index = _fetch_index(model)
    else:
        raise InputError(
            f"model: expected 'storybook', a folder or a hub id like 'owner/name', got {model!r},"
            " which is no folder here"
        )
    name = str(index.get("_class_name"))
    if name not in FAMILIES:
        raise InputError(f"model: {model!r} is a {name}; supported: {', '.join(FAMILIES)}")
    return source, name


def load_adapter(pipeline: Pipeline, folder: Path) -> None:
    """Switch the LoRA weights in `folder` on; CheckpointError unless all of them fit the model."""
    try:
        with quiet(logging.CRITICAL):
            source: dict[str, Any] = {"weight_name": LORA_FILE, "use_safetensors": True}
            layers, *_ = pipeline.lora_state_dict(str(folder), **source)
            # Not from `layers`, which have lost the adapter's scale.
            pipeline.load_lora_weights(str(folder), adapter_name=ADAPTER, **source)
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: cannot use this adapter: {first_line(error)}") from None
    used = sum(
        len(get_peft_model_state_dict(component, adapter_name=ADAPTER))
        for component in pipeline.components.values()
        if ADAPTER in getattr(component, "peft_config", {})
    )
    if used < len(layers):  # the library would go on with those that fit
        raise CheckpointError(
            f"{folder}: {len(layers) - used} of the adapter's {len(layers)} matrices have no place"
            " in this model; it was trained on another one"
        )


@contextmanager
def quiet(below: int = logging.ERROR) -> Iterator[None]:
    """Inside, the libraries show no progress bars for loading and no remarks below this level."""
    bars = diffusers_logging.is_progress_bar_enabled()
    levels = diffusers_logging.get_verbosity(), transformers_logging.get_verbosity()
    diffusers_logging.disable_progress_bar()
    diffusers_logging.set_verbosity(below)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers_logging.set_verbosity(below)
    try:
        with warnings.catch_warnings():
            # Between diffusers and huggingface_hub; nothing that a user could change.
            warnings.filterwarnings("ignore", message="The `local_dir_use_symlinks` argument")
            yield
    finally:
        if bars:
            diffusers_logging.enable_progress_bar()
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
        diffusers_logging.set_verbosity(levels[0])
        transformers_logging.set_verbosity(levels[1])


def _read_index(model: str, folder: Path) -> dict[str, object]:
    path = folder / INDEX
    if not path.is_file():
        found = ", ".join(sorted(each.name for each in folder.iterdir())[:5]) or "nothing"
        raise InputError(f"model: expected {INDEX} in {model!r}, a pipeline folder, found: {found}")
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: expected json: {first_line(error)}") from None
    if not isinstance(index, dict):
        raise InputError(f"{path}: expected an object, got {type(index).__name__}")
    return index


def _fetch_index(model: str) -> dict[str, object]:
    try:
        with quiet():
            index: dict[str, object] = DiffusionPipeline.load_config(model)  # type: ignore[assignment]
    except OSError as error:
        raise InputError(
            f"model: {model!r} is no folder here, not in the hub's cache, and could not be fetched;"
            f" check the name and the connection, or pass a folder: {first_line(error)}"
        ) from None
    return index
