"""The library's schedulers by name, for images that are only looked at.

Training has a kernel of its own (kernels.py, DDIM), because its steps must be Gaussians with a
density; an image may also be sampled as its model's authors did. A scheduler here takes the noise
levels from the model it came with and steps through the network's predictions as its pipeline does,
with one CPU generator per image. Left out: schedulers of another process than diffusion with fixed
noise levels (flow matching, EDM), and those whose noise does not come from such generators.

Shapes: b = images; a latent is c h w.
"""

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from imgalign.diffusion.kernels import PredictionType
from imgalign.errors import InputError, first_line
from imgalign.prompts import normal_noise, seed_generators

SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "ddpm": "DDPMScheduler",
    "deis": "DEISMultistepScheduler",
    "dpm2": "KDPM2DiscreteScheduler",
    "dpm2_a": "KDPM2AncestralDiscreteScheduler",
    "dpmpp_2m": "DPMSolverMultistepScheduler",
    "dpmpp_2s": "DPMSolverSinglestepScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler_a": "EulerAncestralDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
    "lcm": "LCMScheduler",
    "lms": "LMSDiscreteScheduler",
    "pndm": "PNDMScheduler",
    "tcd": "TCDScheduler",
    "unipc": "UniPCMultistepScheduler",
}
"""The library's class by the name that people know it by; a model may come with any of these."""

MODEL = "model"
"""The scheduler that the model came with."""

SPACINGS = ("leading", "linspace", "trailing")
BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
MOST_TIMESTEPS = 100_000


def build_scheduler(class_name: str, settings: Mapping[str, Any]) -> Any:
    """A scheduler of this class from a model's settings; InputError for what cannot be meant."""
    known_class(class_name)
    check_levels(settings)
    # The package gives a stand-in, which raises, for a class that needs what is not installed.
    cls = getattr(importlib.import_module("diffusers"), class_name)
    try:
        return cls.from_config(dict(settings))
    except ImportError:
        raise InputError(
            f"scheduler: {class_name} needs a package that is not installed (scipy, mostly);"
            " install it, or name another class in the model's scheduler_config.json"
        ) from None
    except (ValueError, TypeError, KeyError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"scheduler: {class_name}: {first_line(error)}") from None


def known_class(class_name: str) -> str:
    """The name itself; InputError unless it is of a scheduler that is supported."""
    if class_name not in SCHEDULERS.values():
        raise InputError(
            f"scheduler: {class_name} is not supported, as it is of another process (flow matching,"
            f" EDM) or cannot be repeated; supported: {', '.join(SCHEDULERS.values())}"
        )
    return class_name


def check_levels(settings: Mapping[str, Any]) -> None:
    """Raise InputError unless these are noise levels and steps of a diffusion with a fixed end."""

    def refuse(name: str, expected: str) -> None:
        raise InputError(f"scheduler: {name}: expected {expected}, got {settings[name]!r}")

    if settings.get("use_flow_sigmas"):
        refuse("use_flow_sigmas", "false: flow matching is not supported")
    for name, allowed in (
        ("timestep_spacing", SPACINGS),
        ("beta_schedule", BETA_SCHEDULES),
        ("prediction_type", get_args(PredictionType)),
    ):
        if name in settings and settings[name] not in allowed:
            refuse(name, f"one of {', '.join(allowed)}")
    steps = settings.get("num_train_timesteps", 1000)
    if type(steps) is not int or not 1 <= steps <= MOST_TIMESTEPS:
        refuse("num_train_timesteps", f"1 to {MOST_TIMESTEPS:,}")
    for name in ("beta_start", "beta_end"):
        beta = settings.get(name, 0.01)
        if not isinstance(beta, int | float) or not 0 < beta < 1:
            refuse(name, "a number between 0 and 1")
    trained = settings.get("trained_betas")
    if trained is not None and not (
        isinstance(trained, list)
        and len(trained) == steps
        and all(isinstance(each, float) and 0 < each < 1 for each in trained)
    ):
        raise InputError(f"scheduler: trained_betas: expected {steps} numbers between 0 and 1")


def name_of(scheduler: Any) -> str:
    """What people call a scheduler of the library; InputError for one of another kind."""
    names = {class_name: name for name, class_name in SCHEDULERS.items()}
    return names[known_class(type(scheduler).__name__)]


def set_steps(scheduler: Any, num_inference_steps: int, device: torch.device) -> None:
    """Start over; InputError where the scheduler cannot take so many steps or so few."""
    try:
        scheduler.set_timesteps(num_inference_steps, device=device)
    except (ValueError, IndexError, RuntimeError) as error:
        name = type(scheduler).__name__
        raise InputError(
            f"steps: {name} cannot take {num_inference_steps}: {first_line(error)}"
        ) from None


@torch.no_grad()
def sample(
    scheduler: Any,
    predict: Callable[[Float[Tensor, "b c h w"], Float[Tensor, " b"]], Float[Tensor, "b c h w"]],
    *,
    num_inference_steps: int,
    seeds: Sequence[int],
    latent_shape: tuple[int, int, int],
    eta: float,
    device: torch.device,
    on_step: Callable[[], None],
) -> Float[Tensor, "b c h w"]:
    """One finished latent per seed, with the library's steps around the network's predictions.

    Everything random about an image comes from one CPU generator with its seed, as in the library's
    own pipeline with such generators, and the image is the same.
    """
    set_steps(scheduler, num_inference_steps, device)
    generators = seed_generators(seeds)
    noise = normal_noise(generators, latent_shape).to(device)
    latents: Tensor = noise * scheduler.init_noise_sigma
    settings: dict[str, Any] = {"generator": generators, "eta": eta}
    settings = {name: settings[name] for name in settings if takes(scheduler, name)}
    for timestep in scheduler.timesteps:
        rows = scheduler.scale_model_input(latents, timestep)
        output = predict(rows, timestep.expand(len(rows)))
        latents = scheduler.step(output, timestep, latents, **settings).prev_sample
        on_step()
    return latents


def takes(scheduler: Any, name: str) -> bool:
    """Whether a step of this scheduler has such an argument."""
    return name in inspect.signature(scheduler.step).parameters
