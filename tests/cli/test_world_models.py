"""Each command that trains a model of the storybook domain, with one step where it takes steps.

They run in the order of `COMMANDS`, in one folder, as a person would run them.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from diffusers import AutoencoderKL
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.main import get_command

from imgalign.cli.main import main, models
from imgalign.diffusion.loading import load_pipeline
from imgalign.images import as_tensor
from imgalign.storybook.drawing import draw_prompt
from imgalign.storybook.train import verifier
from imgalign.storybook.verifier import Verifier

NUM_IMAGES = "128"
"""A batch of CLIP, the largest."""

PIPELINE = "storybook/pipeline/pipeline"
COMMANDS = [
    ["data", "--images", NUM_IMAGES],
    ["autoencoder", "--samples", "16"],
    ["pipeline", "--samples", "64"],
    ["distil", "--samples", "64"],
    ["redraw", "--images", "50"],
    ["clip", "--samples", "128", "--reconstructions", "storybook/redrawn.npy"],
    ["verifier", "--samples", "64", "--reconstructions", "storybook/redrawn.npy"],
    ["tokenizer", f"{PIPELINE}/tokenizer"],
    ["language", "--texts", "400"],
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where every command has succeeded."""
    place = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr(verifier, "NUM_FREE", 64)
        for command in COMMANDS:
            assert main(["storybook", "train", *command]) == 0, command
    return place / "storybook"


@pytest.mark.slow
def test_every_command_writes_what_the_next_one_reads(folder):
    assert np.load(folder / "redrawn.npy").shape == (50, 64, 64, 3)
    AutoencoderKL.from_pretrained(folder / "autoencoder" / "vae")
    for pipeline in ("pipeline", "distilled"):
        load_pipeline(str(folder / pipeline / "pipeline"), device=torch.device("cpu"))
    assert (folder / "clip" / "clip" / "open_clip_model.safetensors").is_file()
    image = as_tensor(draw_prompt("a red cat", seed=0, size=64))
    assert len(Verifier.load(folder / "verifier").read(image[None])) == 1
    assert (folder / "pipeline" / "pipeline" / "tokenizer" / "merges.txt").is_file()
    model = AutoModelForCausalLM.from_pretrained(folder / "language" / "language")
    tokenizer = AutoTokenizer.from_pretrained(folder / "language" / "language")
    assert model.config.vocab_size == len(tokenizer)


def test_every_command_is_tried():
    assert isinstance(models, typer.Typer)
    group: Any = get_command(models)
    assert sorted(group.commands) == sorted(command[0] for command in COMMANDS)


def test_a_training_command_without_its_data_is_one_line(tmp_path, capsys):
    missing, out = tmp_path / "nowhere", tmp_path / "verifier"
    arguments = ["--data", str(missing), "--out", str(out)]
    assert main(["storybook", "train", "verifier", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert str(missing) in error
    assert "imgalign storybook train data" in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_less_than_one_batch_is_refused_in_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["storybook", "train", "data", "--images", "20"]) == 0
    for samples, says in (("15", "0 steps"), ("16", "")):
        capsys.readouterr()
        code = main(["storybook", "train", "clip", "--samples", samples])
        error = capsys.readouterr().err
        assert (code, error.count("\n")) == (2, 1), error
        assert "expected at least one batch of 128 images" in error
        assert says in error
