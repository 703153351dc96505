from functools import partial
from pathlib import Path

import pytest
from batches import batch_for, write_given_images
from contract_rows import MakeBatch
from policies import Models, write_language_models


@pytest.fixture(scope="session")
def models(tiny_pipeline_folder, tmp_path_factory) -> Models:
    """Folders of tiny models with random weights; leave them as they are."""
    language = write_language_models(tmp_path_factory.mktemp("language"))
    return {"pipeline": tiny_pipeline_folder, **language}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Eight images of two prompts."""
    return write_given_images(tmp_path_factory.mktemp("given"))


@pytest.fixture
def make_batch(name, folder) -> MakeBatch:
    """Makes batches for the row of the table, from its source of data."""

    return partial(batch_for, name, folder)
