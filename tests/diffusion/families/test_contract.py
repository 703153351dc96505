"""What every family must do, tried on a tiny pipeline with random weights of each."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from imgalign.diffusion.denoising import Denoiser
from imgalign.diffusion.families import backbone
from imgalign.diffusion.families.backbone import Family
from imgalign.diffusion.families.table import FAMILIES, family_of
from imgalign.diffusion.kernels import Kernel
from imgalign.diffusion.loading import load_pipeline
from imgalign.diffusion.parity import noiseless_difference
from imgalign.errors import InputError

TINY = {"StableDiffusionPipeline": "tiny_pipeline"}
"""Fixtures by the name in FAMILIES; a new family adds its own to conftest.py."""

PROMPTS = ["a red house", "two blue boat and a tree", "a red house", "the green tree"]


@pytest.fixture(params=FAMILIES)
def family(request) -> Family:
    assert request.param in TINY, f"name a fixture of a tiny {request.param} in TINY"
    return family_of(request.getfixturevalue(TINY[request.param]))


def rows(family: Family, count: int) -> torch.Tensor:
    shape = family.latent_shape(*family.image_size())
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))


def test_every_part_is_frozen_and_in_evaluation_mode(family):
    parts = [each for each in family.pipeline.components.values() if isinstance(each, nn.Module)]
    assert list(family.parts.values()) == parts
    assert family.network in parts
    assert family.parts.items() >= {each.name: each.network for each in family.adaptable}.items()
    assert family.network in [each.network for each in family.adaptable]
    for part in parts:
        assert not any(parameter.requires_grad for parameter in part.parameters())
        assert not any(module.training for module in part.modules())


def test_kohyas_header_names_its_version_and_what_it_predicts(family):
    facts = family.kohya_facts()
    assert facts.keys() == {
        *("ss_v2", "ss_base_model_version"),
        *("modelspec.architecture", "modelspec.prediction_type"),
    }
    assert facts["modelspec.architecture"].endswith("/lora")
    assert facts["modelspec.prediction_type"] in ("epsilon", "v")


def test_conditions_have_a_row_for_each_prompt_which_is_computed_once(family, monkeypatch):
    calls = []
    encode = family.encode_prompt
    monkeypatch.setattr(family, "encode_prompt", lambda text: calls.append(text) or encode(text))
    together = family.encode(PROMPTS)
    assert calls == [PROMPTS[0], PROMPTS[1], PROMPTS[3]]
    for index, prompt in enumerate(PROMPTS):
        alone = family.encode([prompt])
        assert alone.keys() == together.keys()
        for name, condition in alone.items():
            assert torch.equal(condition, together[name][[index]])
            assert not condition.requires_grad
    assert family.pooled(PROMPTS).shape[0] == 4
    assert len(calls) == 3


def test_conditions_of_old_prompts_are_dropped(family, monkeypatch):
    monkeypatch.setattr(backbone, "ENCODED_PROMPTS", 2)
    calls = []
    encode = family.encode_prompt
    monkeypatch.setattr(family, "encode_prompt", lambda text: calls.append(text) or encode(text))
    family.encode(["a", "the", "a", "two", "a"])
    assert calls == ["a", "the", "two"]
    family.encode(["the"])
    assert calls[3:] == ["the"]


def test_guidance_goes_from_the_negative_prompt_through_the_prompt_in_proportion(family):
    latents = rows(family, 2)
    timesteps = family.kernel(5, eta=0.0).timesteps[:2]

    @torch.no_grad()
    def predict(prompts, **guidance):
        return family.predict(latents, timesteps, family.encode(prompts), **guidance)

    with_prompt, without = predict(PROMPTS[:2]), predict(["a boat", "a boat"])
    for scale in (0.0, 1.0, 3.0):
        guided = predict(PROMPTS[:2], negative=family.encode(["a boat"]), guidance_scale=scale)
        expected = without + scale * (with_prompt - without)
        # Twice as many rows in one pass add up in another order.
        assert_close(guided, expected, rtol=1e-3, atol=1e-5)
    assert guided.dtype == torch.float32


def test_its_kernel_counts_its_steps_and_starts_where_the_noise_is_greatest(family):
    kernel = family.kernel(5, eta=1.0)
    assert isinstance(kernel, Kernel)
    assert len(kernel) == len(kernel.timesteps) == len(kernel.mask) == 5
    assert (kernel.timesteps.diff() < 0).all()
    assert kernel.mask[:-1].all(), "only a last step may be deterministic at eta 1"
    assert not family.kernel(5, eta=0.0).mask.any()


def test_images_and_latents_become_each_other_with_gradients(family):
    latents = rows(family, 2).requires_grad_()
    images = family.decode(latents)
    width, height = family.image_size()
    assert images.shape == (2, 3, height, width)
    assert images.min() >= 0
    assert images.max() <= 1
    again = family.encode_images(images)
    assert again.shape == latents.shape
    assert again.dtype == images.dtype == torch.float32
    (gradient,) = torch.autograd.grad(again.sum(), latents)
    assert gradient.abs().sum() > 0


def test_a_folder_that_the_library_wrote_loads_with_equal_parts(family, tmp_path):
    family.pipeline.save_pretrained(tmp_path)
    loaded = family_of(load_pipeline(str(tmp_path), device=torch.device("cpu")))
    assert type(loaded) is type(family)
    assert loaded.parts.keys() == family.parts.keys()
    assert loaded.parts.keys() <= family.classes.keys()
    for name, part in family.parts.items():
        weights = loaded.parts[name].state_dict()
        assert weights.keys() == part.state_dict().keys()
        assert all(torch.equal(weights[key], each) for key, each in part.state_dict().items())


def test_a_part_without_which_nothing_is_made_may_not_be_missing(family, tmp_path):
    family.pipeline.save_pretrained(tmp_path)
    for name in family.classes:
        (tmp_path / name).rename(tmp_path / "elsewhere")
        with pytest.raises(InputError, match=f"lacks its part {name}/"):
            load_pipeline(str(tmp_path), device=torch.device("cpu"))
        (tmp_path / "elsewhere").rename(tmp_path / name)


def test_every_part_is_tried_out_before_it_is_used(family):
    family.try_out(Path("model"))
    for name, part in family.parts.items():
        weights = {key: each.clone() for key, each in part.state_dict().items()}
        for each in part.parameters():
            each.fill_(torch.nan)
        said = name if name in (family.network_name, "vae") else "text_encoder"
        with pytest.raises(InputError, match=f"model: its {said} gave numbers that are not finite"):
            family.try_out(Path("model"))
        part.load_state_dict(weights)
    family.try_out(Path("model"))


def test_its_deterministic_steps_are_those_of_the_librarys_scheduler(family):
    denoiser = Denoiser(family=family, kernel=family.kernel(5, eta=1.0))
    shape = family.latent_shape(*family.image_size())
    assert noiseless_difference(denoiser, shape) < 1e-5
