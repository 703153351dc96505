"""Writing LoRA layers in the layouts that other tools read; adapters.py reads them.

Three layouts: diffusers' (a file with `unet.NAME.lora_A.weight`, and settings in its header),
peft's (a folder with `adapter_config.json`, and `base_model.model.NAME.lora_A.weight`), and kohya's
(a file with `lora_unet_NAME_WITH_UNDERSCORES.lora_down.weight` and the alpha of every layer), which
ComfyUI, AUTOMATIC1111, Forge and kohya's scripts read. The matrices have the same shapes in all of
them: of a convolution, the first has its kernel and the second is 1 x 1. Equal layers give equal
bytes.

Left out: adding the layers to a model (merging.py), and where files go (export.py).
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from peft import LoraConfig
from safetensors.torch import save
from torch import Tensor

from imgalign.diffusion.adapters import PEFT_CONFIG, Component, Layer, peft_settings
from imgalign.diffusion.families.backbone import Family
from imgalign.errors import InputError

PEFT_FILE = "adapter_model.safetensors"
ALIGNMENT = 8
"""Bytes; where the numbers of a safetensors file begin is a multiple of it."""


def write_diffusers(layers: Sequence[Layer], path: Path, *, dtype: torch.dtype | None) -> None:
    """A file for `pipe.load_lora_weights(folder)`; `dtype` None keeps each matrix as it is."""
    tensors = {
        f"{layer.component}.{name}": matrix
        for layer in layers
        for name, matrix in in_dtype(layer, dtype).matrices().items()
    }
    settings = {
        f"{component}.{key}": value
        for component in dict.fromkeys(layer.component for layer in layers)
        for key, value in peft_settings([e for e in layers if e.component == component]).items()
    }
    header = {LORA_ADAPTER_METADATA_KEY: json.dumps(settings, sort_keys=True)}
    write_tensors(tensors, path, header)


def write_peft(
    layers: Sequence[Layer], folder: Path, *, dtype: torch.dtype | None, base: str | None
) -> None:
    """A folder for `PeftModel.from_pretrained(pipe.unet, folder)`, of layers of one network.

    `base` is the base model's name on the hub, if it has one.
    """
    assert len({layer.component for layer in layers}) == 1
    config: Any = LoraConfig(
        **peft_settings(layers), inference_mode=True, base_model_name_or_path=base
    )
    settings = config.to_dict()
    settings["target_modules"] = sorted(settings["target_modules"])  # a set: order is random
    text = json.dumps(settings, indent=2, sort_keys=True)
    (folder / PEFT_CONFIG).write_text(f"{text}\n", encoding="utf-8")
    tensors = {
        f"base_model.model.{name}": matrix
        for layer in layers
        for name, matrix in in_dtype(layer, dtype).matrices().items()
    }
    write_tensors(tensors, folder / PEFT_FILE, {"format": "pt"})


def check_one_network(layers: Sequence[Layer], network: str) -> None:
    """InputError for layers of another part than the network: a folder of peft is of one."""
    others = {layer.component for layer in layers} - {network}
    if others:
        raise InputError(
            f"export peft: the adapter has layers of {', '.join(sorted(others))} too, and a folder"
            " of peft is of one network; use --format diffusers or kohya"
        )


def write_kohya(
    layers: Sequence[Layer],
    components: Sequence[Component],
    path: Path,
    *,
    dtype: torch.dtype | None,
    header: Mapping[str, str],
) -> None:
    """A file for ComfyUI, AUTOMATIC1111, Forge and kohya's scripts; `header` as `kohya_header`."""
    places, tensors = {each.name: each for each in components}, {}
    for layer in layers:
        name, cast = places[layer.component].kohya_name(layer.name), in_dtype(layer, dtype)
        tensors[f"{name}.lora_down.weight"] = cast.down
        tensors[f"{name}.lora_up.weight"] = cast.up
        # Without an alpha these tools take the rank; in half precision it could be rounded.
        tensors[f"{name}.alpha"] = torch.tensor(layer.alpha, dtype=torch.float32)
    write_tensors(tensors, path, header)


def kohya_header(
    layers: Sequence[Layer], family: Family, *, name: str, base: str
) -> dict[str, str]:
    """What the tools show of such a file: kohya's `ss_` keys, and those of Stability's ModelSpec.

    A rank or alpha that differs between layers is "Dynamic", as kohya's own scripts write.
    """
    width, height = family.image_size()
    return {
        "ss_output_name": name,
        "ss_sd_model_name": base,
        "ss_network_module": "networks.lora",
        "ss_network_dim": _common([layer.rank for layer in layers]),
        "ss_network_alpha": _common([layer.alpha for layer in layers]),
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.implementation": "diffusers",
        "modelspec.title": name,
        "modelspec.resolution": f"{width}x{height}",
        **family.kohya_facts(),
    }


def in_dtype(layer: Layer, dtype: torch.dtype | None) -> Layer:
    """The layer with its matrices in `dtype`, None for as they are.

    InputError where a number is too large for it.
    """
    down, up = (
        matrix.contiguous() if dtype is None else matrix.to(dtype).contiguous()
        for matrix in (layer.down, layer.up)
    )
    if not (down.isfinite().all() and up.isfinite().all()):
        raise InputError(
            f"dtype: a number of {layer.name} is too large for {str(dtype).removeprefix('torch.')};"
            " use bfloat16 or float32"
        )
    return Layer(component=layer.component, name=layer.name, down=down, up=up, alpha=layer.alpha)


def write_tensors(tensors: Mapping[str, Tensor], path: Path, header: Mapping[str, str]) -> None:
    """A safetensors file, the keys of its header in order; the library's own order is random."""
    content = save(dict(tensors), metadata=dict(header))
    start = 8 + int.from_bytes(content[:8], "little")
    entries = json.loads(content[8:start])
    entries["__metadata__"] = dict(sorted(header.items()))
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[start:])


def _common(values: Sequence[float]) -> str:
    """The value as text where all are the same."""
    return f"{values[0]:g}" if len(set(values)) == 1 else "Dynamic"
