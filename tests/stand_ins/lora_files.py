"""LoRA files with random weights in the layouts that people exchange."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

ATTENTION = ("to_q", "to_v", "to_out.0")
TEXT = ("q_proj", "v_proj", "out_proj")

Matrices = dict[str, tuple[Tensor, Tensor]]
"""By the name of the layer: down and up."""


def random_matrices(
    network: nn.Module, ends: tuple[str, ...], *, rank: int = 2, ranks: Mapping[str, int] = {}
) -> Matrices:
    """Random matrices for every layer whose name ends so; `ranks` by ends of names."""
    generator = torch.Generator().manual_seed(3)
    found = {}
    for name, layer in network.named_modules():
        if name.endswith(ends) and isinstance(layer, nn.Linear | nn.Conv2d):
            size = next((ranks[end] for end in ranks if name.endswith(end)), rank)
            out, into, *kernel = layer.weight.shape
            down = torch.randn(size, into, *kernel, generator=generator) * 0.3
            up = torch.randn(out, size, *(1 for _ in kernel), generator=generator) * 0.3
            found[name] = down, up
    assert found
    return found


def kohya(
    unet: Matrices, text: Matrices | None = None, *, alphas: Mapping[str, float] = {}
) -> dict[str, Tensor]:
    """As kohya's trainer writes it; the alpha of a layer is 1 unless an end of its name says so."""
    layers = {}
    for prefix, matrices in (("lora_unet_", unet), ("lora_te_text_model_", text or {})):
        for name, (down, up) in matrices.items():
            flat = prefix + name.removeprefix("text_model.").replace(".", "_")
            layers[f"{flat}.lora_down.weight"] = down
            layers[f"{flat}.lora_up.weight"] = up
            alpha = next((alphas[end] for end in alphas if name.endswith(end)), 1.0)
            layers[f"{flat}.alpha"] = torch.tensor(alpha)
    return layers


def diffusers(unet: Matrices, text: Matrices | None = None) -> dict[str, Tensor]:
    """As diffusers' training scripts write it."""
    layers = {}
    for prefix, matrices in (("unet.", unet), ("text_encoder.", text or {})):
        for name, (down, up) in matrices.items():
            layers[f"{prefix}{name}.lora_A.weight"] = down
            layers[f"{prefix}{name}.lora_B.weight"] = up
    return layers


def write_peft_folder(folder: Path, matrices: Matrices, **config: object) -> Path:
    """As `get_peft_model(unet, ...).save_pretrained(folder)` writes it."""
    folder.mkdir(exist_ok=True)
    layers = {}
    for name, (down, up) in matrices.items():
        layers[f"base_model.model.{name}.lora_A.weight"] = down
        layers[f"base_model.model.{name}.lora_B.weight"] = up
    save_file(layers, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    ends = sorted({name.rpartition(".")[2] for name in matrices})
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ends, **config}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def write(path: Path, layers: Mapping[str, Tensor]) -> Path:
    """The tensors in a file; its parent is made if it is missing."""
    path.parent.mkdir(exist_ok=True)
    save_file(dict(layers), path)
    return path
