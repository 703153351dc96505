"""Claims: on a GPU a seed gives the same image in any batch, in half precision too, and every
scheduler draws there what it draws on the CPU."""

from pathlib import Path

import numpy as np
import pytest
import torch

from imgalign.diffusion.generate import ImageGenerator
from imgalign.diffusion.schedulers import SCHEDULERS
from imgalign.environment import DType
from imgalign.preferences.records import SamplerSettings

pytestmark = pytest.mark.gpu

PROMPTS = ["a red house", "two blue trees", "a green cat", "a boat", "a yellow sun"]
SEEDS = [5, 6, 7, 8, 9]


def pixels(
    model: Path | str,
    device: torch.device,
    settings: SamplerSettings,
    *,
    dtype: DType = "float32",
    batch: int = 32,
) -> np.ndarray:
    """The images as numbers in [0, 255]."""
    generator = ImageGenerator(str(model), device=device.type, dtype=dtype)
    generator.largest_batch = batch
    made = [*generator.generate(PROMPTS, seeds=SEEDS, settings=settings)]
    assert {each.provenance.dtype for each in made} == {dtype}
    return np.stack([np.asarray(each.image, dtype=np.float32) for each in made])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_seed_gives_the_same_image_in_any_batch(dtype, gpu):
    settings = SamplerSettings(num_inference_steps=8, guidance_scale=3.0)
    together, alone, on_cpu = (
        pixels("storybook", gpu, settings, dtype=dtype),
        pixels("storybook", gpu, settings, dtype=dtype, batch=1),
        pixels("storybook", torch.device("cpu"), settings),
    )
    # Rounding depends on the batch; at edges of shapes, steps of the sampler enlarge it.
    assert np.abs(together - alone).mean() < (0.5 if dtype == "float32" else 3.0)
    assert np.abs(together - on_cpu).mean() < (0.5 if dtype == "float32" else 6.0)
    others = np.roll(together, 1, axis=0)
    assert np.abs(together - others).mean() > 20.0


@pytest.mark.usefixtures("whole_float32")
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_every_scheduler_draws_the_images_of_the_cpu(scheduler, gpu, tiny_pipeline_folder):
    settings = SamplerSettings(num_inference_steps=4, scheduler=scheduler)
    here, there = (
        pixels(tiny_pipeline_folder, device, settings) for device in (torch.device("cpu"), gpu)
    )
    assert np.abs(here - there).mean() < 0.5
