"""TRL's DDPOTrainer at given settings: seconds of each epoch, passes through the network, memory.

    PYTHONPATH=<its packages> python benchmarks/peers/ddpo.py PIPELINE --out ddpo.json

It runs in an environment of its own: trl 0.23.1, the last release with this trainer, needs
transformers 4.56.2 and diffusers 0.35.2, and does not go with the project's own. PIPELINE is a
folder that `sd15.save` wrote. `benchmarks/gpu.py --peer` and `compare.py` call it beside the same
work of imgalign. The LoRA has the rank of imgalign's; the reward is the brightness of an image.
"""

import argparse
import gc
import importlib
import json
import logging
import random
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from measuring import Meter, peak_memory_gb, write
from peft import LoraConfig

PROMPTS = ("a red fox on a hill", "a blue boat at sea", "a green house", "two yellow birds")
TARGETS = ["to_k", "to_q", "to_v", "to_out.0"]


def pipeline_class(trl: Any, rank: int) -> Any:
    """TRL's pipeline with an adapter of this rank instead of its own, 4."""

    class Pipeline(trl.DefaultDDPOStableDiffusionPipeline):
        def get_trainable_layers(self) -> Any:
            unet = self.sd_pipeline.unet
            unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=TARGETS))
            for parameter in unet.parameters():
                if parameter.requires_grad:
                    parameter.data = parameter.float()
            return unet

    return Pipeline


def brightness(images: Any, prompts: Any, metadata: Any) -> tuple[Any, dict[str, Any]]:
    """The reward."""
    return images.float().mean(dim=(1, 2, 3)), {}


def trainer(trl: Any, given: argparse.Namespace, guidance: float) -> Any:
    """The peer with the settings asked for; per-prompt statistics are off, as they are there."""
    config = trl.DDPOConfig(
        num_epochs=given.epochs,
        save_freq=10**9,
        mixed_precision=given.precision,
        sample_num_steps=given.steps,
        sample_guidance_scale=guidance,
        train_cfg=guidance > 1,
        sample_batch_size=given.batch,
        sample_num_batches_per_epoch=given.batches,
        train_batch_size=given.batch,
        train_timestep_fraction=given.learned / given.steps,
    )
    luck = random.Random(0)
    pipeline = pipeline_class(trl, given.rank)(str(given.pipeline))
    if guidance == 1:
        # Its own would hand the negative prompts on, twice as many rows as there are latents.
        pipeline.sd_pipeline._encode_prompt = lambda *_, prompt_embeds, **__: prompt_embeds
    made = trl.DDPOTrainer(
        config, brightness, lambda: (luck.choice(PROMPTS), {}), sd_pipeline=pipeline
    )
    pipeline.set_progress_bar_config(disable=True)
    return made


def measured(trl: Any, given: argparse.Namespace, guidance: float) -> dict[str, Any]:
    """All epochs but the first, which warms up."""
    made, meter = trainer(trl, given, guidance), Meter()
    meter.watch(made.sd_pipeline.unet)
    made._generate_samples = meter.watched("sampling", made._generate_samples)
    made._train_batched_samples = meter.watched("learning", made._train_batched_samples)
    made.step = meter.watched("total", made.step)
    made.train()
    return {
        "guidance": guidance,
        "precision": given.precision,
        "trained_parameters": sum(each.numel() for each in made.trainable_layers),
        "seconds_sampling": meter.wall["sampling"][1:],
        "seconds_learning": meter.wall["learning"][1:],
        "rows_sampling": meter.rows["sampling"][-1],
        "rows_learning": meter.rows["learning"][-1],
        "peak_memory_gb_sampling": max(meter.memory["sampling"], default=None),
        "peak_memory_gb_learning": max(meter.memory["learning"], default=None),
        **meter.found(),
    }


def main() -> None:
    """Measure each guidance scale and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pipeline", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--batches", type=int, default=1, help="Batches of an epoch.")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--learned", type=int, default=10, help="Steps that are learned from.")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.0, 5.0])
    parser.add_argument("--precision", default="bf16", choices=["bf16", "fp16", "no"])
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    PartialState()  # without which its messages are errors
    # By name: it is no dependency of the project.
    trl = importlib.import_module("trl")
    assert trl.DDPOTrainer  # which loads what it needs
    found, imported = [], peak_memory_gb()
    for guidance in given.guidance:
        found.append(measured(trl, given, guidance) | {"imported_gb": imported})
        gc.collect()
        torch.cuda.empty_cache()
        write(given.out, trl=trl.__version__, rows=found)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
