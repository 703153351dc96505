import hashlib
import logging
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import diffusers
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from imgalign.config import dump_config
from imgalign.diffusion.config import LoraDiffusionConfig
from imgalign.diffusion.denoising import Denoiser
from imgalign.diffusion.generate import ImageGenerator, generate_pairs
from imgalign.diffusion.policy import DiffusionPolicy
from imgalign.diffusion.schedulers import SCHEDULERS
from imgalign.environment import DType
from imgalign.errors import CheckpointError, InputError
from imgalign.preferences.records import SamplerSettings
from imgalign.runs.folder import model_under, run_of
from imgalign.runs.trained import ADAPTER, find_weights
from imgalign.train.config import TrainConfig

PROMPTS = ["a red house", "two blue boat and a tree", "the green tree"]
SEEDS = [5, 6, 7]
FOUR_STEPS = SamplerSettings(num_inference_steps=4)


@pytest.fixture
def generator(tiny_pipeline_folder: Path) -> ImageGenerator:
    return ImageGenerator(str(tiny_pipeline_folder), device="cpu", dtype="float32")


@pytest.fixture
def adapter(tiny_pipeline, tmp_path: Path) -> Path:
    policy = DiffusionPolicy(tiny_pipeline, LoraDiffusionConfig(lora_alpha=3))  # unlike the rank
    with torch.no_grad():
        for parameter in policy.trainable_parameters():
            parameter.add_(0.05)
    policy.save(tmp_path)
    return tmp_path


def pixels(generated) -> np.ndarray:
    return np.stack([np.asarray(each.image) for each in generated])


def own_pixels(pipe: StableDiffusionPipeline, **settings) -> np.ndarray:
    """What the pipeline itself makes of the same seeds."""
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in SEEDS]
    images = pipe(PROMPTS, generator=generators, num_inference_steps=4, **settings).images
    return np.stack([np.asarray(image) for image in images])


def test_images_are_those_of_the_pipeline_itself(generator, tiny_pipeline):
    settings = SamplerSettings(
        num_inference_steps=4, guidance_scale=3.0, negative_prompt="a boat", width=24
    )
    ours = generator.generate(PROMPTS, seeds=SEEDS, settings=settings)
    expected = own_pixels(
        tiny_pipeline, guidance_scale=3.0, negative_prompt=["a boat"] * 3, width=24, height=16
    )
    assert np.array_equal(pixels(ours), expected)
    assert expected.shape == (3, 16, 24, 3)


def test_images_with_an_adapter_are_those_of_the_pipeline_with_its_lora(
    tiny_pipeline_folder, tiny_pipeline, adapter
):
    with_adapter = ImageGenerator(str(tiny_pipeline_folder), adapter, device="cpu", dtype="float32")
    settings = SamplerSettings(num_inference_steps=4, eta=1.0)
    ours = with_adapter.generate(PROMPTS, seeds=SEEDS, settings=settings)
    fresh = StableDiffusionPipeline.from_pretrained(tiny_pipeline_folder)
    plain = own_pixels(fresh, guidance_scale=1.0, eta=1.0)
    fresh.load_lora_weights(adapter)
    expected = own_pixels(fresh, guidance_scale=1.0, eta=1.0)
    assert np.array_equal(pixels(ours), expected)
    assert not np.array_equal(expected, plain)


@pytest.mark.parametrize("scheduler", ["ddim", "tcd"])
def test_every_setting_reaches_the_sampler_and_the_provenance(generator, tiny_pipeline, scheduler):
    chosen: dict[str, Any] = {"guidance_scale": 3.0, "eta": 0.5, "width": 24, "height": 32}
    settings = SamplerSettings(
        num_inference_steps=4, negative_prompt="a boat", scheduler=scheduler, **chosen
    )
    ours = list(generator.generate(PROMPTS, seeds=SEEDS, settings=settings))
    named = getattr(diffusers, SCHEDULERS[scheduler])
    tiny_pipeline.scheduler = named.from_config(tiny_pipeline.scheduler.config)
    expected = own_pixels(tiny_pipeline, negative_prompt=["a boat"] * 3, **chosen)
    assert np.array_equal(pixels(ours), expected)
    facts = asdict(ours[0].provenance)
    assert facts["steps"] == 4
    assert facts.items() >= (chosen | {"negative_prompt": "a boat", "scheduler": scheduler}).items()


def test_a_seed_starts_from_the_noise_that_the_policy_starts_from(generator, tiny_pipeline):
    policy = DiffusionPolicy(tiny_pipeline, LoraDiffusionConfig(num_inference_steps=4))
    trajectory = policy.sample(PROMPTS, seeds=SEEDS)
    settings = SamplerSettings(num_inference_steps=4, eta=1.0)
    ours = pixels(generator.generate(PROMPTS, seeds=SEEDS, settings=settings))
    expected = (policy.decode(trajectory).permute(0, 2, 3, 1) * 255).round().byte().numpy()
    assert np.array_equal(ours, expected)


def test_provenance_names_everything_that_made_the_image(tiny_pipeline_folder, adapter):
    model = str(tiny_pipeline_folder)
    with_adapter = ImageGenerator(model, adapter, device="cpu")
    settings = SamplerSettings(num_inference_steps=3, eta=0.5)
    (image,) = with_adapter.generate(["a boat"], seeds=[9], settings=settings)
    provenance = image.provenance
    digest = hashlib.sha256((adapter / "pytorch_lora_weights.safetensors").read_bytes())
    assert provenance.model == model
    assert provenance.adapter == str(adapter)
    assert provenance.adapter_hash == digest.hexdigest()
    assert (provenance.prompt, provenance.negative_prompt) == ("a boat", "")
    assert (provenance.seed, provenance.steps, provenance.eta) == (9, 3, 0.5)
    assert (provenance.guidance_scale, provenance.scheduler) == (1.0, "ddim")
    assert (provenance.width, provenance.height) == image.image.size == (16, 16)
    the_same = ImageGenerator(
        provenance.model,
        Path(provenance.adapter),
        device="cpu",
        dtype=cast(DType, provenance.dtype),
    )
    (again,) = the_same.generate(
        [provenance.prompt],
        seeds=[provenance.seed],
        settings=SamplerSettings(
            num_inference_steps=provenance.steps,
            guidance_scale=provenance.guidance_scale,
            eta=provenance.eta,
            scheduler=provenance.scheduler,
        ),
    )
    assert again.image.tobytes() == image.image.tobytes()


def test_a_prompt_and_its_rewrite_are_drawn_from_the_same_seed(generator):
    rewrites = ["a red house and a tree", PROMPTS[1], "the green house"]
    pairs = list(
        generate_pairs(
            generator, PROMPTS, rewrites, rewriter="storybook", seeds=SEEDS, settings=FOUR_STEPS
        )
    )
    for side, texts in enumerate((PROMPTS, rewrites)):
        alone = list(generator.generate(texts, seeds=SEEDS, settings=FOUR_STEPS))
        assert np.abs(pixels(pair[side] for pair in pairs) - 1.0 * pixels(alone)).max() <= 1
    made = [[each.provenance for each in pair] for pair in pairs]
    assert [[each.seed for each in pair] for pair in made] == [[5, 5], [6, 6], [7, 7]]
    assert [plain.original_prompt for plain, _ in made] == [None] * 3
    assert [(each.prompt, each.original_prompt, each.rewriter) for _, each in made] == [
        (rewrites[0], PROMPTS[0], "storybook"),
        (PROMPTS[1], None, None),
        (rewrites[2], PROMPTS[2], "storybook"),
    ]
    assert pairs[1][0] is pairs[1][1]


def test_images_come_as_batches_finish_and_progress_reaches_1(generator):
    generator.largest_batch = 2
    shares = []
    images = generator.generate(
        PROMPTS, seeds=SEEDS, settings=FOUR_STEPS, on_progress=shares.append
    )
    assert shares == []
    next(images)
    assert shares == pytest.approx([2 / 12, 4 / 12, 6 / 12, 8 / 12])
    assert len(list(images)) == 2
    assert shares[4:] == pytest.approx([9 / 12, 10 / 12, 11 / 12, 1])


def test_batches_shrink_until_they_fit_into_memory(generator, tiny_pipeline):
    sizes = []

    def little_memory(_, args):
        sizes.append(len(args[0]))
        if len(args[0]) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")

    hook = generator.family.network.register_forward_pre_hook(little_memory)
    images = list(generator.generate(PROMPTS, seeds=SEEDS, settings=FOUR_STEPS))
    assert sizes == [3] + [1] * 12
    assert [each.provenance.seed for each in images] == SEEDS
    expected = own_pixels(tiny_pipeline, guidance_scale=1.0).astype(int)
    assert np.abs(pixels(images).astype(int) - expected).max() <= 1
    hook.remove()

    def no_memory(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    generator.family.network.register_forward_pre_hook(no_memory)
    with pytest.raises(InputError, match="does not fit into the device's memory"):
        list(generator.generate(PROMPTS, seeds=SEEDS, settings=FOUR_STEPS))


def test_a_prompt_that_is_too_long_warns_and_the_image_says_what_was_cut(
    generator, caplog, monkeypatch
):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    prompts = ["a red house and a blue tree and the green boat a red house", "a boat"]
    with pytest.warns(UserWarning, match="does not see the end here: 'boat a red house'"):
        images = list(generator.generate(prompts, seeds=[1, 2], settings=FOUR_STEPS))
    assert [image.unread for image in images] == ["boat a red house", ""]
    # transformers' own warning says that a long prompt leads to errors.
    assert not [each for each in caplog.records if each.name.startswith("transformers")]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_inference_steps": 2000}, "num_inference_steps: expected 1 to 1000, got 2000"),
        ({"width": 18}, "multiple of 4 pixels, got 18"),
        ({"height": 18}, "multiple of 4 pixels, got 18"),
    ],
)
def test_settings_that_a_model_cannot_do_are_refused_before_the_first_image(
    generator, settings, message
):
    with pytest.raises(InputError, match=message):
        generator.generate(PROMPTS, seeds=SEEDS, settings=SamplerSettings(**settings))


@pytest.mark.parametrize(
    ("prompts", "seeds", "message"),
    [
        (["a", "", "a"], SEEDS, "number 2 of 3 is empty"),
        (PROMPTS, [1], "got 1 for 3"),
        (PROMPTS, [1, -2, 3], "got -2"),
    ],
)
def test_wrong_prompts_and_seeds_are_refused_before_the_first_image(
    generator, prompts, seeds, message
):
    with pytest.raises(InputError, match=message):
        generator.generate(prompts, seeds=seeds, settings=FOUR_STEPS)


def test_an_adapter_that_is_not_there_or_does_not_fit_is_refused(
    tiny_pipeline_folder, adapter, tmp_path
):
    model = str(tiny_pipeline_folder)
    with pytest.raises(CheckpointError, match="no such folder"):
        ImageGenerator(model, tmp_path / "absent", device="cpu")
    weights = adapter / "pytorch_lora_weights.safetensors"
    weights.write_bytes(b"torn")
    with pytest.raises(CheckpointError, match="cannot use this adapter"):
        ImageGenerator(model, adapter, device="cpu")


@pytest.mark.parametrize(
    ("latent", "expected"),
    [
        ((4, 8, 8), 32),  # as many as there may be at all
        ((4, 64, 64), 8),
        ((4, 128, 128), 2),
        ((4, 512, 512), 1),  # more than the budget, and still one
    ],
)
def test_small_latents_go_through_in_large_batches_and_large_ones_in_small(
    generator, monkeypatch, latent, expected
):
    sizes = []

    class EnoughError(Exception):
        """Knowing the size of the batch, there is no need to denoise it."""

    def note(self, prompts, **settings):
        sizes.append(len(prompts))
        raise EnoughError

    monkeypatch.setattr(Denoiser, "sample", note)
    monkeypatch.setattr(generator.family, "latent_shape", lambda width, height: latent)
    images = generator.generate(["a boat"] * 40, seeds=range(40), settings=FOUR_STEPS)
    with pytest.raises(EnoughError):
        next(images)
    assert sizes == [expected]


def test_the_model_under_an_adapter_is_what_its_run_was_trained_on(tmp_path, adapter):
    assert model_under(None) == "storybook"
    assert model_under(adapter) == "storybook"  # from elsewhere: nobody knows
    run = tmp_path / "run"
    shutil.copytree(adapter, run / "step-000004", ignore=shutil.ignore_patterns("run"))
    dump_config(TrainConfig(policy=LoraDiffusionConfig(model="some/model")), run / "config.yaml")
    (run / "metrics.jsonl").touch()
    for path in (run / "step-000004", run / "step-000004" / ADAPTER):
        assert model_under(path) == "some/model"
        assert run_of(find_weights(path)) == run
