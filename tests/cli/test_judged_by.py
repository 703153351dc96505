"""On the command line: rankings by AI judges are used only where `judged_by` asks for them."""

from pathlib import Path

import pytest
from judges import judge_next
from PIL import Image
from provenances import provenance
from submissions import judge

from imgalign.cli.main import main
from imgalign.images import png
from imgalign.preferences.store import Store

COLOURS = ("red", "blue", "green")


@pytest.fixture
def judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Three images that only an AI judge has ranked, in the database of this folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("IMGALIGN_DATABASE", raising=False)
    store = Store.open(Path("imgalign.db"))
    store.add_annotator("ann")
    images = [
        store.add_image(png(Image.new("RGB", (8, 8), colour)), provenance(model=colour))
        for colour in COLOURS
    ]
    store.add_item("a cat", images, source="test")
    judge_next(store)
    return store


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (["reward", "train", "--out", "reward"], "--judged-by ai"),
        (["reward", "eval", "storybook"], "--judged-by ai"),
        (["data", "export", "pairs", "--format", "pairs"], "--judged-by ai"),
        (["ratings"], "--judged-by ai"),
        (
            ["train", "storybook_dpo", "data.database=imgalign.db", "--out", "run"],
            "data.judged_by=ai",
        ),
    ],
    ids=str,
)
@pytest.mark.usefixtures("judged")
def test_what_reads_rankings_asks_for_those_of_people(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: list[str], option: str
):
    before = sorted(tmp_path.rglob("*"))
    assert main(command) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "rankings: expected some by people, got 1 by AI judges" in line
    assert option in line
    assert sorted(tmp_path.rglob("*")) == before


def test_who_asks_for_ai_judges_gets_them_and_the_rest_is_counted(
    judged: Store, capsys: pytest.CaptureFixture[str]
):
    judged.submit(judge(judged.next_item("ann")))
    for who, pairs, said in [
        ("people", 3, "rankings: 1 by AI judges are left out; --judged-by all takes them too"),
        ("ai", 3, "rankings: 1 by people are left out; --judged-by all takes them too"),
        ("all", 6, "rankings: 1 by people and 1 by AI judges, mixed"),
    ]:
        assert main(["data", "export", who, "--format", "pairs", "--judged-by", who]) == 0
        printed = capsys.readouterr()
        assert printed.out.startswith(f"{who}: {pairs} pairs")
        assert printed.err.splitlines() == [said]


@pytest.mark.usefixtures("judged")
def test_models_are_rated_by_ai_judges_where_asked(capsys: pytest.CaptureFixture[str]):
    assert main(["ratings", "--judged-by", "ai", "--ridge", "0.1"]) == 0
    assert all(colour in capsys.readouterr().out for colour in COLOURS[:1])


@pytest.mark.usefixtures("judged")
def test_an_export_of_everything_has_no_choice(capsys: pytest.CaptureFixture[str]):
    assert main(["data", "export", "all.jsonl", "--judged-by", "ai"]) == 2
    assert "--judged-by: without effect without --format pairs" in capsys.readouterr().err
    assert main(["data", "export", "all.jsonl"]) == 0
    assert '"kind": "judge"' in Path("all.jsonl").read_text()
