"""Images and pairs cross between imgalign and other programs through the command line."""

from pathlib import Path

import pytest
from image_folders import put
from PIL import Image
from provenances import provenance
from submissions import judge, on_screen

from imgalign.cli.main import main
from imgalign.images import png
from imgalign.preferences.foreign.pair_folder import read_pair_folder
from imgalign.preferences.foreign.table import read_table
from imgalign.preferences.store import Store


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a store of one ranking in ./imgalign.db."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("IMGALIGN_DATABASE", raising=False)
    with Store.open(tmp_path / "imgalign.db") as store:
        store.add_annotator("ann", group="warm")
        ids = [
            store.add_image(png(Image.new("RGB", (8, 8), (shade, 0, 0))), provenance(seed=shade))
            for shade in range(3)
        ]
        store.add_item("a cat", ids, source="test", project="cats")
        item = store.next_item("ann", project="cats")
        ranking = on_screen(store, item, ((2,), (0,), (1,)))
        store.submit(judge(item, ranking=ranking))
    return tmp_path


@pytest.fixture
def one_line(capsys: pytest.CaptureFixture[str]):
    """Runs a command that must be refused, and gives the line that says why."""

    def refused(*arguments: str) -> str:
        capsys.readouterr()
        assert main(list(arguments)) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1, lines
        return lines[0].removeprefix("error: ")

    return refused


PAIRS = ("data", "export", "--format", "pairs")


def test_all_rankings_of_a_project_become_a_file(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["data", "export", "cats.jsonl", "--project", "cats"]) == 0
    assert capsys.readouterr().out.startswith("cats.jsonl: 1 ranking; copy ")


def test_rankings_in_the_format_of_a_public_data_set_say_what_they_are(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["data", "export", "out", "--format", "image_reward_db"]) == 0
    assert capsys.readouterr().out == "out: 1 row of 1 ranking\n"
    assert len(read_table(folder / "out").rankings) == 1


def test_pairs_of_the_store_become_a_folder_that_can_be_read(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    assert main([*PAIRS, "out", "--project", "cats", "--group", "warm"]) == 0
    assert capsys.readouterr().out == "out: 3 pairs of 1 rankings\n"
    assert len(read_pair_folder(folder / "out").rankings) == 3
    assert main([*PAIRS, "out", "--pairs", "best_worst"]) == 0
    (pair,) = read_pair_folder(folder / "out").rankings
    with Store.open(folder / "imgalign.db") as store:
        (ranking,) = store.rankings()
    assert pair.images == (ranking.sample_ids[2], ranking.sample_ids[1])


def test_an_export_of_pairs_that_cannot_be_made_is_one_line(folder: Path, one_line):
    line = one_line(*PAIRS, "out", "--project", "dogs")
    assert line.endswith("'dogs': expected rankings, got none; there are: project cats")
    (folder / "mine").mkdir()
    (folder / "mine" / "thesis.tex").touch()
    assert "expected a new folder or an earlier export" in one_line(*PAIRS, "mine")
    ends = "without effect without --format pairs or text_pairs; leave them out"
    line = one_line("data", "export", "all.jsonl", "--pairs", "all", "--group", "warm")
    assert line == f"--group, --pairs: {ends}"
    line = one_line("data", "export", "out", "--format", "hpd_v2", "--pairs", "all")
    assert line == f"--pairs: {ends.removesuffix('them out')}it out"
    assert "nowhere.db: no such database" in one_line(
        *PAIRS, "out", "--database", "sqlite:///nowhere.db"
    )
    assert not (folder / "out").exists()


def test_images_of_a_folder_are_queued_and_what_to_do_next_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    for shade in range(3):
        text = f"a dog\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: {shade}"
        put(folder / "in" / f"{shade}.png", shade, parameters=text)
    put(folder / "in" / "3.png", 3)
    put(folder / "in" / "4.png", 4, caption="a house")
    command = ["candidates", "--from", "in", "--per-prompt", "3", "--model", "mine"]
    assert main([*command, "--project", "dogs", "--overlap", "2"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "1 item is queued, of 3 images",
        "left out, no prompt: 1 (3.png)",
        "left out, only image of its prompt: 1 (4.png)",
        "rank them with `imgalign ui --project dogs`",
    ]
    with Store.open(folder / "imgalign.db") as store:
        item = store.next_item("ann", project="dogs")
        assert item is not None
        assert (item.prompt, len(item.tokens)) == ("a dog", 3)


def test_a_folder_that_cannot_be_queued_is_one_line_and_makes_no_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_line
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("IMGALIGN_DATABASE", raising=False)
    queue = ("candidates", "--from")
    assert one_line(*queue, "absent") == "absent: expected a folder of images, got nothing"
    (tmp_path / "in").mkdir()
    assert one_line(*queue, "in") == "in: expected images, the folder is empty"
    put(tmp_path / "in" / "a.png", 1)
    line = one_line(*queue, "in", "--steps", "5", "--prompt", "x", "--adapter", "runs/a")
    assert line == (
        "--adapter, --prompt, --steps: without effect with --from, which generates nothing; "
        "leave them out"
    )
    line = one_line("candidates", "--prompt", "x", "--prompts-from", "captions")
    assert line == "--prompts-from: without effect without --from; leave it out"
    assert "mistyped.db: no such database" in one_line(
        *queue, "in", "--database", "sqlite:///mistyped.db"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (["--database", "sqlite:///missing/x.db"], "missing: no such folder; create it or choose"),
        (["--database", "sqlite:///in"], "in: expected a database file, got a folder"),
        (["--database", "sqlite:///text.db"], "text.db: not a database; choose another name"),
        (["--images", "text.db/images"], "text.db: expected a folder, got a file"),
    ],
)
def test_a_place_where_no_database_can_be_is_refused_before_any_image_is_read(
    folder: Path, one_line, place: list[str], said: str
):
    (folder / "text.db").write_text("no database, but long enough to be looked into\n" * 9)
    (folder / "in").mkdir()
    (folder / "in" / "a.png").write_bytes(b"no image: reading it would be another error")
    before = sorted(folder.iterdir())
    line = one_line("candidates", "--from", "in", *place, "--create")
    assert said in line
    assert sorted(folder.iterdir()) == before


def test_a_folder_without_two_images_of_a_prompt_says_what_was_left_out(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    put(folder / "in" / "a.png", 1)
    put(folder / "in" / "b.png", 2, caption="a cat")
    assert main(["candidates", "--from", "in"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "error: in: expected several images of one prompt; left out, no prompt: 1 (a.png); only "
        "image of its prompt: 1 (b.png)"
    )
