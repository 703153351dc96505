"""How far our denoising step is from the library's own, on a model's own schedule."""

import torch

from imgalign.diffusion.denoising import Denoiser


def noiseless_difference(
    denoiser: Denoiser, latent_shape: tuple[int, int, int], *, num_images: int = 2
) -> float:
    """Largest difference of a latent after one step at eta 0, over all steps; 0 is equality.

    Both get the same random latents and, in the network's place, the same random output, so that
    nothing but the step itself is compared.
    """
    kernel = denoiser.kernel.deterministic()
    scheduler = denoiser.family.scheduler_of_kernel()
    scheduler.set_timesteps(len(kernel), device=denoiser.family.device)
    generator = torch.Generator("cpu").manual_seed(0)
    shape = (num_images, *latent_shape)
    latents = torch.randn(shape, generator=generator).to(denoiser.family.device)
    output = torch.randn(shape, generator=generator).to(denoiser.family.device)
    largest = 0.0
    for step, timestep in enumerate(scheduler.timesteps):
        index = torch.full((num_images,), step, device=latents.device)
        mean, _ = kernel.step(output, latents, index)
        expected = scheduler.step(output, timestep, latents).prev_sample
        largest = max(largest, (mean - expected).abs().max().item())
    return largest
