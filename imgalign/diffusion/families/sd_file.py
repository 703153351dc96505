"""Stable Diffusion 1 and 2: loading a checkpoint of one file in the original layout.

Such a file holds weights alone. What the library would fetch beside them is written here instead:
sizes are read off the weights, everything else is what the published models have, and the tokenizer
is CLIP's, whose vocabulary comes with open_clip. Left out: pickles (.ckpt), SDXL, other families.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from safetensors import safe_open
from transformers import CLIPTokenizer

from imgalign.diffusion.model_folder import INDEX, UNUSABLE
from imgalign.errors import InputError, first_line

log = logging.getLogger(__name__)

Shapes = Mapping[str, Sequence[int]]

UNET = "model.diffusion_model."
VAE = "first_stage_model."
ENCODER = "cond_stage_model."
PARTS = {UNET: "network", VAE: "autoencoder", ENCODER: "encoder"}
"""By what the names of its tensors begin with."""
CLIP = f"{ENCODER}transformer.text_model."
OPEN_CLIP = f"{ENCODER}model."
HEAD = 64
"""Width of an attention head in the text encoders, and in the network of version 2."""
OPEN_CLIP_LAYERS = 24
"""Of which the last is not used: the published models read what comes before it."""


def load_file(path: Path, dtype: torch.dtype) -> StableDiffusionPipeline:
    """The pipeline of a file, its network in `dtype` and its other parts in float32.

    InputError, in one line, for a file that lacks tensors.
    """
    with file_settings(path) as folder:
        try:
            pipeline: StableDiffusionPipeline = StableDiffusionPipeline.from_single_file(
                str(path),
                config=str(folder),
                dtype=torch.float32,
                local_files_only=True,
                safety_checker=None,
                feature_extractor=None,
            )
        except NotImplementedError:  # a tensor that nothing was loaded into has no place in memory
            raise InputError(
                f"model: {path}: not complete: it lacks weights of its layout"
            ) from None
        except UNUSABLE as error:
            raise _refusal(path, error) from None
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        lost = [name for name, each in part.named_parameters() if each.is_meta]
        if lost:
            raise InputError(f"model: {path}: {len(lost)} tensors are missing, such as {lost[0]}")
    pipeline.unet.to(dtype)
    if OPEN_CLIP + "ln_final.weight" in _shapes(path):
        log.warning(
            "model: %s: taken for version 2 at 768 pixels, with v-prediction; for one at 512"
            " pixels pass a folder in diffusers' layout",
            path,
        )
    return pipeline


@contextmanager
def file_settings(path: Path) -> Iterator[Path]:
    """A folder in diffusers' layout without weights, whose sizes are those of the file's tensors.

    InputError, in one line, for a file that lacks tensors.
    """
    with TemporaryDirectory(prefix="imgalign-") as folder:
        try:
            _write_settings(Path(folder), _shapes(path))
        except UNUSABLE as error:
            raise _refusal(path, error) from None
        yield Path(folder)


def _refusal(path: Path, error: BaseException) -> InputError:
    return InputError(f"model: cannot load {str(path)!r}: {first_line(error)}")


def clip_tokenizer(*, pad: str) -> CLIPTokenizer:
    """CLIP's own tokenizer, of 49,408 tokens, from the vocabulary that open_clip ships."""
    from open_clip.tokenizer import SimpleTokenizer  # loads much; only these files need it

    original = SimpleTokenizer()
    pieces = list(original.encoder)[:-2]  # the last two are the ends, under other names
    vocab = {piece: index for index, piece in enumerate(pieces)}
    vocab |= {"<|startoftext|>": len(pieces), "<|endoftext|>": len(pieces) + 1}
    merges: Any = list(original.bpe_ranks)  # annotated as text, but only pairs work
    return CLIPTokenizer(vocab=vocab, merges=merges, pad_token=pad, model_max_length=77)


def _shapes(path: Path) -> Shapes:
    with safe_open(path, "pt") as file:
        return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118


def _write_settings(folder: Path, shapes: Shapes) -> None:
    second = OPEN_CLIP + "ln_final.weight" in shapes
    index = {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "requires_safety_checker": False,
    }
    _write(folder / INDEX, index)
    _write(folder / "unet" / "config.json", _unet_settings(shapes, second=second))
    _write(folder / "vae" / "config.json", _vae_settings(shapes, second=second))
    text = _open_clip_settings(shapes) if second else _clip_settings(shapes)
    _write(folder / "text_encoder" / "config.json", text | {"model_type": "clip_text_model"})
    levels = {
        "_class_name": "DDIMScheduler",
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
        "prediction_type": "v_prediction" if second else "epsilon",
    }
    _write(folder / "scheduler" / "scheduler_config.json", levels)
    pad = "!" if second else "<|endoftext|>"
    clip_tokenizer(pad=pad).save_pretrained(folder / "tokenizer")


def _unet_settings(shapes: Shapes, *, second: bool) -> dict[str, Any]:
    widths: list[int] = []
    while (name := f"{UNET}input_blocks.{3 * len(widths) + 1}.0.in_layers.2.weight") in shapes:
        widths.append(shapes[name][0])
    norms = [f"{UNET}input_blocks.{3 * level + 1}.1.norm.weight" for level in range(len(widths))]
    attends = [norm in shapes for norm in norms]
    down = [f"{'CrossAttn' if each else ''}DownBlock2D" for each in attends]
    up = [f"{'CrossAttn' if each else ''}UpBlock2D" for each in reversed(attends)]
    attention = f"{UNET}input_blocks.1.1."
    return {
        "_class_name": "UNet2DConditionModel",
        "block_out_channels": widths,
        "down_block_types": down,
        "up_block_types": up,
        "layers_per_block": 2,
        "in_channels": shapes[f"{UNET}input_blocks.0.0.weight"][1],
        "out_channels": shapes[f"{UNET}out.2.weight"][0],
        "cross_attention_dim": shapes[f"{attention}transformer_blocks.0.attn2.to_k.weight"][1],
        "use_linear_projection": len(shapes[f"{attention}proj_in.weight"]) == 2,
        # Despite its name the library reads heads here: eight, or as many as are 64 wide.
        "attention_head_dim": [width // HEAD for width in widths] if second else 8,
        "sample_size": 96 if second else 64,
    }


def _vae_settings(shapes: Shapes, *, second: bool) -> dict[str, Any]:
    widths: list[int] = []
    while (name := f"{VAE}encoder.down.{len(widths)}.block.0.conv1.weight") in shapes:
        widths.append(shapes[name][0])
    return {
        "_class_name": "AutoencoderKL",
        "block_out_channels": widths,
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
        "layers_per_block": 2,
        "latent_channels": shapes[f"{VAE}decoder.conv_in.weight"][1],
        "sample_size": 768 if second else 512,
        "scaling_factor": 0.18215,
    }


def _clip_settings(shapes: Shapes) -> dict[str, Any]:
    positions, width = shapes[f"{CLIP}embeddings.position_embedding.weight"]
    layers = {name.split(".")[5] for name in shapes if name.startswith(f"{CLIP}encoder.layers.")}
    return {
        "vocab_size": shapes[f"{CLIP}embeddings.token_embedding.weight"][0],
        "max_position_embeddings": positions,
        "hidden_size": width,
        "intermediate_size": shapes[f"{CLIP}encoder.layers.0.mlp.fc1.weight"][0],
        "num_hidden_layers": len(layers),
        "num_attention_heads": width // HEAD,
        "hidden_act": "quick_gelu",
    }


def _open_clip_settings(shapes: Shapes) -> dict[str, Any]:
    positions, width = shapes[f"{OPEN_CLIP}positional_embedding"]
    return {
        "vocab_size": shapes[f"{OPEN_CLIP}token_embedding.weight"][0],
        "max_position_embeddings": positions,
        "hidden_size": width,
        "intermediate_size": shapes[f"{OPEN_CLIP}transformer.resblocks.0.mlp.c_fc.weight"][0],
        "num_hidden_layers": OPEN_CLIP_LAYERS - 1,
        "num_attention_heads": width // HEAD,
        "hidden_act": "gelu",
    }


def _write(path: Path, settings: Mapping[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(settings), encoding="utf-8")
