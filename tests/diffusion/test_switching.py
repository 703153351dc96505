"""One loaded model whose weights are switched makes the images of models loaded one by one."""

import math

import numpy as np
import pytest
import torch
from adapter_runs import make_full_run
from diffusers import StableDiffusionPipeline
from lora_files import ATTENTION, TEXT, diffusers, kohya, random_matrices, write

from imgalign.diffusion.generate import ImageGenerator
from imgalign.errors import CheckpointError, InputError
from imgalign.preferences.records import SamplerSettings

PROMPTS, SEEDS = ["a red house", "two blue boat"], [5, 6]
THREE_STEPS = SamplerSettings(num_inference_steps=3)


@pytest.fixture
def adapters(tiny_pipeline, tiny_pipeline_folder, tmp_path):
    """None; an adapter of the network; one of other layers, of the text encoder too; and two
    checkpoints of all weights."""
    unet, text = tiny_pipeline.unet, tiny_pipeline.text_encoder
    own = write(tmp_path / "own.safetensors", diffusers(random_matrices(unet, ATTENTION)))
    other = write(
        tmp_path / "other.safetensors",
        kohya(random_matrices(unet, ("to_k",), rank=3), random_matrices(text, TEXT)),
    )
    run = make_full_run(tmp_path / "run", tiny_pipeline_folder, steps=(1, 2))
    whole = {"full": run / "step-000001", "later": run / "step-000002"}
    return {"base": None, "own": own, "other": other, **whole}


def load(tiny_pipeline_folder, adapter=None):
    return ImageGenerator(str(tiny_pipeline_folder), adapter, device="cpu", dtype="float32")


def made_by(generator):
    return list(generator.generate(PROMPTS, seeds=SEEDS, settings=THREE_STEPS))


def pixels(made):
    return np.stack([np.asarray(each.image) for each in made])


@pytest.mark.parametrize(
    "order",
    [
        ("base", "own", "base"),
        ("own", "base", "own"),
        ("own", "other", "base", "other", "own"),
        ("full", "base", "full", "later", "base"),
        ("own", "full", "other", "later", "full", "own", "base"),
    ],
)
def test_switching_makes_the_pixels_of_separately_loaded_models(
    tiny_pipeline_folder, adapters, order
):
    apart = {
        name: pixels(made_by(load(tiny_pipeline_folder, adapters[name]))) for name in set(order)
    }
    assert len({each.tobytes() for each in apart.values()}) == len(apart)
    generator = load(tiny_pipeline_folder, adapters[order[0]])
    for name in order:
        generator.use(adapters[name])
        made = made_by(generator)
        assert np.array_equal(pixels(made), apart[name]), f"{name} in {order}"
        named = made[0].provenance.adapter
        assert named == (None if adapters[name] is None else str(adapters[name]))
        assert (made[0].provenance.adapter_hash is None) == (named is None)


def test_an_adapter_that_does_not_fit_changes_nothing(tiny_pipeline_folder, adapters, tmp_path):
    generator = load(tiny_pipeline_folder, adapters["own"])
    before = made_by(generator)
    bad = write(tmp_path / "bad.safetensors", {"unet.nothing.lora_A.weight": torch.ones(2, 4)})
    for wrong in (bad, tmp_path / "missing"):
        with pytest.raises(CheckpointError):
            generator.use(wrong)
        after = made_by(generator)
        assert np.array_equal(pixels(after), pixels(before))
        assert after[0].provenance.adapter_hash == before[0].provenance.adapter_hash


def test_full_weights_that_do_not_fit_change_nothing(tiny_pipeline_folder, adapters, tmp_path):
    bad = tmp_path / "bad"
    (bad / "unet").mkdir(parents=True)
    write(bad / "unet" / "diffusion_pytorch_model.safetensors", {"conv_in.bias": torch.ones(16)})
    for before in ("own", "full"):
        generator = load(tiny_pipeline_folder, adapters[before])
        expected = made_by(generator)
        with pytest.raises(CheckpointError, match="do not fit this model"):
            generator.use(bad)
        after = made_by(generator)
        assert np.array_equal(pixels(after), pixels(expected))
        assert after[0].provenance.adapter_hash == expected[0].provenance.adapter_hash


def test_images_asked_for_before_a_switch_are_never_made_with_the_adapter_after_it(
    tiny_pipeline_folder, adapters
):
    generator = load(tiny_pipeline_folder)
    waiting = generator.generate(PROMPTS, seeds=SEEDS, settings=THREE_STEPS)
    generator.use(adapters["own"])
    with pytest.raises(InputError, match="switched before all images of an earlier call were made"):
        next(waiting)


def test_at_strength_0_it_is_the_base_at_1_the_adapter_and_between_what_diffusers_makes(
    tiny_pipeline_folder, adapters
):
    generator = load(tiny_pipeline_folder)
    base = made_by(generator)
    generator.use(adapters["own"])
    full = made_by(generator)
    found = {}
    for strength in (0.0, 0.5, 1.0, 2.0):
        generator.use(adapters["own"], strength=strength)
        found[strength] = made_by(generator)
    assert np.array_equal(pixels(found[0.0]), pixels(base))
    assert np.array_equal(pixels(found[1.0]), pixels(full))
    for strength in (0.5, 2.0):
        pipe = StableDiffusionPipeline.from_pretrained(tiny_pipeline_folder)
        pipe.load_lora_weights(adapters["own"].parent, weight_name="own.safetensors")
        pipe.set_adapters(pipe.get_active_adapters(), strength)
        noise = [torch.Generator("cpu").manual_seed(seed) for seed in SEEDS]
        own = pipe(PROMPTS, generator=noise, num_inference_steps=3, guidance_scale=1.0).images
        assert np.array_equal(pixels(found[strength]), np.stack([np.asarray(i) for i in own]))
    assert len({pixels(each).tobytes() for each in found.values()}) == 4
    told = [made[0].provenance for made in found.values()]
    assert [each.strength for each in told] == [1.0, 0.5, 1.0, 2.0]
    assert [each.adapter is None for each in told] == [True, False, False, False]


@pytest.mark.parametrize(
    ("name", "strength", "message"),
    [
        ("full", 0.5, "strength: expected 1, got 0.5: .*step-000001 has all weights"),
        ("full", 0.0, "strength: expected 1, got 0: "),
        ("base", 0.5, "strength: without effect without an adapter; name one"),
        ("own", -0.1, "strength: expected 0 to 2, got -0.1"),
        ("own", 2.1, "strength: expected 0 to 2, got 2.1"),
        ("own", math.nan, "strength: expected 0 to 2, got nan"),
    ],
)
def test_a_strength_that_has_no_meaning_is_refused_and_changes_nothing(
    tiny_pipeline_folder, adapters, name, strength, message
):
    generator = load(tiny_pipeline_folder, adapters["own"])
    before = made_by(generator)
    with pytest.raises(InputError, match=message):
        generator.use(adapters[name], strength=strength)
    assert np.array_equal(pixels(made_by(generator)), pixels(before))
    with pytest.raises(InputError, match=message):
        ImageGenerator("no/such/model", adapters[name], strength=strength)


def test_images_asked_for_at_one_strength_are_not_made_at_another(tiny_pipeline_folder, adapters):
    generator = load(tiny_pipeline_folder, adapters["own"])
    waiting = generator.generate(PROMPTS, seeds=SEEDS, settings=THREE_STEPS)
    generator.use(adapters["own"], strength=0.5)
    with pytest.raises(InputError, match="switched before all images of an earlier call were made"):
        next(waiting)
