"""A real open_clip CLIP of the smallest size that still has every part."""

import json
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file

from imgalign.storybook.tokenizer import build_tokenizer

CONTEXT = 8
WORDS = ["a", "red", "green", "blue", "fox", "house", "tree", "boat", "sun", "cat"]


def write_clip(
    folder: Path,
    *,
    image_size: int = 16,
    quick_gelu: bool = False,
    vision: Mapping[str, object] | None = None,
) -> Path:
    """Write it with random weights, in open_clip's own folder layout."""
    folder.mkdir(parents=True)
    tokenizer = build_tokenizer(WORDS, folder, max_length=CONTEXT)
    model_cfg = {
        "embed_dim": 16,
        "vision_cfg": vision
        or {
            "image_size": image_size,
            "patch_size": 8,
            "width": 32,
            "layers": 2,
            "head_width": 16,
        },
        "text_cfg": {
            "context_length": CONTEXT,
            "vocab_size": len(tokenizer),
            "width": 16,
            "heads": 2,
            "layers": 2,
            "hf_tokenizer_name": ".",
        },
        "quick_gelu": quick_gelu,
    }
    rules = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3], "resize_mode": "squash"}
    config = {"model_cfg": model_cfg, "preprocess_cfg": rules}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.CLIP(**deepcopy(model_cfg))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder
