"""The two towers of an open_clip CLIP, their tokenizer and their rules, as one module.

They come from a folder in open_clip's layout, from a model that open_clip knows by name, or are
rebuilt from a contract without any network. Left out: the preference head (head.py, clip.py).

Shapes: b = images or prompts, d = width of the shared space, l = d and the width of the
style, where there is one. Features have length 1.
"""

import hashlib
import warnings
from copy import deepcopy
from pathlib import Path
from typing import Any, TypeAlias

import open_clip
import torch
from jaxtyping import Float, Int
from open_clip.factory import HF_HUB_PREFIX, LOCAL_DIR_PREFIX
from open_clip.modified_resnet import ModifiedResNet
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from torch import Tensor, nn
from torch.nn import functional as F

import imgalign
from imgalign.errors import CheckpointError, ConfigError, InputError
from reward_models.contract import TOKENIZER_FOLDER, Contract, Preprocess, TextRule
from reward_models.preprocess import preprocess_images

Clip: TypeAlias = open_clip.CLIP | open_clip.CustomTextCLIP
Tokenizer: TypeAlias = HFTokenizer | SimpleTokenizer

CONFIG_FILE = "open_clip_config.json"
STORYBOOK = Path(imgalign.__file__).parent / "storybook" / "assets" / "clip"


class Towers(nn.Module):
    """Images in [0, 1] and prompts to features; always in evaluation mode.

    `model` is open_clip's own, so its state dict is what open_clip would save.
    """

    def __init__(
        self,
        model: Clip,
        tokenizer: Tokenizer,
        *,
        config: dict[str, Any],
        preprocess: Preprocess,
        text: TextRule,
    ) -> None:
        super().__init__()
        self.model: Clip = model.eval()
        self.tokenizer = tokenizer
        self.config = config
        self.preprocess = preprocess
        self.text = text
        self._warned = False

    @property
    def width(self) -> int:
        """Width of the shared space."""
        return int(self.config["embed_dim"])

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = next(self.model.parameters()).device
        return device

    def train(self, mode: bool = True) -> "Towers":
        """Stay in evaluation mode: patch dropout would make scores random."""
        return super().train(False)

    def prepare(self, samples: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 height width"]:
        """What the image tower takes, on its device."""
        return preprocess_images(samples.to(self.device, torch.float32), self.preprocess)

    def encode_prepared(self, images: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b d"]:
        """Features of images that went through `prepare`."""
        features: Tensor = self.model.encode_image(images)
        return F.normalize(features, dim=-1)

    def describe(
        self, images: Float[Tensor, "b 3 height width"], *, style: bool
    ) -> Float[Tensor, "b l"]:
        """What a preference head reads of images that went through `prepare`.

        The features, and where it is asked for, the style: mean and standard deviation over all
        places of each channel of the tower's first stage, as one vector of length 1. What pictures
        have in common that are painted alike (Gatys et al. 2016; Huang & Belongie 2017,
        arXiv:1703.06868).
        """
        features = self.encode_prepared(images)
        return torch.cat([features, self._style(images)], dim=1) if style else features

    def style_width(self, *, style: bool) -> int:
        """By how much `describe` is wider than the shared space."""
        if not style:
            return 0
        with torch.no_grad():
            blank = torch.zeros(1, 3, *self.preprocess.image_size, device=self.device)
            return self._style(blank).shape[1]

    def _style(self, images: Tensor) -> Tensor:
        tower: Any = self.model.visual
        residual = isinstance(tower, ModifiedResNet)
        # Of a residual network 0 is the stem. `stop_early` stops it only where it is not set.
        found = tower.forward_intermediates(
            images,
            indices=[1 if residual else 0],
            stop_early=not residual,
            intermediates_only=True,
        )
        (stage,) = found["image_intermediates"]
        return channel_statistics(stage)

    def encode_tokens(self, tokens: Int[Tensor, "b length"]) -> Float[Tensor, "b d"]:
        """Features of prompts that went through `tokenize`."""
        features: Tensor = self.model.encode_text(tokens.to(self.device))
        return F.normalize(features, dim=-1)

    def tokenize(self, prompts: list[str]) -> Int[Tensor, "b length"]:
        """Token ids, cut to the context; the first cut of these towers is warned about.

        InputError where a prompt is empty.
        """
        for index, prompt in enumerate(prompts):
            if not prompt.strip():
                raise InputError(f"prompt {index}: expected text, got {prompt!r}")
        if not self._warned:
            self._warn_of_cuts(prompts)
        tokens: Tensor = self.tokenizer(prompts, context_length=self.text.context_length)
        return tokens

    def _warn_of_cuts(self, prompts: list[str]) -> None:
        lost = [(prompt, cut) for prompt in prompts if (cut := self.beyond_context(prompt))]
        if not lost:
            return
        self._warned = True
        prompt, cut = lost[0]
        warnings.warn(
            f"{len(lost)} of {len(prompts)} prompts are longer than the {self.text.context_length} "
            f"tokens the reward reads; {cut!r} is ignored at the end of {prompt!r}; said once",
            stacklevel=2,
        )

    def beyond_context(self, prompt: str) -> str:
        """The end of `prompt` that the text tower does not read; empty when it reads all."""
        kept = self.text.context_length - 2  # the two end tokens
        if isinstance(self.tokenizer, SimpleTokenizer):
            return str(self.tokenizer.decode(self.tokenizer.encode(prompt)[kept:])).strip()
        inner = self.tokenizer.tokenizer
        tokens = inner(
            self.tokenizer.clean_fn(prompt),
            add_special_tokens=False,
            truncation=False,
            verbose=False,
        ).input_ids
        return str(inner.decode(tokens[kept:])).strip()

    def weights_hash(self) -> str:
        """sha256 over names and values of all weights."""
        digest = hashlib.sha256()
        for name, value in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.cpu().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    def save_tokenizer(self, folder: Path) -> None:
        """Write the tokenizer's files beside a contract; nothing for the one open_clip ships."""
        if isinstance(self.tokenizer, HFTokenizer):
            self.tokenizer.save_pretrained(folder / TOKENIZER_FOLDER)

    def freeze(self, *, image_blocks: int = 0, text_blocks: int = 0) -> list[nn.Parameter]:
        """Freeze all but the last blocks of each tower; returns what stays trainable.

        With a tower's blocks come what follows them: its last norm and its projection, or the
        attention pool of a residual network, whose batch norms keep their statistics. ConfigError
        where a tower has no such blocks or fewer.
        """
        self.requires_grad_(False)
        image, text = self.model.visual, getattr(self.model, "text", self.model)
        after_image = ("ln_post", "proj", "attnpool")
        after_text = ("ln_final", "text_projection")
        trainable = [
            *_last_blocks(image, image_blocks, after_image, "unfreeze_image_blocks"),
            *_last_blocks(text, text_blocks, after_text, "unfreeze_text_blocks"),
        ]
        for parameter in trainable:
            parameter.requires_grad_(True)
        return trainable


def channel_statistics(stage: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2"]:
    """Mean and standard deviation of each channel over all places, as one vector of length 1."""
    places = stage.flatten(2)
    # The root of exactly 0, of a channel that is the same everywhere, has no gradient.
    spread = (places.var(2, correction=0) + 1e-12).sqrt()
    return F.normalize(torch.cat([places.mean(2), spread], dim=1), dim=-1)


def load_towers(name: str | Path) -> Towers:
    """Towers from a folder in open_clip's layout, or a model open_clip knows.

    `name`: "storybook" for the CLIP that imgalign ships; a folder holding open_clip_config.json,
    weights and tokenizer; "hf-hub:owner/model"; or "architecture:tag" such as
    "ViT-B-32:laion2b_s34b_b79k". QuickGELU follows the tag, which the architecture's name alone
    gets wrong. InputError where nothing is there, CheckpointError where the weights do not fit.
    """
    model_name, tag, quick_gelu = resolve(str(name))
    try:
        config = open_clip.get_model_config(model_name)
    except (ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{name}: open_clip cannot find it ({reason})") from error
    if config is None:
        raise InputError(f"{name}: expected a model open_clip knows; see open_clip.list_models()")
    config = _canonical(config, quick_gelu=quick_gelu)
    try:
        model = open_clip.create_model(
            model_name, pretrained=tag, force_quick_gelu=quick_gelu, require_pretrained=True
        )
        tokenizer = open_clip.get_tokenizer(model_name)
    except (RuntimeError, ValueError, OSError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{name}: open_clip cannot load it ({reason})") from error
    return _assemble(model, tokenizer, config)


def rebuild_towers(contract: Contract, folder: Path) -> Towers:
    """Towers of a contract with random weights, for a state dict to fill; needs no network."""
    config = deepcopy(contract.backbone)
    build: dict[str, Any] = deepcopy(config)
    custom_text = bool(build.pop("custom_text", False))
    try:
        # timm would fetch weights that are about to be replaced.
        build["vision_cfg"]["timm_model_pretrained"] = False
        model = (open_clip.CustomTextCLIP if custom_text else open_clip.CLIP)(**build)
    except (KeyError, TypeError, RuntimeError, AssertionError) as error:
        raise CheckpointError(
            f"{folder}: open_clip cannot build the backbone of the contract ({error}); fit it again"
        ) from error
    return Towers(
        model,
        _rebuild_tokenizer(contract, folder),
        config=config,
        preprocess=contract.preprocess,
        text=contract.text,
    )


def resolve(name: str) -> tuple[str, str | None, bool]:
    """open_clip's own name, tag and whether to force QuickGELU, for what a user wrote.

    Example: "ViT-B-32:openai" gives ("ViT-B-32", "openai", True), though the architecture's own
    configuration says GELU. Folders and hub repositories say it themselves.
    """
    if name.startswith(HF_HUB_PREFIX):
        return name, None, False
    if name == "storybook":
        name = str(STORYBOOK)
    if (Path(name) / CONFIG_FILE).is_file():
        return f"{LOCAL_DIR_PREFIX}{name}", None, False
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


def _canonical(config: dict[str, Any], *, quick_gelu: bool) -> dict[str, Any]:
    config = deepcopy(config)
    if "multimodal_cfg" in config or "hf_model_name" in config["text_cfg"]:
        raise InputError(
            "reward model: expected two plain CLIP towers; a captioning model or a text tower from "
            "transformers cannot be rebuilt without a network"
        )
    config["quick_gelu"] = quick_gelu or bool(config.get("quick_gelu", False))
    return config


def _assemble(model: Clip, tokenizer: object, config: dict[str, Any]) -> Towers:
    if not isinstance(tokenizer, Tokenizer):
        raise InputError(f"reward model: tokenizer {type(tokenizer).__name__} cannot be saved")
    rule = open_clip.get_model_preprocess_cfg(model)
    size = model.visual.image_size
    return Towers(
        model,
        tokenizer,
        config=config,
        preprocess=Preprocess(
            image_size=(size, size) if isinstance(size, int) else tuple(size),
            mean=tuple(rule["mean"]),
            std=tuple(rule["std"]),
            resize_mode=rule.get("resize_mode", "shortest"),
            interpolation=rule.get("interpolation", "bicubic"),
            fill=rule.get("fill_color", 0) / 255,
        ),
        text=TextRule(
            context_length=tokenizer.context_length,
            tokenizer="folder" if isinstance(tokenizer, HFTokenizer) else "open_clip",
        ),
    )


def _rebuild_tokenizer(contract: Contract, folder: Path) -> Tokenizer:
    length = contract.text.context_length
    text: Any = contract.backbone["text_cfg"]
    arguments = text.get("tokenizer_kwargs") or {}
    if contract.text.tokenizer == "open_clip":
        return SimpleTokenizer(context_length=length, **arguments)
    path = folder / TOKENIZER_FOLDER
    if not path.is_dir():  # a missing folder would be looked for on the hub
        raise CheckpointError(f"{folder}: no {TOKENIZER_FOLDER}/ here; copy the whole folder again")
    try:
        return HFTokenizer(
            str(path),
            context_length=length,
            tokenizer_mode=text.get("tokenizer_mode"),
            **arguments,
        )
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path}: tokenizer cannot be read ({reason})") from error


def _last_blocks(
    tower: nn.Module, count: int, after: tuple[str, ...], option: str
) -> list[nn.Parameter]:
    if count == 0:
        return []
    transformer = getattr(tower, "transformer", None)
    blocks = list(getattr(transformer, "resblocks", []))
    if isinstance(tower, ModifiedResNet):
        blocks = [*tower.layer1, *tower.layer2, *tower.layer3, *tower.layer4]
    if count > len(blocks):
        raise ConfigError(f"{option}: expected at most the tower's {len(blocks)}, got {count}")
    parameters = [p for block in blocks[-count:] for p in block.parameters()]
    for name in after:
        part = getattr(tower, name, None)
        if isinstance(part, nn.Parameter):
            parameters.append(part)
        elif isinstance(part, nn.Module):
            parameters.extend(part.parameters())
    return parameters


def names_towers(name: str) -> bool:
    """Whether `name` is something for `load_towers`, as far as the name alone can tell."""
    if name == "storybook" or name.startswith(HF_HUB_PREFIX):
        return True
    return (Path(name) / CONFIG_FILE).is_file() or (":" in name and not Path(name).exists())
