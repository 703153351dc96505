"""One loaded model whose weights are switched makes the images of models loaded one by one."""

import numpy as np
import pytest
import torch
from adapter_runs import make_full_run
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
