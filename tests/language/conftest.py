import pytest
from tiny_language import KINDS, write_language_model


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """A folder of each kind of model, with the plain tokenizer."""
    place = tmp_path_factory.mktemp("language")
    return {kind: write_language_model(place / kind, kind) for kind in KINDS}
