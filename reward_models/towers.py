"""The image and text tower of an open_clip CLIP with tokenizer and preprocessing, as one module.

Left out: choosing and building the CLIP (clip_models.py), and the preference head (head.py,
clip.py).

Shapes: b = images or prompts, d = width of the shared space, l = d plus the width of the style
features, if any. Features have unit length.
"""

import warnings
from pathlib import Path
from typing import Any, TypeAlias

import open_clip
import torch
from jaxtyping import Float, Int
from open_clip.modified_resnet import ModifiedResNet
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from imgalign.errors import CheckpointError, ConfigError, InputError
from reward_models.architecture import Architecture
from reward_models.contract import TOKENIZER_FOLDER, Preprocess, TextRule
from reward_models.folder import weights_hash
from reward_models.preprocess import preprocess_images
from reward_models.tokenizer import FolderTokenizer

Clip: TypeAlias = open_clip.CLIP | open_clip.CustomTextCLIP
Tokenizer: TypeAlias = FolderTokenizer | SimpleTokenizer


class Towers(nn.Module):
    """Encodes images in [0, 1] and prompts; always in evaluation mode.

    `model` is open_clip's own, with the state dict that open_clip would save.
    """

    def __init__(
        self,
        model: Clip,
        tokenizer: Tokenizer,
        *,
        config: Architecture,
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
        return self.config.embed_dim

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = next(self.model.parameters()).device
        return device

    def train(self, mode: bool = True) -> "Towers":
        """Stay in evaluation mode: patch dropout would make scores random."""
        return super().train(False)

    def prepare(self, samples: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 height width"]:
        """Preprocess images for the image tower, on its device."""
        return preprocess_images(samples.to(self.device, torch.float32), self.preprocess)

    def encode_prepared(self, images: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b d"]:
        """Features of images that went through `prepare`."""
        features: Tensor = self.model.encode_image(images)
        return F.normalize(features, dim=-1)

    def image_features(
        self, images: Float[Tensor, "b 3 height width"], *, style: bool
    ) -> Float[Tensor, "b l"]:
        """Input features of a preference head, for images that went through `prepare`.

        The image embedding, and with `style` the style features: mean and standard deviation over
        all positions of each channel of the tower's first stage, as one vector of unit length
        (Gatys et al. 2016; Huang & Belongie 2017, arXiv:1703.06868).
        """
        features = self.encode_prepared(images)
        return torch.cat([features, self._style(images)], dim=1) if style else features

    def style_width(self, *, style: bool) -> int:
        """Width of the style features; 0 without `style`."""
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
        """Token ids, truncated to the context length; the first truncation warns.

        InputError where a prompt is empty.
        """
        for prompt in prompts:
            if not prompt.strip():
                raise InputError(f"prompt {prompt!r}: expected text, got none")
        if not self._warned:
            self._warn_of_truncation(prompts)
        tokens: Tensor = self.tokenizer(prompts, context_length=self.text.context_length)
        highest, known = int(tokens.max()), self.config.text_cfg.vocab_size
        if highest >= known:
            raise CheckpointError(
                f"tokenizer: gives token {highest}, the text tower knows {known}; they belong to "
                "different models"
            )
        return tokens

    def _warn_of_truncation(self, prompts: list[str]) -> None:
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
        """The truncated end of `prompt`; empty when the text tower reads all of it."""
        kept = self.text.context_length - 2  # the two end tokens
        if isinstance(self.tokenizer, SimpleTokenizer):
            return str(self.tokenizer.decode(self.tokenizer.encode(prompt)[kept:])).strip()
        return self.tokenizer.beyond(prompt, kept=kept)

    def weights_hash(self) -> str:
        """SHA-256 of names and values of all weights."""
        return weights_hash(self.model)

    def save_tokenizer(self, folder: Path) -> None:
        """Write the tokenizer's files beside a contract; nothing for the one open_clip ships."""
        if isinstance(self.tokenizer, FolderTokenizer):
            self.tokenizer.save(folder / TOKENIZER_FOLDER)

    def freeze(self, *, image_blocks: int = 0, text_blocks: int = 0) -> list[nn.Parameter]:
        """Freeze all but the last blocks of each tower; returns what stays trainable.

        The last norm and the projection are trained with a tower's blocks, or the attention pool of
        a residual network, whose batch norms keep their statistics. ConfigError where a tower has
        fewer blocks.
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
    """Mean and standard deviation of each channel over all positions, as a unit vector."""
    places = stage.flatten(2)
    # The root of exactly 0, of a channel that is the same everywhere, has no gradient.
    spread = (places.var(2, correction=0) + 1e-12).sqrt()
    return F.normalize(torch.cat([places.mean(2), spread], dim=1), dim=-1)


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
