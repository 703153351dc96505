"""The weights that a diffusion policy trains: a LoRA adapter, or all weights of its network.

Left out: what it compares them with (runs/weights.py), files (adapters.py, full_weights.py,
saving.py).
"""

from collections.abc import Collection, Sequence
from pathlib import Path

import torch
from diffusers.training_utils import cast_training_params
from peft import LoraConfig

from imgalign.diffusion.adapters import Layer, adapter_file, peft_settings, read_layers
from imgalign.diffusion.families.backbone import Family
from imgalign.diffusion.full_weights import read_network
from imgalign.diffusion.saving import save_network
from imgalign.errors import CheckpointError, ConfigError, first_line
from imgalign.runs.trained import find_weights
from imgalign.runs.weights import ADAPTER, FullWeights, LoraWeights, copy_into


class NetworkLora(LoraWeights):
    """A LoRA adapter of a family's network, in files for `load_lora_weights`."""

    def __init__(self, family: Family, *, starts_elsewhere: bool) -> None:
        self.family = family
        super().__init__(family.network, starts_elsewhere=starts_elsewhere)

    def write(self, folder: Path) -> None:
        """Write it such that `pipe.load_lora_weights(folder)` reads it."""
        self.family.save_lora(folder, ADAPTER)

    def read(self, folder: Path) -> None:
        """Read what `write` wrote; CheckpointError where it is missing or does not fit."""
        self.family.load_lora(folder, ADAPTER)


class NetworkWeights(FullWeights):
    """All weights of a family's network, in a folder of its name in diffusers' layout."""

    def __init__(self, family: Family) -> None:
        self.family = family
        super().__init__(family.network)

    def write(self, folder: Path) -> None:
        """Write the network's folder, for `from_pretrained` of its class."""
        save_network(self.network, folder / self.family.network_name)

    def read(self, folder: Path) -> None:
        """Read what `write` wrote; CheckpointError where it is missing or does not fit."""
        name, own = self.family.network_name, dict(self.network.named_parameters())
        copy_into(own.items(), read_network(folder / name, own, network_name=name))


def fresh_adapter(
    family: Family, *, rank: int, alpha: int, target_modules: Sequence[str], seed: int
) -> NetworkLora:
    """An adapter that starts as the identity; `seed` decides its random half.

    ConfigError for targets that the network does not have, or that LoRA cannot adapt.
    """
    adapted_layers(family, target_modules)
    settings = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(target_modules))
    with torch.random.fork_rng(devices=[]):
        # Not `torch.manual_seed`, which would seed the generators of GPUs too.
        torch.default_generator.manual_seed(seed)
        _add(family, settings)
    return NetworkLora(family, starts_elsewhere=False)


def adapter_from(
    family: Family,
    path: Path,
    *,
    rank: int | None,
    alpha: int | None,
    target_modules: Sequence[str] | None,
) -> NetworkLora:
    """A copy of an adapter, to be trained further; the adapter itself is the reference.

    `path` is whatever `find_weights` takes. Layers, ranks and alphas are those of the file.
    ConfigError where there is none, where it does not fit the model, and where settings that are
    not None say otherwise.
    """
    try:
        layers = read_layers(adapter_file(find_weights(path)), family.adaptable)
    except CheckpointError as error:
        raise ConfigError(f"policy.adapter: {error}") from None
    others = {layer.component for layer in layers} - {family.network_name}
    if others:
        raise ConfigError(
            f"policy.adapter: {path}: has layers of {', '.join(sorted(others))} too, and only the"
            f" {family.network_name} is trained; merge it first (imgalign export {path} --format"
            " merged) and name the result as policy.model"
        )
    for name, wanted, found in (
        ("lora_rank", rank, sorted({layer.rank for layer in layers})),
        ("lora_alpha", alpha, sorted({layer.alpha for layer in layers})),
    ):
        if wanted is not None and found != [wanted]:
            raise ConfigError(
                f"policy.{name}: policy.adapter has {' and '.join(f'{each:g}' for each in found)},"
                f" got {wanted}; leave it out or set it to null"
            )
    if target_modules is not None:
        _check_targets(adapted_layers(family, target_modules), layers)
    with torch.random.fork_rng(devices=[]):
        _add(family, LoraConfig(**peft_settings(layers)))
    family.set_lora(layers, ADAPTER)
    return NetworkLora(family, starts_elsewhere=True)


def adapted_layers(family: Family, target_modules: Sequence[str]) -> set[str]:
    """The layers whose names end with one of these; ConfigError for an end that none has."""
    found = set()
    for target in target_modules:
        own = {
            name
            for name, _ in family.network.named_modules()
            if name == target or name.endswith(f".{target}")
        }
        if not own:
            raise ConfigError(f"policy.target_modules: the network has no layer called {target!r}")
        found |= own
    return found


def _check_targets(wanted: Collection[str], layers: Sequence[Layer]) -> None:
    found = {layer.name for layer in layers}
    for only, what in ((found - set(wanted), "has"), (set(wanted) - found, "lacks")):
        if only:
            raise ConfigError(
                f"policy.target_modules: policy.adapter {what} {min(only)}, so it has other layers"
                " than these; leave it out or set it to null"
            )


def _add(family: Family, settings: LoraConfig) -> None:
    try:
        family.network.add_adapter(settings, ADAPTER)
    except ValueError as error:  # a layer of a kind that LoRA cannot adapt
        raise ConfigError(f"policy.target_modules: {first_line(error)}") from None
    cast_training_params(family.network, dtype=torch.float32)
