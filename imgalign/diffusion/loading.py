"""Finding a model and loading it: the shipped one, a local folder, or one from the hub.

Weights are read from safetensors only, never from pickles. Left out: what is done with a pipeline.
"""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import diffusers.utils.logging as diffusers_logging
import torch
import transformers.utils.logging as transformers_logging
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from imgalign.diffusion.adapters import adapter_file, read_layers, switch_on
from imgalign.diffusion.attention import Attention, warn_once
from imgalign.diffusion.families.backbone import Family
from imgalign.diffusion.families.table import FAMILIES, family_of, family_of_file
from imgalign.diffusion.foreign_json import read_object
from imgalign.diffusion.model_folder import INDEX, check_index, check_latents
from imgalign.diffusion.model_names import STORYBOOK
from imgalign.errors import InputError, first_line
from imgalign.runs.model_names import HUB_ID

ADAPTER = "imgalign"


def load_pipeline(
    model: str,
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    attention: Attention = "sdpa",
) -> DiffusionPipeline:
    """The pipeline of "storybook", a local folder or file, or a hub id such as "owner/name".

    Its denoising network is in `dtype`, text encoder and autoencoder are in float32.

    InputError, in one line, when there is no such model, when it is of a kind that is not
    supported, or when it can neither be fetched nor found in the hub's cache on this machine.
    """
    source, family = find_model(model)
    kind = FAMILIES[family]
    with quiet():
        if Path(source).is_file():
            pipeline = kind.load_file(Path(source), dtype)
        else:
            folder = Path(source) if Path(source).is_dir() else _fetch_model(model, kind)
            pipeline = _assemble(folder, kind, partial(kind.load_parts, dtype=dtype))
        made = kind(pipeline)
        made.check_parts(Path(source))
        made.try_out(Path(source))
    pipeline.set_progress_bar_config(disable=True)  # type: ignore[no-untyped-call]
    pipeline.to(device)
    if attention == "xformers":
        try:
            pipeline.enable_xformers_memory_efficient_attention()
        except (ImportError, OSError, RuntimeError, ValueError) as error:
            pipeline.disable_xformers_memory_efficient_attention()  # type: ignore[no-untyped-call]
            warn_once(first_line(error))
    return pipeline


def plan_family(model: str) -> Family:
    """What settings and tokenizer of a model tell, with none of its weights in memory.

    Its networks are on the device "meta" and cannot be asked. Of the hub, the weights are fetched
    all the same. InputError as of `load_pipeline`.
    """
    source, family = find_model(model)
    kind, place = FAMILIES[family], Path(source)
    with quiet():
        if place.is_file():
            with kind.file_settings(place) as folder:
                return kind(_assemble(folder, kind, kind.plan_parts))
        folder = place if place.is_dir() else _fetch_model(model, kind)
        return kind(_assemble(folder, kind, kind.plan_parts))


def _assemble(
    folder: Path, kind: type[Family], parts_of: Callable[[Path], dict[str, Any]]
) -> DiffusionPipeline:
    check_index(read_object(folder / INDEX), folder / INDEX, kind.classes)
    for name in kind.classes:
        if not (folder / name).is_dir():
            raise InputError(f"model: {folder} lacks its part {name}/")
    build: Any = kind.pipeline_class  # annotated as if it could not do without some
    pipeline: DiffusionPipeline = build(**parts_of(folder), **kind.loading)
    name, parts = kind.network_name, pipeline.components
    check_latents(parts[name].config, parts["vae"].config, folder, name=name)
    return pipeline


def find_model(model: str) -> tuple[str, str]:
    """Where the library finds a model, and the class of its pipeline; InputError if nowhere."""
    folder = STORYBOOK if model == "storybook" else Path(model).expanduser()
    if folder.is_dir():
        source = str(folder)
        index = _read_index(model, folder)
    elif folder.is_file():
        return str(folder), family_of_file(folder)
    elif model == "storybook":
        raise InputError("model: the storybook model is not part of this installation; reinstall")
    elif HUB_ID.fullmatch(model):
        source = model
        index = _fetch_index(model)
    else:
        raise InputError(
            "model: expected 'storybook', a folder, a file or a hub id like 'owner/name',"
            f" got {model!r}, which is no folder here"
        )
    name = str(index.get("_class_name"))
    if name not in FAMILIES:
        raise InputError(f"model: {model!r} is a {name}; supported: {', '.join(FAMILIES)}")
    return source, name


def use_adapter(
    pipeline: DiffusionPipeline, adapter: Path | None, *, strength: float = 1.0
) -> None:
    """Switch the LoRA weights of a file, or of a folder that holds one, on; None is no adapter.

    What they add is multiplied by `strength`. Those that were on before are removed, which leaves
    the model as it was loaded. CheckpointError, and nothing changes, unless the new ones fit the
    model; layers that are not complete are left out with a warning.
    """
    components = family_of(pipeline).adaptable
    found = [] if adapter is None else read_layers(adapter_file(adapter), components)
    layers = [replace(layer, alpha=strength * layer.alpha) for layer in found]
    with quiet():
        pipeline.unload_lora_weights()
        switch_on(layers, components, ADAPTER)


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
    return read_object(path)


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


def _fetch_model(model: str, kind: type[Family]) -> Path:
    """The folder in the hub's cache with all that this kind of model needs, fetched if it lacks."""
    refusals = []
    for variant in (None, "fp16"):
        try:
            folder = kind.pipeline_class.download(
                model, use_safetensors=True, variant=variant, **kind.loading
            )
        except (OSError, ValueError) as error:
            refusals.append(first_line(error))
        else:
            return Path(folder)
    raise InputError(f"model: cannot load {model!r}: {refusals[0]}")
