"""The weights that a policy trains, and frozen copies of them that stand for other models.

What is trained is a LoRA adapter, or all weights of a network of diffusers or transformers. A copy
is the reference or what was remembered: the network takes one on for a while, and no second network
is built. Each has the size of what is trained. In a checkpoint a copy is a folder of its own beside
the trained weights, in their format. Left out: those formats (the policies).
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.nn import Parameter

from imgalign.errors import CheckpointError
from imgalign.files import read_json, sha256_of
from imgalign.policy import Check, Weights
from imgalign.runs.passes import PassCounter, Passes
from imgalign.runs.trained import REFERENCE, REFERENCE_HASH

ADAPTER = "policy"
"""The name of the trained adapter within its network."""


class TrainedWeights(ABC):
    """What is trained of a network, float32, and frozen copies of it."""

    def __init__(self, network: Any) -> None:
        self.network = network
        self.counter = PassCounter(network)
        self._copies: dict[Weights, Sequence[Tensor]] = {}

    @abstractmethod
    def parameters(self) -> list[Parameter]:
        """What is trained, in the order of the network's layers."""

    @abstractmethod
    def write(self, folder: Path) -> None:
        """Write what is trained into an existing folder, in the format of the model's library."""

    @abstractmethod
    def read(self, folder: Path) -> None:
        """Read what `write` wrote; CheckpointError where it is missing or does not fit."""

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
    """A LoRA adapter of the network, under the name ADAPTER.

    `starts_elsewhere`: the adapter that it starts from is the reference, of which a copy is kept.
    Without one the reference is the network with its adapter switched off.
    """

    def __init__(self, network: Any, *, starts_elsewhere: bool) -> None:
        super().__init__(network)
        if starts_elsewhere:
            self.keep(REFERENCE)

    def parameters(self) -> list[Parameter]:
        """The adapter's matrices, in the order of the network's layers."""
        named = self.network.named_parameters()
        return [parameter for name, parameter in named if f".{ADAPTER}." in name]

    @contextmanager
    def using(self, weights: Weights) -> Iterator[None]:
        """Inside, the network has other weights; those of the reference where it has no copy."""
        if self._copies.keys() & {weights, REFERENCE}:
            with super().using(weights):
                yield
            return
        layers = [each for each in self.network.modules() if isinstance(each, BaseTunerLayer)]
        try:
            for layer in layers:
                layer.enable_adapters(False)
            yield
        finally:
            for layer in layers:
                layer.enable_adapters(True)

    def save(self, folder: Path) -> None:
        """Write the adapter, and each copy into a folder of its name."""
        self.write(folder)
        for name in self._copies:
            (folder / name).mkdir()
            with self.using(name):
                self.write(folder / name)

    def load(self, folder: Path) -> None:
        """Read what `save` wrote; CheckpointError where some is missing or does not fit."""
        self.read(folder)
        for name in get_args(Weights):
            if (folder / name).is_dir():
                self.keep(name)
                with self.using(name):  # into the copy, and not into what is trained
                    self.read(folder / name)
            elif name == "remembered":
                self.remembered = ()
            elif name in self._copies:
                raise CheckpointError(
                    f"{folder}: expected {name}/, the adapter that the run started from, found"
                    " none; copy the whole checkpoint again"
                )


class FullWeights(TrainedWeights):
    """All weights of the network; the reference is a copy of the pretrained ones.

    The network may compute in another dtype, to which float32 weights are rounded in each pass and
    not when they are updated. Checkpoints have of the reference, which is as large, only the hash:
    a run goes on with the same model or not at all.
    """

    def __init__(self, network: Any) -> None:
        super().__init__(network)
        network.float().requires_grad_(True)
        self.keep(REFERENCE)

    def parameters(self) -> list[Parameter]:
        """All weights, in the order of the network's layers."""
        return list(self.network.parameters())

    @cached_property
    def reference_hash(self) -> str:
        """SHA-256 of names and values of the pretrained weights."""
        names = [name for name, _ in self.network.named_parameters()]
        return hash_of(zip(names, self._copies[REFERENCE], strict=True))

    def save(self, folder: Path) -> None:
        """Write the network, and the hash of the reference.

        What is remembered is written in the same way, into a folder of that name.
        """
        self.write(folder)
        facts = json.dumps({"sha256": self.reference_hash})
        (folder / REFERENCE_HASH).write_text(f"{facts}\n", encoding="utf-8")
        if self.remembered:
            (folder / "remembered").mkdir()
            with self.using("remembered"):
                self.write(folder / "remembered")

    def load(self, folder: Path) -> None:
        """Read what `save` wrote; CheckpointError where some is missing or does not fit."""
        self._refuse_another_reference(folder / REFERENCE_HASH)
        self.read(folder)
        self.remembered = ()
        if (folder / "remembered").is_dir():
            self.keep("remembered")
            with self.using("remembered"):  # into the copy, and not into what is trained
                self.read(folder / "remembered")

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


class HoldsWeights:
    """What policies of all kinds do with the weights that they train."""

    weights: TrainedWeights

    @property
    def trained_network(self) -> nn.Module:
        """The network of which it trains a part, or all."""
        network: nn.Module = self.weights.network
        return network

    @property
    def passes(self) -> Passes:
        """Of the network, since the policy was built."""
        return self.weights.counter.passes

    def using(self, weights: Weights) -> AbstractContextManager[None]:
        """Inside, the policy has other weights; no second network is built."""
        return self.weights.using(weights)

    def remember(self) -> None:
        """Keep a copy of what is trained; it costs as much memory once more."""
        self.weights.keep("remembered")

    @property
    def remembered(self) -> Sequence[Tensor]:
        """The weights that `remember` kept."""
        return self.weights.remembered

    @remembered.setter
    def remembered(self, values: Sequence[Tensor]) -> None:
        self.weights.remembered = values

    def trainable_parameters(self) -> list[Parameter]:
        """The adapter's matrices or all weights, float32, in the order of the network's layers."""
        return self.weights.parameters()

    def load(self, folder: Path) -> None:
        """Read what `save` wrote; CheckpointError where it is missing or does not fit."""
        self.weights.load(folder)

    def check_frozen(self, parts: Iterable[nn.Module]) -> Check:
        """Rule 4: what is frozen, in these parts of the model, stays frozen."""
        trained = {id(parameter) for parameter in self.trainable_parameters()}
        stray = sum(
            parameter.requires_grad and id(parameter) not in trained
            for part in parts
            for parameter in part.parameters()
        )
        return Check(
            name="nothing frozen collects gradients",
            measured=f"{stray} tensors do",
            expected="0",
            passed=stray == 0,
            cure="a part of the model that must stay as it is is not frozen",
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


def hash_of(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 of names and values, whatever order they come in."""
    return sha256_of(
        (name, value.cpu().reshape(-1).view(torch.uint8).numpy().data) for name, value in tensors
    )


@torch.no_grad()
def copy_into(parameters: Iterable[tuple[str, Parameter]], values: dict[str, Tensor]) -> None:
    """Give parameters the values of their names, in place."""
    for name, parameter in parameters:
        parameter.copy_(values[name])
