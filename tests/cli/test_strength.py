"""Claims: on a command line a LoRA is applied at the strength that is asked for, which is told of
everything that it makes; where there is none, that is one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from adapter_runs import make_full_run, make_run

from imgalign.cli.main import main
from imgalign.preferences.store import Store
from imgalign.runs.trained import ADAPTER

Command = Callable[..., tuple[int, str]]
STEPS = ("--steps", "2")
SMALL = ("sampler.num_inference_steps=2", "images_per_prompt=2", "prompts=p.txt")


@pytest.fixture(scope="module")
def folder(tiny_pipeline_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("strength")
    make_run(place / "lora", tiny_pipeline_folder)
    make_full_run(place / "full", tiny_pipeline_folder)
    return place


@pytest.fixture
def command(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Runs a command in the folder; its exit code, and what it said there."""
    monkeypatch.chdir(folder)

    def run(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        code = main(list(arguments))
        out, err = capsys.readouterr()
        return code, (err if code else out).strip()

    return run


def test_images_are_made_at_a_strength_and_say_so(command: Command, tiny_pipeline_folder: Path):
    made = {}
    for strength in ("0", "0.6", "1"):
        options = ("--adapter", "lora", "--strength", strength, "--prompt", "a red house")
        code, path = command("generate", *options, *STEPS)
        facts = json.loads(Path(path).with_suffix(".json").read_text())
        made[strength] = Path(path).read_bytes()
        assert (code, facts["strength"]) == (0, float(strength) or 1.0)
        assert (facts["adapter"] is None) == (strength == "0")
    alone = ("--model", str(tiny_pipeline_folder))
    _, base = command("generate", *alone, "--prompt", "a red house", *STEPS)
    _, full = command("generate", "--adapter", "lora", "--prompt", "a red house", *STEPS)
    assert made["0"] == Path(base).read_bytes()
    assert made["1"] == Path(full).read_bytes()
    assert len(set(made.values())) == 3


def test_candidates_are_queued_with_the_strength_they_were_made_at(command, folder: Path):
    options = ("--prompt", "a red house", "--adapter", "lora", "--per-prompt", "2", "--create")
    for strength in ("0.6", "1"):
        code, said = command("candidates", *options, "--strength", strength, "--resume", *STEPS)
        assert (code, "2 images made in" in said) == (0, True)
    with Store.open(folder / "imgalign.db") as store:
        ids = [path.stem for path in (folder / "images").rglob("*.png")]
        assert sorted(store.provenance(each).strength for each in ids) == [0.6, 0.6, 1.0, 1.0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            "--adapter full --strength 0.5",
            "strength: expected 1, got 0.5: full/step-000001 has",
        ),
        ("--adapter lora --strength 2.5", "strength: expected 0 to 2, got 2.5"),
        ("--adapter lora --strength nan", "strength: expected 0 to 2, got nan"),
        ("--strength 0.5", "strength: without effect without an adapter; name one"),
    ],
)
@pytest.mark.parametrize("name", ["generate", "candidates"])
def test_a_strength_without_a_lora_or_out_of_range_is_one_line(command, name, arguments, says):
    code, said = command(name, "--prompt", "a cat", *arguments.split())
    assert (code, said.count("\n")) == (2, 0)
    assert said.startswith(f"error: {says}")


def test_candidates_that_are_brought_in_have_no_strength(command):
    code, said = command("candidates", "--from", "lora", "--strength", "0.5")
    assert (code, said.startswith("error: --strength: without effect with --from")) == (2, True)


def test_a_comparison_at_a_strength_has_a_folder_of_its_own(
    command: Command, folder: Path, tiny_pipeline_folder: Path
):
    alone = folder / "alone"
    alone.mkdir()
    shutil.copy(folder / "lora" / "step-000001" / ADAPTER, alone)
    (folder / "p.txt").write_text("the green tree\ntwo boat\n")
    settings = (*SMALL, f"model={tiny_pipeline_folder}")
    found = []
    for strength, name in (("1", "evaluation"), ("0.5", "evaluation-0.5")):
        code, said = command("evaluate", "alone", f"strength={strength}", *settings)
        assert code == 0, said
        found.append(json.loads((alone / name / "evaluation.json").read_text()))
    assert [each["aligned"]["strength"] for each in found] == [1.0, 0.5]
    assert [each["base"]["strength"] for each in found] == [1.0, 1.0]
    code, said = command("evaluate", "full", "strength=0.5")
    assert (code, "full/step-000001 has all weights" in said) == (2, True)
    code, said = command("evaluate", "alone", "strength=0")
    assert (code, said) == (2, "error: strength: expected a number greater than 0, got 0")
