"""Claims: on a real, tiny diffusion pipeline the ratio starts at exactly 1, a resumed run is the
uninterrupted one, and what is saved is what plain diffusers loads."""

import pytest
import torch
from diffusers import StableDiffusionPipeline
from random_walk import Brightness

from imgalign import train
from imgalign.checkpoint import checkpoints
from imgalign.metrics import read_metrics
from imgalign.train.pictures import painter_of


def tiny_settings(model, **changes) -> train.TrainConfig:
    (words := model.parent / "prompts.txt").write_text("a red house\na blue boat\na green tree\n")
    settings = {
        "model": str(model),
        "device": "cpu",
        "policy": {"num_steps": 3, "batch_size": 8, "lora_rank": 4},
        "optimizer": {"learning_rate": 0.02},
        "prompts": {"file": str(words), "num_held_out": 1},
        "held_out": {"every": 5, "images_per_prompt": 4, "patience": None},
        "samples": {"every": 5, "num_prompts": 2, "images_per_prompt": 2},
        "prompts_per_iteration": 2,
        "images_per_prompt": 8,
        "iterations": 5,
        "checkpoint_every": 5,
    }
    return train.TrainConfig.model_validate(settings | changes)


@pytest.fixture(scope="module")
def run(tiny_pipeline_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("diffusion") / "run"
    return train.run(tiny_settings(tiny_pipeline_folder), reward=Brightness(), out=out)


def test_before_the_first_update_the_ratio_is_exactly_1_and_the_kl_0(run):
    first = read_metrics(run.folder / "metrics.jsonl")[1]
    assert first["log_ratio_max"] == 0.0
    assert first["kl"] == 0.0
    last = read_metrics(run.folder / "metrics.jsonl")[-1]
    assert last["log_ratio_max"] == 0.0  # one optimizer step per round: always
    assert last["kl"] > 0.1


def test_plain_diffusers_loads_the_checkpoint_and_draws_the_same_pictures(
    run, tiny_pipeline_folder
):
    settings = tiny_settings(tiny_pipeline_folder)
    policy = train.load_policy(settings)
    policy.load(run.checkpoint)
    painted = painter_of(policy, batch_size=1)(["a red house"], [7])

    pipeline = StableDiffusionPipeline.from_pretrained(tiny_pipeline_folder)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(run.checkpoint)
    drawn = pipeline(
        "a red house",
        num_inference_steps=settings.policy.num_steps,
        guidance_scale=1.0,
        eta=0.0,
        generator=torch.Generator("cpu").manual_seed(7),
        output_type="pt",
    ).images
    # Same arithmetic in another order: float32 rounding of a few network passes.
    torch.testing.assert_close(painted, drawn, atol=1e-4, rtol=0)
    assert (
        painted - painter_of(train.load_policy(settings), batch_size=1)(["a red house"], [7])
    ).abs().max() > 0.01


def test_a_resumed_diffusion_run_is_the_uninterrupted_one_bit_for_bit(
    run, tiny_pipeline_folder, tmp_path
):
    out = tmp_path / "run"
    for iterations, resume in [(2, False), (5, True)]:
        settings = tiny_settings(
            tiny_pipeline_folder,
            iterations=iterations,
            held_out={"every": 5, "images_per_prompt": 4},
        )
        train.run(settings, reward=Brightness(), out=out, resume=resume)
    ends = [
        checkpoints(folder)[-1] / "pytorch_lora_weights.safetensors" for folder in (run.folder, out)
    ]
    assert ends[0].read_bytes() == ends[1].read_bytes()
