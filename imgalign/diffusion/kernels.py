"""Noise schedules: how images are corrupted, what a network learns to predict, how it is undone.

A `Kernel` is all that sampling and training know about a diffusion process. Here is the DDIM family
of samplers (arXiv:2010.02502) over a process with fixed noise levels (arXiv:2006.11239). Its
arithmetic follows the order of diffusers' DDIMScheduler, whose `step`, `add_noise` and
`get_velocity` it equals. Left out: clipping and thresholding of the predicted sample, which latent
models do not use, and everything that runs a network.

Shapes: n = rows, t = steps of a sampler, l = noise levels of training; a latent is c h w.
alpha_bar is the share of signal variance left. Everything is computed in float32.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol, get_args, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, Num
from torch import Tensor

from imgalign.errors import InputError

if TYPE_CHECKING:  # settings are read with this module, and diffusers takes seconds
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

PredictionType = Literal["epsilon", "v_prediction", "sample"]

ErrorOf = Literal["target", "noise", "velocity"]
"""What an error is of: what the network itself predicts, the noise, or the velocity."""


@runtime_checkable
class Kernel(Protocol):
    """A noise schedule with its step, corruption and target.

    A timestep is what the network is told about how noisy its input is: an integer for processes
    with fixed levels, any number for continuous ones. It grows with the noise.
    """

    @property
    def timesteps(self) -> Num[Tensor, " t"]:
        """At which the sampler asks the network, from the noisiest on."""
        ...

    @property
    def num_train_timesteps(self) -> int:
        """Timesteps lie in [0, num_train_timesteps]."""
        ...

    def __len__(self) -> int:
        """The number of steps a sampler takes."""
        ...

    @property
    def mask(self) -> Bool[Tensor, " t"]:
        """True where a step adds noise and so has a density."""
        ...

    def step(
        self,
        output: Float[Tensor, "n c h w"],
        sample: Float[Tensor, "n c h w"],
        steps: Int[Tensor, " n"],
    ) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, " n"]]:
        """Mean and standard deviation of what each row becomes, in float32 whatever comes in.

        `output` is the network's at `timesteps[steps]`. A row whose standard deviation is 0 goes
        to its mean and has no density: mask it.
        """
        ...

    def deterministic(self) -> "Kernel":
        """The same schedule with steps that add no noise."""
        ...

    def training_timesteps(self, uniform: Float[Tensor, " n"]) -> Num[Tensor, " n"]:
        """Numbers drawn uniformly from [0, 1) as timesteps, distributed as in pretraining."""
        ...

    def corrupt(
        self,
        clean: Float[Tensor, "n c h w"],
        noise: Float[Tensor, "n c h w"],
        timesteps: Num[Tensor, " n"],
    ) -> Float[Tensor, "n c h w"]:
        """A sample of q(x_t | x_0) for standard normal noise, at any timestep of training."""
        ...

    def target(
        self,
        clean: Float[Tensor, "n c h w"],
        noise: Float[Tensor, "n c h w"],
        timesteps: Num[Tensor, " n"],
    ) -> Float[Tensor, "n c h w"]:
        """What the network should say about `corrupt` of the same arguments."""
        ...

    def error_scale(self, timesteps: Num[Tensor, " n"], *, of: ErrorOf) -> Float[Tensor, "n 1 1 1"]:
        """Error of what a prediction implies of the noise or the velocity, per unit of its own."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DDIMKernel:
    """The steps of a DDIM sampler; implements `Kernel`.

    Example: ten "leading" steps of Stable Diffusion have timesteps 901, 801, ..., 1.
    """

    timesteps: Int[Tensor, " t"]
    alpha_bar: Float[Tensor, " t"]
    """At the start of each step."""
    alpha_bar_prev: Float[Tensor, " t"]
    """At the less noisy end of each step."""
    train_alpha_bar: Float[Tensor, " l"]
    """Of every timestep of training."""
    prediction_type: PredictionType
    eta: float
    """0 makes every step deterministic, 1 gives it the noise of DDPM."""

    @property
    def num_train_timesteps(self) -> int:
        """Timesteps lie in [0, num_train_timesteps)."""
        return len(self.train_alpha_bar)

    def __len__(self) -> int:
        """The number of steps a sampler takes."""
        return len(self.timesteps)

    @property
    def mask(self) -> Bool[Tensor, " t"]:
        """True where a step adds noise and so has a density."""
        return transition_std(self.alpha_bar, self.alpha_bar_prev, eta=self.eta) > 0

    def step(
        self,
        output: Float[Tensor, "n c h w"],
        sample: Float[Tensor, "n c h w"],
        steps: Int[Tensor, " n"],
    ) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, " n"]]:
        """Mean and standard deviation of what each row becomes (arXiv:2010.02502, eq. 12)."""
        output, sample = output.float(), sample.float()
        alpha_bar, alpha_bar_prev = self.alpha_bar[steps], self.alpha_bar_prev[steps]
        std = transition_std(alpha_bar, alpha_bar_prev, eta=self.eta)
        signal_scale, noise_scale = _scales(alpha_bar)
        if self.prediction_type == "epsilon":
            clean = (sample - noise_scale * output) / signal_scale
            direction = output
        elif self.prediction_type == "v_prediction":
            clean = signal_scale * sample - noise_scale * output
            direction = signal_scale * output + noise_scale * sample
        else:
            clean = output
            direction = (sample - signal_scale * output) / noise_scale
        # Rounding takes this below 0 where eta is 1 and the step starts from pure noise.
        left = (1 - alpha_bar_prev - std**2).clamp(min=0).sqrt().view(-1, 1, 1, 1)
        return alpha_bar_prev.sqrt().view(-1, 1, 1, 1) * clean + left * direction, std

    def deterministic(self) -> "DDIMKernel":
        """The same schedule at eta 0."""
        return replace(self, eta=0.0)

    def training_timesteps(self, uniform: Float[Tensor, " n"]) -> Int[Tensor, " n"]:
        """Every timestep of training is as likely as any other."""
        return (uniform * self.num_train_timesteps).long().to(self.timesteps.device)

    def corrupt(
        self,
        clean: Float[Tensor, "n c h w"],
        noise: Float[Tensor, "n c h w"],
        timesteps: Int[Tensor, " n"],
    ) -> Float[Tensor, "n c h w"]:
        """A sample of q(x_t | x_0) for standard normal noise (arXiv:2006.11239, eq. 4)."""
        signal_scale, noise_scale = _scales(self.train_alpha_bar[timesteps])
        return signal_scale * clean.float() + noise_scale * noise.float()

    def target(
        self,
        clean: Float[Tensor, "n c h w"],
        noise: Float[Tensor, "n c h w"],
        timesteps: Int[Tensor, " n"],
    ) -> Float[Tensor, "n c h w"]:
        """The noise, the velocity (arXiv:2202.00512) or the clean latent, by `prediction_type`."""
        clean, noise = clean.float(), noise.float()
        if self.prediction_type == "epsilon":
            return noise
        if self.prediction_type == "sample":
            return clean
        signal_scale, noise_scale = _scales(self.train_alpha_bar[timesteps])
        return signal_scale * noise - noise_scale * clean

    def error_scale(self, timesteps: Int[Tensor, " n"], *, of: ErrorOf) -> Float[Tensor, "n 1 1 1"]:
        """By what an error is multiplied, from x_t = signal * clean + scale * noise at a given x_t.

        An error e of the noise is one of e / signal of the velocity, and e * scale / signal of the
        clean latent. So the velocity weighs high noise levels more.
        """
        signal_scale, noise_scale = _scales(self.train_alpha_bar[timesteps])
        match self.prediction_type, of:
            case _, "target":
                return torch.ones_like(signal_scale)
            case "epsilon", "velocity":
                return 1 / signal_scale
            case "v_prediction", "noise":
                return signal_scale
            case "sample", "noise":
                return signal_scale / noise_scale
            case "sample", "velocity":
                return 1 / noise_scale
            case _:
                return torch.ones_like(signal_scale)


def ddim_kernel(
    scheduler: "DDIMScheduler", num_inference_steps: int, *, eta: float, device: torch.device
) -> DDIMKernel:
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
    limit = config["num_train_timesteps"]
    if not 1 <= num_inference_steps <= limit:
        raise InputError(f"num_inference_steps: expected 1 to {limit}, got {num_inference_steps}")
    scheduler.set_timesteps(num_inference_steps)
    timesteps = scheduler.timesteps.cpu()
    if timesteps.max() >= limit:  # "leading" adds its offset to every step
        raise InputError(
            f"num_inference_steps: {num_inference_steps} reach beyond the scheduler's last"
            " timestep; use fewer"
        )
    # The library subtracts this even where its own list is not evenly spaced ("linspace").
    previous = timesteps - limit // num_inference_steps
    alpha_bars = scheduler.alphas_cumprod.float().cpu()
    final = scheduler.final_alpha_cumprod.float().cpu()
    alpha_bar = alpha_bars[timesteps]
    alpha_bar_prev = torch.where(previous >= 0, alpha_bars[previous.clamp(min=0)], final)
    if prediction_type == "epsilon" and (alpha_bar == 0).any():
        raise InputError(
            "scheduler: expected prediction_type v_prediction or sample with zero terminal snr,"
            " got epsilon, which does not say anything about the image where all is noise"
        )
    return DDIMKernel(
        timesteps=timesteps.to(device),
        alpha_bar=alpha_bar.to(device),
        alpha_bar_prev=alpha_bar_prev.to(device),
        train_alpha_bar=alpha_bars.to(device),
        prediction_type=prediction_type,
        eta=eta,
    )


def transition_std(
    alpha_bar: Float[Tensor, " n"], alpha_bar_prev: Float[Tensor, " n"], *, eta: float
) -> Float[Tensor, " n"]:
    """Standard deviation of the noise that a step adds, per latent element."""
    variance = (1 - alpha_bar_prev) / (1 - alpha_bar) * (1 - alpha_bar / alpha_bar_prev)
    return eta * variance.clamp(min=0).sqrt()


def _scales(
    alpha_bar: Float[Tensor, " n"],
) -> tuple[Float[Tensor, "n 1 1 1"], Float[Tensor, "n 1 1 1"]]:
    """What signal and noise are multiplied by."""
    rows = alpha_bar.view(-1, 1, 1, 1)
    return rows.sqrt(), (1 - rows).sqrt()
