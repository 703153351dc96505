"""Texts made elsewhere become items to rank, with what is known of how they were made."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from submissions import judge

from imgalign.errors import InputError
from imgalign.preferences.foreign.text_queue import QueuedTexts, group_texts, queue_texts
from imgalign.preferences.records import TextProvenance
from imgalign.preferences.store import Store

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes rows as JSON lines."""

    def lines(*rows: object) -> Path:
        path = tmp_path / "texts.jsonl"
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
        return path

    return lines


def queue(store: Store, path: Path, *, per_prompt: int = 4, **settings: Any) -> QueuedTexts:
    """Queue the texts of a table, as `imgalign candidates --texts` does."""
    return queue_texts(store, group_texts(path, per_prompt=per_prompt, **settings))


def queued(store: Store) -> list[tuple[str, list[str]]]:
    """Prompt and texts of each item, in the order of the candidates."""
    while (item := store.next_item("ann")) is not None:
        store.submit(judge(item))
    return [(r.prompt, [store.text(each) for each in r.sample_ids]) for r in store.rankings()]


@pytest.mark.parametrize(
    "rows",
    [
        [{"prompt": "a cat", "completions": ["a red cat", " a cat\r\n"]}],
        [{"prompt": "a cat", "completion": text} for text in ("a red cat", " a cat\r\n")],
        [
            {
                "messages": [
                    {"role": "user", "content": "a cat"},
                    {"role": "assistant", "content": t},
                ]
            }
            for t in ("a red cat", " a cat\r\n")
        ],
        [
            {"prompt": [{"role": "user", "content": "a cat"}], "completions": [["a red cat"], "x"]},
            {"prompt": "a cat", "completions": ["a red cat", " a cat\r\n"]},
        ],
    ],
)
def test_lists_rows_and_conversations_are_the_same_item(store: Store, write: Write, rows):
    queue(store, write(*rows))
    assert queued(store) == [("a cat", ["a red cat", " a cat\r\n"])]


def test_texts_of_exactly_one_prompt_are_candidates_in_items_of_even_size(
    store: Store, write: Write
):
    texts = [f"text {number}" for number in range(5)]
    path = write(
        {"prompt": "a cat", "completions": texts[:3]},
        {"prompt": "A cat", "completions": texts[:2]},
        {"prompt": "a cat", "completions": texts[3:]},
    )
    found = queue(store, path)
    assert found.lines() == ["3 items are queued, of 7 texts"]
    assert queue(store, path).item_ids == found.item_ids  # the same again adds nothing
    assert queued(store) == [
        ("a cat", texts[:2]),
        ("a cat", texts[2:]),
        ("A cat", texts[:2]),
    ]


def test_a_row_tells_how_its_texts_were_made_and_the_rest_is_unknown(store: Store, write: Write):
    told = {"model": "m", "adapter": "runs/a", "seed": 2**62 + 1, "temperature": 0.7}
    path = write(
        {"prompt": "p", "completion": "x", "max_new_tokens": 32, **told},
        {"prompt": "p", "completion": "y", "model": None, "seed": None},
    )
    queue(store, path, model="named on the command line")
    queued(store)
    (ranking,) = store.rankings()
    first, second = (store.text_provenances(each)[0] for each in ranking.sample_ids)
    assert first == TextProvenance(
        model="m",
        prompt="p",
        adapter="runs/a",
        seed=2**62 + 1,
        temperature=0.7,
        max_new_tokens=32,
        dtype="unknown",
        imgalign_version="elsewhere",
        created_at=first.created_at,
    )
    assert second == TextProvenance(
        model="named on the command line",
        prompt="p",
        seed=-1,
        temperature=-1.0,
        max_new_tokens=-1,
        dtype="unknown",
        imgalign_version="elsewhere",
        created_at=second.created_at,
    )


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ({"completions": ["x" * 20_001]}, "too large: 1 (line 2: text 'xxxxxxxxxxxxxxxxxxxx'...: "),
        ({"completions": ["x" * (2**18 + 1)]}, "too large: 1 (line 2: completions: over 262144 "),
        ({"completions": ["a\0b"]}, "unusable row: 1 (line 2: text: contains characters"),
        ({"completions": []}, "unusable row: 1 (line 2: completions: expected a list of 1 to 100"),
        ({"completions": "x"}, "unusable row: 1 (line 2: completions: expected a list of 1 to 100"),
        ({"completions": [" "]}, "no text: 1 (line 2: completions is ' ')"),
        ({"completions": ["x"]}, "equal texts: 1 (line 2: as line 1)"),
        ({"prompt": "q", "completions": ["x"]}, "only text of its prompt: 1 (line 2)"),
        ({"prompt": "q\0", "completions": ["x"]}, "unusable row: 1 (line 2: provenance.prompt: "),
        (
            {"prompt": "q" * 20_001, "completions": ["x"]},
            "too large: 1 (line 2: prompt 'qqqqqqqqqq",
        ),
        ({"completions": ["z"], "seed": 1.5}, "unusable row: 1 (line 2: seed: expected a whole"),
        ({"completions": ["z"], "model": 7}, "unusable row: 1 (line 2: model: expected text"),
    ],
)
def test_what_cannot_be_ranked_is_left_out_and_named(
    store: Store, write: Write, row: dict[str, object], line: str
):
    kept = {"prompt": "p", "completions": ["x", "y"]}
    found = queue(store, write(kept, {"prompt": "p"} | row))
    assert found.lines()[0] == "1 item is queued, of 2 texts"
    assert found.lines()[1].startswith(f"left out, {line}")
    assert queued(store) == [("p", ["x", "y"])]


def test_a_table_without_two_texts_of_a_prompt_is_refused_with_the_reasons(write: Write):
    path = write({"prompt": "p", "completion": "x"}, {"prompt": "q", "completion": "x"})
    why = r"no prompt with two texts can be used; only text of its prompt: 2 \(line 1, line 2\)"
    with pytest.raises(InputError, match=why):
        group_texts(path, per_prompt=4)
    with pytest.raises(InputError, match=r"expected the columns \(prompt, completions\) or "):
        group_texts(write({"prompt": "p", "chosen": "x"}), per_prompt=4)
    with pytest.raises(InputError, match="expected at least 1 text, got 0"):
        group_texts(path, per_prompt=0)
