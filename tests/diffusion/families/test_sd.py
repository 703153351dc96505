import pytest
import torch
from diffusers import DDIMScheduler, PNDMScheduler
from diffusers.image_processor import VaeImageProcessor

from imgalign.diffusion.families.sd import StableDiffusion
from imgalign.diffusion.families.table import family_of
from imgalign.diffusion.loading import load_pipeline
from imgalign.errors import InputError
from imgalign.images import as_tensor
from imgalign.storybook.drawing import draw_prompt
from imgalign.storybook.scenes import evaluation_prompts


@pytest.fixture
def family(tiny_pipeline) -> StableDiffusion:
    return StableDiffusion(tiny_pipeline)


def test_sizes_are_those_of_the_pipeline(family):
    assert family.image_size() == (16, 16)
    assert family.latent_shape(16, 16) == (4, 8, 8)
    assert family.latent_shape(32, 24) == (4, 12, 16)
    for width, height in ((18, 16), (16, 0), (16, -4)):
        with pytest.raises(InputError, match="expected a multiple of 4 pixels"):
            family.latent_shape(width, height)


def test_embeddings_are_those_of_the_pipeline(family):
    prompts = ["a red house", "two blue boat and a tree", "a red house"]
    embeddings = family.encode(prompts)["prompt_embeds"]
    for prompt, embedding in zip(prompts, embeddings, strict=True):
        expected, _ = family.pipeline.encode_prompt(prompt, family.device, 1, False)
        assert torch.equal(embedding, expected[0])


def test_the_pooled_vector_is_the_one_of_the_end_token(family):
    state = family.encode(["a red house"])["prompt_embeds"][0]
    assert torch.equal(family.pooled(["a red house"])[0], state[4])  # begin, three words, end


def test_a_prompt_that_is_too_long_warns_with_what_is_not_seen(family):
    long = "a red house and a blue tree and the green boat"
    with pytest.warns(UserWarning, match="12 tokens .* 'boat'"):
        family.encode([long])
    assert family.cut_text(long) == "boat"
    assert family.cut_text("a red house and a blue tree and the green") == ""
    assert (family.num_tokens(long), family.max_tokens) == (13, 12)


def test_clipping_and_other_schedulers_of_a_pipeline_do_not_matter(family):
    expected = family.kernel(6, eta=0.0)
    config = family.pipeline.scheduler.config
    for scheduler in (
        PNDMScheduler.from_config(config),
        DDIMScheduler.from_config(config, clip_sample=True),
    ):
        family.pipeline.scheduler = scheduler
        kernel = family.kernel(6, eta=0.0)
        assert torch.equal(kernel.timesteps, expected.timesteps)
        assert torch.equal(kernel.alpha_bar_prev, expected.alpha_bar_prev)


def test_images_become_the_latents_that_the_librarys_own_training_uses(family):
    images = torch.rand(3, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    vae, processor = family.pipeline.vae, VaeImageProcessor(vae_scale_factor=2)
    with torch.no_grad():
        mean = vae.encode(processor.preprocess(images)).latent_dist.mean
    latents = family.encode_images(images)
    torch.testing.assert_close(latents, mean * vae.config.scaling_factor)
    assert latents.shape == (3, *family.latent_shape(width=24, height=16))
    with pytest.raises(InputError, match="height: expected a multiple of 4 pixels, got 18"):
        family.encode_images(torch.rand(1, 3, 18, 16))


def test_the_shipped_autoencoder_gives_back_the_images_that_it_encoded():
    family = family_of(load_pipeline("storybook", device=torch.device("cpu")))
    prompts = evaluation_prompts(4, seed=0)
    images = torch.stack([as_tensor(draw_prompt(prompt, seed=1)) for prompt in prompts])
    decoded = family.decode(family.encode_images(images))
    assert decoded.shape == images.shape
    noise = (decoded - images).square().mean(dim=(1, 2, 3))
    assert (-10 * noise.log10() > 27).all(), "27 dB is an error of 11 in 255"
