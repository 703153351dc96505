"""An array of JSON objects is read one at a time, however it is written."""

import json
from pathlib import Path
from typing import Any

import pytest

from imgalign.preferences.foreign.json_lines import BLOCK, JsonRows, elements

ROWS: list[dict[str, Any]] = [
    {"prompt": 'a "fox", {[', "images": ["a\\", "b\\\\"], "ranks": [[1], [{"a": 2}]]},
    {},
    {"prompt": "é" * BLOCK},
    *({"number": number, "text": '\\"' * number} for number in range(300)),
]


@pytest.mark.parametrize("indent", [None, 4])
@pytest.mark.parametrize("shift", range(4))
def test_the_objects_of_an_array_are_those_that_json_reads(
    tmp_path: Path, indent: int | None, shift: int
):
    text = " " * shift + json.dumps(ROWS, indent=indent, ensure_ascii=False) + "\n"
    (tmp_path / "x.json").write_text(text, encoding="utf-8")
    table = JsonRows(tmp_path / "x.json")
    found = list(table.lines())
    assert [values for _, _, values in found] == json.loads(text) == ROWS
    assert [number for number, _, _ in found] == list(range(1, len(ROWS) + 1))
    assert table.unit == "row"
    assert table.columns == ("prompt", "images", "ranks")


def test_of_an_element_that_is_too_long_only_the_begin_is_read(tmp_path: Path):
    (tmp_path / "x.json").write_bytes(b'[{"a": "' + b"x" * 100 * BLOCK)
    with (tmp_path / "x.json").open("rb") as file:
        with pytest.raises(ValueError, match="an element is longer than 1000 bytes"):
            list(elements(file, most=1000))
        assert file.tell() < 5 * BLOCK
