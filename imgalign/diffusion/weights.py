"""The weights that a diffusion policy trains, and what it compares them with.

Frozen copies of the trained weights stand for other models: the policy takes one on for a while,
and no second network is built. Each has the size of what is trained. In a checkpoint it is a folder
of its own beside the trained weights, in their format. Left out: files (adapters.py, layouts.py).
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import torch
from diffusers.training_utils import cast_training_params
from peft import LoraConfig
from torch import Tensor
from torch.nn import Parameter

from imgalign.diffusion.adapters import Layer, adapter_file, peft_settings, read_layers
from imgalign.diffusion.attention import first_line
from imgalign.diffusion.families.backbone import Family
from imgalign.errors import CheckpointError, ConfigError
from imgalign.policy import Weights
from imgalign.runs.checkpoint import REFERENCE, find_adapter

ADAPTER = "policy"


class LoraWeights:
    """The LoRA adapter of a family's network, float32, and frozen copies of it.

    `starts_elsewhere`: the adapter that it starts from is the reference, of which a copy is kept.
    Without one the reference is the network with its adapter switched off.
    """

    def __init__(self, family: Family, *, starts_elsewhere: bool) -> None:
        self.family = family
        self._copies: dict[Weights, Sequence[Tensor]] = {}
        if starts_elsewhere:
            self.keep(REFERENCE)

    def parameters(self) -> list[Parameter]:
        """The adapter's matrices, in the order of the network's layers."""
        named = self.family.network.named_parameters()
        return [parameter for name, parameter in named if f".{ADAPTER}." in name]

    def keep(self, name: Weights) -> None:
        """Copy the present weights, in place of an earlier copy of this name."""
        self._copies[name] = [parameter.detach().clone() for parameter in self.parameters()]

    @property
    def remembered(self) -> Sequence[Tensor]:
        """The copy of that name; empty without one."""
        return self._copies.get("remembered", ())

    @remembered.setter
    def remembered(self, values: Sequence[Tensor]) -> None:
        self._copies.pop("remembered", None)
        if values:
            own = zip(self.parameters(), values, strict=True)
            self._copies["remembered"] = [value.to(parameter.device) for parameter, value in own]

    @contextmanager
    def using(self, weights: Weights) -> Iterator[None]:
        """Inside, the network has other weights; those of the reference where it has no copy."""
        copy = self._copies.get(weights) or self._copies.get(REFERENCE)
        if copy is not None:
            with swapped(self.parameters(), copy):
                yield
            return
        network = self.family.network
        network.disable_adapters()
        try:
            yield
        finally:
            network.enable_adapters()

    def save(self, folder: Path) -> None:
        """Write the adapter, and each copy into a folder of its name, for `load_lora_weights`."""
        self.family.save_lora(folder, ADAPTER)
        for name in self._copies:
            (folder / name).mkdir()
            with self.using(name):
                self.family.save_lora(folder / name, ADAPTER)

    def load(self, folder: Path) -> None:
        """Read what `save` wrote; CheckpointError where some is missing or does not fit."""
        self.family.load_lora(folder, ADAPTER)
        for name in get_args(Weights):
            if (folder / name).is_dir():
                self.keep(name)
                with self.using(name):  # into the copy, and not into what is trained
                    self.family.load_lora(folder / name, ADAPTER)
            elif name == "remembered":
                self.remembered = ()
            elif name in self._copies:
                raise CheckpointError(
                    f"{folder}: expected {name}/, the adapter that the run started from, found"
                    " none; copy the whole checkpoint again"
                )


@contextmanager
def swapped(parameters: Sequence[Parameter], values: Sequence[Tensor]) -> Iterator[None]:
    """Inside, the parameters hold these values, and what is written to them goes there."""
    own = [parameter.data for parameter in parameters]
    try:
        for parameter, value in zip(parameters, values, strict=True):
            parameter.data = value
        yield
    finally:
        for parameter, value in zip(parameters, own, strict=True):
            parameter.data = value


def fresh_adapter(
    family: Family, *, rank: int, alpha: int, target_modules: Sequence[str], seed: int
) -> LoraWeights:
    """An adapter that starts as the identity; `seed` decides its random half.

    ConfigError for targets that the network does not have, or that LoRA cannot adapt.
    """
    adapted_layers(family, target_modules)
    settings = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(target_modules))
    with torch.random.fork_rng(devices=[]):
        # Not `torch.manual_seed`, which would seed the generators of GPUs too.
        torch.default_generator.manual_seed(seed)
        _add(family, settings)
    return LoraWeights(family, starts_elsewhere=False)


def adapter_from(
    family: Family,
    path: Path,
    *,
    rank: int | None,
    alpha: int | None,
    target_modules: Sequence[str] | None,
) -> LoraWeights:
    """A copy of an adapter, to be trained further; the adapter itself is the reference.

    `path` is whatever `find_adapter` takes. Layers, ranks and alphas are those of the file.
    ConfigError where there is none, where it does not fit the model, and where settings that are
    not None say otherwise.
    """
    try:
        layers = read_layers(adapter_file(find_adapter(path)), family.adaptable)
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
    return LoraWeights(family, starts_elsewhere=True)


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
