"""What a user gets wrong ends in one clear line and exit code 2, and loses nothing."""

import json
import sqlite3
from pathlib import Path

import pytest
from PIL import Image
from provenances import provenance

from imgalign.cli.main import main
from imgalign.images import png
from imgalign.preferences.opening import open_or_make
from imgalign.preferences.queue import ranking_command
from imgalign.preferences.store import Store

RUN_FILES = "config.yaml", "metrics.jsonl"
COLORS = ("red", "green")
SOME = provenance(prompt="a red cat", width=32, height=32)


@pytest.fixture
def one_line(capsys, tmp_path, monkeypatch):
    """Runs a command that must be refused, and gives the line that says why."""
    monkeypatch.chdir(tmp_path)

    def refused(*arguments: str) -> str:
        assert main(list(arguments)) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1, lines
        assert lines[0].startswith("error: ")
        return lines[0]

    return refused


def test_an_unknown_setting_is_named_with_the_one_that_was_meant(one_line):
    line = one_line("train", "storybook_grpo", "algorithm.clip_nat=1", "reward.path=x")
    assert "algorithm.clip_nat" in line
    assert "clip_nats" in line


def test_a_setting_of_the_wrong_type_is_named(one_line):
    assert "iterations" in one_line(
        "train", "storybook_grpo", "run.iterations=many", "reward.path=x"
    )


def test_a_missing_recipe_names_those_there_are(one_line):
    assert "storybook_grpo" in one_line("train", "configs/storybok_grpo.yaml")


def test_training_without_a_reward_says_how_to_name_one(one_line):
    assert "reward.path" in one_line("train", "storybook_grpo")


def test_a_missing_reward_folder_is_named(one_line):
    assert "rewards/none" in one_line("train", "storybook_grpo", "reward.path=rewards/none")


def test_a_missing_model_folder_is_named(one_line):
    assert "nowhere" in one_line("generate", "--model", "./nowhere", "--prompt", "a cat")


def test_a_run_folder_without_weights_says_what_is_there(one_line, tmp_path):
    run = tmp_path / "runs" / "a"
    run.mkdir(parents=True)
    for name in RUN_FILES:
        (run / name).touch()
    line = one_line("generate", "--adapter", str(run), "--prompt", "a cat")
    assert "pytorch_lora_weights.safetensors" in line
    assert {path.name for path in run.iterdir()} == set(RUN_FILES)


@pytest.mark.parametrize("command", ["generate", "candidates"])
@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--guidance", "0.5", "guidance_scale: expected a number greater than or equal to 1, got "),
        ("--guidance", "nan", "guidance_scale: expected a finite number, got "),
        ("--guidance", "inf", "guidance_scale: expected a finite number, got "),
        ("--eta", "1.5", "eta: expected a number less than or equal to 1, got "),
    ],
)
def test_a_number_that_no_sampler_takes_is_refused_before_anything_is_made(
    one_line, tmp_path, command, option, value, says
):
    assert one_line(command, "--prompt", "a cat", option, value) == f"error: {says}{value}"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("candidates --prompt cat --storybook-prompts 9", "--storybook-prompts: without effect "),
        ("ratings --method elo --ridge 0.1", "--ridge: without effect with --method elo"),
        ("train storybook_grpo --explain --out x", "--out: without effect with --explain"),
        ("train storybook_grpo --explain --resume", "--resume: without effect with --explain"),
        (
            "evaluate x sampler.negative_prompt=fog",
            "sampler.negative_prompt: has no effect at a guidance_scale of 1; use one above 1",
        ),
    ],
)
def test_what_another_option_leaves_without_an_effect_is_refused(one_line, tmp_path, command, says):
    assert one_line(*command.split()).startswith(f"error: {says}")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_prompt_file_is_named(one_line, tmp_path):
    (tmp_path / "prompts.txt").write_text("\n# nothing\n")
    assert "prompts.txt" in one_line("generate", "--prompts", "prompts.txt")


def test_a_corrupt_image_is_named(one_line, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    line = one_line("reward", "score", "storybook", "broken.png", "--prompt", "a cat")
    assert "broken.png" in line


def test_a_database_of_a_newer_schema_is_left_as_it_is(one_line, tmp_path):
    path = tmp_path / "imgalign.db"
    with sqlite3.connect(path) as database:
        database.execute("create table alembic_version (version_num varchar(32) not null)")
        database.execute("insert into alembic_version values ('9999')")
    database.close()
    before = path.read_bytes()
    assert "newer" in one_line("reward", "train")
    assert path.read_bytes() == before


def test_drawing_what_the_storybook_does_not_know_names_what_it_does(one_line):
    assert "house" in one_line("storybook", "draw", "a red dragon")


def test_a_demo_into_a_folder_that_is_in_use_is_refused(one_line, tmp_path):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "mine").touch()
    assert "demo" in one_line("demo")
    assert [path.name for path in (tmp_path / "demo").iterdir()] == ["mine"]


@pytest.mark.parametrize(
    "command",
    [
        ("demo",),
        ("storybook", "rank"),
        ("evaluate", "anything"),
    ],
)
def test_an_unknown_taste_is_refused_before_anything_is_made(one_line, tmp_path, command):
    line = one_line(*command, "--group", "nonsense")
    assert "nonsense" in line
    assert "dreamy" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [("demo",), ("generate", "--prompt", "a cat")])
def test_a_file_where_a_folder_should_go_is_named_before_a_model_is_loaded(
    one_line, tmp_path, monkeypatch, command
):
    monkeypatch.setattr("imgalign.diffusion.generate.ImageGenerator.__init__", pytest.fail)
    (tmp_path / "afile").write_text("mine")
    for out in ("afile", "afile/below"):
        assert one_line(*command, "--out", out).startswith("error: afile: expected a folder")
    assert (tmp_path / "afile").read_text() == "mine"


@pytest.mark.parametrize(
    ("out", "says"),
    [
        ("absent/x.png", "absent: no such folder"),
        ("x.bogus", "x.bogus: expected the name of a PNG file"),
        (".", ".: expected"),
    ],
)
def test_a_drawing_that_cannot_be_saved_says_why(one_line, tmp_path, out, says):
    assert says in one_line("storybook", "draw", "a red cat", "--out", out)
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_looks_like_a_setting_is_still_a_path(one_line, tmp_path):
    (tmp_path / "a").mkdir()
    for name in ("a #b", "2024", "null", "[x]", "a: b", "'", '"', "é 😀"):
        assert one_line("evaluate", name).startswith(f"error: {name}: no such folder")


def test_a_damaged_candidate_is_named_without_an_address_in_memory(one_line, tmp_path):
    with Store.open(tmp_path / "imgalign.db") as store:
        ids = [store.add_image(png(Image.new("RGB", (32, 32), color)), SOME) for color in COLORS]
        store.add_item("a red cat", ids, source="test")
        path = store.image_path(ids[0])
    whole = path.read_bytes()
    for damaged in (whole[:60], b"nothing"):
        path.write_bytes(damaged)
        line = one_line("storybook", "rank")
        assert path.name in line
        assert "restore" in line
        assert "0x" not in line


def test_the_command_that_ranks_a_queue_names_all_that_is_not_the_default():
    assert ranking_command("default", None) == "imgalign ui"
    found = ranking_command("my cats", "sqlite:///x.db")
    assert found == "imgalign ui --project 'my cats' --database sqlite:///x.db"


def test_the_command_that_ranks_a_queue_does_not_give_the_password_away():
    found = ranking_command("default", "postgresql://me:s3cret@host/name")
    assert "s3cret" not in found
    assert "me:***@host/name" in found


@pytest.mark.parametrize(
    "command",
    [
        ("reward", "train"),
        ("reward", "eval", "storybook"),
        ("storybook", "rank"),
        ("candidates", "--prompt", "a red cat"),
        ("ui", "--port", "0"),
    ],
)
@pytest.mark.parametrize("named", ["option", "environment"])
def test_a_mistyped_database_is_refused_and_not_made(
    one_line, tmp_path, monkeypatch, command, named
):
    url = "sqlite:///mistyped.db"
    monkeypatch.setenv("IMGALIGN_DATABASE", url if named == "environment" else "")
    line = one_line(*command, *(["--database", url] if named == "option" else []))
    assert "mistyped.db: no such database" in line
    assert "--create" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [("reward", "train"), ("storybook", "rank")])
def test_a_command_that_only_reads_makes_no_database(one_line, tmp_path, command):
    assert "imgalign.db: no such database" in one_line(*command)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("data import nofile.jsonl", "nofile.jsonl: cannot be read"),
        ("data import notes.txt", "notes.txt:1: not JSON"),
        ("data import all.jsonl", "all.jsonl:2: image aaaaaaaaaaaa is not here; name the images"),
        ("data import all.jsonl --source-images nowhere", "nowhere: no such folder"),
        ("candidates --prompt cat --model ./nowhere", "nowhere"),
        ("candidates --prompt cat --adapter nowhere", "nowhere: no such folder"),
        ("candidates --prompt cat --scheduler none", "scheduler"),
        ("candidates --prompt cat --scheduler euler --eta 1", "eta: expected 0"),
        ("candidates --prompt cat --steps 2000", "num_inference_steps: expected 1 to 1000"),
        (f"candidates --prompt cat --seed {2**63 - 3}", "seeds: expected 0 to 2**63 - 1"),
        ("candidates --prompt cat --project=", "project: expected a name"),
        ("candidates --from mine", "mine: expected several images of one prompt"),
        ("ui --port 0 --project=", "project: expected a name"),
        (f"demo --seed {2**63}", "seed: expected a number less than"),
    ],
)
def test_bad_arguments_are_found_before_anything_is_made(
    capsys, tmp_path, monkeypatch, command, says
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("IMGALIGN_DATABASE", raising=False)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "mine").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "mine" / "one.png")
    lines = [
        {"kind": "imgalign-rankings", "version": 1},
        {"kind": "image", "image_id": "a" * 64, "width": 8, "height": 8, "num_bytes": 99}
        | {"added_at": "2026-11-22T00:00:00+00:00"},
    ]
    (tmp_path / "all.jsonl").write_text("\n".join(map(json.dumps, lines)))
    before = sorted(tmp_path.rglob("*"))
    assert main(command.split()) == 2
    *_, line = capsys.readouterr().err.splitlines()  # progress and the dtype may come before
    assert line.startswith("error: ")
    assert says in line
    assert sorted(tmp_path.rglob("*")) == before


def test_a_mistyped_images_folder_is_refused_and_not_made(one_line, tmp_path):
    with Store.open(tmp_path / "imgalign.db") as store:
        store.add_annotator("ann")
    before = sorted(tmp_path.iterdir())
    for command in (("reward", "train"), ("storybook", "rank"), ("ui", "--port", "0")):
        assert "keeps its images in" in one_line(*command, "--images", "mistyped")
    assert sorted(tmp_path.iterdir()) == before


def test_a_store_is_made_and_said_where_nothing_was_named_or_where_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("IMGALIGN_DATABASE", raising=False)
    said: list[str] = []
    open_or_make(None, images=None, create=False, on_made=said.append).close()
    assert said == [f"new database {tmp_path}/imgalign.db, images in {tmp_path}/images"]
    open_or_make(None, images=None, create=False, on_made=pytest.fail).close()
    url = "sqlite:///other.db"
    open_or_make(url, images=Path("moved"), create=True, on_made=said.append).close()
    assert (tmp_path / "other.db").is_file()
    assert (tmp_path / "moved").is_dir()
    assert len(said) == 2


def test_an_argument_that_is_not_utf_8_is_one_line(one_line):
    line = one_line("generate", "--prompt", "a cat", "--out", "caf\udce9")
    assert line == (
        r"error: argument 'caf\udce9': expected text in utf-8; rename the file that it names"
    )


def test_a_tilde_after_an_equals_sign_is_the_home_folder(one_line, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "afile").touch()
    found = one_line("generate", "--prompt", "a cat", "--out=~/afile")
    assert found.startswith(f"error: {tmp_path / 'home' / 'afile'}: expected a folder")
    line = one_line("train", "storybook_grpo", "reward.path=~/nowhere")
    assert str(tmp_path / "home" / "nowhere") in line


def test_noise_below_what_float32_can_hold_is_refused(one_line):
    line = one_line("train", "storybook_grpo", "reward.path=storybook", "policy.eta=1e-300")
    assert "policy.eta: expected a number greater than or equal to 0.001, got 1e-300" in line
