"""Claims: on a GPU the ratio starts at exactly 1 and the KL at 0 in every number type, a seed means
what it means on the CPU, and every implementation of attention gives the same images."""

import importlib.util
import re
import warnings
from pathlib import Path

import pytest
import torch
from policies import move_weights
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing import assert_close

from imgalign.algorithms.checks import require
from imgalign.algorithms.kl import measure_kl
from imgalign.algorithms.policy_gradient import GRPOConfig, PolicyGradient
from imgalign.diffusion.attention import Attention
from imgalign.diffusion.config import LoraDiffusionConfig
from imgalign.diffusion.loading import load_pipeline
from imgalign.diffusion.policy import DiffusionPolicy
from imgalign.train.loop import rng_state

pytestmark = pytest.mark.gpu

PROMPTS = ["a red house", "two blue boat and a tree", "the green tree", "a boat"]
SEEDS = [11, 12, 13, 14]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
each_model = pytest.mark.parametrize("model", ["tiny", "storybook"])


def make_policy(
    model: Path | str,
    device: torch.device,
    *,
    dtype: torch.dtype = torch.float32,
    attention: Attention = "sdpa",
    **settings: object,
) -> DiffusionPolicy:
    fields = {"num_inference_steps": 4, "batch_size": 4, **settings}
    pipeline = load_pipeline(str(model), device=device, dtype=dtype, attention=attention)
    return DiffusionPolicy(pipeline, LoraDiffusionConfig.model_validate(fields))


def named(model: str, tiny_pipeline_folder: Path) -> Path | str:
    return tiny_pipeline_folder if model == "tiny" else model


@each_dtype
@each_model
def test_the_ratio_is_exactly_1_and_the_kl_0_before_the_first_update(
    model, dtype, gpu, tiny_pipeline_folder
):
    policy = make_policy(named(model, tiny_pipeline_folder), gpu, dtype=dtype)
    trajectory = policy.sample(PROMPTS, seeds=SEEDS)
    assert trajectory.log_probs.device.type == gpu.type
    assert measure_kl(policy, [trajectory]) == 0.0
    for step in range(3):
        index = torch.tensor([step])
        again = policy.step_distributions(trajectory, index).log_prob(
            policy.actions(trajectory, index)
        )
        assert again.requires_grad
        assert torch.equal(again, trajectory.log_probs[:, index])
    move_weights(policy)
    assert measure_kl(policy, [trajectory]) > 0.0


def test_a_seed_gives_the_same_image_as_on_the_cpu(gpu):
    here, there = (make_policy("storybook", device) for device in (torch.device("cpu"), gpu))
    on_cpu, on_gpu = (policy.sample(PROMPTS, seeds=SEEDS) for policy in (here, there))
    first = on_gpu.replay["latents"][:, 0]
    assert torch.equal(first.cpu(), on_cpu.replay["latents"][:, 0])
    images, expected = there.decode(on_gpu).cpu(), here.decode(on_cpu)
    # Convolutions may use TF32, which has 10 bits of mantissa.
    assert (images - expected).abs().mean() < 2e-3


@each_dtype
def test_the_noise_floor_of_several_steps_a_pass_is_measured_and_below_the_clip(
    dtype, gpu, tiny_pipeline_folder
):
    policy = make_policy(tiny_pipeline_folder, gpu, dtype=dtype, steps_per_pass=3)
    trajectory = policy.sample(PROMPTS, seeds=SEEDS)
    checks = PolicyGradient(GRPOConfig(), seed=0).checks(policy, trajectory, fresh=True)
    (floor,) = [check for check in checks if check.name.startswith("noise floor")]
    assert float(floor.measured.removesuffix(" nats")) < policy.default_clip_nats
    if dtype == torch.float32:
        require(checks)
        require(policy.checks())


def test_a_seed_gives_the_same_adapter_as_on_the_cpu_and_leaves_the_global_generators_alone(
    gpu, tiny_pipeline_folder
):
    here = make_policy(tiny_pipeline_folder, torch.device("cpu"))
    before = rng_state()
    there = make_policy(tiny_pipeline_folder, gpu)
    after = rng_state()
    assert torch.equal(after["cpu"], before["cpu"])
    pairs = zip(after["cuda"], before["cuda"], strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    for own, other in zip(there.trainable_parameters(), here.trainable_parameters(), strict=True):
        assert own.device.type == gpu.type
        assert torch.equal(own.cpu(), other)


@pytest.mark.usefixtures("whole_float32")
def test_given_images_have_the_same_draws_and_log_probabilities_as_on_the_cpu(
    gpu, tiny_pipeline_folder
):
    images = torch.rand(4, 3, 20, 16, generator=torch.Generator().manual_seed(0))
    scored, latents, draws = [], [], []
    for device in (torch.device("cpu"), gpu):
        policy = make_policy(tiny_pipeline_folder, device)
        move_weights(policy)
        data = policy.encode(PROMPTS, images)
        assert policy.encoding.endswith(device.type)
        latents.append(data.content["latents"].cpu())
        draws.append(policy.draw(data, seeds=SEEDS))
        scored.append(policy.log_prob(data, draws[-1]).values.detach().cpu())
    assert torch.equal(draws[0].noise, draws[1].noise)
    assert torch.equal(draws[0].levels, draws[1].levels)
    # Float32 rounding of an autoencoder and a network, in another order.
    assert_close(latents[1], latents[0], rtol=1e-3, atol=1e-3)
    assert_close(scored[1], scored[0], rtol=1e-3, atol=1e-2)


@pytest.mark.usefixtures("whole_float32")
@pytest.mark.parametrize("backend", ["FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION"])
@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
def test_every_implementation_of_attention_gives_the_images_of_the_plain_formula(
    backend, dtype, gpu
):
    policy = make_policy("storybook", gpu, dtype=dtype, num_inference_steps=8)
    expected = drawn_with(policy, SDPBackend.MATH)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch says at length why it has none
            images = drawn_with(policy, SDPBackend.__members__[backend])
    except RuntimeError as error:
        if not re.search("No available kernel|No viable backend", str(error)):
            raise
        pytest.skip(f"{backend} has no kernel for {dtype} here")
    assert_alike(images, expected, dtype=dtype)


def test_xformers_gives_the_images_of_torchs_own_attention(gpu):
    if importlib.util.find_spec("xformers") is None:
        pytest.skip("xformers is not installed")
    images = [
        make_policy("storybook", gpu, attention=attention, num_inference_steps=8)
        .preview(PROMPTS, seeds=SEEDS)
        .cpu()
        for attention in ("sdpa", "xformers")
    ]
    assert_alike(images[1], images[0], dtype=torch.float32)


@torch.no_grad()
def drawn_with(policy: DiffusionPolicy, backend: SDPBackend) -> Tensor:
    """Only the network's attention; those of text encoder and autoencoder are in float32."""
    policy.family.encode(PROMPTS)
    with sdpa_kernel(backend):
        trajectory = policy.sample(PROMPTS, seeds=SEEDS)
    return policy.decode(trajectory).cpu()


def assert_alike(images: Tensor, expected: Tensor, *, dtype: torch.dtype) -> None:
    """Equal but for rounding, which eight steps of a network may enlarge at single pixels."""
    difference = (images - expected).abs()
    assert expected.std() > 0.05
    assert difference.mean() < (1e-3 if dtype == torch.float32 else 2e-2)
