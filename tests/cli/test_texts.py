"""Texts on the command line: what needs images leaves their rankings out, or says what it needs."""

from pathlib import Path

import pytest
from PIL import Image
from provenances import provenance
from submissions import judge
from texts import add_texts

from imgalign.cli.main import main
from imgalign.images import png
from imgalign.preferences.store import Store

THREE = ("a red cat in the snow", "a red cat", "cat, cat, cat")


@pytest.fixture
def ranked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Texts that were ranked, in the database of this folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("IMGALIGN_DATABASE", raising=False)
    store = Store.open(Path("imgalign.db"))
    store.add_annotator("ann")
    add_texts(store, THREE)
    store.submit(judge(store.next_item("ann")))
    return store


@pytest.mark.parametrize(
    "command",
    [
        ["reward", "train", "--out", "reward"],
        ["data", "export", "pairs", "--format", "pairs"],
        ["ratings"],
        ["train", "storybook_dpo", "data.database=imgalign.db", "--out", "run"],
    ],
    ids=" ".join,
)
@pytest.mark.usefixtures("ranked")
def test_what_learns_from_images_asks_for_rankings_of_images(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: list[str]
):
    before = sorted(tmp_path.rglob("*"))
    assert main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "rankings: expected rankings of images, got 1 of texts" in line
    assert sorted(tmp_path.rglob("*")) == before


def test_pairs_of_images_are_exported_without_the_texts(
    ranked: Store, capsys: pytest.CaptureFixture[str]
):
    colours = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    ids = [ranked.add_image(png(image), provenance()) for image in colours]
    ranked.add_item("a cat", ids, source="test")
    ranked.submit(judge(ranked.next_item("ann")))
    assert main(["data", "export", "pairs", "--format", "pairs"]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines() == ["pairs: 1 pairs of 1 rankings"]
    assert printed.err.splitlines() == ["rankings: 1 of texts are left out"]
    assert len(list(Path("pairs").rglob("*.png"))) == 2
