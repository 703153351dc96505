"""Loading the parts of a model folder in diffusers' layout, from whoever wrote it.

Its settings are foreign: they are checked against lists of what may stand there, and each part is
loaded by the class that the part must have, so that no setting names code or a place to fetch from.
Every tensor of a part must be in its weights; what the settings describe may not be larger than
they are. Left out: where a folder comes from (loading.py), and which parts a model has (families/).
"""

import inspect
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from imgalign.diffusion.foreign_json import read_object
from imgalign.diffusion.schedulers import build_scheduler
from imgalign.errors import InputError, first_line

log = logging.getLogger(__name__)

INDEX = "model_index.json"
CLIP_TOKENIZERS = "CLIPTokenizer", "CLIPTokenizerFast"
"""Both are read by the first."""

LIBRARIES = (None, "diffusers", "transformers", "stable_diffusion")
"""What the index may name beside a class; the library would import others, which runs them."""

NEVER = ("auto_map", "trust_remote_code", "custom_pipelines", "quantization_config", "init_inputs")
"""Settings by which a folder has the library run or fetch something else."""

TEXT_FIELDS = (
    *("vocab_size", "hidden_size", "intermediate_size", "projection_dim", "num_hidden_layers"),
    *("num_attention_heads", "max_position_embeddings", "hidden_act", "layer_norm_eps"),
    *("attention_dropout", "initializer_range", "initializer_factor", "use_attention_mask"),
    *("pad_token_id", "bos_token_id", "eos_token_id"),
)
LARGEST_NUMBER, MOST_LAYERS, LARGEST_LATENT, LONGEST_LIST = 2**20, 128, 2048, 64
"""Far above every published model; the weights then say what is really there."""

SCALES = 1e-3, 1e3
"""Least and most that a latent may be scaled by; in published models the scale is near 1."""

UNUSABLE = (
    *(OSError, ValueError, TypeError, KeyError, AttributeError, IndexError, RuntimeError),
    *(ImportError, AssertionError, ArithmeticError, SafetensorError, StrictDataclassError),
)
"""What the libraries' constructors raise where settings or weights are wrong."""


def check_index(index: Mapping[str, Any], path: Path, classes: Mapping[str, Sequence[str]]) -> None:
    """Raise InputError unless each part named is of a class, and of a library, that may be used.

    `classes` are those that each part may have; other parts, such as a safety checker, are never
    loaded.
    """
    for name, entry in index.items():
        if name.startswith("_") or not isinstance(entry, list):
            continue
        library, cls = entry if len(entry) == 2 else (entry, None)
        if not (library is None or isinstance(library, str)) or library not in LIBRARIES:
            raise InputError(
                f"model: {path}: {name} names {library!r}, which is no library of models;"
                " code from a model's folder is never run"
            )
        if name in classes and cls not in classes[name]:
            expected = " or ".join(classes[name])
            raise InputError(f"model: {path}: {name}: expected {expected}, got {cls!r}")


def check_latents(
    network: Mapping[str, Any], vae: Mapping[str, Any], folder: Path, *, name: str
) -> None:
    """Raise InputError unless these settings say how large a latent is, and in what scale.

    `name` is that of the denoising network in the folder.
    """
    size = network["sample_size"]
    sides = list(size) if isinstance(size, list | tuple) else [size, size]
    if len(sides) != 2 or not all(type(each) is int and each >= 1 for each in sides):
        raise InputError(
            f"model: {folder / name / 'config.json'}: sample_size: expected the size of its"
            f" latents, 1 or more, as one whole number or two, got {size!r}; write there an image's"
            " size in pixels divided by what the vae makes it smaller by (Stable Diffusion 1: 64)"
        )
    scale = vae["scaling_factor"]
    least, most = SCALES
    if type(scale) not in (int, float) or not least <= scale <= most:
        raise InputError(
            f"model: {folder / 'vae' / 'config.json'}: scaling_factor: expected a number from"
            f" {least:g} to {most:g}, got {scale!r}; write the one that the network was trained"
            " with (Stable Diffusion 1 and 2: 0.18215)"
        )


def load_network(cls: Any, folder: Path, dtype: torch.dtype) -> Any:
    """A network of diffusers; InputError, in one line, where its folder cannot be used."""
    planned = plan_network(cls, folder)
    return _load(
        folder, "diffusion_pytorch_model", planned=planned, load=cls.from_pretrained, dtype=dtype
    )


def plan_network(cls: Any, folder: Path) -> Any:
    """The same as its settings describe it, without weights: on the device "meta"."""
    settings = _read_sizes(folder / "config.json")
    known = inspect.signature(cls.__init__).parameters
    own = {name: value for name, value in settings.items() if name in known}
    return _planned(folder, partial(cls.from_config, own))


def load_clip_encoder(folder: Path) -> CLIPTextModel:
    """CLIP's text encoder in float32; InputError, in one line, where its folder cannot be used."""
    planned = plan_clip_encoder(folder)
    encoder: CLIPTextModel = _load(
        folder,
        "model",
        planned=planned,
        load=partial(CLIPTextModel.from_pretrained, config=planned.config),
        dtype=torch.float32,
    )
    return encoder


def plan_clip_encoder(folder: Path) -> CLIPTextModel:
    """The same as its settings describe it, without weights: on the device "meta"."""
    if (folder / "adapter_config.json").exists():
        raise InputError(f"model: {folder}: expected a model, got an adapter of some other model")
    settings = _read_sizes(folder / "config.json")
    try:
        config = CLIPTextConfig(
            **{name: settings[name] for name in TEXT_FIELDS if name in settings}
        )
    except UNUSABLE as error:
        raise _refusal(folder, error) from None
    encoder: CLIPTextModel = _planned(folder, partial(CLIPTextModel, config))
    return encoder


def _planned(folder: Path, plan: Callable[[], Any]) -> Any:
    """What `plan` builds, which takes no memory here."""
    try:
        with torch.device("meta"):
            return plan()
    except UNUSABLE as error:
        raise _refusal(folder, error) from None


def _load(
    folder: Path,
    stem: str,
    *,
    planned: torch.nn.Module,
    load: Callable[..., Any],
    dtype: torch.dtype,
) -> Any:
    """A network with all the weights that its settings describe.

    `planned` is the same without weights, and `load` the library's `from_pretrained`; `stem` is the
    name of the weights without variant and shard.
    """
    variant = _variant(folder, stem)
    try:
        _check_planned(planned, folder, variant)
        network, found = load(
            folder,
            dtype=dtype,
            variant=variant,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except UNUSABLE as error:
        raise _refusal(folder, error) from None
    _check_loaded(network, found, folder)
    return network


SAYS_TOO_LONG = "sequence-length-is-longer-than-the-specified-maximum"
"""What transformers notes when it has said so once."""


def load_clip_tokenizer(folder: Path, encoder: CLIPTextConfig) -> CLIPTokenizer:
    """CLIP's tokenizer; one that names no longest prompt gets the encoder's number of positions.

    InputError, in one line, where its folder cannot be used or the encoder does not know its words.
    """
    if not (folder / "tokenizer.json").is_file() and not (
        (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file()
    ):
        raise InputError(f"model: {folder}: expected tokenizer.json, or vocab.json and merges.txt")
    path = folder / "tokenizer_config.json"
    if path.is_file():
        _read_settings(path)
    try:
        tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except UNUSABLE as error:
        raise _refusal(folder, error) from None
    if tokenizer.eos_token_id is None or tokenizer.pad_token_id is None:
        raise InputError(f"model: {folder}: expected a token that ends and one that pads prompts")
    if not 2 < len(tokenizer) <= encoder.vocab_size:
        raise InputError(
            f"model: {folder}: expected at most {encoder.vocab_size} tokens, as the text encoder"
            f" knows, got {len(tokenizer)}"
        )
    # Where no limit is written the library's is 10^30, and prompts are not padded at all.
    written = tokenizer.model_max_length
    if not isinstance(written, int | float) or not written >= 2:  # NaN too
        raise InputError(
            f"model: {path}: model_max_length: expected 2 tokens or more, got {written!r}"
        )
    tokenizer.model_max_length = int(min(written, encoder.max_position_embeddings))
    # It would say that longer prompts lead to errors; here they are cut, and that is said.
    tokenizer.deprecation_warnings[SAYS_TOO_LONG] = True
    return tokenizer


def load_scheduler(folder: Path) -> Any:
    """A scheduler of fixed noise levels; InputError for another, or for levels that none has."""
    settings = _read_settings(folder / "scheduler_config.json")
    return build_scheduler(str(settings.get("_class_name")), settings)


def _read_settings(path: Path) -> dict[str, Any]:
    """The settings of a part; InputError for those that run something or have it fetched."""
    settings = read_object(path)
    for name in NEVER:
        if settings.get(name):
            raise InputError(f"model: {path}: {name} is not supported, and nothing of it is run")
    return settings


def _read_sizes(path: Path) -> dict[str, Any]:
    """Likewise; InputError for a size so large that merely building the part would hang as well."""
    settings = _read_settings(path)
    for name, value in settings.items():
        most = MOST_LAYERS if "layers" in name else LARGEST_NUMBER
        most = LARGEST_LATENT if name == "sample_size" else most
        if not name.startswith("_") and not _is_small(value, most, depth=3):
            raise InputError(f"model: {path}: {name}: expected at most {most:,}, got more")
    return settings


def _variant(folder: Path, stem: str) -> str | None:
    """The variant of a part's weights, such as "fp16", where there are no others."""
    names = [each.name for each in folder.iterdir() if each.name.endswith(".safetensors")]
    pattern = re.compile(rf"{stem}(?:\.([\w-]+?))??(?:-\d{{5}}-of-\d{{5}})?\.safetensors")
    variants = {match[1] for name in names if (match := pattern.fullmatch(name))}
    if not variants:
        raise InputError(f"model: {folder}: expected {stem}.safetensors; pickles are never read")
    if None in variants:
        return None
    if len(variants) > 1:
        several = ", ".join(sorted(map(str, variants)))
        raise InputError(f"model: {folder}: expected one variant of the weights, got {several}")
    return variants.pop()


def _check_planned(planned: torch.nn.Module, folder: Path, variant: str | None) -> None:
    """Before any memory is taken: the weights must hold as much as the settings describe."""
    wanted = sum(each.numel() for each in planned.parameters())
    held = 0
    for path in folder.glob("*.safetensors"):
        if variant is None or f".{variant}" in path.name:
            with safe_open(path, "pt") as file:
                shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
            held += sum(int(torch.Size(shape).numel()) for shape in shapes)
    if wanted > held:
        raise InputError(
            f"model: {folder}: config.json describes {wanted:,} numbers, the weights hold {held:,}"
        )


def _check_loaded(network: Any, found: Mapping[str, Any], folder: Path) -> None:
    missing = sorted(found["missing_keys"])
    if missing or any(each.is_meta for each in network.parameters()):
        raise InputError(
            f"model: {folder}: the weights lack {len(missing)} tensors that config.json describes,"
            f" such as {missing[0] if missing else 'those on no device'}"
        )
    unexpected = [name for name in found["unexpected_keys"] if not name.endswith("position_ids")]
    if unexpected:
        log.warning(
            "model: %s: %d tensors of the weights have no place and are not used, such as %s",
            *(folder, len(unexpected), min(unexpected)),
        )


def _refusal(folder: Path, error: BaseException) -> InputError:
    if isinstance(error, InputError):
        return error
    return InputError(f"model: cannot load {str(folder)!r}: {first_line(error)}")


def _is_small(value: object, most: int, *, depth: int) -> bool:
    if isinstance(value, bool) or value is None:
        return True
    if isinstance(value, int | float):
        return value <= most or value == float("inf")
    if isinstance(value, str):
        return True
    if isinstance(value, list):
        return (
            depth > 0
            and len(value) <= LONGEST_LIST
            and all(_is_small(each, most, depth=depth - 1) for each in value)
        )
    return isinstance(value, dict)
