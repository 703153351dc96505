"""Schema of open_clip model configurations: an allow-list of settings, each with its range.

A configuration comes with untrusted weights, so only the fields of these models reach a library.
Settings that download or run something (a text tower or a tokenizer by name, custom code) and those
that no plain two-tower CLIP uses are not among them. Defaults are open_clip's. Left out: building
the towers (clip_models.py).
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from imgalign.config import Config
from imgalign.errors import CheckpointError
from imgalign.files import read_json

LARGEST_SETTINGS = 2**20
"""Bytes of a configuration or contract; real ones take a few thousand."""
MOST_PATCHES = 2**14
"""Of one image; attention over more is beyond any CLIP."""

M = TypeVar("M", bound=BaseModel)

Width = Annotated[int, Field(gt=0, le=16_384)]
Depth = Annotated[int, Field(gt=0, le=256)]
Heads = Annotated[int, Field(gt=0, le=1024)]
Pixels = Annotated[int, Field(gt=0, le=2048)]
Ratio = Annotated[float, Field(gt=0, le=64)]
Rate = Annotated[float, Field(ge=0, lt=1)]


class Facts(Config):
    """Base of models of untrusted files: no unknown keys, every number finite."""

    model_config = ConfigDict(allow_inf_nan=False)


class NormOptions(Facts):
    """Options of layer norms."""

    eps: Annotated[float, Field(gt=0, le=0.1)] = 1e-5
    """Added to the variance."""


class ActivationOptions(Facts):
    """Options of GELU."""

    approximate: Literal["none", "tanh"] = "none"
    """open_clip's name of the formula."""


class TokenizerOptions(Facts):
    """How prompts are cleaned before tokenization, and whether separators are removed."""

    clean: Literal["lower", "whitespace", "canonicalize"] | None = None
    """None for the default of the kind of tokenizer."""

    strip_sep_token: bool = False
    """Replace separator tokens with 0."""


class VisionTower(Facts):
    """The image tower: a transformer, a residual network (four numbers of layers) or timm's."""

    layers: Depth | tuple[Depth, Depth, Depth, Depth] = 12
    """Blocks; of a residual network those of each stage."""
    width: Width = 768
    """Channels."""
    head_width: Width = 64
    """Channels of an attention head."""
    mlp_ratio: Ratio = 4.0
    """Width of the hidden layer of a block, relative to `width`."""
    patch_size: Pixels | None = 16
    """Pixels of a patch's side; None for residual networks and timm's."""
    image_size: Pixels | tuple[Pixels, Pixels] = 224
    """Side, or height and width, in pixels."""
    ls_init_value: Annotated[float, Field(gt=0, le=1)] | None = None
    """Start of layer scale; None without."""
    patch_dropout: Rate = 0.0
    """Share of patches left out in training."""
    no_ln_pre: bool = False
    """Without the norm before the blocks."""
    final_ln_after_pool: bool = False
    """The last norm after pooling."""
    pool_type: Literal["tok", "avg"] = "tok"
    """How patches become one vector."""
    timm_model_name: Annotated[str, Field(pattern=r"^[a-z0-9_]+(\.[a-z0-9_]+)?$")] | None = None
    """A model that timm itself defines; never a repository."""
    timm_model_pretrained: bool = False
    """Whether open_clip downloads timm's weights first; never done here."""
    timm_pool: Literal["", "avg", "token", "map", "abs_attn", "rot_attn"] = "avg"
    """Pooling of a timm model."""
    timm_proj: Literal["", "linear", "mlp", "none"] | None = "linear"
    """Projection of a timm model."""
    timm_proj_bias: bool = False
    """Whether that has a bias."""
    timm_drop: Rate = 0.0
    """Dropout of the head in training."""
    timm_drop_path: Rate | None = None
    """Stochastic depth in training."""

    @model_validator(mode="after")
    def _bounded(self) -> "VisionTower":
        size = self.image_size
        height, width = size if isinstance(size, tuple) else (size, size)
        if self.patch_size and height * width > MOST_PATCHES * self.patch_size**2:
            raise ValueError(f"expected at most {MOST_PATCHES} patches an image")
        if self.patch_size is None and isinstance(self.layers, int) and not self.timm_model_name:
            raise ValueError("expected the patch_size of a transformer")
        return self


class TextTower(Facts):
    """The text tower, a transformer, and its tokenizer."""

    context_length: Annotated[int, Field(ge=3, le=4096)] = 77
    """Tokens of a prompt."""
    vocab_size: Annotated[int, Field(gt=0, le=2_000_000)] = 49_408
    """Size of the vocabulary."""
    hf_tokenizer_name: Annotated[str, Field(max_length=500)] | None = None
    """Given where the tokenizer is in Hugging Face's format; its files are in the folder."""
    tokenizer_mode: None = None
    """Not supported."""
    tokenizer_kwargs: TokenizerOptions | None = None
    """Cleaning."""
    width: Width = 512
    """Channels."""
    heads: Heads = 8
    """Attention heads of a block."""
    layers: Depth = 12
    """Blocks."""
    mlp_ratio: Ratio = 4.0
    """Width of the hidden layer of a block, relative to `width`."""
    ls_init_value: Annotated[float, Field(gt=0, le=1)] | None = None
    """Start of layer scale; None without."""
    embed_cls: bool = False
    """Append a class token."""
    pad_id: Annotated[int, Field(ge=0)] = 0
    """Token of padding."""
    eos_id: Annotated[int, Field(ge=0)] = 2
    """Token that ends a prompt."""
    no_causal_mask: bool = False
    """Bidirectional attention."""
    final_ln_after_pool: bool = False
    """The last norm after pooling."""
    pool_type: Literal["first", "last", "argmax", "eos"] = "argmax"
    """The token whose features represent the prompt."""
    proj_bias: bool = False
    """Whether the projection has a bias."""
    proj_type: Literal["linear", "none"] = "linear"
    """Projection to the shared space."""
    act_kwargs: ActivationOptions | None = None
    """Of the activation."""
    norm_kwargs: NormOptions | None = None
    """Of the layer norms."""


class Architecture(Facts):
    """Two towers of a plain CLIP."""

    embed_dim: Width
    """Width of the shared space."""
    vision_cfg: VisionTower
    """The image tower."""
    text_cfg: TextTower
    """The text tower."""
    quick_gelu: bool = False
    """The sigmoid approximation of GELU."""
    custom_text: bool = False
    """The text tower is a module of its own."""
    init_logit_scale: float | None = None
    """Where training started the scale of the cosine; scores do not use it."""
    init_logit_bias: float | None = None
    """Where training started its bias."""
    nonscalar_logit_scale: bool = False
    """The scale is a vector of one."""


def read_settings(path: Path) -> Any:
    """Parse a JSON file of settings; CheckpointError of one line where it cannot be read."""
    try:
        return read_json(path, largest=LARGEST_SETTINGS)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: missing; copy the whole folder again") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: not readable as JSON ({reason})") from None


def validated(model: type[M], fields: object, where: str) -> M:
    """Validate `fields`; CheckpointError, which begins with `where`, for the first invalid one."""
    try:
        # JSON, because strict mode there still takes a list for a tuple.
        return model.model_validate_json(json.dumps(fields), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        parts = [part if _plain(part) else repr(part)[:40] for part in map(str, first["loc"])]
        message = " ".join(first["msg"].split())
        place = f" {'.'.join(parts)}:" if parts else ""
        raise CheckpointError(f"{where}:{place} {message[0].lower()}{message[1:200]}") from None


def _plain(name: str) -> bool:
    return name.isidentifier() or name.isdigit()
