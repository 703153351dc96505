"""Saving a pipeline, or its network alone, as old and new versions of the libraries read them."""

import json
from pathlib import Path
from typing import Any

import torch

from imgalign.diffusion.families.backbone import Family
from imgalign.diffusion.loading import quiet
from imgalign.diffusion.tokenizer_files import write_separate_files

HERE = "_name_or_path"
"""A setting in which the libraries note the folder that a part was loaded from."""


def save_pipeline(family: Family, folder: Path, *, dtype: torch.dtype) -> None:
    """Write a pipeline for `from_pretrained(folder)`, its weights in `dtype` and in safetensors.

    The tokenizer is written in the forms that old and new versions of transformers read. Settings
    do not say in which folder of this machine the model was.
    """
    with quiet():
        for part in family.parts.values():
            part.to(dtype)
        family.pipeline.save_pretrained(folder, safe_serialization=True)
    write_separate_files(folder / "tokenizer")
    tidy(folder)


def save_network(network: Any, folder: Path, *, dtype: torch.dtype | None = None) -> None:
    """Write a network with its settings, for `from_pretrained(folder)` of its class.

    Its weights are written as they are, or in `dtype`, to which the network then changes.

    Equal weights give equal bytes. Large ones are several files, as the library divides them.
    """
    with quiet():
        if dtype is not None:
            network.to(dtype)
        network.save_pretrained(folder, safe_serialization=True)
    tidy(folder)


def tidy(folder: Path) -> None:
    """Let whoever may read the settings read the weights; leave out this machine's folders."""
    mode = next(iter(folder.glob("*.json"))).stat().st_mode
    for path in folder.glob("**/*.safetensors"):  # which only their owner may read
        path.chmod(mode)
    for path in sorted(folder.glob("**/*.json")):
        settings = json.loads(path.read_text(encoding="utf-8"))
        if settings.pop(HERE, None) is not None:
            path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
