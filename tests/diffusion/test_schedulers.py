import logging

import diffusers
import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EDMEulerScheduler,
    EulerAncestralDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
)

from imgalign.diffusion.config import LoraDiffusionConfig
from imgalign.diffusion.families import unet
from imgalign.diffusion.families.sd import StableDiffusion
from imgalign.diffusion.generate import ImageGenerator
from imgalign.diffusion.policy import DiffusionPolicy
from imgalign.diffusion.schedulers import SCHEDULERS
from imgalign.errors import InputError
from imgalign.preferences.records import SamplerSettings

PROMPTS, SEEDS = ["a red house", "two blue boat"], [5, 6]


def drawn(folder, scheduler: str, **settings) -> tuple[np.ndarray, set[str]]:
    generator = ImageGenerator(str(folder), device="cpu", dtype="float32")
    sampler = SamplerSettings(num_inference_steps=5, scheduler=scheduler, **settings)
    images = list(generator.generate(PROMPTS, seeds=SEEDS, settings=sampler))
    names = {each.provenance.scheduler for each in images}
    return np.stack([np.asarray(each.image) for each in images]), names


def expected(pipe: StableDiffusionPipeline, **settings) -> np.ndarray:
    pipe.set_progress_bar_config(disable=True)
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in SEEDS]
    made = pipe(PROMPTS, generator=generators, num_inference_steps=5, **settings)
    return np.stack([np.asarray(image) for image in made.images])


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_named_scheduler_draws_what_the_pipeline_draws_with_it(
    tiny_pipeline_folder, tiny_pipeline, name
):
    scheduler = getattr(diffusers, SCHEDULERS[name])
    tiny_pipeline.scheduler = scheduler.from_config(tiny_pipeline.scheduler.config)
    images, names = drawn(tiny_pipeline_folder, name, guidance_scale=3.0)
    assert np.array_equal(images, expected(tiny_pipeline, guidance_scale=3.0))
    assert names == {name}


def test_the_models_own_scheduler_is_used_where_it_is_asked_for_and_recorded(
    tiny_pipeline, tmp_path
):
    tiny_pipeline.scheduler = EulerAncestralDiscreteScheduler.from_config(
        tiny_pipeline.scheduler.config
    )
    tiny_pipeline.save_pretrained(tmp_path)
    images, names = drawn(tmp_path, "model")
    assert np.array_equal(images, expected(tiny_pipeline, guidance_scale=1.0))
    assert names == {"euler_a"}
    again, _ = drawn(tmp_path, "euler_a")
    assert np.array_equal(again, images), "what is recorded repeats it"
    ours, names = drawn(tmp_path, "ddim")
    assert not np.array_equal(ours, images)
    assert names == {"ddim"}


def test_that_a_models_own_scheduler_is_not_used_is_said_once(tiny_pipeline, caplog):
    unet._say_once.cache_clear()
    tiny_pipeline.scheduler = PNDMScheduler.from_config(tiny_pipeline.scheduler.config)
    with caplog.at_level(logging.WARNING):
        DiffusionPolicy(tiny_pipeline, LoraDiffusionConfig())
        StableDiffusion(tiny_pipeline).kernel(4, eta=0.0)
    assert [record.message for record in caplog.records] == [
        "the model comes with the scheduler pndm; images are sampled with ddim"
    ]


def test_that_a_models_thresholding_is_not_applied_is_said_once(tiny_pipeline, caplog):
    unet._say_once.cache_clear()
    tiny_pipeline.scheduler = DDIMScheduler.from_config(
        tiny_pipeline.scheduler.config, thresholding=True
    )
    with caplog.at_level(logging.WARNING):
        DiffusionPolicy(tiny_pipeline, LoraDiffusionConfig())
        StableDiffusion(tiny_pipeline).kernel(4, eta=0.0)
    (record,) = caplog.records
    assert "thresholding" in record.message
    assert "sampled without it" in record.message


@pytest.mark.parametrize("scheduler", [FlowMatchEulerDiscreteScheduler, EDMEulerScheduler])
def test_a_model_of_another_process_is_refused(tiny_pipeline, tmp_path, scheduler):
    tiny_pipeline.scheduler = scheduler()
    with pytest.raises(InputError, match=f"scheduler: {scheduler.__name__} is not supported"):
        DiffusionPolicy(tiny_pipeline, LoraDiffusionConfig())
    tiny_pipeline.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=scheduler.__name__):
        ImageGenerator(str(tmp_path), device="cpu")


def test_settings_that_a_scheduler_has_no_place_for_are_refused(tiny_pipeline_folder):
    for settings, message in (
        ({"scheduler": "dpm++"}, "expected model or one of ddim, ddpm"),
        ({"scheduler": "euler", "eta": 0.5}, "EulerDiscreteScheduler has none, got 0.5"),
    ):
        with pytest.raises(InputError, match=message):
            drawn(tiny_pipeline_folder, **settings)
    generator = ImageGenerator(str(tiny_pipeline_folder), device="cpu")
    for scheduler, steps, message in (
        ("euler", 1001, "got 1001"),
        ("lcm", 60, "LCMScheduler cannot take 60"),
    ):
        sampler = SamplerSettings(num_inference_steps=steps, scheduler=scheduler)
        with pytest.raises(InputError, match=message):
            generator.generate(PROMPTS, seeds=SEEDS, settings=sampler)
