"""All weights of a network, read from the files in which diffusers keeps them.

A network's folder has `config.json` and `diffusion_pytorch_model.safetensors`, or several such
files with an index. Left out: finding the folder (runs/trained.py), writing it (saving.py).
"""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from imgalign.errors import CheckpointError, first_line

FILES = "diffusion_pytorch_model*.safetensors"
SHOWN = 3
"""How many tensors that do not fit a message names."""


def read_network(
    folder: Path, parameters: Mapping[str, Tensor], *, network_name: str
) -> dict[str, Tensor]:
    """The weights in a folder by name, on the CPU and as they are stored.

    `parameters` are those of the network, which the pipeline calls `network_name`. CheckpointError
    where the weights cannot be read, are not of this network, or are not finite.
    """
    if folder.name != network_name:
        raise CheckpointError(
            f"{folder}: expected all weights of {network_name!r}, the network of this model; it was"
            " trained on another kind of model"
        )
    found: dict[str, Tensor] = {}
    for path in sorted(folder.glob(FILES)):
        try:
            with safe_open(path, "pt") as file:
                found |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"{folder}: cannot read {path.name}: {first_line(error)}"
            ) from None
    if not found:
        raise CheckpointError(f"{folder}: expected {FILES}, found none")
    expected = {name: tuple(each.shape) for name, each in parameters.items()}
    shapes = {name: tuple(each.shape) for name, each in found.items()}
    wrong = [
        f"{name} expected {expected.get(name, 'nothing')}, got {shapes.get(name, 'nothing')}"
        for name in sorted(expected.keys() | shapes.keys())
        if expected.get(name) != shapes.get(name)
    ]
    if wrong:
        raise CheckpointError(
            f"{folder}: {len(wrong)} of its tensors do not fit this model; it was trained on"
            f" another one ({'; '.join(wrong[:SHOWN])})"
        )
    for name, each in found.items():
        if not each.is_floating_point() or not each.isfinite().all():
            raise CheckpointError(f"{folder}: {name}: expected finite numbers, got others")
    return found
