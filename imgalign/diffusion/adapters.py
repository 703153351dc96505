"""Reading LoRA files in the layouts that people exchange, and switching them on in a pipeline.

One reader for three layouts: diffusers' (`unet.NAME.lora_A.weight`), kohya's
(`lora_unet_NAME_WITH_UNDERSCORES.lora_down.weight`, an alpha per layer) and peft's (a folder with
`adapter_config.json`, or `base_model.model.NAME...`). Only layers with both matrices are used, only
where the model has such a layer, and everything in a file is accounted for: used, named in a
warning, or the reason for a refusal. Left out: other methods than LoRA (DoRA, LoHa, LoKr).

A layer adds `alpha / rank * up @ down` to its weight.
"""

import fnmatch
import logging
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import PreTrainedModel

from imgalign.diffusion.foreign_json import parse_object, read_object
from imgalign.errors import CheckpointError, InputError, first_line
from imgalign.runs.trained import ADAPTER_SETTINGS, full_weights, weight_files

log = logging.getLogger(__name__)

LORA_FILE = "pytorch_lora_weights.safetensors"
PEFT_CONFIG = ADAPTER_SETTINGS
TEXT_LEVEL = "text_model."
LARGEST_RANK = 4096
LARGEST_WHOLE = 2**53
MOST_PATTERNS, LONGEST_PATTERN = 4096, 256

NUMBERS = (
    *(torch.float64, torch.float32, torch.bfloat16, torch.float16),
    *(torch.float8_e4m3fn, torch.float8_e5m2),
)
"""What matrices may be stored in; the library cannot compute in those of one byte."""

PART = re.compile(
    r"(?:\.lora_A(?:\.\w+)?\.weight|\.lora(?:_linear_layer)?\.down\.weight|\.lora_down\.weight"
    r"|(?P<processor>_lora\.down\.weight))$"
    r"|(?P<up>(?:\.lora_B(?:\.\w+)?\.weight|\.lora(?:_linear_layer)?\.up\.weight|\.lora_up\.weight"
    r"|(?P<processor_up>_lora\.up\.weight))$)"
    r"|(?P<alpha>\.alpha$)"
)
"""What the name of a tensor ends with, after the name of its layer."""

OTHER_METHODS = {
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    "hada_": "LoHa",
    "lokr_": "LoKr",
    "lora_mid": "LoCon with a core matrix",
    "oft_": "OFT",
}
"""By a part of a tensor's name; without such tensors a layer would draw something else."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AlphaPattern:
    """An alpha for the layers whose names a pattern of peft's matches."""

    text: str
    names: re.Pattern[str]
    alpha: float

    def matches(self, layer: str) -> bool:
        """Whether the layer is meant, with or without the level that few text encoders have."""
        short = layer.removeprefix(TEXT_LEVEL)
        return any(self.names.match(name) for name in (layer, short, f"{TEXT_LEVEL}{short}"))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scaling:
    """What settings beside the matrices say about their scale, for one component."""

    alpha: float | None = None
    """None: of each layer its rank, a scale of 1."""
    alphas: Sequence[AlphaPattern] = ()
    """The first that matches a layer comes before `alpha`."""
    by_root: bool = False
    """Divide by the rank's square root (arXiv:2312.03732) instead of the rank."""

    def of(self, layer: str, rank: int) -> float:
        """The alpha of a layer, in the usual meaning: its scale is alpha / rank."""
        alpha = next((each.alpha for each in self.alphas if each.matches(layer)), self.alpha)
        if alpha is None:
            return float(rank)
        return alpha * math.sqrt(rank) if self.by_root else alpha


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Component:
    """A network that a LoRA file may hold layers of, a model of diffusers or transformers."""

    name: str
    """Among the parts of its pipeline, and in diffusers' layout."""
    network: Any
    kohya_prefix: str
    """What the names of its layers begin with in kohya's layout, such as "lora_unet_"."""

    @property
    def of_transformers(self) -> bool:
        """Whether its library is transformers, and not diffusers."""
        return isinstance(self.network, PreTrainedModel)

    def kohya_name(self, layer: str) -> str:
        """What kohya's layout calls a layer, such as "lora_unet_mid_block_resnets_0_conv1"."""
        if self.of_transformers:
            # Some releases have this level, others do not; it is part of the prefix.
            layer = layer.removeprefix(TEXT_LEVEL)
        return f"{self.kohya_prefix}{layer.replace('.', '_')}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoraFile:
    """The tensors of one file by name, and what its settings say about scales."""

    path: Path
    tensors: Mapping[str, Tensor]
    scaling: Mapping[str, Scaling]
    """By the name of the component; "" where the settings are of any."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layer:
    """Both matrices of one layer of one component."""

    component: str
    name: str
    down: Tensor
    up: Tensor
    alpha: float

    @property
    def rank(self) -> int:
        """The number of rows of the first matrix."""
        return self.down.shape[0]

    def matrices(self) -> dict[str, Tensor]:
        """By the names that peft gives them."""
        return {f"{self.name}.lora_A.weight": self.down, f"{self.name}.lora_B.weight": self.up}


def adapter_file(adapter: Path) -> Path:
    """The LoRA file of what `find_weights` gives: the file itself, or that inside.

    CheckpointError for all weights of a network, which are no adapter.
    """
    if full_weights(adapter) is not None:
        raise CheckpointError(
            f"{adapter}: has all weights of the network and no adapter; make a model of it"
            f" (imgalign export {adapter} --format merged), and name that as the model"
        )
    return next(iter(weight_files(adapter)), adapter / LORA_FILE)


def read_layers(path: Path, components: Sequence[Component]) -> list[Layer]:
    """The layers of a LoRA file that are complete, each in its place, in the file's order.

    A layer without one of its matrices is left out and named in a warning. CheckpointError for what
    is not LoRA alone, and where a layer has no place in the components or another size: such an
    adapter was made for another model.
    """
    return _fit(_read(path, components), components)


def _read(path: Path, components: Sequence[Component]) -> LoraFile:
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            header = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path.parent}: cannot use this adapter: cannot read {path.name}: {first_line(error)}"
        ) from None
    if not tensors:
        raise CheckpointError(f"{path}: expected LoRA weights, got a file without a tensor")
    methods = {method for name in tensors for key, method in OTHER_METHODS.items() if key in name}
    if methods:
        raise CheckpointError(
            f"{path}: cannot use this adapter: it is of the kind {', '.join(sorted(methods))},"
            " supported is plain LoRA; merge it into a model with the tool that made it"
        )
    try:
        scaling = _scalings(path, header, components)
    except InputError as error:  # settings that are no JSON
        raise CheckpointError(f"{error}; download or export the adapter again") from None
    return LoraFile(path=path, tensors=tensors, scaling=scaling)


def _scalings(
    path: Path, header: Mapping[str, str], components: Sequence[Component]
) -> dict[str, Scaling]:
    """What the header of a LoRA file, or peft's file beside it, says by component."""
    scaling: dict[str, Scaling] = {}
    if LORA_ADAPTER_METADATA_KEY in header:
        settings = parse_object(header[LORA_ADAPTER_METADATA_KEY], f"{path}: its header")
        for component in components:
            prefix = f"{component.name}."
            own = {
                key.removeprefix(prefix): value
                for key, value in settings.items()
                if key.startswith(prefix)
            }
            if own:
                scaling[component.name] = _scaling(own, path)
    elif (path.parent / PEFT_CONFIG).is_file() and path.name != LORA_FILE:
        scaling[""] = _scaling(read_object(path.parent / PEFT_CONFIG), path.parent / PEFT_CONFIG)
    return scaling


def _fit(file: LoraFile, components: Sequence[Component]) -> list[Layer]:
    known = _names(components)
    down: dict[str, Tensor] = {}
    up: dict[str, Tensor] = {}
    alphas: dict[str, Tensor] = {}
    strange = []
    for name, tensor in file.tensors.items():
        match = PART.search(name)
        if match is None:
            strange.append(name)
            continue
        layer = name[: match.start()]
        if match["processor"] or match["processor_up"]:  # `attn1.processor.to_out_lora`
            layer = re.sub(r"\.processor\.(to_\w+)$", r".\1", layer).replace(".to_out", ".to_out.0")
        (alphas if match["alpha"] else up if match["up"] else down)[layer] = tensor
    if strange:
        raise CheckpointError(
            f"{file.path}: cannot use this adapter: expected LoRA matrices only,"
            f" got {_some(strange)} as well"
        )
    layers = dict.fromkeys([*down, *up, *alphas])
    homeless = [layer for layer in layers if layer not in known]
    if homeless:
        total = len(down) + len(up)
        count = sum((layer in down) + (layer in up) for layer in homeless)
        raise CheckpointError(
            f"{file.path}: {count} of the adapter's {total} matrices have no place in this model;"
            f" it was trained on another one ({_some(homeless)})"
        )
    _check_patterns(file, [known[layer][:2] for layer in layers])
    torn = [layer for layer in layers if layer not in down or layer not in up]
    complete = [layer for layer in layers if layer not in torn]
    if not complete:
        raise CheckpointError(f"{file.path}: cannot use this adapter: no layer has both matrices")
    if torn:
        log.warning(
            "%s: %d of %d layers lack one of their two matrices and are left out: %s",
            *(file.path, len(torn), len(layers), _some(torn)),
        )
    return [
        _layer(file, *known[layer], down=down[layer], up=up[layer], alpha=alphas.get(layer))
        for layer in complete
    ]


def switch_on(layers: Sequence[Layer], components: Sequence[Component], adapter: str) -> None:
    """Add the layers to their components as an adapter of this name, every matrix as in the file.

    No component has an adapter of this name.
    """
    for component in components:
        network = component.network
        own = [layer for layer in layers if layer.component == component.name]
        if not own:
            continue
        settings = peft_settings(own)
        matrices = {name: matrix for layer in own for name, matrix in layer.matrices().items()}
        if component.of_transformers:
            network.load_adapter(
                adapter_name=adapter,
                peft_config=LoraConfig(**settings),
                adapter_state_dict=matrices,
            )
        else:
            network.load_lora_adapter(
                matrices, prefix=None, adapter_name=adapter, metadata=settings
            )
        placed = get_peft_model_state_dict(network, adapter_name=adapter)
        assert placed.keys() == matrices.keys(), "what was checked to fit has its place"
        network.requires_grad_(False)


def peft_settings(layers: Sequence[Layer]) -> dict[str, Any]:
    """What peft is told of the layers of one component: which they are, their ranks and alphas."""
    rank, ranks = _usual({layer.name: layer.rank for layer in layers})
    alpha, alphas = _usual({layer.name: layer.alpha for layer in layers})
    return {
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
        "target_modules": [layer.name for layer in layers],
    }


def _layer(
    file: LoraFile,
    component: str,
    name: str,
    weight: Tensor,
    *,
    down: Tensor,
    up: Tensor,
    alpha: Tensor | None,
) -> Layer:
    out, into, *kernel = weight.shape
    rank = down.shape[0] if down.ndim else 0
    expected = (rank, into, *kernel), (out, rank, *(1 for _ in kernel))
    # A linear layer and a convolution of one pixel are the same; files take either for the other.
    if down.numel() == math.prod(expected[0]) and up.numel() == math.prod(expected[1]):
        down, up = _squeezed(down, expected[0]), _squeezed(up, expected[1])
    if (tuple(down.shape), tuple(up.shape)) != expected or not 1 <= rank <= LARGEST_RANK:
        raise CheckpointError(
            f"{file.path}: cannot use this adapter: size mismatch at {name}: expected matrices of"
            f" {tuple(expected[0])} and {tuple(expected[1])}, got {tuple(down.shape)} and"
            f" {tuple(up.shape)}; it was trained on another model"
        )
    for matrix in (down, up):
        if matrix.dtype not in NUMBERS:
            kind = str(matrix.dtype).removeprefix("torch.")
            raise CheckpointError(
                f"{file.path}: {name}: expected numbers as float32, float16, bfloat16 or float8,"
                f" got {kind}"
            )
    if down.element_size() == 1 or up.element_size() == 1:
        down, up = down.float(), up.float()
    for matrix in (down, up):
        if not matrix.isfinite().all():
            raise CheckpointError(f"{file.path}: {name}: expected finite numbers, got others")
    if alpha is None:
        scaling = file.scaling.get(component, file.scaling.get("", Scaling()))
        value = scaling.of(name, rank)
    else:
        value = float(alpha) if alpha.numel() == 1 else math.nan
    if not math.isfinite(value):
        raise CheckpointError(f"{file.path}: {name}: expected a finite alpha, got {value:g}")
    return Layer(component=component, name=name, down=down, up=up, alpha=value)


def _squeezed(matrix: Tensor, shape: tuple[int, ...]) -> Tensor:
    longer = [*matrix.shape, *(1 for _ in range(len(shape) - matrix.ndim))]
    same = longer[: len(shape)] == list(shape) and set(longer[len(shape) :]) <= {1}
    return matrix.reshape(shape) if same else matrix


def _names(components: Sequence[Component]) -> dict[str, tuple[str, str, Tensor]]:
    """Every name by which a layout calls a layer: the component, its own name there, its weight."""
    names = {}
    for component in components:
        for full, module in component.network.named_modules():
            if not isinstance(module, nn.Linear | nn.Conv2d) or ".lora_" in full:
                continue
            name = full.removesuffix(".base_layer")  # under an adapter
            place = component.name, name, module.weight
            ways = [name]
            if component.of_transformers:
                short = name.removeprefix(TEXT_LEVEL)
                ways = [short, f"{TEXT_LEVEL}{short}"]
            names[component.kohya_name(name)] = place
            for way in ways:
                for prefix in ("", f"{component.name}.", "base_model.model."):
                    names[f"{prefix}{way}"] = place
    return names


def _scaling(settings: Mapping[str, Any], where: Path) -> Scaling:
    """The scale that settings of peft describe; CheckpointError for what would not be applied."""
    if str(settings.get("peft_type", "LORA")).rpartition(".")[2] != "LORA":
        raise CheckpointError(
            f"{where}: expected peft_type LORA, got {settings['peft_type']!r:.60}"
        )
    for name in ("use_dora", "lora_bias", "modules_to_save", "layer_replication", "use_qalora"):
        if settings.get(name):
            raise CheckpointError(f"{where}: {name} is not supported, plain LoRA is")
    if settings.get("bias", "none") != "none":
        raise CheckpointError(f"{where}: expected bias none, got {settings['bias']!r:.60}")
    alphas = settings.get("alpha_pattern") or {}
    alpha = settings.get("lora_alpha")
    if not isinstance(alphas, dict) or not all(
        isinstance(each, float) or (type(each) is int and abs(each) < LARGEST_WHOLE)
        for each in (*alphas.values(), 0 if alpha is None else alpha)
    ):
        raise CheckpointError(f"{where}: expected numbers as lora_alpha and alpha_pattern")
    if len(alphas) > MOST_PATTERNS:
        raise CheckpointError(
            f"{where}: alpha_pattern: expected at most {MOST_PATTERNS:,} patterns,"
            f" got {len(alphas):,}"
        )
    return Scaling(
        alpha=None if alpha is None else float(alpha),
        alphas=[
            AlphaPattern(text=text, names=_names_like(text, where), alpha=float(value))
            for text, value in alphas.items()
        ],
        by_root=bool(settings.get("use_rslora")),
    )


def _names_like(pattern: str, where: Path) -> re.Pattern[str]:
    """The names that a pattern of peft's matches, as the library matches it: whole names or ends.

    The library reads patterns as regular expressions, and a foreign one could run for years. Read
    are names, `.` and `.*`, a `^` before and a `$` after; CheckpointError for any other.
    """
    name = pattern.removeprefix("^").removesuffix("$")
    if len(pattern) > LONGEST_PATTERN or not re.fullmatch(r"(?:\w|\\?\.|\.\*)+", name):
        raise CheckpointError(
            f"{where}: alpha_pattern: expected names of layers, in which '.*' may stand for"
            f" anything, got {pattern[:60]!r}; write out the names it stands for"
        )
    signs = {".*": "*", r"\.": ".", ".": "?"}
    like = re.sub(r"\.\*|\\?\.", lambda match: signs[match[0]], name)
    # As a shell's pattern it is matched in time that is bounded.
    ways = [like] if pattern.startswith("^") else [like, f"*.{like}"]
    return re.compile("|".join(map(fnmatch.translate, ways)))


def _check_patterns(file: LoraFile, places: Sequence[tuple[str, str]]) -> None:
    """Raise CheckpointError for a pattern without a layer, by component and name, that it means."""
    for component, scaling in file.scaling.items():
        own = [name for where, name in places if component in ("", where)]
        for pattern in scaling.alphas:
            if not any(map(pattern.matches, own)):
                raise CheckpointError(
                    f"{file.path}: cannot use this adapter: alpha_pattern {pattern.text!r} matches"
                    " none of its layers; correct the name or remove it"
                )


def _usual(values: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The most frequent value, and the others by patterns that match one layer each."""
    ((usual, _),) = Counter(values.values()).most_common(1)
    return usual, {f"^{re.escape(name)}": value for name, value in values.items() if value != usual}


def _some(names: Iterable[str]) -> str:
    shown = [name[:100] for name in names]
    return ", ".join(shown[:3]) + (f" and {len(shown) - 3} more" if len(shown) > 3 else "")
