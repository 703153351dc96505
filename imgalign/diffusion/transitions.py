"""One denoising step as a Gaussian: the DDIM family of samplers (arXiv:2010.02502, eq. 12 and 16).

Pure functions of tensors, in float32. `eta` interpolates between the deterministic sampler (0) and
the stochastic one (1), whose steps have a density. The arithmetic follows the order of diffusers'
DDIMScheduler, whose `step` these functions equal. Left out: clipping and thresholding of the
predicted sample, which latent models do not use, and everything that runs a network.

Shapes: n = rows, t = steps of a schedule. alpha_bar is the share of signal variance left.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from jaxtyping import Bool, Float, Int
from torch import Tensor

from imgalign.errors import InputError

PredictionType = Literal["epsilon", "v_prediction", "sample"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Schedule:
    """The steps a sampler takes, from the noisiest on, and the signal each starts and ends with.

    Example: ten "leading" steps of Stable Diffusion have timesteps 901, 801, ..., 1.
    """

    timesteps: Int[Tensor, " t"]
    alpha_bar: Float[Tensor, " t"]
    alpha_bar_prev: Float[Tensor, " t"]
    """At the less noisy end of each step."""
    prediction_type: PredictionType
    num_train_timesteps: int

    def __len__(self) -> int:
        return len(self.timesteps)

    def mask(self, eta: float) -> Bool[Tensor, " t"]:
        """True where a step adds noise and so has a density."""
        return transition_std(self.alpha_bar, self.alpha_bar_prev, eta=eta) > 0


def ddim_schedule(scheduler: DDIMScheduler, num_steps: int, device: torch.device) -> Schedule:
    """The steps that the library's sampler would take, for any of its spacings.

    InputError for settings under which a step is not a Gaussian around the network's prediction.
    """
    config = scheduler.config
    prediction_type = config["prediction_type"]
    if prediction_type not in get_args(PredictionType):
        expected = ", ".join(get_args(PredictionType))
        raise InputError(f"prediction_type: expected one of {expected}, got {prediction_type!r}")
    assert not config["clip_sample"], "steps here do not clip"
    assert not config["thresholding"], "steps here do not threshold"
    if not 1 <= num_steps <= config["num_train_timesteps"]:
        limit = config["num_train_timesteps"]
        raise InputError(f"steps: expected 1 to {limit} denoising steps, got {num_steps}")
    scheduler.set_timesteps(num_steps)
    timesteps = scheduler.timesteps.cpu()
    if timesteps.max() >= config["num_train_timesteps"]:  # "leading" adds its offset to every step
        raise InputError(
            f"steps: {num_steps} reach beyond the scheduler's last timestep; use fewer"
        )
    # The library subtracts this even where its own list is not evenly spaced ("linspace").
    previous = timesteps - config["num_train_timesteps"] // num_steps
    alpha_bars = scheduler.alphas_cumprod.float().cpu()
    final = scheduler.final_alpha_cumprod.float().cpu()
    alpha_bar = alpha_bars[timesteps]
    alpha_bar_prev = torch.where(previous >= 0, alpha_bars[previous.clamp(min=0)], final)
    if prediction_type == "epsilon" and (alpha_bar == 0).any():
        raise InputError(
            "scheduler: expected prediction_type v_prediction or sample with zero terminal snr,"
            " got epsilon, which does not say anything about the image where all is noise"
        )
    return Schedule(
        timesteps=timesteps.to(device),
        alpha_bar=alpha_bar.to(device),
        alpha_bar_prev=alpha_bar_prev.to(device),
        prediction_type=prediction_type,
        num_train_timesteps=config["num_train_timesteps"],
    )


def ddim_step(
    model_output: Float[Tensor, "n c h w"],
    sample: Float[Tensor, "n c h w"],
    *,
    alpha_bar: Float[Tensor, " n"],
    alpha_bar_prev: Float[Tensor, " n"],
    eta: float,
    prediction_type: PredictionType,
) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, " n"]]:
    """Mean and standard deviation of what each row becomes, in float32 whatever comes in.

    A row whose standard deviation is 0 goes to its mean and has no density: mask it.
    """
    output, sample = model_output.float(), sample.float()
    std = transition_std(alpha_bar, alpha_bar_prev, eta=eta)
    signal, noise = alpha_bar.sqrt().view(-1, 1, 1, 1), (1 - alpha_bar).sqrt().view(-1, 1, 1, 1)
    if prediction_type == "epsilon":
        clean = (sample - noise * output) / signal
        direction = output
    elif prediction_type == "v_prediction":
        clean = signal * sample - noise * output
        direction = signal * output + noise * sample
    else:
        clean = output
        direction = (sample - signal * output) / noise
    # Rounding takes this below 0 where eta is 1 and the step starts from pure noise.
    left = (1 - alpha_bar_prev - std**2).clamp(min=0).sqrt().view(-1, 1, 1, 1)
    return alpha_bar_prev.sqrt().view(-1, 1, 1, 1) * clean + left * direction, std


def transition_std(
    alpha_bar: Float[Tensor, " n"], alpha_bar_prev: Float[Tensor, " n"], *, eta: float
) -> Float[Tensor, " n"]:
    """Standard deviation of the noise that a step adds, per latent element."""
    variance = (1 - alpha_bar_prev) / (1 - alpha_bar) * (1 - alpha_bar / alpha_bar_prev)
    return eta * variance.clamp(min=0).sqrt()
