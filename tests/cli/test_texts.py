"""Texts on the command line: what needs images leaves their rankings out, or says what it needs."""

import json
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


def test_texts_made_elsewhere_are_queued_for_ranking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    row = {"prompt": "a cat", "completions": THREE}
    Path("texts.jsonl").write_text(json.dumps(row) + "\n" + '{"prompt": "a dog"}\n')
    assert main(["candidates", "--texts", "texts.jsonl", "--project", "words"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "1 item is queued, of 3 texts",
        "left out, unusable row: 1 (line 2: no completions)",
        "rank them with `imgalign ui --project words`",
    ]
    with Store.open(Path("imgalign.db"), create=False) as store:
        store.add_annotator("ann")
        item = store.next_item("ann", project="words")
        assert item is not None
        assert {store.text_for_token(token, "ann") for token in item.tokens} == set(THREE)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--from", "out", "--seed", "3"], "--from, --seed: without effect with --texts"),
        (["--prompts-from", "any"], "--prompts-from: without effect with --texts"),
        ([], "texts.jsonl: no such table"),
    ],
)
def test_a_queue_of_texts_that_cannot_be_made_leaves_nothing_behind(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    why: str,
):
    monkeypatch.chdir(tmp_path)
    assert main(["candidates", "--texts", "texts.jsonl", *options]) == 2
    assert why in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
