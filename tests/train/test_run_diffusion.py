"""Claims: on a real, tiny diffusion pipeline the reward rises, the ratio starts at exactly 1, a
resumed run is the uninterrupted one, and what is saved is what plain diffusers loads."""

import shutil
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from lora_files import diffusers, random_matrices, write
from random_walk import Brightness
from safetensors.torch import load_file, save_file

from imgalign.algorithms.checks import require
from imgalign.errors import CheckpointError
from imgalign.runs.checkpoint import checkpoints
from imgalign.runs.metrics import read_metrics
from imgalign.runs.trained import ADAPTER, weights_hash
from imgalign.train import run as train
from imgalign.train.assemble import load_policy
from imgalign.train.config import TrainConfig
from imgalign.unions import with_tags

LEARNING_RATES = {"lora": 0.01, "full": 1e-3}
"""By what is trained."""


def tiny_settings(model, **changes) -> TrainConfig:
    (prompts := model.parent / "prompts.txt").write_text("a red house\na blue boat\na green tree\n")
    settings = {
        "policy": {"num_inference_steps": 3, "batch_size": 4},
        "algorithm": {"name": "grpo"},
        "optimizer": {"learning_rate": 0.01},
        "data": {
            "from": "rollouts",
            "prompts": {"file": str(prompts)},
            "held_out": {"num_prompts": 1},
            "prompts_per_iteration": 2,
            "group_size": 2,
        },
        "run": {
            "device": "cpu",
            "measure_every": 2,
            "patience": None,
            "samples": {"every": 2, "num_prompts": 2, "images_per_prompt": 2},
            "iterations": 3,
        },
    }
    sections: dict[str, Any] = {
        name: section | changes.pop(name, {}) for name, section in settings.items()
    }
    sections["policy"] = {"model": str(model), "dtype": "float32", **sections["policy"]}
    return TrainConfig.model_validate(with_tags(TrainConfig, sections | changes))


@pytest.fixture(scope="module", params=LEARNING_RATES)
def made_settings(request, tiny_pipeline_folder):
    """Settings of a run that trains an adapter, and of one that trains all weights."""

    def made(**run: object) -> TrainConfig:
        return tiny_settings(
            tiny_pipeline_folder,
            policy={"train": request.param},
            optimizer={"learning_rate": LEARNING_RATES[request.param]},
            run=run,
        )

    return made


@pytest.fixture(scope="module")
def run(made_settings, tmp_path_factory):
    out = tmp_path_factory.mktemp("diffusion") / "run"
    return train.run(made_settings(), reward=Brightness(), out=out)


@pytest.fixture
def steerable_pipeline_folder(tiny_pipeline_folder, tmp_path):
    """The output layer of a random UNet sees features of mean 0, so it can shift no image; here it
    sees features of mean 3 and starts at zero, as networks that are to be trained do."""
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_pipeline_folder)
    settings = dict(pipeline.scheduler.config) | {"prediction_type": "v_prediction"}
    pipeline.scheduler = DDIMScheduler.from_config(settings)
    with torch.no_grad():
        pipeline.unet.conv_norm_out.bias.fill_(3.0)
        pipeline.unet.conv_out.weight.zero_()
    pipeline.save_pretrained(tmp_path / "pipeline")
    return tmp_path / "pipeline"


def test_the_reward_rises_on_prompts_that_are_learned_and_on_held_out_ones(
    steerable_pipeline_folder, tmp_path
):
    settings = tiny_settings(
        steerable_pipeline_folder,
        policy={"batch_size": 32, "lora_rank": 4, "target_modules": ("conv_out",)},
        algorithm={"name": "grpo", "kl": {"kind": "fixed", "coefficient": 0.0}},
        data={"group_size": 32, "held_out": {"num_prompts": 1, "images_per_prompt": 16}},
        run={"measure_every": 6, "iterations": 6},
        seed=1,
    )
    result = train.run(settings, reward=Brightness(), out=tmp_path / "run")
    records: list[dict[str, Any]] = [*read_metrics(result.folder / "metrics.jsonl")]
    # The reward's deviation between images is 0.007: both rise by several of them.
    assert records[-1]["reward_mean"] > records[1]["reward_mean"] + 0.03
    assert records[-1]["held_out_reward"] > records[0]["held_out_reward"] + 0.03


def test_before_every_first_update_the_ratio_is_exactly_1_and_at_the_start_the_kl_is_0(run):
    records: list[dict[str, Any]] = read_metrics(run.folder / "metrics.jsonl")[1:]
    assert [record["log_ratio_max"] for record in records] == [0.0, 0.0, 0.0]
    assert records[0]["kl"] == 0.0
    assert records[-1]["kl"] > 0.01


def test_plain_diffusers_loads_the_checkpoint_and_draws_the_same_images(
    run, made_settings, tiny_pipeline_folder
):
    settings = made_settings()
    policy = load_policy(settings)
    untrained = policy.preview(["a red house"], seeds=[7])
    policy.load(run.checkpoint)
    painted = policy.preview(["a red house"], seeds=[7])
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_pipeline_folder)
    pipeline.set_progress_bar_config(disable=True)
    if settings.policy.train == "full":
        pipeline.unet = UNet2DConditionModel.from_pretrained(run.checkpoint / "unet")
    else:
        pipeline.load_lora_weights(run.checkpoint)
    drawn = pipeline(
        "a red house",
        num_inference_steps=settings.policy.num_inference_steps,
        guidance_scale=1.0,
        eta=0.0,
        generator=torch.Generator("cpu").manual_seed(7),
        output_type="pt",
    ).images
    # The same arithmetic in another order: float32 rounding of a few network passes.
    torch.testing.assert_close(painted, drawn, atol=1e-4, rtol=0)
    assert (painted - untrained).abs().max() > 1e-3


def test_a_resumed_diffusion_run_is_the_uninterrupted_one_bit_for_bit(run, made_settings, tmp_path):
    for iterations, resume in [(2, False), (3, True)]:
        settings = made_settings(iterations=iterations)
        train.run(settings, reward=Brightness(), out=tmp_path / "run", resume=resume)
    whole, resumed = (checkpoints(folder)[-1] for folder in (run.folder, tmp_path / "run"))
    assert weights_hash(whole) == weights_hash(resumed)
    states = [load_file(folder / "trainer.safetensors") for folder in (whole, resumed)]
    assert all(torch.equal(each, states[1][name]) for name, each in states[0].items())


def test_a_run_of_full_weights_is_not_resumed_on_another_model(tiny_pipeline_folder, tmp_path):
    model = shutil.copytree(tiny_pipeline_folder, tmp_path / "model")

    def go(iterations: int, *, resume: bool = False) -> train.RunResult:
        settings = tiny_settings(
            model,
            policy={"train": "full"},
            optimizer={"learning_rate": LEARNING_RATES["full"]},
            run={"iterations": iterations},
        )
        return train.run(settings, reward=Brightness(), out=tmp_path / "run", resume=resume)

    begun = go(1)
    kept = weights_hash(begun.checkpoint)
    path = model / "unet" / "diffusion_pytorch_model.safetensors"
    content = load_file(path)
    save_file({**content, "conv_in.bias": content["conv_in.bias"] + 1e-6}, path)
    with pytest.raises(CheckpointError, match=r"^policy\.model: its weights are not those"):
        go(2, resume=True)
    assert weights_hash(begun.checkpoint) == kept
    save_file(content, path)
    assert go(2, resume=True).step == 2


def test_a_run_that_starts_from_an_adapter_needs_its_file_only_at_the_start(
    tiny_pipeline_folder, tmp_path
):
    unet = StableDiffusionPipeline.from_pretrained(tiny_pipeline_folder).unet
    matrices = random_matrices(unet, ("to_q", "to_v"))
    path = write(tmp_path / "start.safetensors", diffusers(matrices))

    def go(name: str, *, iterations: int, resume: bool = False) -> train.RunResult:
        settings = tiny_settings(
            tiny_pipeline_folder,
            policy={"adapter": str(path)},
            run={"iterations": iterations, "kl_budget_nats": 1e6},
        )
        return train.run(settings, reward=Brightness(), out=tmp_path / name, resume=resume)

    whole = go("whole", iterations=3)
    go("parts", iterations=2)
    write(path, {name: 2 * each for name, each in diffusers(matrices).items()})
    resumed = go("parts", iterations=3, resume=True)
    path.unlink()
    go("parts", iterations=4, resume=True)
    for file in (ADAPTER, f"reference/{ADAPTER}"):
        found, expected = (result.checkpoint / file for result in (resumed, whole))
        assert found.read_bytes() == expected.read_bytes()
    kept = load_file(whole.checkpoint / "reference" / ADAPTER)
    for name, (down, up) in matrices.items():
        assert torch.equal(kept[f"unet.{name}.lora.down.weight"], down)
        assert torch.equal(kept[f"unet.{name}.lora.up.weight"], up)
    measured: list[dict[str, Any]] = [*read_metrics(whole.folder / "metrics.jsonl")]
    assert measured[0]["held_out_kl"] == measured[1]["kl"] == 0.0
    assert measured[-1]["held_out_kl"] > 0.01


def test_a_diagnosis_needs_no_run_folder_and_finds_nothing_wrong(tiny_pipeline_folder):
    checks = train.diagnose(tiny_settings(tiny_pipeline_folder))
    assert all(check.passed for check in checks)
    require(checks)
