from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
from algorithms import GIVEN
from batches import PROMPTS, Batch, batch_of, rankings_of
from PIL import Image

from imgalign.prompts import Prompts
from imgalign.train.data.images import ImagesConfig
from imgalign.train.data.source import Parts
from imgalign.train.world import Alone

MakeBatch: TypeAlias = Callable[..., Any]
"""From a policy, a number of `images` and that of the `first` the batch of a row of the table."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Eight images of two prompts."""
    out, generator = tmp_path_factory.mktemp("given"), torch.Generator().manual_seed(0)
    for number in range(8):
        pixels = torch.randint(256, (16, 16, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(out / f"{number}.png")
        (out / f"{number}.txt").write_text(PROMPTS[number % 2])
    return out


@pytest.fixture
def make_batch(name, folder) -> MakeBatch:
    """Makes batches for the row of the table, from its source of data."""

    def made(policy: Any, *, images: int = 8, first: int = 0) -> Batch:
        if name not in GIVEN:
            return batch_of(policy, images=images, first=first)
        if name == "dpo, given rankings":
            return rankings_of(policy, folder, images=images)
        config = ImagesConfig(folder=folder, images_per_iteration=images)
        none = Prompts((), ())
        source = config.build(
            Parts(policy=policy, reward=None, prompts=none, run=folder, seed=0, world=Alone())
        )
        return source.batch(first // images)

    return made
