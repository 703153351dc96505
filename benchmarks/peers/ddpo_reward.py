"""TRL's DDPOTrainer on a reward of imgalign: a LoRA after every so many epochs, and what it cost.

    PYTHONPATH= python benchmarks/peers/ddpo_reward.py PIPELINE --reward runs/reward --scorer PYTHON
        --prompts prompts.json --out runs/ddpo

For the environment of `ddpo.py`; PYTHON is one with imgalign. Settings are TRL's own but for the
number of denoising steps, the guidance, the sizes of batches and the learning rate. Writes
LoRA folders `epoch-N`, and `epochs.json` with CPU seconds, of the reward too, and mean reward.
"""

import argparse
import importlib
import json
import logging
import random
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from ddpo import pipeline_class
from diffusers.utils import convert_state_dict_to_diffusers
from measuring import write
from peft.utils import get_peft_model_state_dict
from scorer import Scorer


def trainer(trl: Any, given: argparse.Namespace, scores: list[float]) -> tuple[Any, Scorer]:
    """The peer with our reward, and the process that computes it; `scores` gets the means."""
    config = trl.DDPOConfig(
        seed=given.seed,
        num_epochs=given.epochs,
        save_freq=10**9,
        mixed_precision="no",
        sample_num_steps=given.steps,
        sample_guidance_scale=given.guidance,
        train_cfg=given.guidance > 1,
        sample_batch_size=given.batch,
        sample_num_batches_per_epoch=given.batches,
        train_batch_size=given.batch,
        train_timestep_fraction=(given.steps - 1) / given.steps,
        train_learning_rate=given.learning_rate,
    )
    prompts = json.loads(given.prompts.read_text(encoding="utf-8"))
    luck, scorer = random.Random(given.seed), Scorer(given.scorer, given.reward)

    def reward(images: Any, asked: Any, metadata: Any) -> tuple[Any, dict[str, Any]]:
        found = scorer(images, asked)
        scores.append(found.mean().item())
        return found, {}

    pipeline = pipeline_class(trl, given.rank)(str(given.pipeline))
    if given.guidance == 1:
        # Its own would hand the negative prompts on, twice as many rows as there are latents.
        pipeline.sd_pipeline._encode_prompt = lambda *_, prompt_embeds, **__: prompt_embeds
    made = trl.DDPOTrainer(config, reward, lambda: (luck.choice(prompts), {}), sd_pipeline=pipeline)
    pipeline.set_progress_bar_config(disable=True)
    return made, scorer


def save(made: Any, folder: Path) -> None:
    """The LoRA in the layout that diffusers loads."""
    layers = get_peft_model_state_dict(made.sd_pipeline.unet)
    made.sd_pipeline.sd_pipeline.save_lora_weights(
        folder, unet_lora_layers=convert_state_dict_to_diffusers(layers)
    )


def main() -> None:
    """Train, and note what each epoch cost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pipeline", type=Path)
    parser.add_argument("--reward", type=Path, required=True)
    parser.add_argument("--scorer", required=True)
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--every", type=int, default=10, help="Epochs between saved LoRAs.")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--batches", type=int, default=2, help="Batches of an epoch.")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--rank", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    PartialState()  # without which its messages are errors
    scores: list[float] = []
    # By name: it is no dependency of the project.
    trl = importlib.import_module("trl")
    made, scorer = trainer(trl, given, scores)
    given.out.mkdir(parents=True, exist_ok=True)
    epochs, step, spent, scored = [], 0, 0.0, 0.0
    for epoch in range(given.epochs):
        began, first = time.process_time(), len(scores)
        step = made.step(epoch, step)
        spent += time.process_time() - began + scorer.cpu_seconds - scored
        scored = scorer.cpu_seconds
        mean = sum(scores[first:]) / len(scores[first:])
        epochs.append({"epoch": epoch + 1, "cpu_seconds": spent, "reward": mean})
        if (epoch + 1) % given.every == 0:
            save(made, given.out / f"epoch-{epoch + 1}")
        write(given.out / "epochs.json", trl=trl.__version__, epochs=epochs)
        print(json.dumps(epochs[-1]), flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
