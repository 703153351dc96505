"""Names that settings had in imgalign 0.1, and the runs that have them.

Left out: translating them. The weights of such runs are as useful as ever; their settings are not
what 0.2 would make of them.
"""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imgalign.config import read_mapping
from imgalign.errors import CheckpointError
from imgalign.runs.folder import CONFIG

TRAINING = {
    "model": "policy.model",
    "device": "run.device",
    "dtype": "policy.dtype",
    "attention": "policy.attention",
    "iterations": "run.iterations",
    "prompts_per_iteration": "data.prompts_per_iteration",
    "images_per_prompt": "data.group_size",
    "kl_budget_nats": "run.kl_budget_nats",
    "checkpoint_every": "run.checkpoint_every",
    "keep_checkpoints": "run.keep_checkpoints",
    "policy.num_steps": "policy.num_inference_steps",
    "policy.lora_targets": "policy.target_modules",
    "policy.autocast": "policy.dtype (true was bfloat16; auto lets the hardware decide)",
    "ppo": "algorithm",
    "ppo.advantages": "algorithm.baseline.kind (wins is rank; running and value are of "
    "algorithm.name=ppo)",
    "ppo.normalise": "algorithm.baseline.normalise",
    "ppo.running_window": "algorithm.baseline.window",
    "ppo.running_min_count": "algorithm.baseline.min_count",
    "ppo.value": "algorithm.baseline",
    "ppo.kl.target_nats": "algorithm.kl.target_nats (of algorithm.kl.kind=adaptive)",
    "ppo.kl.rate": "algorithm.kl.rate (of algorithm.kl.kind=adaptive)",
    "ppo.num_steps": "algorithm.timesteps_per_update",
    "ppo.steps_per_pass": "policy.steps_per_pass",
    "prompts": "data.prompts",
    "prompts.held_out_file": "data.held_out.file",
    "prompts.num_held_out": "data.held_out.num_prompts",
    "held_out": "data.held_out",
    "held_out.every": "run.measure_every",
    "held_out.patience": "run.patience",
    "samples": "run.samples",
}
"""What `imgalign train` has now for a setting, or for a section as a whole."""

EVALUATION = {
    "steps": "sampler.num_inference_steps",
    "guidance_scale": "sampler.guidance_scale",
    "eta": "sampler.eta",
    "precision": "dtype",
    "pictures": "images",
    "held_out_combinations": "unseen_combinations",
}
"""The same for `imgalign evaluate`."""


def is_old(settings: Mapping[str, Any]) -> bool:
    """Whether the settings of a run are those of imgalign 0.1, which wrote all sections."""
    return "ppo" in settings


def refuse_old(run: Path) -> None:
    """CheckpointError for a run of imgalign 0.1, with what can still be done with it."""
    if is_old(read_mapping(run / CONFIG)):
        folder = shlex.quote(str(run))
        raise CheckpointError(
            f"{run / CONFIG}: a run of imgalign 0.1, which cannot be resumed, repeated or reported "
            f"on; its weights still work: imgalign generate --adapter {folder}, imgalign evaluate "
            f"{folder}; to train on, start a new run from a recipe"
        )
