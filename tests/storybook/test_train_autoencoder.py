"""Training of the storybook's autoencoder on a folder of few images."""

import numpy as np
import torch
from torch.testing import assert_close

from imgalign.storybook.train.autoencoder import batch_images, load_autoencoder, train_autoencoder
from imgalign.storybook.train.data import draw_images, load_images


def test_latents_of_all_images_have_mean_0_and_variance_1_where_there_are_few(tmp_path):
    draw_images(tmp_path / "data", num_images=20, seed=0)
    train_autoencoder(
        tmp_path / "data",
        tmp_path / "out",
        num_samples=4,
        learning_rate=1e-3,
        decoder_only=False,
        batch=2,
    )
    vae = load_autoencoder(tmp_path / "out" / "vae")
    images = batch_images(load_images(tmp_path / "data"), np.arange(20))
    with torch.no_grad():
        latents = vae.encode(images).latent_dist.mean
    assert_close(latents.mean((0, 2, 3)), torch.zeros(8), rtol=0, atol=1e-3)
    assert_close(latents.std((0, 2, 3)), torch.ones(8), rtol=0, atol=1e-3)
