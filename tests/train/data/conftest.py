import pytest
import torch
from tiny_language import write_language_model

from imgalign.language.config import LoraLanguageConfig
from imgalign.language.loading import load_language_model
from imgalign.language.policy import LanguagePolicy


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> LanguagePolicy:
    """A tiny one, which reads and writes any bytes."""
    folder = write_language_model(tmp_path_factory.mktemp("language") / "llama", "llama")
    loaded = load_language_model(str(folder), device=torch.device("cpu"))
    return LanguagePolicy(loaded, LoraLanguageConfig(max_new_tokens=24))
