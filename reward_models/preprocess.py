"""Differentiable image preprocessing in tensors, equal to open_clip's own, which uses PIL.

Left out: anything random, and reading files (imgalign/images.py).

Shapes: b images of any h and w become b images of the contract's size. Units: [0, 1] in, mean and
standard deviation of the towers' training data out.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import functional as transforms

from reward_models.contract import Preprocess


def preprocess_images(
    samples: Float[Tensor, "b 3 h w"], rule: Preprocess
) -> Float[Tensor, "b 3 height width"]:
    """Resize, crop or pad, and normalise images for the image tower.

    Differs from the PIL path by PIL's rounding to 8 bits after each resize, under 1/255 a pixel.
    """
    framed = _frame(samples, rule)
    mean = torch.tensor(rule.mean, device=framed.device).view(3, 1, 1)
    std = torch.tensor(rule.std, device=framed.device).view(3, 1, 1)
    return (framed - mean) / std


def _frame(samples: Tensor, rule: Preprocess) -> Tensor:
    height, width = rule.image_size
    h, w = samples.shape[-2:]
    if (h, w) == (height, width):
        return samples
    if rule.resize_mode == "squash":
        return _resize(samples, (height, width), rule)
    if rule.resize_mode == "longest":
        ratio = max(h / height, w / width)
        resized = _resize(samples, (round(h / ratio), round(w / ratio)), rule)
        return _pad(resized, rule)
    if height == width:  # open_clip rounds the longer side down here, and to nearest below
        short = min(h, w)
        size = (height, int(height * w / h)) if h == short else (int(width * h / w), width)
        resized = _resize(samples, size, rule)
    else:
        ratio = min(h / height, w / width)
        # open_clip ignores the interpolation of its config for frames that are not square.
        bicubic = rule.model_copy(update={"interpolation": "bicubic"})
        resized = _resize(samples, (round(h / ratio), round(w / ratio)), bicubic)
    cropped: Tensor = transforms.center_crop(resized, [height, width])
    return cropped


def _resize(samples: Tensor, size: tuple[int, int], rule: Preprocess) -> Tensor:
    # As PIL does: across, then down, each time cutting off the overshoot of the bicubic filter.
    for shape in ((samples.shape[-2], size[1]), size):
        if samples.shape[-2:] != shape:
            samples = F.interpolate(
                samples, shape, mode=rule.interpolation, antialias=rule.antialias
            ).clamp(0, 1)
    return samples


def _pad(samples: Tensor, rule: Preprocess) -> Tensor:
    height, width = rule.image_size
    down, across = height - samples.shape[-2], width - samples.shape[-1]
    border = [across // 2, down // 2, (across + 1) // 2, (down + 1) // 2]
    padded: Tensor = transforms.pad(samples, border, fill=rule.fill)
    return padded
