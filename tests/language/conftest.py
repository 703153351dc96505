import pytest
from policies import write_language_models
from tiny_language import KINDS, write_language_model


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """A folder of each kind of model, with the plain tokenizer."""
    place = tmp_path_factory.mktemp("language")
    return {kind: write_language_model(place / kind, kind) for kind in KINDS}


@pytest.fixture(scope="session")
def talkers(tmp_path_factory):
    """Models in whose texts of a few letters each token depends on those before it."""
    return write_language_models(tmp_path_factory.mktemp("talkers"))
