"""Loading a CLIP by name, from a folder or from a contract, without running untrusted code.

Settings that come with weights are read by the allow-list of architecture.py; tokenizers from files
by tokenizer.py. Only a name that asks for it ("hf-hub:..." or "architecture:tag") uses the network.
Left out: encoding (towers.py).
"""

from pathlib import Path
from typing import Annotated, Literal

import open_clip
import torch
from open_clip.factory import HF_HUB_PREFIX, load_checkpoint
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from pydantic import Field
from safetensors import SafetensorError

import imgalign
from imgalign.errors import CheckpointError, InputError
from imgalign.files import describe_folder
from reward_models.architecture import (
    Architecture,
    Facts,
    TextTower,
    TokenizerOptions,
    read_settings,
    validated,
)
from reward_models.contract import (
    TOKENIZER_FOLDER,
    WEIGHTS_FILE,
    Channels,
    Contract,
    ImageSize,
    Preprocess,
    Spreads,
    TextRule,
)
from reward_models.tokenizer import FolderTokenizer, from_open_clip, read_tokenizer
from reward_models.towers import Clip, Tokenizer, Towers

CONFIG_FILE = "open_clip_config.json"
WEIGHTS_NAMES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "model.safetensors",
)
"""Names of weights in open_clip's layout, the preferred first. Pickles are not read."""
STORYBOOK = Path(imgalign.__file__).parent / "storybook" / "assets" / "clip"
UNBUILDABLE = (
    KeyError,
    TypeError,
    ValueError,
    IndexError,
    RuntimeError,
    AssertionError,
    ZeroDivisionError,
)
"""Exceptions of open_clip and timm for invalid settings."""


def load_towers(name: str | Path) -> Towers:
    """Towers from a folder in open_clip's layout, or a model open_clip knows.

    `name`: "storybook" for the CLIP that imgalign ships; a folder holding open_clip_config.json,
    weights and tokenizer; "hf-hub:owner/model"; or "architecture:tag" such as
    "ViT-B-32:laion2b_s34b_b79k". QuickGELU follows the tag, which the architecture's name alone
    gets wrong. InputError where nothing is there, CheckpointError where the weights do not fit.
    """
    place = STORYBOOK if str(name) == "storybook" else Path(name)
    if (place / CONFIG_FILE).is_file():
        return _read_towers(place)
    model_name, tag, quick_gelu = resolve(str(name))
    try:
        fields = open_clip.get_model_config(model_name)
    except (ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{name}: open_clip cannot find it ({reason})") from error
    if fields is None:
        raise InputError(f"{name}: expected a model open_clip knows; see open_clip.list_models()")
    config = validated(Architecture, fields, str(name))
    config = config.model_copy(update={"quick_gelu": quick_gelu or config.quick_gelu})
    # A downloaded tokenizer may ask to run custom code, and transformers would prompt for consent.
    safe = {"trust_remote_code": False} if config.text_cfg.hf_tokenizer_name else {}
    try:
        model = open_clip.create_model(
            model_name, pretrained=tag, force_quick_gelu=quick_gelu, require_pretrained=True
        )
        fetched = open_clip.get_tokenizer(model_name, **safe)
    except (RuntimeError, ValueError, OSError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{name}: open_clip cannot load it ({reason})") from error
    tokenizer = (
        from_open_clip(fetched, config.text_cfg.tokenizer_kwargs)
        if isinstance(fetched, HFTokenizer)
        else fetched
    )
    rule = validated(OpenClipPreprocess, open_clip.get_model_preprocess_cfg(model), str(name))
    return _assemble(model, tokenizer, config, rule)


def rebuild_towers(contract: Contract, folder: Path) -> Towers:
    """Towers of a contract with random weights, to load a state dict into; works offline."""
    return Towers(
        _build(contract.backbone, folder / WEIGHTS_FILE),
        _tokenizer(
            contract.backbone.text_cfg,
            folder / TOKENIZER_FOLDER,
            in_folder=contract.text.tokenizer == "folder",
            context_length=contract.text.context_length,
        ),
        config=contract.backbone,
        preprocess=contract.preprocess,
        text=contract.text,
    )


def resolve(name: str) -> tuple[str, str | None, bool]:
    """The model name, the pretrained tag and whether to force QuickGELU, for open_clip.

    Example: "ViT-B-32:openai" gives ("ViT-B-32", "openai", True), though the architecture's own
    configuration says GELU. Hub repositories have it in their configuration.
    """
    if name.startswith(HF_HUB_PREFIX):
        return name, None, False
    architecture, _, tag = name.partition(":")
    if not tag or Path(name).exists():
        raise InputError(
            f"{name}: expected a folder with {CONFIG_FILE}, 'hf-hub:owner/model' or "
            "'architecture:tag' such as 'ViT-B-32:laion2b_s34b_b79k'"
        )
    known = open_clip.get_pretrained_cfg(architecture, tag)
    if not known:
        tags = open_clip.list_pretrained_tags_by_model(architecture)
        raise InputError(f"{name}: expected one of the tags {', '.join(tags) or 'of open_clip'}")
    return architecture, tag, bool(known.get("quick_gelu", False))


class OpenClipPreprocess(Facts):
    """`Preprocess` under open_clip's names."""

    size: ImageSize | None = None
    """Ignored; the image tower has the size."""
    mode: Literal["RGB"] = "RGB"
    """Colour mode."""
    mean: Channels = open_clip.OPENAI_DATASET_MEAN
    """Of the training images."""
    std: Spreads = open_clip.OPENAI_DATASET_STD
    """Of the training images."""
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    """Filter of the resize."""
    resize_mode: Literal["shortest", "longest", "squash"] = "shortest"
    """How an image is fitted to the size."""
    fill_color: Annotated[int, Field(ge=0, le=255)] = 0
    """Of the padding."""


def _read_towers(folder: Path) -> Towers:
    """The towers in a folder of open_clip's layout."""
    path = folder / CONFIG_FILE
    fields = read_settings(path)
    if not isinstance(fields, dict) or not isinstance(fields.get("model_cfg"), dict):
        raise CheckpointError(f"{path}: expected an object of settings with a model_cfg")
    config = validated(Architecture, fields["model_cfg"], f"{path}: model_cfg")
    given = fields.get("preprocess_cfg") or {}
    known = (
        {name: given[name] for name in OpenClipPreprocess.model_fields if name in given}
        if isinstance(given, dict)
        else given
    )
    rule = validated(OpenClipPreprocess, known, f"{path}: preprocess_cfg")
    weights = next((folder / name for name in WEIGHTS_NAMES if (folder / name).is_file()), None)
    if weights is None:
        raise CheckpointError(
            f"{folder}: no weights here; expected {WEIGHTS_NAMES[0]}, {describe_folder(folder)}"
        )
    model = _build(config, weights)
    try:
        load_checkpoint(model, str(weights))
    except (*UNBUILDABLE, OSError, AttributeError, StopIteration, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{weights}: open_clip cannot load it ({reason})") from error
    tokenizer = _tokenizer(
        config.text_cfg,
        folder,
        in_folder=config.text_cfg.hf_tokenizer_name is not None,
        context_length=config.text_cfg.context_length,
    )
    return _assemble(model, tokenizer, config, rule)


def _build(config: Architecture, weights: Path) -> Clip:
    """Build a CLIP with random weights; CheckpointError for invalid settings.

    Refused before memory is allocated where the file is too small for that many weights.
    """
    where = f"{weights.parent}: backbone"
    try:
        if config.vision_cfg.timm_model_name is None:  # timm's have the size of their name
            with torch.device("meta"):
                size = sum(tensor.numel() for tensor in _construct(config).state_dict().values())
            if weights.is_file() and size > weights.stat().st_size:
                raise CheckpointError(
                    f"{where}: has {size} weights, which {weights.name} of "
                    f"{weights.stat().st_size} bytes cannot hold; they come from different models"
                )
        return _construct(config)
    except UNBUILDABLE as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{where}: open_clip cannot build it ({reason})") from error


def _construct(config: Architecture) -> Clip:
    image = config.vision_cfg.model_copy(update={"timm_model_pretrained": False})
    build = open_clip.CustomTextCLIP if config.custom_text else open_clip.CLIP
    return build(
        embed_dim=config.embed_dim,
        vision_cfg=CLIPVisionCfg(**image.model_dump()),
        text_cfg=CLIPTextCfg(**config.text_cfg.model_dump()),
        quick_gelu=config.quick_gelu,
        init_logit_bias=config.init_logit_bias,
        nonscalar_logit_scale=config.nonscalar_logit_scale,
    )


def _assemble(
    model: Clip, tokenizer: object, config: Architecture, rule: OpenClipPreprocess
) -> Towers:
    if not isinstance(tokenizer, Tokenizer):
        raise InputError(f"reward model: tokenizer {type(tokenizer).__name__} cannot be saved")
    size = model.visual.image_size
    return Towers(
        model,
        tokenizer,
        config=config,
        preprocess=Preprocess(
            image_size=(size, size) if isinstance(size, int) else tuple(size),
            mean=rule.mean,
            std=rule.std,
            resize_mode=rule.resize_mode,
            interpolation=rule.interpolation,
            fill=rule.fill_color / 255,
        ),
        text=TextRule(
            context_length=tokenizer.context_length,
            tokenizer="folder" if isinstance(tokenizer, FolderTokenizer) else "open_clip",
        ),
    )


def _tokenizer(text: TextTower, folder: Path, *, in_folder: bool, context_length: int) -> Tokenizer:
    if in_folder:
        return read_tokenizer(folder, context_length=context_length, options=text.tokenizer_kwargs)
    options = text.tokenizer_kwargs or TokenizerOptions()
    return SimpleTokenizer(context_length=context_length, clean=options.clean or "lower")


def names_towers(name: str) -> bool:
    """Whether `name` is of a form that `load_towers` accepts."""
    if name == "storybook" or name.startswith(HF_HUB_PREFIX):
        return True
    return (Path(name) / CONFIG_FILE).is_file() or (":" in name and not Path(name).exists())
