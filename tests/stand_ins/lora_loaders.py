"""The rules by which ComfyUI and AUTOMATIC1111 find the layers that a LoRA file means.

Written after comfy/lora.py and comfy/utils.py of ComfyUI, and extensions-builtin/Lora of
AUTOMATIC1111's web UI, as rules and not as copies. Both know a UNet by the names of Stable
Diffusion's original layout. `config` is that of diffusers' UNet2DConditionModel.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

RESNET = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "norm1": "in_layers.0",
    "norm2": "out_layers.0",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
ATTENTION = ("norm", "proj_in", "proj_out")
BLOCK = (
    *("norm1", "norm2", "norm3", "ff.net.0.proj", "ff.net.2"),
    *(f"attn{n}.{part}" for n in (1, 2) for part in ("to_q", "to_k", "to_v", "to_out.0")),
)
ENDS = {
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
}
UP_ENDS = ("lora_up.weight", "lora_B.weight", "lora.up.weight", "lora_linear_layer.up.weight")
"""What stands after the name of a layer and a dot in the layouts that ComfyUI reads."""

Patch = tuple[Tensor, Tensor, float]
"""Down, up, and what their product is multiplied by."""


def original_names(config: Mapping[str, Any]) -> dict[str, str]:
    """By diffusers' name of a layer, its original one, for all that ComfyUI knows."""
    names = dict(ENDS)
    depth = config["transformer_layers_per_block"]
    layers = config["layers_per_block"]
    for level, kind in enumerate(config["down_block_types"]):
        first = 1 + level * (layers + 1)
        for i in range(layers):
            names |= _parts(
                f"down_blocks.{level}", i, f"input_blocks.{first + i}", depth, "CrossAttn" in kind
            )
        names[f"down_blocks.{level}.downsamplers.0.conv"] = f"input_blocks.{first + layers}.0.op"
    names |= _resnet("mid_block.resnets.0", "middle_block.0")
    names |= _attention("mid_block.attentions.0", "middle_block.1", depth)
    names |= _resnet("mid_block.resnets.1", "middle_block.2")
    for level, kind in enumerate(config["up_block_types"]):
        attends = "CrossAttn" in kind
        for i in range(layers + 1):
            place = f"output_blocks.{level * (layers + 1) + i}"
            names |= _parts(f"up_blocks.{level}", i, place, depth, attends)
        last = f"output_blocks.{(level + 1) * (layers + 1) - 1}.{2 if attends else 1}"
        names[f"up_blocks.{level}.upsamplers.0.conv"] = f"{last}.conv"
    return names


def comfyui_names(config: Mapping[str, Any]) -> dict[str, str]:
    """By the name of a layer in a file, its original name: `model_lora_keys_unet`."""
    names = {}
    for ours, original in original_names(config).items():
        names[f"lora_unet_{original.replace('.', '_')}"] = original
        names[f"lora_unet_{ours.replace('.', '_')}"] = original
        names[f"lycoris_{ours.replace('.', '_')}"] = original
        processor = ours.replace(".to_", ".processor.to_")
        if processor.endswith(".to_out.0"):
            processor = processor.removesuffix(".0")
        names[processor] = names[f"unet.{processor}"] = original
    return names


def comfyui_patches(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any]
) -> tuple[dict[str, Patch], set[str]]:
    """What ComfyUI would add to the layers, by their original names, and the keys it leaves."""
    patches, read = {}, set()
    for name, original in comfyui_names(config).items():
        for up in (*(f"{name}.{end}" for end in UP_ENDS), f"{name}_lora.up.weight"):
            if up not in tensors:
                continue
            down, alpha = re.sub(r"up(?=\.weight$)", "down", up), f"{name}.alpha"
            down = down.replace("lora_B", "lora_A")
            scale = float(tensors[alpha]) / len(tensors[down]) if alpha in tensors else 1.0
            patches[original] = tensors[down], tensors[up], scale
            read |= {up, down, alpha}
    return patches, tensors.keys() - read


def automatic1111_name(name: str) -> str:
    """The original name of what a file calls `name`: `convert_diffusers_name_to_compvis`.

    It takes for granted that there are two layers in each level, as in Stable Diffusion 1 and 2.
    """
    flat = {ours.replace(".", "_"): place.replace(".", "_") for ours, place in ENDS.items()}
    name = name.removeprefix("lora_unet_")
    if name in flat:
        return flat[name]
    match = re.fullmatch(
        r"(down|mid|up)_block(?:s_(\d+))?_(attentions|resnets|downsamplers|upsamplers)_(\d+)_(.+)",
        name,
    )
    assert match, name
    side, level, index, rest = match[1], int(match[2] or 0), int(match[4]), match[5]
    if match[3] == "downsamplers":
        return f"input_blocks_{3 * level + 3}_0_op"
    if match[3] == "upsamplers":
        return f"output_blocks_{3 * level + 2}_{2 if level else 1}_conv"
    attends = match[3] == "attentions"
    if not attends:
        rest = RESNET[rest].replace(".", "_")
    if side == "mid":
        return f"middle_block_{1 if attends else 2 * index}_{rest}"
    place = f"input_blocks_{1 + 3 * level + index}" if side == "down" else ""
    place = place or f"output_blocks_{3 * level + index}"
    return f"{place}_{1 if attends else 0}_{rest}"


def _parts(block: str, index: int, place: str, depth: int, attends: bool) -> dict[str, str]:
    found = _resnet(f"{block}.resnets.{index}", f"{place}.0")
    return found | (
        _attention(f"{block}.attentions.{index}", f"{place}.1", depth) if attends else {}
    )


def _resnet(ours: str, place: str) -> dict[str, str]:
    return {f"{ours}.{part}": f"{place}.{original}" for part, original in RESNET.items()}


def _attention(ours: str, place: str, depth: int) -> dict[str, str]:
    return {f"{ours}.{part}": f"{place}.{part}" for part in _attention_parts(depth)}


def _attention_parts(depth: int) -> Iterator[str]:
    yield from ATTENTION
    for block in range(depth):
        yield from (f"transformer_blocks.{block}.{part}" for part in BLOCK)
