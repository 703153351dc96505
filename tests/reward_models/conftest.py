import json
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path

import open_clip
import pytest
import torch
from red_world import make_images, make_rankings
from safetensors.torch import save_file

from imgalign.preferences.fit_report import Ceiling
from imgalign.storybook.tokenizer import build_tokenizer
from reward_models.fit import FitConfig, fit

CONTEXT = 8
WORDS = ["a", "red", "green", "blue", "fox", "house", "tree", "boat", "sun", "cat"]


def write_clip(
    folder: Path,
    *,
    image_size: int = 16,
    quick_gelu: bool = False,
    vision: Mapping[str, object] | None = None,
) -> Path:
    """A real open_clip CLIP, tiny and random, in open_clip's own folder layout."""
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


@pytest.fixture(scope="session")
def make_clip():
    return write_clip


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("towers") / "clip")


@pytest.fixture(scope="session")
def world():
    images, redness = make_images(240)
    return images, redness, make_rankings(redness)


@pytest.fixture(scope="session")
def config(clip_folder):
    return FitConfig(
        clip=str(clip_folder), epochs=15, batch_size=8, learning_rate=1e-2, prior_stds=(3.0,)
    )


@pytest.fixture(scope="session")
def fitted(world, config, tmp_path_factory):
    images, _, rankings = world
    out = tmp_path_factory.mktemp("fits") / "reward"
    ceiling = Ceiling(value=1.0, meaning="noiseless labels")
    return out, fit(rankings, images.__getitem__, config, out, ceiling=ceiling)
