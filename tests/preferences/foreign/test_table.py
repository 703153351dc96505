"""Tables of rankings: three layouts, in JSON lines and parquet; what is refused or left out."""

import hashlib
import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
from image_folders import put
from json_lines import lines
from PIL import Image

from imgalign.errors import InputError
from imgalign.preferences.foreign.parquet import ROWS, ParquetRows
from imgalign.preferences.foreign.records import RankedFiles
from imgalign.preferences.foreign.table import read_table
from imgalign.preferences.foreign.table_layouts import dense


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Where a table is to be written; images 0.png to 3.png lie beside it."""
    for number in range(4):
        put(tmp_path / "images" / f"{number}.png", number)
    return tmp_path / "train.jsonl"


IMAGES = [f"images/{number}.png" for number in range(4)]
PAIR = {"prompt": "a red fox", "chosen": IMAGES[0], "rejected": IMAGES[1]}


def names(found: RankedFiles) -> list[list[str]]:
    """File names of the images of each ranking."""
    return [
        [found.images[digest].name.rpartition("/")[2] for digest in ranking.images]
        for ranking in found.rankings
    ]


def test_a_row_of_chosen_and_rejected_is_a_pair(table: Path):
    found = read_table(lines(table, PAIR))
    assert [(each.prompt, each.ranks, each.weight) for each in found.rankings] == [
        ("a red fox", (0, 1), 1.0)
    ]
    content = (table.parent / IMAGES[0]).read_bytes()
    assert found.rankings[0].images[0] == hashlib.sha256(content).hexdigest()
    assert found.images[found.rankings[0].images[0]].read() == content
    assert found.lines() == [f"{table}: 1 ranking of 2 images"]


@pytest.mark.parametrize(
    ("labels", "ranks"),
    [
        ({"label_0": 1.0, "label_1": 0.0}, (0, 1)),
        ({"label_0": 0, "label_1": 1}, (1, 0)),
        ({"label_0": 0.5, "label_1": 0.5}, (0, 0)),
        ({"label_0": 1, "has_label": True, "label_1": None}, (0, 1)),
    ],
)
def test_a_label_says_which_of_two_images_is_better_or_that_they_tie(
    table: Path, labels: dict[str, Any], ranks: tuple[int, int]
):
    row = {"caption": "a cat", "jpg_0": IMAGES[0], "jpg_1": IMAGES[1], **labels}
    found = read_table(lines(table, row))
    assert [(each.prompt, each.ranks) for each in found.rankings] == [("a cat", ranks)]


def test_rows_without_a_label_or_with_labels_that_contradict_are_left_out(table: Path):
    row = {"caption": "a cat", "jpg_0": IMAGES[0], "jpg_1": IMAGES[1], "label_0": 1}
    others: list[dict[str, Any]] = [
        {"has_label": False},
        {"label_0": None},
        {"label_0": 2},
        {"label_0": "1"},
        {"label_0": math.nan},
        {"label_1": 1},
    ]
    found = read_table(lines(table, row, *(row | other for other in others)))
    assert len(found.rankings) == 1
    assert [(remark.name, remark.reason) for remark in found.left_out] == [
        ("line 2", "no label"),
        ("line 3", "no label"),
        ("line 4", "no label"),
        ("line 5", "unusable row"),
        ("line 6", "unusable row"),
        ("line 7", "unusable row"),
    ]


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        ([0, 1, 2, 3], (0, 1, 2, 3)),
        ([2, 1, 1, 7], (1, 0, 0, 2)),
        ([1.5, 0.5, -1, None], (1, 0, -1, -1)),
    ],
)
def test_ranks_start_at_0_have_no_gaps_and_may_be_absent(
    table: Path, ranks: list[float], expected: tuple[int, ...]
):
    found = read_table(lines(table, {"prompt": "p", "images": IMAGES, "ranks": ranks}))
    assert [ranking.ranks for ranking in found.rankings] == [expected]
    assert dense([1, 3, None, 3]) == (0, 1, -1, 1)


def test_a_list_may_be_all_bad_and_weigh_more(table: Path):
    row = {"prompt": "p", "images": IMAGES[:2], "ranks": [0, 1], "all_bad": True, "weight": 2}
    (ranking,) = read_table(lines(table, row)).rankings
    assert (ranking.ranks, ranking.all_bad, ranking.weight) == ((-1, -1), True, 2.0)


def test_an_image_of_a_list_that_cannot_be_read_leaves_the_others(table: Path):
    (table.parent / IMAGES[1]).write_bytes(b"not an image")
    row = {"prompt": "p", "images": IMAGES, "ranks": [3, 2, 1, 0]}
    found = read_table(lines(table, row, row))
    assert names(found)[0] == ["0.png", "2.png", "3.png"]
    assert [ranking.ranks for ranking in found.rankings] == [(2, 1, 0)] * 2
    assert [(each.reason, each.name) for each in found.left_out] == [("unreadable", IMAGES[1])]


def test_images_of_different_sizes_in_a_list_are_noted(table: Path):
    Image.new("RGB", (16, 8)).save(table.parent / IMAGES[2])
    row = {"prompt": "p", "images": IMAGES, "ranks": [0, 1, 2, 3]}
    equal = {"prompt": "p", "images": IMAGES[:2], "ranks": [0, 1]}
    found = read_table(lines(table, equal, row))
    assert [(each.name, each.detail) for each in found.notes] == [("line 2", "8x8 and 16x8")]


@pytest.mark.parametrize(
    ("row", "reason", "says"),
    [
        ("{}", "unusable row", "no prompt, images, ranks"),
        ("[1, 2]", "unusable row", "expected a JSON object"),
        ('{"prompt": ', "unusable row", "expected a JSON object"),
        ("[" * 100_000, "unusable row", "nested deeper"),
        ('{"prompt": " ", "images": [], "ranks": []}', "no caption", "prompt is"),
        ('{"prompt": 7, "images": [], "ranks": []}', "no caption", "prompt is 7"),
        ('{"prompt": "p", "images": ["a"], "ranks": [0, 1]}', "unusable row", "differ: 1 and 2"),
        ('{"prompt": "p", "images": "ab", "ranks": [0, 1]}', "unusable row", "no list and 2"),
        ('{"prompt": "p", "images": ["a"], "ranks": [-1]}', "no label", "nothing is ranked"),
        ('{"prompt": "p", "images": ["a"], "ranks": [-2]}', "unusable row", "or -1"),
        ('{"prompt": "p", "images": ["a"], "ranks": ["x"]}', "unusable row", "expected a number"),
        ('{"prompt": "p", "images": ["a"], "ranks": [true]}', "unusable row", "ranks is True"),
        (
            '{"prompt": "p", "images": ["a", "b"], "ranks": [0, 1], "all_bad": 1}',
            "unusable row",
            "all_bad",
        ),
        (
            '{"prompt": "p", "images": ["a", "b"], "ranks": [0, 1], "weight": 0}',
            "unusable row",
            "weight",
        ),
        (
            '{"prompt": "p", "images": ["images/0.png"], "ranks": [0]}',
            "unusable row",
            "fewer than two",
        ),
        (
            '{"prompt": "p", "images": ["images/0.png", "images/0.png"], "ranks": [0, 1]}',
            "equal images",
            "",
        ),
        (
            '{"prompt": "p", "images": ["gone.png", "gone.png"], "ranks": [0, 1]}',
            "unreadable",
            "no such file",
        ),
        ('{"prompt": "p", "images": [null, 3], "ranks": [0, 1]}', "unreadable", "expected a path"),
        (
            '{"prompt": "p", "images": ["https://x.org/a.png", "images"], "ranks": [0, 1]}',
            "unreadable",
            "download the image",
        ),
    ],
)
def test_a_row_that_says_nothing_is_left_out_with_the_reason(
    table: Path, row: str, reason: str, says: str
):
    good = json.dumps({"prompt": "p", "images": IMAGES[:2], "ranks": [0, 1]})
    table.write_text(f"{good}\n{row}\n\n{good}\n")
    found = read_table(table)
    assert len(found.rankings) == 2
    assert found.left_out[0].reason == reason
    assert says in found.left_out[0].detail
    assert all(len(line.splitlines()) == 1 for line in found.lines())


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (
            {"prompt": "p", "chosen": "a", "label": 1},
            "missing: rejected; there are: chosen, label, prompt",
        ),
        ({"chosen": "a", "rejected": "b"}, "missing: prompt; there are: chosen, rejected"),
        ({"caption": "p", "jpg_0": "a", "jpg_1": "b"}, "missing: label_0"),
        ({"text": "p"}, "missing: prompt, chosen, rejected; there are: text"),
        ({}, "there are: none"),
    ],
)
def test_missing_columns_are_one_line_with_what_is_missing_and_what_is_there(
    table: Path, row: dict[str, Any], says: str
):
    with pytest.raises(InputError) as error:
        read_table(lines(table, row))
    message = str(error.value)
    assert message.startswith(f"{table}: expected the columns (prompt, chosen, rejected) or ")
    assert says in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("x.jsonl", b"", "expected JSON lines, got an empty file"),
        ("x.jsonl", b"PAR1\0\0", "line 1: expected a JSON object"),
        ("x.jsonl", b"[1]\n", "expected an array of JSON objects, got '1'"),
        (
            "x.json",
            f'[{json.dumps(PAIR)}, "b"]'.encode(),
            "expected an array of JSON objects, got '\"b\"'",
        ),
        (
            "x.json",
            f"[{json.dumps(PAIR)}".encode(),
            "the JSON array does not end; is the file complete?",
        ),
        ("x.json", b'[{"prompt": "' + b"x" * 2**21 + b'"}]', "longer than 1048576 bytes"),
        ("x.json", b" [ ] ", "expected JSON lines, got an empty file"),
        ("x.jsonl", b'{"prompt": "' + b"x" * 2**20 + b'"}', "longer than 1048576 bytes"),
        ("x.csv", b"prompt,chosen", "expected a table in .parquet or .jsonl"),
        ("x.jsonl", json.dumps(PAIR).encode(), "no ranking can be used; unreadable: 2"),
    ],
)
def test_a_file_that_is_no_table_is_one_line(tmp_path: Path, name: str, content: bytes, says: str):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as error:
        read_table(tmp_path / name)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_table_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(InputError, match=r"x\.jsonl: no such table"):
        read_table(tmp_path / "x.jsonl")
    with pytest.raises(InputError, match=r"expected tables \(.*\), the folder is empty"):
        read_table(tmp_path)


def test_the_tables_of_a_folder_are_one_table_in_order_of_names(table: Path):
    lines(table.with_name("b.jsonl"), {**PAIR, "prompt": "second"})
    lines(table.with_name("a.jsonl"), {**PAIR, "prompt": "first"}, {"prompt": "x"})
    found = read_table(table.parent)
    assert [ranking.prompt for ranking in found.rankings] == ["first", "second"]
    assert [remark.name for remark in found.left_out] == ["a.jsonl, line 2"]
    assert len(found.images) == 2


# --- parquet


@pytest.fixture
def pyarrow() -> Any:
    return pytest.importorskip("pyarrow")


def parquet(path: Path, rows: list[dict[str, Any]], **options: Any) -> Path:
    from pyarrow import Table
    from pyarrow import parquet as writer

    writer.write_table(Table.from_pylist(rows), path, **options)
    return path


def test_without_pyarrow_the_cure_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"pip install 'imgalign-studio\[parquet\]'"):
        read_table(tmp_path / "x.parquet")


@pytest.mark.usefixtures("pyarrow")
def test_images_embedded_in_parquet_are_read_again_from_their_cell(table: Path):
    contents = [(table.parent / name).read_bytes() for name in IMAGES]
    rows = [
        {
            "caption": f"prompt {number}",
            "jpg_0": contents[number % 4],
            "jpg_1": contents[(number + 1) % 4],
            "label_0": 1.0,
        }
        for number in range(3 * ROWS)
    ]
    path = parquet(table.with_suffix(".parquet"), rows, row_group_size=ROWS + 3)
    table.parent.joinpath("images").rename(table.parent / "gone")
    found = read_table(path)
    assert [ranking.prompt for ranking in found.rankings] == [row["caption"] for row in rows]
    digests = [hashlib.sha256(content).hexdigest() for content in contents]
    assert list(found.images) == digests
    for digest, content in zip(digests, contents, strict=True):
        assert found.images[digest].read() == content
    assert found.images[digests[3]].name == f"{path}: row 3, jpg_1"


@pytest.mark.usefixtures("pyarrow")
def test_cells_are_read_in_any_order_and_in_order_from_one_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    values = [{"a": number, "b": -number} for number in range(5 * ROWS)]
    table = ParquetRows(parquet(tmp_path / "x.parquet", values, row_group_size=2 * ROWS))
    opened: list[object] = []
    batches = ParquetRows._batches

    def counted(self: ParquetRows, *arguments: Any) -> Any:
        opened.append(arguments)
        return batches(self, *arguments)

    monkeypatch.setattr(ParquetRows, "_batches", counted)
    for number in range(5 * ROWS):
        assert (table.cell(number, "a"), table.cell(number, "b")) == (number, -number)
    assert len(opened) == 2
    for number in (70, 3, 40, 39, 0, 79):
        assert table.cell(number, "a") == number


@pytest.mark.usefixtures("pyarrow")
def test_images_as_datasets_embeds_them_are_bytes_or_a_path(table: Path):
    content = (table.parent / IMAGES[0]).read_bytes()
    rows = [
        {
            "prompt": "p",
            "images": [
                {"bytes": content, "path": "lost.png"},
                {"bytes": None, "path": IMAGES[1]},
                {"bytes": b"not an image", "path": None},
            ],
            "ranks": [1, 0, 2],
        }
    ]
    found = read_table(parquet(table.with_suffix(".parquet"), rows))
    assert [ranking.ranks for ranking in found.rankings] == [(1, 0)]
    assert found.images[found.rankings[0].images[0]].read() == content
    assert [(each.reason, each.name) for each in found.left_out] == [
        ("unreadable", "row 1, images 3")
    ]


@pytest.mark.usefixtures("pyarrow")
def test_a_parquet_file_that_is_damaged_or_lacks_columns_is_one_line(table: Path):
    path = parquet(table.with_suffix(".parquet"), [{"prompt": "p", "picture": "x"}])
    with pytest.raises(InputError, match=r"missing: chosen, rejected; there are: picture, prompt"):
        read_table(path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match="damaged, or no parquet file") as error:
        read_table(path)
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("pyarrow")
def test_a_parquet_file_whose_pages_are_damaged_is_one_line(table: Path):
    rows = [{**PAIR, "prompt": f"prompt {number}"} for number in range(200)]
    path = parquet(table.with_suffix(".parquet"), rows)
    content = bytearray(path.read_bytes())
    content[4:400] = bytes(396)
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged, or no parquet file") as error:
        read_table(path)
    assert "\n" not in str(error.value)
