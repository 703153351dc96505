import itertools

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor
from torch.testing import assert_close

from imgalign.diffusion.transitions import ddim_schedule, ddim_step, transition_std
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


def library_steps(library: DDIMScheduler, num_steps: int, *, eta: float):
    """What the library makes of random inputs at each of its timesteps: inputs, noise, result."""
    library.set_timesteps(num_steps)
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
    schedule = ddim_schedule(library, 7, CPU)
    results = list(library_steps(library, 7, eta=eta))
    assert schedule.timesteps.tolist() == library.timesteps.tolist()
    for index, (output, sample, noise, expected) in enumerate(results):
        mean, std = ddim_step(
            output,
            sample,
            alpha_bar=schedule.alpha_bar[[index, index]],
            alpha_bar_prev=schedule.alpha_bar_prev[[index, index]],
            eta=eta,
            prediction_type=prediction,
        )
        assert_close(mean + std.view(-1, 1, 1, 1) * noise, expected, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_a_step_from_pure_noise_equals_the_library_and_is_finite(prediction, eta):
    library = scheduler(
        timestep_spacing="trailing", prediction_type=prediction, rescale_betas_zero_snr=True
    )
    schedule = ddim_schedule(library, 10, CPU)
    assert schedule.alpha_bar[0] == 0
    output, sample, noise, expected = next(library_steps(library, 10, eta=eta))
    mean, std = ddim_step(
        output,
        sample,
        alpha_bar=schedule.alpha_bar[[0, 0]],
        alpha_bar_prev=schedule.alpha_bar_prev[[0, 0]],
        eta=eta,
        prediction_type=prediction,
    )
    assert mean.isfinite().all()
    # The library may take the root of a negative rounding error there; ours is 0 instead.
    expected = torch.where(expected.isnan(), mean + std.view(-1, 1, 1, 1) * noise, expected)
    assert_close(mean + std.view(-1, 1, 1, 1) * noise, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("num_steps", [3, 7, 10, 501, 999])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_no_number_of_steps_gives_a_nan(num_steps, spacing):
    schedule = ddim_schedule(scheduler(timestep_spacing=spacing), num_steps, CPU)
    std = transition_std(schedule.alpha_bar, schedule.alpha_bar_prev, eta=1.0)
    assert std.isfinite().all()
    assert ((1 - schedule.alpha_bar_prev - std**2) > -1e-6).all()


def test_eta_1_has_the_variance_of_the_ddpm_posterior():
    # Ho et al. 2020, eq. 7: beta (1 - alpha_bar_prev) / (1 - alpha_bar), beta = 1 - alpha.
    alpha_bar, alpha_bar_prev = torch.tensor([0.36]), torch.tensor([0.72])
    std = transition_std(alpha_bar, alpha_bar_prev, eta=1.0)
    assert_close(std, torch.tensor([(0.5 * 0.28 / 0.64) ** 0.5]))


def test_steps_without_noise_are_masked():
    to_one = ddim_schedule(scheduler(timestep_spacing="trailing", set_alpha_to_one=True), 5, CPU)
    assert to_one.mask(1.0).tolist() == [True] * 4 + [False]
    to_first = ddim_schedule(scheduler(timestep_spacing="trailing"), 5, CPU)
    assert to_first.mask(1.0).tolist() == [True] * 5
    assert to_first.mask(0.0).tolist() == [False] * 5


def test_half_precision_inputs_are_widened_before_the_arithmetic():
    output, sample = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))

    def step(output: Tensor, sample: Tensor) -> tuple[Tensor, Tensor]:
        return ddim_step(
            output,
            sample,
            alpha_bar=torch.tensor([0.3]),
            alpha_bar_prev=torch.tensor([0.5]),
            eta=1.0,
            prediction_type="epsilon",
        )

    low = step(output.bfloat16(), sample.bfloat16())
    widened = step(output.bfloat16().float(), sample.bfloat16().float())
    assert low[0].dtype == low[1].dtype == torch.float32
    assert torch.equal(low[0], widened[0])


@pytest.mark.parametrize(
    ("changes", "num_steps", "message"),
    [
        ({"prediction_type": "flow"}, 5, "'flow'"),
        ({}, 0, "got 0"),
        ({}, 1001, "got 1001"),
        ({}, 1000, "use fewer"),
        ({"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}, 5, "zero terminal snr"),
    ],
)
def test_schedules_without_a_gaussian_step_are_refused(changes, num_steps, message):
    with pytest.raises(InputError, match=message):
        ddim_schedule(scheduler(**changes), num_steps, CPU)
