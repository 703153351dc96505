"""Images at the border: files to tensors in [0, 1] and back."""

import io
import warnings
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from imgalign.errors import InputError


def read_image(path: Path) -> Float[Tensor, "3 h w"]:
    """The pixels of an image file in [0, 1], transparency on white; InputError if unreadable."""
    try:
        return decode_image(path.read_bytes())
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such image") from error
    except IsADirectoryError as error:
        raise InputError(f"{path}: expected an image, got a folder") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def decode_image(content: bytes) -> Float[Tensor, "3 h w"]:
    """The pixels of an encoded image in [0, 1], transparency on white."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content)) as image:
                image.load()
                opaque = _flatten(image)
    except UnidentifiedImageError:  # whose message is the address of an object
        raise InputError("not a readable image (of no known format); restore the file") from None
    except (OSError, SyntaxError) as error:
        raise InputError(f"not a readable image ({error}); restore the file") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise InputError(f"image too large ({error})") from error
    pixels = np.asarray(opaque, dtype=np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def encode_image(image: Float[Tensor, "3 h w"]) -> bytes:
    """The PNG of an image in [0, 1], rounded to 8 bits."""
    pixels = (image.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(buffer, format="PNG")
    return buffer.getvalue()


def _flatten(image: Image.Image) -> Image.Image:
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
