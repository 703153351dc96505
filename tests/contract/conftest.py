from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
from algorithms import GIVEN
from batches import PROMPTS, Batch, batch_of, demonstrations_of, rankings_of
from PIL import Image
from policies import Models, write_language_models

MakeBatch: TypeAlias = Callable[..., Any]
"""From a policy, a number of `images` and that of the `first` the batch of a row of the table."""


@pytest.fixture(scope="session")
def models(tiny_pipeline_folder, tmp_path_factory) -> Models:
    """Folders of tiny models with random weights; leave them as they are."""
    language = write_language_models(tmp_path_factory.mktemp("language"))
    return {"pipeline": tiny_pipeline_folder, **language}


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
        return demonstrations_of(policy, folder, images=images, first=first)

    return made
