"""Claims: a model is itself under every name that it has here, and another model is not; names for
others show no folder of this machine."""

from pathlib import Path

import pytest

from imgalign.diffusion.model_names import STORYBOOK, same_model
from imgalign.runs.model_names import public_name


@pytest.fixture
def models(tmp_path, monkeypatch) -> Path:
    """The working folder, in which there are two folders of models and a link to the first."""
    for name in ("one", "two"):
        (tmp_path / "models" / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "models" / "one")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder_is_one_model_however_it_is_written(models, monkeypatch):
    monkeypatch.setenv("HOME", str(models))
    names = ["models/one", "./models/../models/one/", str(models / "models" / "one"), "link"]
    for name in [*names, "~/models/one"]:
        assert same_model(name, "models/one"), name
        assert same_model("models/one", name), name
        assert not same_model(name, "models/two"), name


def test_the_shipped_model_is_its_alias_and_its_folder_and_no_other(models):
    assert same_model("storybook", str(STORYBOOK))
    assert same_model("storybook", "storybook")
    assert not same_model("storybook", "owner/storybook")
    assert not same_model("storybook", "models/one")


def test_a_model_of_the_hub_is_its_folder_in_the_hubs_cache(models):
    snapshot = models / "cache" / "models--owner--sd-1.5" / "snapshots" / "0a1b"
    snapshot.mkdir(parents=True)
    assert same_model(str(snapshot), "owner/sd-1.5")
    assert same_model("owner/sd-1.5", str(snapshot))
    assert not same_model(str(snapshot), "owner/sd-2")
    assert not same_model("another/sd-1.5", "owner/sd-1.5")


def test_a_folder_that_is_not_here_goes_by_its_own_name(models):
    assert same_model("/elsewhere/models/one", "models/one")
    assert same_model("/elsewhere/models/one", "link")
    assert same_model("/elsewhere/imgalign/storybook/assets/pipeline", "storybook")
    assert not same_model("/elsewhere/models/two", "models/one")


def test_a_public_name_has_no_folder_of_this_machine(models):
    names = ["storybook", "owner/sd-1.5", "models/one", str(models / "models" / "two")]
    assert list(map(public_name, names)) == ["storybook", "owner/sd-1.5", "one", "two"]
