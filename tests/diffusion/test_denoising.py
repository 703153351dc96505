import torch
from torch.testing import assert_close

from imgalign.diffusion.denoising import Denoiser
from imgalign.diffusion.families import StableDiffusion

PROMPTS = ["a red house", "two blue boat and a tree", "the green tree", "a boat"]


def test_images_equal_those_of_the_pipeline(tiny_pipeline):
    family = StableDiffusion(tiny_pipeline)
    for eta in (0.0, 1.0):
        for scale in (1.0, 4.0):
            d = Denoiser(family=family, schedule=family.schedule(5), eta=eta, guidance_scale=scale)
            path = d.sample(PROMPTS, seeds=[1, 2, 3, 4], latent_shape=(4, 8, 8))
            ours = family.decode(path.latents[:, -1])
            gens = [torch.Generator("cpu").manual_seed(s) for s in [1, 2, 3, 4]]
            theirs = tiny_pipeline(
                PROMPTS,
                num_inference_steps=5,
                eta=eta,
                guidance_scale=scale,
                generator=gens,
                output_type="pt",
            ).images
            assert_close(ours, theirs)
