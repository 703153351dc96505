"""The weights that a language policy trains, in the files of peft and transformers.

A LoRA is `adapter_model.safetensors` and `adapter_config.json`, which `PeftModel.from_pretrained`
reads. All weights are a whole model, tokenizer included, which
`AutoModelForCausalLM.from_pretrained` reads. Left out: what it compares them with
(runs/weights.py).
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import (
    LoraConfig,
    get_peft_model_state_dict,
    inject_adapter_in_model,
    set_peft_model_state_dict,
)
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from imgalign.errors import CheckpointError, ConfigError, first_line
from imgalign.files import read_json
from imgalign.language.loading import quiet
from imgalign.runs.trained import ADAPTER_SETTINGS, LANGUAGE_ADAPTER, find_weights
from imgalign.runs.weights import ADAPTER, FullWeights, LoraWeights, copy_into

PREFIX = "base_model.model."
"""What the names of tensors begin with in peft's files."""
LARGEST_ALPHA = 1e9
PLAIN: Mapping[str, Sequence[Any]] = {
    "use_dora": (False,),
    "use_rslora": (False,),
    "use_qalora": (False,),
    "modules_to_save": (None, []),
    "bias": ("none",),
    "lora_bias": (False,),
    "rank_pattern": (None, {}),
    "alpha_pattern": (None, {}),
    "trainable_token_indices": (None, []),
    "target_parameters": (None, []),
    "layer_replication": (None, []),
    "alora_invocation_tokens": (None, []),
    "init_lora_weights": (True, False, None, "gaussian", "eva", "orthogonal"),
}
"""Settings of peft whose other values need more than two matrices a layer, or another scale, or
change the frozen weights too."""


class LanguageLora(LoraWeights):
    """A LoRA adapter of a language model, in peft's files."""

    def write(self, folder: Path) -> None:
        """Write it such that `PeftModel.from_pretrained(model, folder)` reads it."""
        matrices = get_peft_model_state_dict(self.network, adapter_name=ADAPTER)
        tensors = {
            f"{PREFIX}{name}": value.float().cpu().contiguous() for name, value in matrices.items()
        }
        save_file(tensors, folder / LANGUAGE_ADAPTER, metadata={"format": "pt"})
        settings: dict[str, Any] = self.network.peft_config[ADAPTER].to_dict()
        settings |= {"base_model_name_or_path": None, "inference_mode": True}
        plain = {
            name: sorted(value) if isinstance(value, set) else value
            for name, value in settings.items()
        }
        text = json.dumps(plain, indent=2, sort_keys=True, default=str)
        (folder / ADAPTER_SETTINGS).write_text(f"{text}\n", encoding="utf-8")

    def read(self, folder: Path) -> None:
        """Read what `write` wrote; CheckpointError where it is missing or does not fit."""
        own, config = get_peft_model_state_dict(self.network, adapter_name=ADAPTER), self.config
        matrices, found = read_adapter(folder)
        refuse_others(folder, matrices, own)
        for name in ("r", "lora_alpha"):
            if getattr(found, name) != getattr(config, name):
                raise CheckpointError(
                    f"{folder}: expected an adapter with {name} {getattr(config, name)}, got"
                    f" {getattr(found, name)}"
                )
        set_peft_model_state_dict(self.network, matrices, adapter_name=ADAPTER)

    @property
    def config(self) -> LoraConfig:
        """Of the adapter."""
        config: LoraConfig = self.network.peft_config[ADAPTER]
        return config


class LanguageWeights(FullWeights):
    """All weights of a language model, in transformers' files beside its tokenizer's."""

    def __init__(self, network: Any, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        super().__init__(network)

    def write(self, folder: Path) -> None:
        """Write a model that `AutoModelForCausalLM.from_pretrained(folder)` reads."""
        with quiet():
            self.network.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)

    def read(self, folder: Path) -> None:
        """Read what `write` wrote; CheckpointError where it is missing or does not fit."""
        own = dict(self.network.named_parameters())
        values: dict[str, Tensor] = {}
        for path in sorted(folder.glob("model*.safetensors")):
            values |= read_tensors(path)
        refuse_others(folder, values, own)
        copy_into(own.items(), values)


def fresh_adapter(
    network: Any, *, rank: int, alpha: int, target_modules: Sequence[str] | None, seed: int
) -> LanguageLora:
    """An adapter that starts as the identity; `seed` decides its random half.

    ConfigError for targets that the network does not have, or that LoRA cannot adapt.
    """
    settings = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules="all-linear" if target_modules is None else list(target_modules),
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        # Not `torch.manual_seed`, which would seed the generators of GPUs too.
        torch.default_generator.manual_seed(seed)
        add(network, settings)
    return LanguageLora(network, starts_elsewhere=False)


def adapter_from(
    network: Any,
    path: Path,
    *,
    rank: int | None,
    alpha: int | None,
    target_modules: Sequence[str] | None,
) -> LanguageLora:
    """A copy of an adapter, to be trained further; the adapter itself is the reference.

    `path` is whatever `find_weights` takes. ConfigError where there is none, where it does not fit
    the model, and where settings that are not None say otherwise.
    """
    try:
        folder = find_weights(path)
        matrices, settings = read_adapter(folder)
    except CheckpointError as error:
        raise ConfigError(f"policy.adapter: {error}") from None
    targets = sorted(settings.target_modules or [])
    for name, wanted, found in (
        ("lora_rank", rank, settings.r),
        ("lora_alpha", alpha, settings.lora_alpha),
        ("target_modules", target_modules and sorted(target_modules), targets),
    ):
        if wanted is not None and wanted != found:
            raise ConfigError(
                f"policy.{name}: policy.adapter has {found}, got {wanted}; leave it out or set it"
                " to null"
            )
    try:
        _put_on(network, folder, matrices, settings)
    except CheckpointError as error:
        raise ConfigError(f"policy.adapter: {error}") from None
    return LanguageLora(network, starts_elsewhere=True)


def switch_on(network: Any, folder: Path) -> None:
    """Add the adapter of a folder to a model that is only asked; CheckpointError if it is no fit.

    `add` says which layers cannot have one.
    """
    _put_on(network, folder, *read_adapter(folder))


def _put_on(network: Any, folder: Path, matrices: dict[str, Tensor], settings: LoraConfig) -> None:
    add(network, settings)
    refuse_others(folder, matrices, get_peft_model_state_dict(network, adapter_name=ADAPTER))
    set_peft_model_state_dict(network, matrices, adapter_name=ADAPTER)


def add(network: Any, settings: LoraConfig) -> None:
    """Add a float32 adapter under the name ADAPTER; ConfigError for layers that cannot have it."""
    try:
        with warnings.catch_warnings():
            # GPT-2 keeps its matrices transposed: peft sees that by itself, and says so.
            warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False")
            inject_adapter_in_model(settings, network, ADAPTER)
    except ValueError as error:  # a layer that there is not, or of a kind that LoRA cannot adapt
        raise ConfigError(f"policy.target_modules: {first_line(error)}") from None
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def read_adapter(folder: Path) -> tuple[dict[str, Tensor], LoraConfig]:
    """The matrices of a LoRA in peft's layout, under its network's names, and its settings.

    CheckpointError where files are missing or damaged, and for what is not plain LoRA.
    """
    path = folder / ADAPTER_SETTINGS
    try:
        values = read_json(path)
        kind = values["peft_type"]
        strange = [name for name, usual in PLAIN.items() if values.get(name, usual[0]) not in usual]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: expected the settings of an adapter: {error}") from None
    if kind != "LORA" or strange:
        what = f"{strange[0]}={values[strange[0]]}" if kind == "LORA" else f"{kind}"
        raise CheckpointError(
            f"{path}: expected plain LoRA, got {what:.60}; merge it into its model"
        )
    tensors = read_tensors(folder / LANGUAGE_ADAPTER)
    matrices = {name.removeprefix(PREFIX): value for name, value in tensors.items()}
    return matrices, lora_settings(path, values, matrices)


def lora_settings(
    path: Path, values: Mapping[str, Any], matrices: Mapping[str, Tensor]
) -> LoraConfig:
    """The settings of an adapter, as far as its matrices do not say them already.

    Those of a file from elsewhere may be anything: a rank that would fill the memory, or a pattern
    of layers that would be matched for years, in whose place the layers of the file are taken.
    """
    down = {
        name.partition(".lora_A.")[0]: value
        for name, value in matrices.items()
        if ".lora_A." in name and value.ndim
    }
    ranks = sorted({value.shape[0] for value in down.values()})
    rank, targets = values.get("r"), values.get("target_modules")
    alpha: Any = values.get("lora_alpha")
    if type(rank) is not int or ranks != [rank]:
        found = " and ".join(map(str, ranks)) or "no"
        raise CheckpointError(
            f"{path}: r: expected the rank of the matrices, {found}, got {rank!r:.60}"
        )
    if type(alpha) not in (int, float) or not abs(alpha) <= LARGEST_ALPHA:
        raise CheckpointError(f"{path}: lora_alpha: expected a number, got {alpha!r:.60}")
    if isinstance(targets, str):
        targets = list(down)
    if not isinstance(targets, list) or not all(isinstance(each, str) for each in targets):
        raise CheckpointError(
            f"{path}: target_modules: expected a list of names of layers, got {targets!r:.60}"
        )
    return LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, task_type="CAUSAL_LM")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name; CheckpointError where it cannot be read."""
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read: {first_line(error)}") from None


def refuse_others(folder: Path, found: dict[str, Tensor], own: dict[str, Any]) -> None:
    """CheckpointError unless the tensors found have the names and shapes of one's own."""
    shapes = {name: list(value.shape) for name, value in found.items()}
    expected = {name: list(value.shape) for name, value in own.items()}
    for name in sorted(shapes.keys() | expected.keys()):
        if shapes.get(name) != expected.get(name):
            raise CheckpointError(
                f"{folder}: was trained on another model, or with other settings: {name[:100]}:"
                f" expected {expected.get(name, 'nothing')!s:.60}, got"
                f" {shapes.get(name, 'nothing')!s:.60}"
            )
        if not found[name].isfinite().all():
            raise CheckpointError(f"{folder}: {name}: expected finite numbers, got others")
