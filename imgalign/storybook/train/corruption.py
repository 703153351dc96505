"""Image augmentations that keep an image readable, and corruptions that make it unreadable.

`augment` adds noise, blur, a shift of light, and what an autoencoder loses. CORRUPTIONS are noise,
scrambled phases, cross-fades, mosaics, shuffled blocks, strong blur, strong and melting warps. All
work on a batch and draw from torch's global generator, as training loops do.

Shapes: b = images of 64x64 pixels in [0, 1]. Sigmas and warps are in pixels.
"""

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, rand, randint, randn
from torch.nn.functional import conv2d, grid_sample, interpolate, pad

from imgalign.storybook.verifier import SIDE

# Augmentations: the image stays readable.


def augment(images: Tensor) -> Tensor:
    """Images with the artefacts of an autoencoder or a diffusion model; still readable."""
    b = len(images)
    gain = 1 + 0.08 * randn(b, 1, 1, 1).clamp(-2, 2) + 0.02 * randn(b, 3, 1, 1).clamp(-2, 2)
    images = (images - 0.5) * gain + 0.5 + 0.03 * randn(b, 1, 1, 1).clamp(-2, 2)
    images = _some(images, 0.25, lambda part: lose_detail(part))
    images = _some(images, 0.2, lambda part: blur(part, float(0.4 + 0.6 * rand(()))))
    images = _some(images, 0.15, lambda part: sharpen(part, float(1.5 * rand(()))))
    images = _some(images, 0.15, lambda part: warp(part, float(0.3 + 0.9 * rand(()))))
    images = images + 0.08 * rand(b, 1, 1, 1).square() * randn(images.shape)
    return images.clamp(0, 1)


def lose_detail(images: Tensor) -> Tensor:
    """Keep few coefficients of each 8x8 block's cosine transform, and perturb them."""
    b = len(images)
    basis = _cosines()
    blocks = images.unfold(2, 8, 8).unfold(3, 8, 8)
    coefficients = torch.einsum("bchwij,ui,vj->bchwuv", blocks, basis, basis)
    frequency = torch.arange(8)[:, None] + torch.arange(8)
    kept = torch.sigmoid((3.5 + 5 * rand(b, 1, 1) - frequency) * 1.5)[:, None, None, None]
    perturbed = 1 + 0.08 * randn(coefficients.shape)
    perturbed[..., 0, 0] = 1  # a tile of another shade would be too easy a sign
    coefficients = coefficients * kept * perturbed
    blocks = torch.einsum("bchwuv,ui,vj->bchwij", coefficients, basis, basis)
    return blocks.permute(0, 1, 2, 4, 3, 5).reshape(images.shape)


def blur(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur, `sigma` in pixels."""
    reach = math.ceil(2.5 * sigma)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma).square())
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    padded = pad(images, (reach,) * 4, mode="replicate")
    return conv2d(conv2d(padded, kernel, groups=3), kernel.transpose(2, 3), groups=3)


def sharpen(images: Tensor, amount: float) -> Tensor:
    """Unsharp mask after a slight blur: soft edges with halos."""
    soft = blur(images, 0.6)
    return soft + amount * (soft - blur(soft, 1.0))


def warp(images: Tensor, strength: float, *, knots: int = 6) -> Tensor:
    """Smooth random displacement of `strength` pixels standard deviation."""
    b = len(images)
    shift = interpolate(
        randn(b, 2, knots, knots), size=(SIDE, SIDE), mode="bicubic", align_corners=True
    )
    steps = torch.linspace(-1, 1, SIDE)
    here = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1)
    there = here + shift.permute(0, 2, 3, 1) * (strength * 2 / SIDE)
    return grid_sample(images, there, padding_mode="border", align_corners=True)


# Corruptions: the image becomes unreadable.


def noise(images: Tensor) -> Tensor:
    """Uniform or Gaussian, white or with some smoothness, of any contrast."""
    white = rand(images.shape) if rand(()) < 0.5 else 0.5 + 0.25 * randn(images.shape)
    coarse = int(2 ** randint(0, 5, ()))
    white = interpolate(white[:, :, : SIDE // coarse, : SIDE // coarse], size=SIDE, mode="bicubic")
    mean = images.mean((2, 3), keepdim=True) if rand(()) < 0.5 else rand(len(images), 3, 1, 1)
    return (mean + (white - 0.5) * (1.5 * rand(len(images), 1, 1, 1))).clamp(0, 1)


def scrambled_phases(images: Tensor) -> Tensor:
    """The amplitudes of the image's spectrum with the phases of noise."""
    phases = torch.fft.rfft2(rand(images.shape[0], 1, SIDE, SIDE)).angle()
    spectrum = torch.fft.rfft2(images)
    mixed = torch.polar(spectrum.abs(), spectrum.angle() + phases * (0.8 + 0.2 * rand(())))
    mixed[:, :, 0, 0] = spectrum[:, :, 0, 0]
    scrambled: Tensor = torch.fft.irfft2(mixed, s=(SIDE, SIDE))
    return scrambled.clamp(0, 1)


def cross_fades(images: Tensor) -> Tensor:
    """Blends of two images."""
    share = 0.35 + 0.3 * rand(len(images), 1, 1, 1)
    return images * share + images.roll(1, 0) * (1 - share)


def strong_blurs(images: Tensor) -> Tensor:
    """Blurred beyond recognition."""
    return blur(images, float(4.0 + 6 * rand(())))


def shuffled_blocks(images: Tensor) -> Tensor:
    """The image's own blocks in a random order, some of them turned."""
    block = (4, 8, 16)[int(randint(0, 3, ()))]
    n = SIDE // block
    blocks = (
        images.unfold(2, block, block).unfold(3, block, block).reshape(-1, 3, n * n, block, block)
    )
    blocks = blocks[:, :, torch.randperm(n * n)]
    if rand(()) < 0.5:
        blocks = blocks.flip(-1).transpose(-1, -2)
    blocks = blocks.reshape(-1, 3, n, n, block, block)
    return blocks.permute(0, 1, 2, 4, 3, 5).reshape(images.shape)


def mosaics(images: Tensor) -> Tensor:
    """Blocks cut from several images and pasted together."""
    block = (4, 8, 16)[int(randint(0, 3, ()))]
    n = SIDE // block
    source = randint(0, min(4, len(images)), (len(images), 1, n, n)).float()
    source = interpolate(source, scale_factor=block, mode="nearest").long()
    stack = torch.stack([images.roll((i, i * 16), (0, 3)) for i in range(min(4, len(images)))])
    return stack.gather(0, source[None].expand(1, -1, 3, -1, -1))[0]


def strong_warps(images: Tensor) -> Tensor:
    """Random warps so strong that no shape survives."""
    return warp(images, float(6 + 4 * rand(())), knots=int(randint(8, 13, ())))


def melted(images: Tensor) -> Tensor:
    """Warped and blurred: like samples of an image model early in training."""
    bent = warp(images, float(4 + 5 * rand(())), knots=int(randint(7, 14, ())))
    return blur(bent, float(0.6 + 1.2 * rand(())))


CORRUPTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "noise": noise,
    "scrambled phases": scrambled_phases,
    "cross-fades": cross_fades,
    "strong blur": strong_blurs,
    "shuffled blocks": shuffled_blocks,
    "mosaics": mosaics,
    "strong warps": strong_warps,
    "melted": melted,
}
HARD_CORRUPTIONS = (cross_fades, strong_warps, melted)
"""Those that resemble readable images most; sampled twice as often."""


def _some(images: Tensor, share: float, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply `change` to about `share` of the batch; always to the same number of images."""
    chosen = torch.randperm(len(images))[: round(share * len(images))]
    changed = images.clone()
    changed[chosen] = change(images[chosen])
    return changed


@cache
def _cosines() -> Tensor:
    """Orthonormal DCT-II of length 8, [frequency position]."""
    basis = torch.cos(math.pi * (torch.arange(8) + 0.5) * torch.arange(8)[:, None] / 8) / 2
    basis[0] /= math.sqrt(2)
    return basis
