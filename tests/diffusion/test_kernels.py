import inspect
import itertools
from dataclasses import FrozenInstanceError, fields, replace

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor
from torch.testing import assert_close

from imgalign.diffusion.kernels import DDIMKernel, Kernel, ddim_kernel, transition_std
from imgalign.errors import InputError

CPU = torch.device("cpu")
SPACINGS = ("leading", "trailing", "linspace")
PREDICTIONS = ("epsilon", "v_prediction", "sample")


def scheduler(**changes: object) -> DDIMScheduler:
    settings = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
    }
    return DDIMScheduler(**settings | changes)


def kernel_of(library: DDIMScheduler, num_inference_steps: int, *, eta: float = 0.0) -> DDIMKernel:
    return ddim_kernel(library, num_inference_steps, eta=eta, device=CPU)


def library_steps(library: DDIMScheduler, num_inference_steps: int, *, eta: float):
    """What the library makes of random inputs at each of its timesteps: inputs, noise, result."""
    library.set_timesteps(num_inference_steps)
    generator = torch.Generator().manual_seed(0)
    for timestep in library.timesteps:
        output, sample, noise = torch.randn(3, 2, 4, 8, 8, generator=generator)
        step = library.step(output, timestep, sample, eta=eta, variance_noise=noise)
        yield output, sample, noise, step.prev_sample


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("spacing", "prediction"), list(itertools.product(SPACINGS, PREDICTIONS)))
@pytest.mark.parametrize("to_one", [False, True])
def test_mean_and_std_equal_the_step_of_the_library(spacing, prediction, eta, to_one):
    library = scheduler(
        timestep_spacing=spacing, prediction_type=prediction, set_alpha_to_one=to_one
    )
    kernel = kernel_of(library, 7, eta=eta)
    results = list(library_steps(library, 7, eta=eta))
    assert kernel.timesteps.tolist() == library.timesteps.tolist()
    for index, (output, sample, noise, expected) in enumerate(results):
        mean, std = kernel.step(output, sample, torch.tensor([index, index]))
        assert_close(mean + std.view(-1, 1, 1, 1) * noise, expected, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("num_inference_steps", [3, 10])  # 3 round what is left to below 0 at eta 1
def test_a_step_from_pure_noise_equals_the_library_and_is_finite(
    prediction, eta, num_inference_steps
):
    library = scheduler(
        timestep_spacing="trailing", prediction_type=prediction, rescale_betas_zero_snr=True
    )
    kernel = kernel_of(library, num_inference_steps, eta=eta)
    assert kernel.alpha_bar[0] == 0
    output, sample, noise, expected = next(library_steps(library, num_inference_steps, eta=eta))
    mean, std = kernel.step(output, sample, torch.tensor([0, 0]))
    assert mean.isfinite().all()
    # The library may take the root of a negative rounding error there; ours is 0 instead.
    expected = torch.where(expected.isnan(), mean + std.view(-1, 1, 1, 1) * noise, expected)
    assert_close(mean + std.view(-1, 1, 1, 1) * noise, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("num_inference_steps", [3, 7, 10, 501, 999])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_no_number_of_steps_gives_a_nan(num_inference_steps, spacing):
    kernel = kernel_of(scheduler(timestep_spacing=spacing), num_inference_steps, eta=1.0)
    std = transition_std(kernel.alpha_bar, kernel.alpha_bar_prev, eta=1.0)
    assert std.isfinite().all()
    assert ((1 - kernel.alpha_bar_prev - std**2) > -1e-6).all()


def test_eta_1_has_the_variance_of_the_ddpm_posterior():
    # Ho et al. 2020, eq. 7: beta (1 - alpha_bar_prev) / (1 - alpha_bar), beta = 1 - alpha.
    alpha_bar, alpha_bar_prev = torch.tensor([0.36]), torch.tensor([0.72])
    std = transition_std(alpha_bar, alpha_bar_prev, eta=1.0)
    assert_close(std, torch.tensor([(0.5 * 0.28 / 0.64) ** 0.5]))


def test_steps_without_noise_are_masked():
    trailing = scheduler(timestep_spacing="trailing")
    to_one = scheduler(timestep_spacing="trailing", set_alpha_to_one=True)
    assert kernel_of(to_one, 5, eta=1.0).mask.tolist() == [True] * 4 + [False]
    assert kernel_of(trailing, 5, eta=1.0).mask.tolist() == [True] * 5
    assert kernel_of(trailing, 5, eta=0.0).mask.tolist() == [False] * 5


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_everything_is_computed_in_float32_whatever_comes_in(prediction, dtype):
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 1, 4, 8, 8, generator=generator).to(dtype)
    kernel = kernel_of(scheduler(prediction_type=prediction), 5, eta=1.0)
    index = torch.tensor([3])
    for method in (kernel.step, kernel.corrupt, kernel.target):
        own = method(first, second, index)
        expected = method(first.float(), second.float(), index)
        assert_close(own, expected, rtol=0, atol=0)  # types too


def test_a_kernel_lies_on_the_device_it_was_made_for_and_so_does_what_it_makes_of_numbers():
    meta = torch.device("meta")
    kernel = ddim_kernel(scheduler(), 7, eta=1.0, device=meta)
    timesteps = kernel.training_timesteps(torch.rand(4))
    for each in (kernel.timesteps, kernel.alpha_bar, kernel.alpha_bar_prev, timesteps):
        assert each.device == meta
    assert kernel.train_alpha_bar.device == meta


def test_a_kernel_cannot_be_changed_and_equals_itself_alone():
    kernel = kernel_of(scheduler(), 7)
    for field in fields(kernel):
        with pytest.raises(FrozenInstanceError):
            setattr(kernel, field.name, 1.0)
    assert len({kernel, replace(kernel)}) == 2


def test_settings_of_kernels_are_passed_by_name_only():
    for function in (DDIMKernel, ddim_kernel, transition_std, DDIMKernel.error_scale):
        parameters = inspect.signature(function).parameters
        for name in {"eta", "device", "of", "prediction_type"} & set(parameters):
            assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY, (function, name)


def drawn_at(timesteps: Tensor) -> tuple[Tensor, Tensor]:
    """A clean latent and noise for each timestep."""
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, len(timesteps), 4, 8, 8, generator=generator)
    return clean, noise


EVERY_TIMESTEP = torch.arange(1000)


@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_corruption_and_target_are_the_librarys_at_every_timestep_of_training(prediction, zero_snr):
    library = scheduler(prediction_type=prediction, rescale_betas_zero_snr=zero_snr)
    kernel = kernel_of(library, 7)
    clean, noise = drawn_at(EVERY_TIMESTEP)
    noisy = kernel.corrupt(clean, noise, EVERY_TIMESTEP)
    assert_close(noisy, library.add_noise(clean, noise, EVERY_TIMESTEP))
    expected = {
        "epsilon": noise,
        "sample": clean,
        "v_prediction": library.get_velocity(clean, noise, EVERY_TIMESTEP),
    }
    assert_close(kernel.target(clean, noise, EVERY_TIMESTEP), expected[prediction])


@pytest.mark.parametrize("num_inference_steps", [7, 999])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_network_that_says_the_target_undoes_the_corruption_step_by_step(
    prediction, num_inference_steps
):
    """Without noise, x_t becomes the x_s of the same image and noise, and in the end the image."""
    kernel = kernel_of(
        scheduler(prediction_type=prediction, set_alpha_to_one=True), num_inference_steps
    )
    clean, noise = drawn_at(kernel.timesteps)
    output = kernel.target(clean, noise, kernel.timesteps)
    sample = kernel.corrupt(clean, noise, kernel.timesteps)
    mean, std = kernel.step(output, sample, torch.arange(num_inference_steps))
    previous = kernel.timesteps - 1000 // num_inference_steps
    expected = kernel.corrupt(clean, noise, previous.clamp(min=0))
    expected[previous < 0] = clean[previous < 0]
    # Where the signal is a hundredth of the noise, it is what is left of two nearly equal numbers.
    assert_close(mean, expected, rtol=0, atol=1e-4)
    assert (std == 0).all()


def test_uniform_numbers_become_each_timestep_of_training_equally_often():
    kernel = kernel_of(scheduler(), 7)
    middles = (torch.arange(1000) + 0.5) / 1000
    assert kernel.training_timesteps(middles).tolist() == list(range(1000))
    largest = torch.tensor([1 - 2**-24])  # the largest float32 below 1, that torch.rand can draw
    assert kernel.training_timesteps(largest) == 999


def test_ddim_is_a_kernel():
    kernel = kernel_of(scheduler(), 7, eta=1.0)
    assert isinstance(kernel, Kernel)
    assert len(kernel) == len(kernel.timesteps) == len(kernel.mask) == 7
    assert kernel.num_train_timesteps == 1000
    assert kernel.mask.all()
    assert not kernel.deterministic().mask.any()
    assert kernel.deterministic().eta == 0


@pytest.mark.parametrize(
    ("changes", "num_inference_steps", "message"),
    [
        ({"prediction_type": "flow"}, 5, "one of epsilon, v_prediction, sample, got 'flow'"),
        ({}, 0, "got 0"),
        ({}, 1001, "got 1001"),
        ({}, 1000, "use fewer"),
        ({"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}, 5, "zero terminal snr"),
    ],
)
def test_schedules_without_a_gaussian_step_are_refused(changes, num_inference_steps, message):
    with pytest.raises(InputError, match=message):
        kernel_of(scheduler(**changes), num_inference_steps)


def test_one_step_can_be_taken_and_goes_to_the_end():
    kernel = kernel_of(scheduler(set_alpha_to_one=True), 1)
    assert kernel.alpha_bar_prev.tolist() == [1.0]


@pytest.mark.parametrize("setting", ["clip_sample", "thresholding"])
def test_a_scheduler_that_would_change_what_the_network_predicts_is_not_taken(setting):
    with pytest.raises(AssertionError, match="steps here do not"):
        kernel_of(scheduler(**{setting: True}), 5)


@pytest.mark.parametrize("of", ["target", "noise", "velocity"])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_error_of_what_is_implied_is_the_networks_error_times_the_kernels_factor(
    prediction, of
):
    library = scheduler(prediction_type=prediction)
    kernel = kernel_of(library, 7)
    clean, noise, error = torch.randn(3, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    timesteps = torch.tensor([30, 400, 900])
    noisy = library.add_noise(clean, noise, timesteps)
    alpha_bar = library.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    output = kernel.target(clean, noise, timesteps) + error
    implied_noise = {
        "epsilon": output,
        "v_prediction": alpha_bar.sqrt() * output + (1 - alpha_bar).sqrt() * noisy,
        "sample": (noisy - alpha_bar.sqrt() * output) / (1 - alpha_bar).sqrt(),
    }[prediction]
    implied_clean = (noisy - (1 - alpha_bar).sqrt() * implied_noise) / alpha_bar.sqrt()
    implied, true = {
        "target": (output, kernel.target(clean, noise, timesteps)),
        "noise": (implied_noise, noise),
        "velocity": (
            alpha_bar.sqrt() * implied_noise - (1 - alpha_bar).sqrt() * implied_clean,
            library.get_velocity(clean, noise, timesteps),
        ),
    }[of]
    expected = (kernel.error_scale(timesteps, of=of) * error).abs()
    assert_close((implied - true).abs(), expected, rtol=1e-3, atol=1e-3)
