"""`imgalign export` on a command line: what a user gets wrong is one line and exit code 2."""

from pathlib import Path

import pytest
from adapter_runs import make_run

from imgalign.cli.main import main


@pytest.fixture
def run(tmp_path, tiny_pipeline_folder, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return make_run(Path("first"), tiny_pipeline_folder, steps=(1, 2), best={1: 0.5})


@pytest.fixture
def one_line(capsys):
    """Runs a command that must be refused, and gives the line that says why."""

    def refused(*arguments: str) -> str:
        assert main(["export", *arguments]) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        errors = [line for line in lines if not line.startswith("exporting: ")]
        assert len(errors) == 1, errors
        assert errors[0].startswith("error: ")
        return errors[0]

    return refused


def test_a_run_is_exported_and_said_which_checkpoint(run, capsys):
    assert main(["export", "first", "--format", "kohya", "--out", "style"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "first/step-000001: the best of 2 checkpoints (held-out reward 0.5)",
        "style/first-step-000001.safetensors: 44 layers of rank 3",
    ]
    assert "exporting: 100 %" in err
    assert {path.name for path in Path("style").iterdir()} == {
        *("README.md", "export.json", "first-step-000001.safetensors")
    }


def test_a_format_must_be_named_and_known(run, one_line):
    assert "--format" in one_line("first")
    assert "kohya" in one_line("first", "--format", "ckpt")
    assert "float16" in one_line("first", "--format", "kohya", "--dtype", "int8")


def test_what_is_no_adapter_is_named(run, one_line):
    assert "absent: no such folder" in one_line("absent", "--format", "kohya")
    Path("empty").mkdir()
    assert "empty: no pytorch_lora_weights" in one_line("empty", "--format", "kohya")
    Path("broken.safetensors").write_bytes(b"no weights")
    line = one_line("broken.safetensors", "--format", "kohya")
    assert "cannot read broken.safetensors" in line


def test_a_damaged_checkpoint_is_named_when_it_was_asked_for(run, one_line):
    weights = run / "step-000001" / "pytorch_lora_weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    line = one_line("first/step-000001", "--format", "kohya")
    assert "SHA-256 differs" in line


def test_a_base_model_that_does_not_fit_is_named(run, one_line):
    line = one_line("first", "--format", "kohya", "--model", "storybook")
    assert "trained on another" in line
    assert not (run / "export").exists()


def test_a_folder_with_other_files_is_left_as_it_is(run, one_line):
    Path("mine").mkdir()
    Path("mine/note.txt").write_text("mine")
    line = one_line("first", "--format", "kohya", "--out", "mine")
    assert "mine: holds files that imgalign export did not make; choose another folder" in line
    assert [path.name for path in Path("mine").iterdir()] == ["note.txt"]
    Path("afile").write_text("mine")
    assert "afile: expected a folder" in one_line("first", "--format", "kohya", "--out", "afile")
    assert "first: holds files" in one_line("first", "--format", "kohya", "--out", "first")
