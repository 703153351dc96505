"""What is in a store reaches another one, and ratings, through the command line."""

from pathlib import Path

import pytest
from PIL import Image
from provenances import provenance
from submissions import judge, on_screen

from imgalign.cli.main import main
from imgalign.images import png
from imgalign.preferences.exclusions import exclude
from imgalign.preferences.gold import mark_gold
from imgalign.preferences.qualification import set_qualification
from imgalign.preferences.store import Store


@pytest.fixture
def ranked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Images of a base and an adapter, compared three times, in ./here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("IMGALIGN_DATABASE", raising=False)
    (tmp_path / "here").mkdir()
    store = Store.open(tmp_path / "here" / "imgalign.db")
    store.add_annotator("Ann")
    for number, ranking in enumerate([((0,), (1,)), ((0,), (1,)), ((1,), (0,))]):
        ids = [
            store.add_image(
                png(Image.new("RGB", (8, 8), (number, shade, 0))),
                provenance(prompt=f"prompt {number}", adapter=adapter),
            )
            for shade, adapter in enumerate(["runs/a", None])
        ]
        store.add_item(f"prompt {number}", ids, source="test")
        item = store.next_item("ann")
        store.submit(judge(item, ranking=on_screen(store, item, ranking)))
    return store


def test_people_are_listed_with_their_quality_and_who_is_excluded(
    ranked: Store, capsys: pytest.CaptureFixture[str]
):
    exclude(ranked.database, "ann", project="default")
    here = ["--database", "sqlite:///here/imgalign.db"]
    assert main(["data", "people", *here]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:2] == ["3", "0"]
    assert lines[1].endswith("Ann, excluded")
    assert lines[2].endswith("unknown, no two annotators judged the same pair")
    assert main(["data", "people", "--project", "none", *here]) == 2
    assert "project 'none': nothing is queued there" in capsys.readouterr().err
    # What was judged is exported, with who is excluded; pairs to learn from leave it out.
    assert main(["data", "export", "all.jsonl", *here]) == 0
    said = capsys.readouterr().out
    assert "all.jsonl: 3 rankings" in said
    assert "1 exclusion is in it, of annotators" in said
    assert main(["data", "export", "pairs", "--format", "pairs", *here]) == 2
    assert "3 by excluded annotators are left out" in capsys.readouterr().err


def test_people_are_excluded_included_and_admitted_by_name(
    ranked: Store, capsys: pytest.CaptureFixture[str]
):
    here = ["data", "people", "--database", "sqlite:///here/imgalign.db"]
    gold = next(ranked.rankings()).item_id
    mark_gold(ranked, gold, ((1,), (0,)))
    set_qualification(ranked.database, "default", num_items=1, share=1)
    assert main([*here, "--exclude", "Ann"]) == 0
    assert capsys.readouterr().out.splitlines()[1].endswith("Ann, excluded, not qualified")
    assert main([*here, "--include", "ann", "--admit", "ann"]) == 0
    assert capsys.readouterr().out.splitlines()[1].endswith("  Ann")
    for option in ("--exclude", "--include", "--admit"):
        assert main([*here, option, "zoe"]) == 2
        assert "annotator 'zoe': not registered" in capsys.readouterr().err


def test_rankings_go_from_one_store_to_another_and_are_rated_there(
    ranked: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    here = ["--database", "sqlite:///here/imgalign.db"]
    assert main(["data", "export", "all.jsonl", *here]) == 0
    assert "all.jsonl: 3 rankings" in capsys.readouterr().out
    there = ["--database", "sqlite:///there.db"]
    bring = ["data", "import", "all.jsonl", "--source-images", "here/images", *there]
    assert main(bring) == 2
    assert "there.db: no such database" in capsys.readouterr().err
    assert main([*bring, "--create"]) == 0
    out = capsys.readouterr().out
    assert "new database" in out
    assert "3 rankings are new" in out
    assert main(bring) == 0
    assert "0 rankings are new" in capsys.readouterr().out
    assert main(["store", "check", *there]) == 0
    capsys.readouterr()
    assert main(["ratings", *there]) == 0
    table = capsys.readouterr().out.splitlines()
    assert "m + runs/a" in table[1]
    assert table[1].split()[0] == "+0.35"  # half of log 2: won twice of three times
    assert "3 prompts and 1 annotator" in table[3]
    assert main(["ratings", "--project", "none", *there]) == 2
    assert "got none; there are: project default" in capsys.readouterr().err


def test_commands_about_data_make_no_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("IMGALIGN_DATABASE", raising=False)
    for command in (["store", "check"], ["data", "export", "x.jsonl"], ["ratings"]):
        assert main(command) == 2
        assert "imgalign.db: no such database" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
