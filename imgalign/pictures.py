"""Pictures on their way out: files with their provenance, and pixels as tensors.

Images are float tensors `3 h w` in [0, 1] inside; PIL only here, at the border.
"""

import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from imgalign.generate import Generated


def png(image: Image.Image) -> bytes:
    """The image as a PNG file, pixel for pixel."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def as_tensor(image: Image.Image) -> Float[Tensor, "3 h w"]:
    """Pixels in [0, 1]."""
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1)


def save_images(images: Iterable[Generated], folder: Path) -> Iterator[Path]:
    """Write each image as `<number>-<seed>.png` with its provenance beside it, and give its path.

    Numbers go on after those already in the folder, so that nothing is overwritten.
    """
    folder.mkdir(parents=True, exist_ok=True)
    number = 1 + max((int(path.stem.split("-")[0]) for path in folder.glob("0*-*.png")), default=-1)
    for image in images:
        path = folder / f"{number:05d}-{image.provenance.seed}.png"
        path.write_bytes(png(image.image))
        facts = json.dumps(asdict(image.provenance), default=str, indent=2)
        path.with_suffix(".json").write_text(f"{facts}\n", encoding="utf-8")
        number += 1
        yield path
