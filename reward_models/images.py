"""Images at the border: files to tensors in [0, 1] and back; imgalign/images.py decodes."""

import io
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from imgalign.images import as_tensor, read_image_file


def read_image(path: Path) -> Float[Tensor, "3 h w"]:
    """The pixels of an image file in [0, 1], by the rules of imgalign/images.py."""
    return as_tensor(read_image_file(path))


def encode_image(image: Float[Tensor, "3 h w"]) -> bytes:
    """The PNG of an image in [0, 1], rounded to 8 bits."""
    pixels = (image.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(buffer, format="PNG")
    return buffer.getvalue()
