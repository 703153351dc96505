"""The command that trains a tiny diffusion model on six pairs of images."""

import json
from pathlib import Path

from image_folders import put

PROMPTS = ("a red house", "a blue boat", "a green tree", "two boat", "the house", "a red boat")
ITERATIONS = 6


def train_on_pairs(folder: Path, pipeline: Path) -> list[str]:
    """Arguments of `imgalign`; images and settings are written into the folder."""
    for number, prompt in enumerate(PROMPTS):
        put(folder / "chosen" / f"{number}.png", 40 * number, caption=prompt)
        put(folder / "rejected" / f"{number}.png", 40 * number + 20)
    settings = {
        "policy": {
            "model": str(pipeline),
            "dtype": "float32",
            "batch_size": 2,
            "num_inference_steps": 3,
        },
        "algorithm": {"name": "dpo", "beta": {"kind": "per_nat", "value": 1.0}},
        "data": {"from": "folder", "folder": str(folder), "held_out": {"num_prompts": 2}},
        "optimizer": {"learning_rate": 0.01},
        "run": {
            "device": "cpu",
            "iterations": ITERATIONS,
            "checkpoint_every": 1,
            "measure_every": 3,
            "samples": {"every": 3, "num_prompts": 2},
        },
    }
    config = folder / "config.yaml"
    config.write_text(json.dumps(settings))
    return ["train", str(config)]
