"""Pairs of texts of the store as JSON lines: what is written is read back, here and by TRL."""

import json
from pathlib import Path

import pytest
from submissions import judge, on_screen
from texts import add_texts

from imgalign.cli.main import main
from imgalign.errors import InputError
from imgalign.preferences.foreign.text_export import export_text_pairs
from imgalign.preferences.foreign.texts import read_text_rankings
from imgalign.preferences.records import TieGroups
from imgalign.preferences.store import Store

TEXTS = ["a red cat", "a cat,\nasleep", "a cat – “é”"]


def ranked(store: Store, ranking: TieGroups | None) -> None:
    add_texts(store, TEXTS)
    item = store.next_item("ann")
    if ranking is None:
        store.submit(judge(item, ranking=None, verdict="all_bad"))
    else:
        store.submit(judge(item, ranking=on_screen(store, item, ranking)))


def written(file: Path) -> list[tuple[str, str]]:
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert all(list(row) == ["prompt", "chosen", "rejected"] for row in rows)
    assert {row["prompt"] for row in rows} == {"a cat"}
    return [(row["chosen"], row["rejected"]) for row in rows]


def test_every_strict_preference_is_a_line_and_ties_are_none(store: Store, tmp_path: Path):
    ranked(store, ((2,), (0, 1)))
    file = tmp_path / "pairs.jsonl"
    exported = export_text_pairs(store.rankings(), store.text, file)
    assert exported.lines() == [f"{file}: 2 pairs of 1 rankings"]
    assert written(file) == [(TEXTS[2], TEXTS[0]), (TEXTS[2], TEXTS[1])]
    read = read_text_rankings(file)
    assert [each.texts for each in read.rankings] == written(file)
    assert {each.ranks for each in read.rankings} == {(0, 1)}
    short = tmp_path / "short.jsonl"
    export_text_pairs(store.rankings(), store.text, short, choice="best_worst")
    assert written(short) == [(TEXTS[2], TEXTS[0])]


def test_a_file_that_is_there_is_not_replaced(store: Store, tmp_path: Path):
    ranked(store, ((0,), (1,), (2,)))
    own = '{"prompt": "a", "chosen": "mine", "rejected": "b"}\n'
    for content in ("my thesis\n", own, ""):
        (tmp_path / "mine").write_text(content)
        with pytest.raises(InputError, match="exists and is not replaced"):
            export_text_pairs(store.rankings(), store.text, tmp_path / "mine")
        assert (tmp_path / "mine").read_text() == content
    with pytest.raises(InputError, match="no such folder"):
        export_text_pairs(store.rankings(), store.text, tmp_path / "none" / "pairs.jsonl")


def test_without_a_strict_preference_nothing_is_written(store: Store, tmp_path: Path):
    ranked(store, ((0, 1, 2),))
    with pytest.raises(InputError, match="no pair to write: 1 rankings in which all tie"):
        export_text_pairs(store.rankings(), store.text, tmp_path / "pairs.jsonl")
    assert not (tmp_path / "pairs.jsonl").exists()


def test_the_command_takes_the_rankings_of_texts_alone(
    url: str,
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    ranked(store, ((0,), (1,), (2,)))
    monkeypatch.chdir(tmp_path)
    where = ["--database", url]
    command = ["data", "export", "pairs.jsonl", "--format", "text_pairs", *where]
    assert main(command) == 0
    assert capsys.readouterr().out == "pairs.jsonl: 3 pairs of 1 rankings\n"
    assert len(written(tmp_path / "pairs.jsonl")) == 3
    assert main([*command[:2], "images", "--format", "pairs", *where]) == 2
    assert "rankings of images" in capsys.readouterr().err
