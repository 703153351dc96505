import pytest
import torch

from imgalign.diffusion.denoising import Denoiser
from imgalign.diffusion.families.sd import StableDiffusion

PROMPTS = ["a red house", "two blue boat and a tree", "the green tree", "a boat"]
SEEDS = [1, 2, 3, 4]


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("guidance_scale", [1.0, 4.0])
def test_images_are_bit_for_bit_those_of_the_pipeline(tiny_pipeline, eta, guidance_scale):
    family = StableDiffusion(tiny_pipeline)
    denoiser = Denoiser(
        family=family, kernel=family.kernel(5, eta=eta), guidance_scale=guidance_scale
    )
    denoised = denoiser.sample(PROMPTS, seeds=SEEDS, latent_shape=(4, 8, 8))
    expected = tiny_pipeline(
        PROMPTS,
        num_inference_steps=5,
        eta=eta,
        guidance_scale=guidance_scale,
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in SEEDS],
        output_type="pt",
    ).images
    assert torch.equal(family.decode(denoised.latents[:, -1]), expected)
    assert (denoised.log_probs == 0).all() == (eta == 0)
