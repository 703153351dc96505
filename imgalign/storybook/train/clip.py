"""Train the storybook's CLIP (arXiv:2103.00020): what the reward model starts from.

A small `open_clip.CLIP`: pictures and captions in one space. Pictures are drawn ones and, where a
file of them is given, the autoencoder's reconstructions, which is what it will be asked to judge.
Captions of a batch are distinct, for an equal pair of captions would be a wrong negative. Left
out: image augmentation (left and right mean something here).
"""

import json
from copy import deepcopy
from pathlib import Path

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from imgalign.storybook.scenes import vocabulary
from imgalign.storybook.tokenizer import build_tokenizer
from imgalign.storybook.train.data import Pictures, load_pictures
from imgalign.storybook.train.loop import Indices, Schedule, say, train
from imgalign.storybook.train.pipeline import CONTEXT

BATCH = 128
MAX_LOGIT_SCALE = float(np.log(100))
RECONSTRUCTED = 0.5
"""Share of pictures shown as reconstructions, among those that have one."""

VISION = {"image_size": 64, "patch_size": 8, "width": 160, "layers": 5, "head_width": 32}
TEXT = {"width": 128, "heads": 4, "layers": 3, "hf_tokenizer_name": "."}
PREPROCESS = {
    "size": 64,
    "mean": [0.5] * 3,
    "std": [0.5] * 3,
    "interpolation": "bicubic",
    "resize_mode": "squash",
}


def train_clip(
    data: Path,
    out: Path,
    *,
    num_samples: int,
    learning_rate: float,
    reconstructions: Path | None = None,
) -> None:
    """Train on `data`, resume if `out` has state, write `out/clip` as open_clip's `local-dir:`."""
    torch.manual_seed(0)
    pictures = load_pictures(data)
    alternative = None if reconstructions is None else np.load(reconstructions, mmap_mode="r")
    folder = out / "clip"
    folder.mkdir(parents=True, exist_ok=True)
    config = model_config(
        vocabulary_size=len(build_tokenizer(vocabulary(), folder, max_length=CONTEXT))
    )
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": PREPROCESS}, indent=2) + "\n"
    )
    model = open_clip.CLIP(**deepcopy(config)).train()
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(list(pictures.captions))
    contrast = open_clip.ClipLoss()

    def loss(indices: Indices) -> tuple[Tensor, dict[str, float]]:
        chosen = distinct(indices, pictures.captions)
        images = shown(pictures, alternative, chosen)
        # The fused attention is slow backwards on a CPU, as in pipeline.py.
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            image, text, scale = model(images, tokens[chosen])
        value = contrast(image.float(), text.float(), scale.float())
        # Clamped before use rather than after the update: a saved model is always within bounds.
        with torch.no_grad():
            model.logit_scale.clamp_(0, MAX_LOGIT_SCALE)
            found = (image @ text.T).argmax(1) == torch.arange(len(chosen))
        return value, {"loss": value.item(), "retrieved": found.float().mean().item()}

    def save(step: int) -> None:
        state = {k: v.detach().half().contiguous().clone() for k, v in model.state_dict().items()}
        save_file(state, folder / "open_clip_model.safetensors")
        say(f"{folder}: written at step {step}")

    train(
        out,
        model,
        loss,
        num_pictures=len(pictures),
        schedule=Schedule(num_steps=num_samples // BATCH, learning_rate=learning_rate),
        batch=BATCH,
        weight_decay=0.1,
        decay=0.999,
        betas=(0.9, 0.98),
        on_save=save,
    )


def model_config(*, vocabulary_size: int) -> dict[str, object]:
    """The architecture in open_clip's own terms."""
    return {
        "embed_dim": 128,
        "vision_cfg": dict(VISION),
        "text_cfg": {**TEXT, "context_length": CONTEXT, "vocab_size": vocabulary_size},
        "quick_gelu": False,
    }


def distinct(indices: Indices, captions: tuple[str, ...]) -> Indices:
    """One index for each different caption among `indices`, sorted."""
    return np.sort(np.array(list({captions[i]: i for i in indices}.values())))


def shown(pictures: Pictures, alternative: NDArray[np.uint8] | None, chosen: Indices) -> Tensor:
    """Pictures as float `b 3 h w` in [-1, 1], some of them replaced by their alternative."""
    images = np.array(pictures.images[chosen])
    if alternative is not None:
        swap = (torch.rand(len(chosen)) < RECONSTRUCTED).numpy() & (chosen < len(alternative))
        images[swap] = alternative[chosen[swap]]
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
