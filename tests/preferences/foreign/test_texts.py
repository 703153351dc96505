"""Tables of texts in TRL's columns, plain or conversational; what is refused or left out."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from imgalign.errors import InputError
from imgalign.preferences.foreign.records import Completion, TextRanking
from imgalign.preferences.foreign.texts import read_completions, read_text_rankings

PAIR = {"prompt": "a cat", "chosen": "a red cat", "rejected": "a cat\n"}


def user(text: object) -> dict[str, object]:
    return {"role": "user", "content": text}


def assistant(text: object) -> dict[str, object]:
    return {"role": "assistant", "content": text}


@pytest.fixture
def write(tmp_path: Path):
    """Writes rows as JSON lines."""

    def lines(*rows: object, name: str = "train.jsonl") -> Path:
        text = "".join(f"{json.dumps(row)}\n" for row in rows)
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return lines


EXPECTED = TextRanking(prompt="a cat", texts=("a red cat", "a cat\n"), ranks=(0, 1))


@pytest.mark.parametrize(
    "row",
    [
        PAIR,
        PAIR | {"prompt": [user("a cat")]},
        PAIR | {"chosen": [assistant("a red cat")], "rejected": [assistant("a cat\n")]},
        {
            "prompt": "a cat",
            "chosen": [user("a cat"), assistant("a red cat")],
            "rejected": [user("a cat"), assistant("a cat\n")],
        },
        {
            "chosen": [user("a cat"), assistant("a red cat")],
            "rejected": [user("a cat"), assistant("a cat\n")],
        },
        {"prompt": "a cat", "completions": ["a red cat", "a cat\n"], "ranks": [2, 5]},
    ],
)
def test_a_pair_is_the_same_plain_as_conversation_and_as_list(write, row):
    found = read_text_rankings(write(row, row | {"weight": 2}))
    twice = TextRanking(prompt="a cat", texts=EXPECTED.texts, ranks=(0, 1), weight=2.0)
    assert found.rankings == (EXPECTED, twice)
    assert found.lines() == [f"{found.name}: 2 rankings of texts"]


@pytest.mark.parametrize(
    ("ranks", "extra", "expected"),
    [
        ([0, 1, 2], {}, ((0, 1, 2), False)),
        ([3, 1, 1], {}, ((1, 0, 0), False)),
        ([1.5, None, -1.0], {"all_bad": False}, None),
        ([1.5, 0, -1], {"all_bad": None}, ((1, 0, -1), False)),
        ([0, 1, 2], {"all_bad": True}, ((-1, -1, -1), True)),
    ],
)
def test_ranks_of_a_list_may_tie_and_be_absent_or_all_bad(write, ranks, extra, expected):
    row = {"prompt": "p", "completions": ["x", "y", "z"], "ranks": ranks, **extra}
    found = read_text_rankings(write(row, {**row, "ranks": [0, 1, 2], "all_bad": False}))
    assert [(each.ranks, each.all_bad) for each in found.rankings] == [
        *([] if expected is None else [expected]),
        ((0, 1, 2), False),
    ]


@pytest.mark.parametrize(
    ("row", "reason", "detail"),
    [
        ({"prompt": " "}, "no prompt", "prompt is ' '"),
        ({"prompt": None}, "no prompt", "prompt is None"),
        ({"chosen": ""}, "no text", "chosen is ''"),
        ({"rejected": 7}, "no text", "rejected is 7"),
        ({"rejected": PAIR["chosen"]}, "equal texts", ""),
        ({"chosen": [assistant("x"), user("y"), assistant("z")]}, "several turns", "chosen: "),
        ({"prompt": [user("x"), assistant("y"), user("z")]}, "several turns", "prompt: user, "),
        ({"prompt": [assistant("x")]}, "unusable row", "prompt: expected user, got assistant"),
        ({"chosen": [user("other"), assistant("x")]}, "unusable row", "chosen begins with another"),
        ({"chosen": ["x"]}, "unusable row", "chosen: expected messages with role and content"),
        ({"chosen": []}, "unusable row", "chosen: expected messages with role and content"),
        ({"chosen": [assistant(None)]}, "no text", "chosen is None"),
        ({"weight": 0}, "unusable row", "weight is 0"),
        ({"weight": math.inf}, "unusable row", "weight is inf"),
        ({"all_bad": "yes"}, "unusable row", "all_bad is 'yes'"),
    ],
)
def test_a_row_that_says_nothing_is_named_with_its_reason_and_the_rest_is_kept(
    write, row, reason, detail
):
    found = read_text_rankings(write(PAIR, PAIR | row))
    (remark,) = found.left_out
    assert (remark.name, remark.reason) == ("line 2", reason)
    assert remark.detail.startswith(detail)
    assert found.rankings == (EXPECTED,)
    assert found.lines()[1].startswith(f"left out, {reason}: 1 (line 2")


def test_lines_that_are_no_objects_and_rows_that_lack_a_column_are_left_out(write):
    path = write(PAIR, [1], {"prompt": "a cat", "chosen": "x"})
    found = read_text_rankings(path)
    assert [(each.name, each.detail) for each in found.left_out] == [
        ("line 2", "expected a JSON object, got [1]"),
        ("line 3", "no rejected"),
    ]


def test_tables_of_a_folder_are_read_together_and_their_rows_named_by_file(write, tmp_path):
    write(PAIR, name="a.jsonl")
    write({"prompt": "b", "completions": ["x", "x"], "ranks": [0, 1]}, name="b.jsonl")
    found = read_text_rankings(tmp_path)
    assert found.rankings == (EXPECTED,)
    assert [each.name for each in found.left_out] == ["b.jsonl, line 1"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "p", "chosen": "x"}, "missing: rejected; there are: chosen, prompt"),
        ({"question": "p", "answer": "x"}, "(prompt, chosen, rejected) or (prompt, completions, "),
        ({"chosen": "x", "rejected": "y"}, "chosen is no conversation, and there is no prompt"),
        (PAIR | {"chosen": "a cat\n"}, "no ranking can be used; equal texts: 1 (line 1)"),
    ],
)
def test_a_table_without_a_ranking_is_refused_in_one_line(write, row, message):
    with pytest.raises(InputError) as error:
        read_text_rankings(write(row))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "p", "completion": "x"}, None),
        ({"prompt": [user("p")], "completion": [assistant("x")], "label": True}, True),
        ({"prompt": "p", "completion": "x", "label": 0}, False),
        ({"prompt": "p", "completion": "x", "label": None}, None),
        ({"messages": [user("p"), assistant("x")]}, None),
    ],
)
def test_a_completion_is_read_with_its_label_where_there_is_one(write, row, expected):
    found = read_completions(write(row))
    assert found.rows == (Completion(prompt="p", text="x", liked=expected),)


def test_completions_are_counted_and_an_unknown_label_is_left_out(write):
    row = {"prompt": "p", "completion": "x"}
    labels = [True, False, True, "good", 2]
    found = read_completions(write(*(row | {"label": label} for label in labels)))
    assert found.lines() == [
        f"{found.name}: 3 completions, 2 of them liked",
        "left out, no label: 2 (line 4: label is 'good', expected true or false, line 5: label "
        "is 2, expected true or false)",
    ]


def test_a_system_message_and_several_turns_are_left_out_of_completions(write):
    good = [user("p"), assistant("x")]
    system = [{"role": "system", "content": "be brief"}, *good]
    found = read_completions(write({"messages": good}, {"messages": system}))
    assert [(each.reason, each.detail) for each in found.left_out] == [
        ("several turns", "messages: system, user, assistant")
    ]


def test_a_table_without_completions_is_refused_in_one_line(write):
    with pytest.raises(InputError, match=r"expected the columns \(prompt, completion\) or \(mess"):
        read_completions(write(PAIR))


def test_parquet_gives_what_json_lines_give(write, tmp_path):
    pyarrow: Any = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [
        {"prompt": "p", "completions": ["x", "y"], "ranks": [0, 1]},
        {"prompt": "p", "completions": ["x", "x"], "ranks": [0, 1]},
    ]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "x.parquet")
    found, same = read_text_rankings(tmp_path / "x.parquet"), read_text_rankings(write(*rows))
    assert found.rankings == same.rankings
    assert [each.name for each in found.left_out] == ["row 2"]
    pair = {"chosen": [user("p"), assistant("x")], "rejected": [user("p"), assistant("y")]}
    parquet.write_table(pyarrow.Table.from_pylist([pair]), tmp_path / "y.parquet")
    assert read_text_rankings(tmp_path / "y.parquet").rankings == found.rankings
