"""Pairs of the store as folders: what is written is read back as the same preferences."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from provenances import provenance
from submissions import judge, on_screen

from imgalign.errors import InputError, StoreError
from imgalign.files import sha256
from imgalign.images import png
from imgalign.preferences.foreign.pair_export import Choice, export_pairs
from imgalign.preferences.foreign.pair_folder import read_pair_folder
from imgalign.preferences.records import TieGroups
from imgalign.preferences.store import Store

Rank = Callable[..., list[str]]


@pytest.fixture
def rank(store: Store) -> Rank:
    """Add images of a prompt and judge them; gives the ids of the images."""

    def add(prompt: str, ranking: TieGroups | None, num_images: int = 3) -> list[str]:
        shades = [(len(prompt) % 256, k, 0) for k in range(num_images)]
        ids = [
            store.add_image(png(Image.new("RGB", (8, 8), shade)), provenance(prompt=prompt))
            for shade in shades
        ]
        store.add_item(prompt, ids, source="test")
        item = store.next_item("ann")
        if ranking is None:
            store.submit(judge(item, ranking=None, verdict="all_bad"))
        else:
            store.submit(judge(item, ranking=on_screen(store, item, ranking)))
        return ids

    return add


def written(folder: Path) -> set[tuple[str, str, str]]:
    """Prompt, chosen and rejected image of each pair that the reader finds."""
    found = read_pair_folder(folder)
    assert found.left_out == found.notes == ()
    return {(each.prompt, each.images[0], each.images[1]) for each in found.rankings}


@pytest.mark.parametrize(
    ("ranking", "choice", "pairs"),
    [
        (((2,), (0,), (1,)), "all", {(2, 0), (2, 1), (0, 1)}),
        (((2,), (0,), (1,)), "best_worst", {(2, 1)}),
        (((2,), (0, 1)), "all", {(2, 0), (2, 1)}),
        (((1, 2), (0,)), "best_worst", {(1, 0)}),
    ],
)
def test_what_is_written_is_read_back_as_the_same_preferences(
    store: Store,
    rank: Rank,
    tmp_path: Path,
    ranking: TieGroups,
    choice: Choice,
    pairs: set[tuple[int, int]],
):
    prompt = "A red fox,\nin the  snow: naïve 🦊"
    ids = rank(prompt, ranking)
    out = tmp_path / "out"
    exported = export_pairs(store.rankings(), store.image_path, out, choice=choice)
    line = "A red fox, in the snow: naïve 🦊"
    assert written(out) == {(line, ids[better], ids[worse]) for better, worse in pairs}
    assert exported.lines() == [f"{out}: {len(pairs)} pairs of 1 rankings"]
    for path in (out / "chosen").glob("*.png"):
        assert path.name.startswith("a-red-fox-in-the-snow-naive-")
        assert sha256(path) in ids
        assert (out / "rejected" / path.with_suffix(".txt").name).read_text("utf-8") == f"{line}\n"


def test_judgements_without_a_strict_preference_give_no_pair_and_are_counted(
    store: Store, rank: Rank, tmp_path: Path
):
    rank("one", ((0, 1, 2),))
    rank("three", None)
    with pytest.raises(InputError, match=r"no pair to write: 1 rankings .* tie, 1 judgements all"):
        export_pairs(store.rankings(), store.image_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    rank("fifteen", ((0,), (1, 2)))
    exported = export_pairs(store.rankings(), store.image_path, tmp_path / "out")
    assert exported.lines()[1:] == [
        "without a pair: 1 rankings in which all tie, 1 judgements all bad or skipped"
    ]


def test_each_judgement_is_a_pair_of_its_own(store: Store, rank: Rank, tmp_path: Path):
    ids = rank("a", ((0,), (1,)), num_images=2)
    store.add_item("a", ids, source="test", overlap=2)
    item = store.next_item("bob")
    store.submit(judge(item, "bob", ranking=on_screen(store, item, ((1,), (0,)), "bob")))
    export_pairs(store.rankings(), store.image_path, tmp_path / "out")
    assert written(tmp_path / "out") == {("a", ids[0], ids[1]), ("a", ids[1], ids[0])}
    export_pairs(store.rankings(group="cool"), store.image_path, tmp_path / "out")
    assert written(tmp_path / "out") == {("a", ids[1], ids[0])}


def test_an_export_replaces_an_earlier_one_and_nothing_else(
    store: Store, rank: Rank, tmp_path: Path
):
    rank("a", ((0,), (1,)), num_images=2)
    out = tmp_path / "out"
    out.mkdir()
    for _ in range(2):
        export_pairs(store.rankings(), store.image_path, out)
        assert len(written(out)) == 1
    assert json.loads((out / "pairs.json").read_text())["num_pairs"] == 1
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("text")
    with pytest.raises(InputError, match=r"mine: expected a new folder .*found: thesis\.tex"):
        export_pairs(store.rankings(), store.image_path, mine)
    with pytest.raises(InputError, match="expected a folder, got a file"):
        export_pairs(store.rankings(), store.image_path, mine / "thesis.tex")
    assert [path.name for path in mine.iterdir()] == ["thesis.tex"]


def test_an_export_that_fails_leaves_the_earlier_one(store: Store, rank: Rank, tmp_path: Path):
    rank("a", ((0,), (1,)), num_images=2)
    out = tmp_path / "out"
    export_pairs(store.rankings(), store.image_path, out)
    before = written(out)
    ids = rank("ab", ((0,), (1,)), num_images=2)
    store.images.path(ids[1]).unlink()
    with pytest.raises(StoreError, match="image file is missing"):
        export_pairs(store.rankings(), store.image_path, out)
    assert written(out) == before
    assert sorted(path.name for path in tmp_path.iterdir() if "out" in path.name) == ["out"]
