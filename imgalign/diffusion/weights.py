"""The weights that a diffusion policy trains, and what it compares them with.

What is trained is a LoRA adapter, or all weights of the network. Frozen copies of it stand for
other models: the policy takes one on for a while, and no second network is built. Each has the size
of what is trained. In a checkpoint a copy is a folder of its own beside the trained weights, in
their format. Left out: files (adapters.py, full_weights.py, saving.py).
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import get_args

import torch
from diffusers.training_utils import cast_training_params
from peft import LoraConfig
from torch import Tensor
from torch.nn import Parameter

from imgalign.diffusion.adapters import Layer, adapter_file, peft_settings, read_layers
from imgalign.diffusion.families.backbone import Family, hash_of
from imgalign.diffusion.full_weights import read_network
from imgalign.diffusion.saving import save_network
from imgalign.errors import CheckpointError, ConfigError, first_line
from imgalign.files import read_json
from imgalign.policy import Weights
from imgalign.runs.trained import REFERENCE, REFERENCE_HASH, find_weights

ADAPTER = "policy"


class TrainedWeights(ABC):
    """What a policy trains of a family's network, float32, and frozen copies of it."""

    def __init__(self, family: Family) -> None:
        self.family = family
        self._copies: dict[Weights, Sequence[Tensor]] = {}

    @abstractmethod
    def parameters(self) -> list[Parameter]:
        """What is trained, in the order of the network's layers."""

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
        with swapped(self.parameters(), self._copies.get(weights) or self._copies[REFERENCE]):
            yield

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write what is trained, and the copies that cannot be had again, into a folder."""

    @abstractmethod
    def load(self, folder: Path) -> None:
        """Read what `save` wrote; CheckpointError where some is missing or does not fit."""


class LoraWeights(TrainedWeights):
    """A LoRA adapter of the network.

    `starts_elsewhere`: the adapter that it starts from is the reference, of which a copy is kept.
    Without one the reference is the network with its adapter switched off.
    """

    def __init__(self, family: Family, *, starts_elsewhere: bool) -> None:
        super().__init__(family)
        if starts_elsewhere:
            self.keep(REFERENCE)

    def parameters(self) -> list[Parameter]:
        """The adapter's matrices, in the order of the network's layers."""
        named = self.family.network.named_parameters()
        return [parameter for name, parameter in named if f".{ADAPTER}." in name]

    @contextmanager
    def using(self, weights: Weights) -> Iterator[None]:
        """Inside, the network has other weights; those of the reference where it has no copy."""
        if self._copies.keys() & {weights, REFERENCE}:
            with super().using(weights):
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


class FullWeights(TrainedWeights):
    """All weights of the network; the reference is a copy of the pretrained ones.

    The network computes in the family's dtype, to which float32 weights are rounded in each pass
    and not when they are updated. Checkpoints have the network in diffusers' layout, and of the
    reference, which is as large, only the hash: a run goes on with the same model or not at all.
    """

    def __init__(self, family: Family) -> None:
        super().__init__(family)
        family.network.float().requires_grad_(True)
        self.keep(REFERENCE)

    def parameters(self) -> list[Parameter]:
        """All weights, in the order of the network's layers."""
        return list(self.family.network.parameters())

    @cached_property
    def reference_hash(self) -> str:
        """SHA-256 of names and values of the pretrained weights."""
        names = [name for name, _ in self.family.network.named_parameters()]
        return hash_of(zip(names, self._copies[REFERENCE], strict=True))

    def save(self, folder: Path) -> None:
        """Write the network's folder, for `from_pretrained`, and the hash of the reference.

        What is remembered is written in the same way, into a folder of that name.
        """
        name = self.family.network_name
        save_network(self.family.network, folder / name)
        facts = json.dumps({"sha256": self.reference_hash})
        (folder / REFERENCE_HASH).write_text(f"{facts}\n", encoding="utf-8")
        if self.remembered:
            with self.using("remembered"):
                save_network(self.family.network, folder / "remembered" / name)

    def load(self, folder: Path) -> None:
        """Read what `save` wrote; CheckpointError where some is missing or does not fit."""
        self._refuse_another_reference(folder / REFERENCE_HASH)
        self._read(folder)
        self.remembered = ()
        if (folder / "remembered").is_dir():
            self.keep("remembered")
            with self.using("remembered"):  # into the copy, and not into what is trained
                self._read(folder / "remembered")

    @torch.no_grad()
    def _read(self, folder: Path) -> None:
        network, name = self.family.network, self.family.network_name
        own = dict(network.named_parameters())
        for each, value in read_network(folder / name, own, network_name=name).items():
            own[each].copy_(value)

    def _refuse_another_reference(self, path: Path) -> None:
        try:
            expected = read_json(path)["sha256"]
        except (OSError, ValueError, KeyError, TypeError):
            raise CheckpointError(
                f"{path}: expected the hash of the weights that the run started from, found none;"
                " copy the whole checkpoint again"
            ) from None
        if expected != self.reference_hash:
            raise CheckpointError(
                "policy.model: its weights are not those that the run started from, which are its"
                " reference (SHA-256 differs); put the model back, or start a new run"
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
