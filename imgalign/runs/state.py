"""The state of a trainer on disk: tensors in safetensors, everything else in JSON, no pickles."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from imgalign.errors import CheckpointError
from imgalign.files import read_json

State: TypeAlias = Any
"""Tensors, JSON scalars, and nested dicts, lists and tuples of these."""


def save_state(folder: Path, name: str, state: State) -> None:
    """Write nested state as `name.safetensors` and `name.json`, which `load_state` reads.

    Floats keep every bit (JSON writes the shortest text that reads back the same). Tensors are
    loaded on the CPU. Anything but tensors, scalars, dicts, lists and tuples is a `TypeError`.
    """
    tensors: dict[str, Tensor] = {}
    structure = pack(state, tensors)
    text = json.dumps(structure) + "\n"
    (folder / f"{name}.safetensors").write_bytes(save(tensors))
    (folder / f"{name}.json").write_text(text, encoding="utf-8")


def load_state(folder: Path, name: str) -> State:
    """Read what `save_state` wrote; a missing or damaged file is a `CheckpointError`."""
    for path in (folder / f"{name}.json", folder / f"{name}.safetensors"):
        if not path.is_file():
            raise CheckpointError(
                f"{path}: missing, so training cannot continue from here; "
                "the weights beside it may still be used"
            )
    try:
        structure = read_json(folder / f"{name}.json")
        return unpack(structure, load_file(folder / f"{name}.safetensors"))
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(f"{folder / name}: damaged trainer state ({error})") from None


def pack(value: State, tensors: dict[str, Tensor]) -> Any:
    """`value` as JSON; its tensors are put into `tensors` under the keys that the JSON names."""
    match value:
        case Tensor():
            key = str(len(tensors))
            # safetensors refuses tensors that share memory, and views of larger ones.
            tensors[key] = value.detach().cpu().clone().contiguous()
            return {"tensor": key}
        case None | bool() | int() | float() | str():
            return value
        case list():
            return [pack(item, tensors) for item in value]
        case tuple():
            return {"tuple": [pack(item, tensors) for item in value]}
        case Mapping():
            # Pairs, not an object: an optimizer's state has int keys, JSON would make them text.
            return {"dict": [[pack(k, tensors), pack(v, tensors)] for k, v in value.items()]}
    raise TypeError(f"state: expected tensors, scalars, dicts, lists or tuples, got {type(value)}")


def unpack(value: Any, tensors: Mapping[str, Tensor]) -> State:
    """The inverse of `pack`."""
    match value:
        case {"tensor": key}:
            return tensors[key]
        case {"tuple": items}:
            return tuple(unpack(item, tensors) for item in items)
        case {"dict": pairs}:
            return {unpack(key, tensors): unpack(item, tensors) for key, item in pairs}
        case list():
            return [unpack(item, tensors) for item in value]
    return value
