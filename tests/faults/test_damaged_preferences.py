"""Claims: preference files that are damaged in any way are read, or refused by an InputError or
StoreError of one line; a store that refuses a file is what it was, one that took it is whole."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from fault_counts import LONG, check_line, examples
from hypothesis import given
from hypothesis import strategies as st
from image_folders import image, pair_folder, put
from judges import judge_next
from mutations import as_json, changed, damaged
from provenances import provenance
from submissions import judge
from texts import add_texts

from imgalign.errors import InputError, StoreError
from imgalign.images import png
from imgalign.preferences.checking import check_store
from imgalign.preferences.exchange import export_rankings, import_rankings
from imgalign.preferences.exclusions import exclude
from imgalign.preferences.foreign.image_queue import group_images
from imgalign.preferences.foreign.judged_texts import as_judgements
from imgalign.preferences.foreign.pair_folder import read_pair_folder
from imgalign.preferences.foreign.records import summarised
from imgalign.preferences.foreign.table import read_table
from imgalign.preferences.foreign.text_queue import group_texts
from imgalign.preferences.foreign.texts import (
    read_completions,
    read_labelled,
    read_text_rankings,
)
from imgalign.preferences.gold import mark_gold
from imgalign.preferences.store import Store

pytestmark = LONG


def written(lines: Sequence[Any]) -> bytes:
    return "".join(f"{as_json(line)}\n" for line in lines).encode()


@st.composite
def lines_of(draw: st.DrawFn, lines: Sequence[Any]) -> bytes:
    """JSON lines: their values changed, their order too, or their bytes damaged."""
    match draw(st.sampled_from(["values", "values", "order", "bytes"])):
        case "values":
            number = draw(st.integers(0, len(lines) - 1))
            other, _ = draw(changed(lines[number]))
            return written([*lines[:number], other, *lines[number + 1 :]])
        case "order":
            return written(draw(st.lists(st.sampled_from(lines), max_size=2 * len(lines))))
        case _:
            return draw(damaged(written(lines)))


# --- rankings of another store


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an export that has each kind of line, its images, and a new database."""
    folder = tmp_path_factory.mktemp("exported")
    with Store.open(folder / "imgalign.db", images=folder / "images") as store:
        for name in ("ann", "bob"):
            store.add_annotator(name, group="cosy")
        for number in range(2):
            images = [
                store.add_image(png(image(9 * number + each)), provenance(seed=each))
                for each in range(3)
            ]
            store.add_item(f"prompt {number}", images, source="test", overlap=2)
        add_texts(store, ["a cat", "a red cat"])
        ranked = None
        for name in ("ann", "bob"):
            while (item := store.next_item(name)) is not None:
                store.submit(judge(item, name))
                ranked = item if len(item.tokens) == 3 else ranked
        judge_next(store)
        mark_gold(store, ranked.item_id, ((0,), (1, 2)))
        store.undo("bob", f"bob-{ranked.item_id}")
        exclude(store.database, "bob", project="default")
        export_rankings(store, folder / "rankings.jsonl")
    Store.open(folder / "new.db", images=folder / "none").close()
    return folder


def imported(exported: Path, content: bytes, folder: Path) -> None:
    """Import it into a new store, which is then whole, or empty where it is refused."""
    path, database = folder / "rankings.jsonl", folder / "imgalign.db"
    path.write_bytes(content)
    shutil.copy(exported / "new.db", database)
    with Store.open(database, images=folder / "images") as store:
        try:
            import_rankings(store, path, images=exported / "images")
        except (InputError, StoreError) as error:
            check_line(error, begin=str(path))
            assert not store.annotators()
            assert not list(store.rankings(include_undone=True, judged_by="all"))
        found = check_store(store)
        assert found.passed, found.lines()
        list(store.rankings(include_undone=True, judged_by="all"))


@examples(60)
@given(data=st.data())
def test_an_export_that_is_damaged_is_imported_whole_or_not_at_all(
    exported, tmp_path, faults, data
):
    lines = [json.loads(each) for each in (exported / "rankings.jsonl").read_bytes().splitlines()]
    content = data.draw(lines_of(lines))
    with faults.inject("exports of rankings"):
        imported(exported, content, tmp_path)


# --- tables and folders of other programs

PAIR: Any = {"prompt": "a red fox", "chosen": "images/0.png", "rejected": "images/1.png"}
LABELLED: Any = {
    "caption": "a cat",
    "jpg_0": "images/0.png",
    "jpg_1": "images/2.png",
    "label_0": 1,
    "label_1": 0,
    "has_label": True,
}
RANKED: Any = {
    "prompt": "a dog",
    "images": ["images/0.png", "images/1.png", "images/3.png"],
    "ranking": [1, 0, 2],
    "weight": 0.5,
}
OF_IMAGES = (PAIR, LABELLED, RANKED)
USER: Any = {"role": "user", "content": "a boat"}
SAID: Any = [USER, {"role": "assistant", "content": "a red boat"}]
OTHER: Any = [USER, {"role": "assistant", "content": "a boat at sea"}]
OF_TEXTS: Sequence[Any] = (
    {"prompt": "a boat", "chosen": "a red boat", "rejected": "a boat", "weight": 2},
    {"chosen": SAID, "rejected": OTHER},
    {"prompt": [USER], "chosen": SAID[1:], "rejected": OTHER[1:]},
    {"prompt": "a boat", "texts": ["a", "b", "c"], "ranking": [0, 1, 1]},
    {"prompt": "a boat", "completion": "a red boat", "label": True},
    {"messages": SAID, "label": False},
    {"prompt": "a boat", "texts": ["a", "b"], "model": "m", "seed": 3},
    {"prompt": "a boat", "text": "a red boat", "model": "m"},
)


def read_images(path: Path) -> None:
    found = read_table(path)
    for ranking in found.rankings:
        assert len(ranking.images) == len(ranking.ranks) > 1
        assert ranking.prompt.strip()
        assert 0 < ranking.weight < float("inf")
    said(found.lines())


def read_texts(path: Path) -> None:
    found = read_text_rankings(path)
    said(found.lines())
    judged = as_judgements(found)
    assert set(judged.weights) == {each.ranking_id for each in judged.rankings}


def said(lines: Sequence[str]) -> None:
    assert all(line.isprintable() for line in lines), lines


READERS: dict[str, tuple[Sequence[Any], Callable[[Path], object]]] = {
    "images": (OF_IMAGES, read_images),
    "texts": (OF_TEXTS, read_texts),
    "completions": (OF_TEXTS, lambda path: said(read_completions(path).lines())),
    "labelled": (OF_TEXTS, lambda path: said(read_labelled(path).lines())),
    "queued": (OF_TEXTS, lambda path: said(summarised(group_texts(path, per_prompt=2).left_out))),
}


@st.composite
def tables(draw: st.DrawFn) -> tuple[str, bytes]:
    """A kind of reader, and a table for it that is damaged."""
    kind = draw(st.sampled_from(sorted(READERS)))
    row = draw(st.sampled_from(READERS[kind][0]))
    return kind, draw(lines_of([row, row, row]))


def refused_or_read(read: Callable[[Path], object], path: Path) -> None:
    try:
        read(path)
    except InputError as error:
        check_line(error, begin=str(path))


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images that tables name."""
    folder = tmp_path_factory.mktemp("beside")
    for number in range(4):
        put(folder / "images" / f"{number}.png", number)
    return folder


@examples(100)
@given(table=tables())
def test_a_table_that_is_damaged_is_read_as_far_as_it_can_be_or_refused(beside, faults, table):
    kind, content = table
    path = beside / "table.jsonl"
    path.write_bytes(content)
    with faults.inject("tables in JSON lines"):
        refused_or_read(READERS[kind][1], path)


@pytest.fixture(scope="module")
def parquet(beside: Path) -> bytes:
    """A parquet file with two rankings, images embedded."""
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import parquet

    content = (beside / "images" / "0.png").read_bytes()
    other = (beside / "images" / "1.png").read_bytes()
    rows = [{"caption": "a cat", "jpg_0": content, "jpg_1": other, "label_0": 1.0}] * 2
    path = beside / "whole.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(rows), path, compression="none")
    return path.read_bytes()


@examples(40)
@given(data=st.data())
def test_a_parquet_file_that_is_damaged_is_too(beside, parquet, faults, data):
    path = beside / "damaged.parquet"
    path.write_bytes(data.draw(damaged(parquet)))
    with faults.inject("parquet tables"):
        refused_or_read(read_images, path)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pairs, whose files an example damages and puts back."""
    return pair_folder(tmp_path_factory.mktemp("folders") / "pairs")


@examples(40)
@given(data=st.data())
def test_a_folder_of_images_with_damaged_files_is_too(folders, faults, data):
    files = sorted(path for path in folders.rglob("*") if path.is_file())
    path = data.draw(st.sampled_from(files))
    whole = path.read_bytes()
    path.write_bytes(data.draw(damaged(whole)))
    try:
        with faults.inject("folders of images"):
            refused_or_read(lambda folder: said(read_pair_folder(folder).lines()), folders)
            refused_or_read(queued, folders / "chosen")
    finally:
        path.write_bytes(whole)


def queued(folder: Path) -> None:
    said(summarised(group_images(folder, per_prompt=1).left_out))
