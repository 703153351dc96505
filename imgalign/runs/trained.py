"""What a run trained, on disk: a LoRA adapter, or all weights of the model's network.

An adapter is the file `pytorch_lora_weights.safetensors`. All weights are in diffusers' layout, in
a folder of the network's name: `config.json` and `diffusion_pytorch_model.safetensors`, or several
such files where they are large. Of a language model an adapter is in peft's layout, and all weights
are in transformers': `adapter_model.safetensors`, or `model.safetensors`, in the folder itself. A
checkpoint has one or the other. Whatever takes trained weights finds and identifies them here. Left
out: what is in the files (diffusion/adapters.py, diffusion/full_weights.py, language/weights.py).
"""

import hashlib
import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from imgalign.errors import CheckpointError, InputError
from imgalign.files import describe_folder, sha256
from imgalign.runs.checkpoint import (
    MANIFEST,
    checkpoints,
    read_manifest,
    read_marker,
    step_folder,
    verify_files,
)

log = logging.getLogger(__name__)

ADAPTER = "pytorch_lora_weights.safetensors"
FULL = re.compile(r"(\w+)/diffusion_pytorch_model(?:-\d{5}-of-\d{5})?\.safetensors")
"""A file of all weights, from the folder that the network's folder is in."""
LANGUAGE_ADAPTER = "adapter_model.safetensors"
"""Of a language model, and in peft's layout of any."""
ADAPTER_SETTINGS = "adapter_config.json"
"""Beside it, in peft's layout."""
ADAPTERS = (ADAPTER, LANGUAGE_ADAPTER)
LANGUAGE_FULL = re.compile(r"model(?:-\d{5}-of-\d{5})?\.safetensors")
"""A file of all weights of a language model."""
MODEL_INDEX = "model_index.json"
"""Only a whole model has it."""

STRONGEST: Final = 2.0
"""Of a LoRA's strength; from far above 1 on there is only noise."""

REFERENCE: Final = "reference"
"""Folder in a checkpoint with the adapter that its run started from, where there was one."""
REFERENCE_HASH = "reference.json"
"""File in a checkpoint of all weights; the pretrained weights, by their hash."""


def find_weights(path: Path) -> Path:
    """The folder with trained weights that `path` refers to, or the LoRA file of another name.

    `path` is such a folder itself (a checkpoint, or one from elsewhere), a run folder: then the
    checkpoint marked best, else the newest that verifies; or a file of weights, or a folder with
    one LoRA file. CheckpointError where there are none, or where they are damaged.
    """
    if not path.exists():
        raise CheckpointError(f"{path}: no such folder")
    if path.is_file():
        return _of_file(path)
    if (path / MODEL_INDEX).is_file():
        raise CheckpointError(
            f"{path}: is a whole model, and not weights for one; name it as the model, with --model"
        )
    if holds_weights(path):
        if (path / MANIFEST).is_file():
            _verify(path)
        return path
    best = read_marker(path, "best")
    candidates = [
        *([] if best is None else [step_folder(path, best)]),
        *reversed(checkpoints(path)),
    ]
    for folder in candidates:
        try:
            _verify(folder)
        except CheckpointError as error:
            log.warning("%s; trying another checkpoint", error)
        else:
            return folder
    files = sorted(path.glob("*.safetensors"))
    if len(files) == 1 and not candidates:
        return _of_file(files[0])
    names = ", ".join(folder.name for folder in checkpoints(path))
    found = f"checkpoints found: {names}, none usable" if names else describe_folder(path)
    raise CheckpointError(f"{path}: no {' or '.join(ADAPTERS)} or full weights here; {found}")


def _of_file(file: Path) -> Path:
    if file.name in ADAPTERS:
        return find_weights(file.parent)
    if FULL.fullmatch(f"{file.parent.name}/{file.name}"):
        return find_weights(file.parent.parent)
    if file.suffix == ".safetensors":
        return file
    raise CheckpointError(
        f"{file}: expected a .safetensors file, or a folder with {' or '.join(ADAPTERS)} in it"
    )


def _verify(folder: Path) -> None:
    listed = weights_among(read_manifest(folder))
    verify_files(folder, listed or [ADAPTER])  # which is then what is missing


def _files_in(folder: Path) -> list[str]:
    paths = (*folder.glob("*.safetensors"), *folder.glob("*/*.safetensors"))
    return [path.relative_to(folder).as_posix() for path in paths]


def weights_among(names: Iterable[str]) -> list[str]:
    """Which files of a folder are trained weights; none where there are those of two networks."""
    present = sorted(names)
    for adapter in ADAPTERS:
        if adapter in present:
            return [adapter]
    if whole := [name for name in present if LANGUAGE_FULL.fullmatch(name)]:
        return whole
    full = [match for name in present if (match := FULL.fullmatch(name))]
    return [match[0] for match in full] if len({match[1] for match in full}) == 1 else []


def holds_weights(folder: Path) -> bool:
    """Whether a folder itself has trained weights, whole or not."""
    return bool(weights_among(_files_in(folder)))


def weight_files(found: Path) -> list[Path]:
    """The files with the weights, of what `find_weights` gives."""
    if found.is_file():
        return [found]
    return [found / name for name in weights_among(_files_in(found))]


def full_weights(found: Path) -> Path | None:
    """The folder of a network with all its weights; None where `find_weights` gave an adapter."""
    file = next(iter(weight_files(found)), found)
    return file.parent if FULL.fullmatch(f"{file.parent.name}/{file.name}") else None


def check_strength(strength: float, found: Path | None) -> None:
    """Refuse a strength at which what `find_weights` gives is not applied; 1 is in full.

    InputError where it is out of range, and at another than 1 where there is no LoRA.
    """
    if not 0 <= strength <= STRONGEST:
        raise InputError(f"strength: expected 0 to {STRONGEST:g}, got {strength:g}")
    if strength != 1 and found is None:
        raise InputError("strength: without effect without an adapter; name one, or leave it out")
    if strength != 1 and found is not None and full_weights(found) is not None:
        raise InputError(
            f"strength: expected 1, got {strength:g}: {found} has all weights of the network, and"
            " only a LoRA has a strength; leave it out, or choose a LoRA"
        )


def weights_hash(found: Path) -> str:
    """SHA-256 of the file with the weights, or of the hashes of several; of what was found.

    Images that they generated carry it, and so do comparisons.
    """
    return _together([sha256(file) for file in weight_files(found)])


def recorded_hash(checkpoint: Path) -> str:
    """As `weights_hash`, by what was written down as the checkpoint was saved; reads no weights."""
    files = read_manifest(checkpoint)
    return _together([files[name][1] for name in weights_among(files)])


def _together(hashes: Sequence[str]) -> str:
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def reference_of(found: Path) -> Path | None:
    """The adapter that the run of a checkpoint started from, of what `find_weights` gives."""
    folder = found / REFERENCE
    return folder if any((folder / name).is_file() for name in ADAPTERS) else None


def of_language(checkpoint: Path) -> bool:
    """Whether what a run saved there are weights of a language model."""
    names = weights_among(_files_in(checkpoint))
    return any(name == LANGUAGE_ADAPTER or LANGUAGE_FULL.fullmatch(name) for name in names)
