import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, StableDiffusionPipeline
from plain_diffusers import drawn_by_diffusers
from pydantic import ValidationError
from safetensors import safe_open
from torch import Tensor
from torch.testing import assert_close

from imgalign.algorithms.batches import masked
from imgalign.diffusion.config import AnyDiffusionConfig, LoraDiffusionConfig
from imgalign.diffusion.policy import DiffusionPolicy
from imgalign.errors import CheckpointError, ConfigError, InputError, NumericsError
from imgalign.policy import Data, Trajectory

PROMPTS = ["a red house", "two blue boat and a tree", "the green tree", "a boat"]
SEEDS = [11, 12, 13, 14]
FEW_STEPS = LoraDiffusionConfig(num_inference_steps=4)
EVERY_STEP = slice(None)


@pytest.fixture
def policy(tiny_pipeline: StableDiffusionPipeline) -> DiffusionPolicy:
    return DiffusionPolicy(tiny_pipeline, FEW_STEPS)


@torch.no_grad()
def move_weights(policy: DiffusionPolicy, *, by: float = 0.05) -> None:
    generator = torch.Generator().manual_seed(0)
    for parameter in policy.trainable_parameters():
        parameter.add_(by * torch.randn(parameter.shape, generator=generator))


def scored(policy: DiffusionPolicy, trajectory: Trajectory, steps: Tensor | slice) -> Tensor:
    """Log-probabilities of what the trajectory did, under the present weights."""
    distributions = policy.step_distributions(trajectory, steps)
    log_prob: Tensor = distributions.log_prob(policy.actions(trajectory, steps))
    return masked(log_prob, trajectory.mask[:, steps])


def make_policy(
    folder: Path, config: AnyDiffusionConfig = FEW_STEPS, **settings
) -> DiffusionPolicy:
    return DiffusionPolicy(StableDiffusionPipeline.from_pretrained(folder, **settings), config)


def test_dropout_of_the_pretrained_network_stays_off(tiny_pipeline):
    for module in tiny_pipeline.unet.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    policy = DiffusionPolicy(tiny_pipeline, FEW_STEPS)
    trajectory = policy.sample(PROMPTS[:2], seeds=SEEDS[:2])
    assert torch.equal(scored(policy, trajectory, torch.tensor([1])), trajectory.log_probs[:, 1:2])


def test_channels_last_change_the_layout_alone_and_rescoring_stays_exact(tiny_pipeline_folder):
    config = FEW_STEPS.model_copy(update={"channels_last": True})
    plain, last = make_policy(tiny_pipeline_folder), make_policy(tiny_pipeline_folder, config)
    weight = last.family.network.conv_in.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()
    trajectory = last.sample(PROMPTS[:2], seeds=SEEDS[:2])
    step = torch.tensor([1])
    assert torch.equal(scored(last, trajectory, step), trajectory.log_probs[:, 1:2])
    ours, other = (each.step_distributions(trajectory, EVERY_STEP).mean for each in (last, plain))
    assert_close(ours, other, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_latents_are_kept_under_a_name_that_changes_with_them_and_with_nothing_else(
    tiny_pipeline_folder,
):
    image, policy = torch.rand(1, 3, 20, 18), make_policy(tiny_pipeline_folder)
    latents = policy.encode(["a"], image).content["latents"]

    def changed(change) -> tuple[bool, bool]:
        """Whether the latents are others, and the name."""
        other = make_policy(tiny_pipeline_folder)
        change(other.family.pipeline)
        found = other.encode(["a"], image).content["latents"]
        return not torch.equal(found, latents), other.encoding != policy.encoding

    def rescale(pipeline):
        pipeline.vae.register_to_config(scaling_factor=0.5)

    def move(part):
        return lambda pipeline: next(part(pipeline).parameters()).add_(0.1)

    assert changed(rescale) == (True, True)
    assert changed(move(lambda pipeline: pipeline.vae.encoder)) == (True, True)
    assert changed(move(lambda pipeline: pipeline.vae.quant_conv)) == (True, True)
    assert changed(move(lambda pipeline: pipeline.vae.decoder)) == (False, False)
    assert changed(move(lambda pipeline: pipeline.vae.post_quant_conv)) == (False, False)
    assert changed(move(lambda pipeline: pipeline.unet)) == (False, False)


def test_log_prob_is_the_gaussian_density_summed_over_the_latent(policy):
    trajectory = policy.sample(PROMPTS, seeds=SEEDS)
    distributions = policy.step_distributions(trajectory, EVERY_STEP)
    mean, std = distributions.mean.double(), distributions.stddev.double()
    latents = policy.actions(trajectory, EVERY_STEP).double()
    density = -((latents - mean) ** 2) / (2 * std**2) - std.log() - math.log(2 * math.pi) / 2
    assert distributions.batch_shape == (4, 4)
    assert distributions.event_shape == (4, 8, 8)
    assert_close(
        scored(policy, trajectory, EVERY_STEP).double(), density.sum((2, 3, 4)), rtol=1e-5, atol=0
    )


def test_the_rounded_latent_is_the_sample_and_keeps_its_own_log_prob(tiny_pipeline):
    # One step alone: log-probability of what is stored, not of what was drawn before rounding.
    policy = DiffusionPolicy(
        tiny_pipeline, LoraDiffusionConfig(num_inference_steps=4, latent_dtype="bfloat16")
    )
    trajectory = policy.sample(PROMPTS, seeds=SEEDS)
    latents = trajectory.replay["latents"]
    assert latents.dtype == torch.float32
    assert torch.equal(latents, latents.bfloat16().float())
    mean = policy.step_distributions(trajectory, torch.tensor([3])).mean[:, 0]
    std = policy.step_distributions(trajectory, torch.tensor([3])).stddev[:, 0]
    expected = torch.distributions.Normal(mean, std).log_prob(latents[:, 4]).sum((1, 2, 3))
    assert_close(trajectory.log_probs[:, 3], expected, rtol=1e-6, atol=0)


def test_every_trainable_tensor_gets_a_gradient_and_nothing_frozen_does(policy):
    trajectory = policy.sample(PROMPTS, seeds=SEEDS)
    move_weights(policy, by=1e-3)  # B is 0 at first, which hides A from the gradient
    with policy.using("reference"):
        pass
    scored(policy, trajectory, EVERY_STEP).sum().backward()
    trainable = policy.trainable_parameters()
    assert len(trainable) > 0
    assert all(parameter.grad.abs().sum() > 0 for parameter in trainable)
    pipeline = policy.family.pipeline
    everything = [*pipeline.unet.parameters(), *pipeline.vae.parameters()]
    everything += pipeline.text_encoder.parameters()
    ours = {id(parameter) for parameter in trainable}
    frozen = [parameter for parameter in everything if id(parameter) not in ours]
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in frozen)


def test_steps_without_noise_are_masked_and_score_0(tiny_pipeline):
    scheduler = tiny_pipeline.scheduler.config
    tiny_pipeline.scheduler = DDIMScheduler.from_config(
        scheduler, set_alpha_to_one=True, timestep_spacing="trailing"
    )
    policy = DiffusionPolicy(tiny_pipeline, FEW_STEPS)
    trajectory = policy.sample(PROMPTS, seeds=SEEDS)
    assert trajectory.mask.tolist() == [[True, True, True, False]] * 4
    assert (trajectory.log_probs[:, 3] == 0).all()
    log_prob = scored(policy, trajectory, EVERY_STEP)
    log_prob.sum().backward()
    assert (log_prob[:, 3] == 0).all()
    assert all(parameter.grad.isfinite().all() for parameter in policy.trainable_parameters())


def test_the_seed_of_the_policy_decides_its_initial_adapter(tiny_pipeline_folder):
    torch.manual_seed(1)
    one = make_policy(tiny_pipeline_folder).trainable_parameters()
    torch.manual_seed(2)
    two = make_policy(tiny_pipeline_folder).trainable_parameters()
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize(
    ("alpha", "targets"),
    [(None, None), (3, None), (None, ("to_q", "conv1", "proj_in", "time_emb_proj"))],
)
def test_what_is_saved_gives_the_same_pixels_in_plain_diffusers(
    tiny_pipeline_folder, tmp_path, alpha, targets
):
    config = LoraDiffusionConfig(num_inference_steps=4, lora_alpha=alpha, target_modules=targets)
    policy = make_policy(tiny_pipeline_folder, config)
    before = policy.sample(PROMPTS, seeds=SEEDS)
    move_weights(policy)
    trajectory = policy.sample(PROMPTS, seeds=SEEDS)
    assert not torch.equal(policy.decode(trajectory), policy.decode(before))
    policy.save(tmp_path)

    images = drawn_by_diffusers(tiny_pipeline_folder, tmp_path, PROMPTS, seeds=SEEDS, eta=1.0)
    assert torch.equal(images, policy.decode(trajectory))


def test_a_loaded_policy_scores_as_the_saved_one_and_equal_weights_give_equal_files(
    tiny_pipeline_folder, tmp_path
):
    policy = make_policy(tiny_pipeline_folder)
    move_weights(policy)
    trajectory = policy.sample(PROMPTS, seeds=SEEDS)
    (tmp_path / "again").mkdir()
    policy.save(tmp_path)
    loaded = make_policy(tiny_pipeline_folder)
    parameters = loaded.trainable_parameters()
    loaded.load(tmp_path)
    assert all(a is b for a, b in zip(parameters, loaded.trainable_parameters(), strict=True)), (
        "an optimizer made before must still hold the weights"
    )
    assert torch.equal(scored(loaded, trajectory, torch.tensor([2])), trajectory.log_probs[:, 2:3])
    loaded.save(tmp_path / "again")
    name = "pytorch_lora_weights.safetensors"
    assert (tmp_path / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    with safe_open(tmp_path / name, "pt") as file:
        (settings,) = map(json.loads, file.metadata().values())
    # A set: its order would differ from process to process.
    assert settings["unet.target_modules"] == ["to_k", "to_out.0", "to_q", "to_v"]


def test_an_adapter_that_does_not_fit_is_refused(tiny_pipeline_folder, tmp_path):
    make_policy(tiny_pipeline_folder).save(tmp_path)
    with pytest.raises(CheckpointError, match=r"expected \(4, 32\), got \(8, 32\)"):
        make_policy(tiny_pipeline_folder, LoraDiffusionConfig(lora_rank=4)).load(tmp_path)
    with pytest.raises(CheckpointError, match="lora_alpha 16, got 8"):
        make_policy(tiny_pipeline_folder, LoraDiffusionConfig(lora_alpha=16)).load(tmp_path)
    policy = make_policy(tiny_pipeline_folder)
    with pytest.raises(CheckpointError, match="cannot read pytorch_lora_weights"):
        policy.load(tmp_path / "nowhere")
    (tmp_path / "pytorch_lora_weights.safetensors").write_bytes(b"torn")
    with pytest.raises(CheckpointError, match="cannot read pytorch_lora_weights"):
        policy.load(tmp_path)


def test_half_precision_weights_train_a_float32_adapter(tiny_pipeline_folder):
    policy = make_policy(tiny_pipeline_folder, dtype=torch.bfloat16)
    move_weights(policy)
    trajectory = policy.sample(PROMPTS, seeds=SEEDS)
    assert policy.decode(trajectory).dtype == trajectory.log_probs.dtype == torch.float32
    assert all(parameter.dtype == torch.float32 for parameter in policy.trainable_parameters())
    log_prob = scored(policy, trajectory, torch.tensor([1]))
    assert (log_prob == trajectory.log_probs[:, 1:2]).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_checkpointing_changes_no_gradient(tiny_pipeline_folder, dtype):
    gradients = []
    for checkpointing in (False, True):
        config = LoraDiffusionConfig(num_inference_steps=4, gradient_checkpointing=checkpointing)
        policy = make_policy(tiny_pipeline_folder, config, dtype=dtype)
        move_weights(policy)
        trajectory = policy.sample(PROMPTS[:2], seeds=SEEDS[:2])
        scored(policy, trajectory, torch.tensor([1])).sum().backward()
        gradients.append([parameter.grad for parameter in policy.trainable_parameters()])
    assert_close(gradients[1], gradients[0])


def test_features_describe_prompt_and_time_without_gradients(policy):
    trajectory = policy.sample(["a boat", "a tree", "a boat"], seeds=[1, 2, 3])
    features = policy.features(trajectory, torch.tensor([0, 3]))
    assert features["prompt"].shape == (3, 32)
    assert torch.equal(features["prompt"][0], features["prompt"][2])
    assert not torch.equal(features["prompt"][0], features["prompt"][1])
    assert_close(features["timestep"], torch.tensor([0.751, 0.001]))
    assert not any(feature.requires_grad for feature in features.values())


def test_mistakes_are_named(policy, tiny_pipeline_folder):
    with pytest.raises(InputError, match="number 2 of 2 is empty"):
        policy.sample(["a boat", " "], seeds=[1, 2])
    with pytest.raises(ConfigError, match="no layer called 'to_x'"):
        make_policy(tiny_pipeline_folder, LoraDiffusionConfig(target_modules=("to_q", "to_x")))
    with torch.no_grad():
        policy.trainable_parameters()[1].fill_(math.nan)
    with pytest.raises(NumericsError, match="seed 5 \\('a boat'\\)"):
        policy.sample(["a boat"], seeds=[5])


def test_a_layer_that_lora_cannot_adapt_is_named(tiny_pipeline_folder):
    with pytest.raises(ConfigError, match=r"target_modules: .*GroupNorm.*not supported"):
        make_policy(tiny_pipeline_folder, LoraDiffusionConfig(target_modules=("norm1",)))


def test_the_log_prob_of_given_images_is_minus_half_the_error_of_the_prediction(policy):
    # At the library's own noise level, noise and target: what its training scripts minimise.
    move_weights(policy)
    latents = torch.randn(2, *policy.latent_shape, generator=torch.Generator().manual_seed(0))
    data = Data(prompts=PROMPTS[:2], prompt_ids=PROMPTS[:2], content={"latents": latents})
    draws = policy.draw(data, seeds=[1, 2])
    scored = policy.log_prob(data, draws)
    scheduler = DDPMScheduler.from_config(policy.family.pipeline.scheduler.config)
    timesteps = (draws.levels * scheduler.config["num_train_timesteps"]).long()
    noisy = scheduler.add_noise(latents, draws.noise, timesteps)
    embeddings = torch.cat(
        [policy.family.pipeline.encode_prompt(prompt, "cpu", 1, False)[0] for prompt in PROMPTS[:2]]
    )
    predicted = policy.family.network(noisy, timesteps, encoder_hidden_states=embeddings).sample
    expected = -(predicted - draws.noise).square().flatten(1).sum(dim=1) / 2
    assert_close(scored.values, expected, rtol=1e-4, atol=1e-4)
    assert scored.num_elements == latents[0].numel()
    assert scored.values.requires_grad


@pytest.mark.parametrize("of", ["target", "noise", "velocity"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_the_error_is_of_what_is_asked_for_and_slopes_are_its_gradient_in_the_networks_output(
    tiny_pipeline_folder, prediction, of
):
    scheduler = DDIMScheduler.from_pretrained(
        tiny_pipeline_folder, subfolder="scheduler", prediction_type=prediction
    )
    config = LoraDiffusionConfig(num_inference_steps=4, likelihood_error=of)
    policy = make_policy(tiny_pipeline_folder, config, scheduler=scheduler)
    move_weights(policy)
    outputs: list[Tensor] = []
    policy.family.network.register_forward_hook(lambda *given: outputs.append(given[-1].sample))
    latents = torch.randn(3, *policy.latent_shape, generator=torch.Generator().manual_seed(0))
    data = Data(prompts=PROMPTS[:3], prompt_ids=PROMPTS[:3], content={"latents": latents})
    draws = policy.draw(data, seeds=[1, 2, 3], levels=[0.1, 0.4, 0.9])
    scored = policy.log_prob(data, draws)

    (output,) = outputs
    clean, noise = latents.double(), draws.noise.double()
    alpha_bar = scheduler.alphas_cumprod[[100, 400, 900]].double().view(-1, 1, 1, 1)
    signal, scale = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    noisy = signal * clean + scale * noise
    said = {
        "epsilon": output,
        "v_prediction": signal * output + scale * noisy,
        "sample": (noisy - signal * output) / scale,
    }[prediction]
    velocity = signal * noise - scale * clean
    target = {"epsilon": noise, "v_prediction": velocity, "sample": clean}[prediction]
    error = {
        "target": output - target,
        "noise": said - noise,
        "velocity": signal * said - scale * (noisy - scale * said) / signal - velocity,
    }[of]
    values = -error.square().flatten(1).sum(dim=1) / 2
    assert_close(scored.values, values.float(), rtol=1e-4, atol=1e-4)
    (slopes,) = torch.autograd.grad(values.sum(), output)
    assert_close(scored.slopes, slopes, rtol=1e-4, atol=1e-4)


def test_an_image_is_scored_with_the_noise_that_its_seed_begins_with_where_that_is_known(policy):
    trajectory = policy.sample(PROMPTS, seeds=SEEDS)
    first = trajectory.replay["latents"][:, 0]
    assert torch.equal(policy.starting_noise(SEEDS)["noise"], first)
    assert torch.equal(policy.starting_noise(SEEDS[2:3])["noise"], first[2:3])
    data = policy.given(trajectory)
    known = replace(data, content={**data.content, **policy.starting_noise(SEEDS)})
    assert torch.equal(policy.draw(known, seeds=SEEDS).noise, first)
    assert not torch.isclose(policy.draw(data, seeds=SEEDS).noise, first).all(dim=(1, 2, 3)).any()


def test_given_images_are_scored_at_noise_levels_of_the_range_that_is_set(tiny_pipeline_folder):
    policy = make_policy(tiny_pipeline_folder, LoraDiffusionConfig(noise_levels=(0.5, 0.9)))
    data = Data(
        prompts=["a fox"] * 64,
        prompt_ids=["a fox"] * 64,
        content={"latents": torch.zeros(64, *policy.latent_shape)},
    )
    drawn = policy.draw(data, seeds=range(64)).levels
    assert 0.5 <= drawn.min() < 0.55
    assert 0.85 < drawn.max() < 0.9
    given = policy.draw(data.select([0, 1]), seeds=[0, 1], levels=[0.0, 0.5]).levels
    assert given.tolist() == pytest.approx([0.5, 0.7])


@pytest.mark.parametrize("levels", [(0.5, 0.5), (0.9, 0.1), (-0.1, 1.0), (0.0, 1.1)])
def test_noise_levels_that_are_no_range_are_refused(levels):
    with pytest.raises(ValidationError, match="noise_levels"):
        LoraDiffusionConfig(noise_levels=levels)


def test_encoded_images_have_the_models_size_and_are_cut_at_their_middle(policy):
    width, height = policy.family.image_size()
    wide = torch.zeros(1, 3, 2 * height, 6 * width)
    wide[:, :, :, 2 * width : 4 * width] = 0.5
    data = policy.encode(["a red house"], wide)
    middle = policy.encode(["a red house"], torch.full((1, 3, height, width), 0.5))
    assert data.content["latents"].shape[1:] == policy.latent_shape
    inside = (..., slice(1, -1), slice(1, -1))
    assert_close(
        data.content["latents"][inside], middle.content["latents"][inside], rtol=0, atol=0.5
    )
