"""Which family a model belongs to. To support another, write its module and name it here."""

from pathlib import Path

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from safetensors import SafetensorError, safe_open

from imgalign.diffusion.families.backbone import Family
from imgalign.diffusion.families.sd import StableDiffusion
from imgalign.errors import InputError, first_line

FAMILIES: dict[str, type[Family]] = {"StableDiffusionPipeline": StableDiffusion}
"""By the pipeline class that a model's model_index.json names."""

OTHER_FILES = {"SDXL": "conditioner."}
"""Kinds of checkpoints that are not read, by what only their tensors begin with."""


def family_of(pipeline: DiffusionPipeline, *, dtype: torch.dtype | None = None) -> Family:
    """The pipeline as a member of its family; InputError if its kind is not supported.

    `dtype` is what the network computes in, by default what its weights are in.
    """
    for family in FAMILIES.values():
        if isinstance(pipeline, family.pipeline_class):
            return family(pipeline, dtype=dtype)
    name = type(pipeline).__name__
    raise InputError(f"model: expected one of {', '.join(FAMILIES)}, got {name}")


def family_of_file(path: Path) -> str:
    """The name in FAMILIES of a checkpoint of one file, which says itself only what tensors it has.

    InputError unless it has all parts of a family in that family's original layout.
    """
    if path.suffix != ".safetensors":
        raise InputError(f"model: {path}: expected a .safetensors file; pickles are never read")
    try:
        with safe_open(path, "pt") as file:
            tensors = list(file.keys())
    except (OSError, SafetensorError) as error:
        raise InputError(f"model: {path}: cannot be read: {first_line(error)}") from None
    readable = {name: family for name, family in FAMILIES.items() if family.file_parts}
    lacks = {
        name: [
            f"{part} ({start}...)"
            for start, part in family.file_parts.items()
            if not _any(tensors, start)
        ]
        for name, family in readable.items()
    }
    nearest = min(lacks, key=lambda name: len(lacks[name]))
    if not lacks[nearest]:
        return nearest
    other = next((kind for kind, start in OTHER_FILES.items() if _any(tensors, start)), "a file")
    raise InputError(
        f"model: {path}: expected a whole checkpoint in the original layout of"
        f" {' or '.join(readable)}, got {other} without {', '.join(lacks[nearest])}"
    )


def _any(tensors: list[str], start: str) -> bool:
    return any(tensor.startswith(start) for tensor in tensors)
