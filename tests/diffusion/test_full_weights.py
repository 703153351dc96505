"""Claims: all weights of the network are trained in float32 and nothing else is; what is saved
opens in plain diffusers; a checkpoint goes on from the model it began with, and from no other."""

import math
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from policies import diffusion, frozen_parameters, move_weights
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor

from imgalign.diffusion.config import FullDiffusionConfig
from imgalign.diffusion.generate import ImageGenerator
from imgalign.diffusion.policy import DiffusionPolicy
from imgalign.errors import CheckpointError, ConfigError
from imgalign.images import to_image
from imgalign.preferences.records import SamplerSettings

PROMPTS, SEEDS = ["a red house", "two blue boat"], [5, 6]
NETWORK = "unet"
FILE = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def policy(tiny_pipeline_folder) -> DiffusionPolicy:
    """One that has learned something."""
    found = full(tiny_pipeline_folder)
    move_weights(found)
    return found


def full(folder: Path, **settings) -> DiffusionPolicy:
    return diffusion(folder, train="full", **settings)


def images(policy: DiffusionPolicy) -> Tensor:
    return policy.preview(PROMPTS, seeds=SEEDS)


def in_several_files(folder: Path) -> None:
    """Write the network of a checkpoint again, as the library divides what is large."""
    network = UNet2DConditionModel.from_pretrained(folder / NETWORK)
    shutil.rmtree(folder / NETWORK)
    network.save_pretrained(folder / NETWORK, max_shard_size="200KB")
    assert len(list((folder / NETWORK).glob("*.safetensors"))) > 1


def test_every_weight_of_the_network_gets_a_gradient_and_no_other_part_of_the_model_does(policy):
    trajectory = policy.sample(PROMPTS, seeds=SEEDS)
    data = policy.given(trajectory)
    draws = policy.draw(data, seeds=SEEDS)
    with policy.using("reference"):
        policy.log_prob(data, draws)
    policy.log_prob(data, draws).values.sum().backward()
    trained = policy.trainable_parameters()
    own = list(policy.family.network.parameters())
    assert all(one is other for one, other in zip(trained, own, strict=True))
    assert all(each.grad is not None and each.grad.any() for each in trained)
    frozen = list(frozen_parameters(policy))
    assert frozen
    assert not any(each.requires_grad or each.grad is not None for each in frozen)


def test_weights_are_float32_and_not_rounded_to_what_the_network_computes_in(tiny_pipeline_folder):
    rounding = full(tiny_pipeline_folder, computing_in=torch.bfloat16)
    exact = full(tiny_pipeline_folder)
    for weight, expected in zip(
        rounding.trainable_parameters(), exact.trainable_parameters(), strict=True
    ):
        assert weight.dtype == torch.float32
        assert torch.equal(weight, expected)
    loaded = StableDiffusionPipeline.from_pretrained(tiny_pipeline_folder, dtype=torch.bfloat16)
    kept = DiffusionPolicy(loaded, FullDiffusionConfig()).trainable_parameters()
    assert {weight.dtype for weight in kept} == {torch.float32}
    apart = (images(rounding) - images(exact)).abs().max()
    assert 0 < apart < 0.05, "it computes in bfloat16"


def test_plain_diffusers_loads_what_is_saved_and_draws_the_same_pixels(
    policy, tiny_pipeline_folder, tmp_path
):
    trajectory = policy.sample(PROMPTS, seeds=SEEDS)
    policy.save(tmp_path)
    pipeline = StableDiffusionPipeline.from_pretrained(
        tiny_pipeline_folder, unet=UNet2DConditionModel.from_pretrained(tmp_path / NETWORK)
    )
    pipeline.set_progress_bar_config(disable=True)
    drawn = pipeline(
        PROMPTS,
        num_inference_steps=policy.config.num_inference_steps,
        eta=1.0,
        guidance_scale=1.0,
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in SEEDS],
        output_type="pt",
    ).images
    assert torch.equal(drawn, policy.decode(trajectory))
    with policy.using("reference"):
        before = policy.decode(policy.sample(PROMPTS, seeds=SEEDS))
    assert (drawn - before).abs().max() > 1e-2


def test_a_checkpoint_has_the_network_as_the_library_lays_it_out_and_names_no_folder(
    policy, tiny_pipeline_folder, tmp_path
):
    for name in "ab":
        (tmp_path / name).mkdir()
        policy.save(tmp_path / name)
    one, other = ({path.name: path for path in (tmp_path / name).rglob("*.*")} for name in "ab")
    assert one.keys() == {"config.json", FILE, "reference.json"}
    for name, path in one.items():
        assert path.read_bytes() == other[name].read_bytes()
    assert str(tiny_pipeline_folder) not in one["config.json"].read_text()
    assert one[FILE].stat().st_mode == one["config.json"].stat().st_mode
    assert {each.dtype for each in load_file(one[FILE]).values()} == {torch.float32}


def test_weights_in_several_files_are_read_as_those_in_one(policy, tiny_pipeline_folder, tmp_path):
    expected = images(policy)
    policy.save(tmp_path)
    in_several_files(tmp_path)
    other = full(tiny_pipeline_folder)
    other.load(tmp_path)
    assert torch.equal(images(other), expected)
    model = str(tiny_pipeline_folder)
    generator = ImageGenerator(model, tmp_path, device="cpu", dtype="float32")
    settings = SamplerSettings(num_inference_steps=policy.config.num_inference_steps)
    made = list(generator.generate(PROMPTS, seeds=SEEDS, settings=settings))
    assert [each.image for each in made] == [to_image(image) for image in expected]


def test_a_checkpoint_goes_on_from_the_model_that_it_began_with_and_from_no_other(
    policy, tiny_pipeline, tiny_pipeline_folder, tmp_path
):
    (checkpoint := tmp_path / "checkpoint").mkdir()
    policy.save(checkpoint)
    full(tiny_pipeline_folder).load(checkpoint)
    with torch.no_grad():
        tiny_pipeline.unet.conv_in.bias[0] += 1e-6
    tiny_pipeline.save_pretrained(tmp_path / "changed")
    with pytest.raises(
        CheckpointError, match=r"^policy\.model: .*SHA-256 differs.*put the model back"
    ):
        full(tmp_path / "changed").load(checkpoint)
    (checkpoint / "reference.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"reference\.json: expected the hash"):
        full(tiny_pipeline_folder).load(checkpoint)


def test_what_are_not_whole_weights_of_this_network_is_refused_and_changes_nothing(
    policy, tiny_pipeline_folder, tmp_path
):
    policy.save(tmp_path)
    path = tmp_path / NETWORK / FILE
    own = load_file(path)
    other = full(tiny_pipeline_folder)
    before = images(other)
    lacking = {name: each for name, each in own.items() if name != "conv_in.bias"}
    for content, said in (
        (lacking, r"1 of its tensors .*conv_in\.bias expected \(16,\), got nothing"),
        (own | {"conv_in.bias": torch.ones(3)}, r"conv_in\.bias expected \(16,\), got \(3,\)"),
        (own | {"more": torch.ones(3)}, r"more expected nothing, got \(3,\)"),
        (own | {"conv_in.bias": torch.full((16,), math.nan)}, r"conv_in\.bias: expected finite"),
    ):
        save_file(content, path)
        with pytest.raises(CheckpointError, match=said):
            other.load(tmp_path)
        assert torch.equal(images(other), before)
    path.write_bytes(b"torn")
    with pytest.raises(CheckpointError, match=f"cannot read {FILE}"):
        other.load(tmp_path)
    path.unlink()
    with pytest.raises(CheckpointError, match="found none"):
        other.load(tmp_path)
    (tmp_path / NETWORK).rename(tmp_path / "transformer")
    generator = ImageGenerator(str(tiny_pipeline_folder), device="cpu", dtype="float32")
    save_file(own, tmp_path / "transformer" / FILE)
    with pytest.raises(CheckpointError, match="trained on another kind of model"):
        generator.use(tmp_path)


def test_settings_of_an_adapter_are_none_of_full_weights():
    for setting in ({"lora_rank": 4}, {"lora_alpha": 4}, {"target_modules": ["to_q"]}):
        with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
            FullDiffusionConfig.model_validate(setting)


def test_full_weights_are_no_adapter_to_start_from(policy, tiny_pipeline_folder, tmp_path):
    policy.save(tmp_path)
    with pytest.raises(ConfigError, match=r"^policy\.adapter: .*no adapter; make a model of it"):
        diffusion(tiny_pipeline_folder, adapter=str(tmp_path))
