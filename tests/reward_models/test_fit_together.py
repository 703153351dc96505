"""Claims: `imgalign reward train` in two processes makes the fit of one, of images and of texts,
saves and says each thing once, and ends in one line where a process cannot go on.
"""

import json
import math
import re
from pathlib import Path

import pytest
import torch
from red_store import write_red_store
from red_texts import make_text_rankings, write_text_table
from safetensors.torch import load_file
from source_tree import ROOT
from tiny_clip import write_clip
from tiny_language import TEMPLATE, build_tokenizer, write_language_model
from waiting import wait_for

TRAIN = ("imgalign", "reward", "train")
HEADS = ("epochs=2", "batch_size=7", "seeds=[0, 1]", "prior_stds=[0.5, 2.0]")
TOWERS = ("epochs=1", "unfreeze_image_blocks=1", "unfreeze_text_blocks=1", "tower_epochs=1")
TEXTS = ("epochs=1", "batch_size=9", "learning_rate=1e-3")
KINDS = {
    "images, heads": ("images", HEADS),
    "images, towers": ("images", TOWERS),
    "texts, all weights": ("texts", TEXTS),
    "texts, LoRA": ("texts", (*TEXTS, "train=lora", "lora_rank=4")),
}
"""Of seven or nine rankings a batch, so that shares differ."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def commands(tmp_path_factory) -> dict[str, list[str]]:
    """What fits each kind of samples, without settings and folder."""
    folder = tmp_path_factory.mktemp("inputs")
    clip = write_clip(folder / "clip")
    tokenizer = build_tokenizer(template=TEMPLATE)
    model = write_language_model(folder / "model", "llama", tokenizer)
    table = write_text_table(folder / "rankings.jsonl", *make_text_rankings(40))
    return {
        "images": [*TRAIN, *write_red_store(folder), f"clip={clip}"],
        "texts": [*TRAIN, "--file", str(table), f"model={model}"],
    }


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{path.name} {name}": each
        for path in sorted(folder.glob("*.safetensors"))
        for name, each in load_file(path).items()
    }


def numbers(report: object, where: str = "") -> dict[str, float]:
    """Every number of a report by its place, but the time that it took."""
    if isinstance(report, dict):
        items = [(f"{where}.{key}", each) for key, each in report.items() if key != "seconds"]
    elif isinstance(report, list):
        items = [(f"{where}[{place}]", each) for place, each in enumerate(report)]
    else:
        return {where: float(report)} if isinstance(report, int | float) else {}
    return {name: number for key, each in items for name, number in numbers(each, key).items()}


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_make_the_fit_of_one_and_one_of_them_saves_and_speaks(
    kind, commands, servers, tmp_path
):
    samples, settings = KINDS[kind]
    one, two = tmp_path / "one", tmp_path / "two"
    command = [*commands[samples], *settings]
    code, said, told = servers.alone([*command, "--out", one], folder=ROOT)
    assert code == 0, told
    ends = servers.together([*command, "--out", two], folder=ROOT).ends()
    assert [code for code, _, _ in ends] == [0, 0], ends
    (_, first, _), (_, other, others) = ends
    assert (other, others) == ("", "")
    assert first.splitlines()[-1] == f"written to {two}"
    assert len(first.splitlines()) == len(said.splitlines())
    assert {path.name for path in two.iterdir()} == {path.name for path in one.iterdir()}
    expected, found = tensors(one), tensors(two)
    assert expected.keys() == found.keys()
    for name, weight in expected.items():
        difference = (found[name] - weight).abs()
        if name.endswith("in_proj_bias"):
            # Of queries, keys and values. A bias that all keys share adds the same to all logits of
            # a query, which softmax takes out: the gradient of the keys' bias is 0 in exact
            # arithmetic, and Adam makes full steps of its rounding.
            queries, _, values = difference.chunk(3)
            difference = torch.cat([queries, values])
        assert difference.max() <= 2e-5, name
    reports = [json.loads((out / "report.json").read_text()) for out in (one, two)]
    known, made = map(numbers, reports)
    assert made == pytest.approx(known, rel=1e-3, abs=1e-4)
    assert math.isfinite(known[".losses[1][1]"])


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["epoch=3"], "epoch"),
        (["device=cuda:0"], "device: expected auto, cuda or cpu with 2 processes"),
        (["learning_rate=1e30", "epochs=2"], "validation loss is"),
        (["--out", "{folder}/docs"], "docs"),
    ],
)
def test_what_no_process_can_do_is_said_by_one_of_them(commands, servers, tmp_path, more, line):
    own = [each.format(folder=ROOT) for each in more]
    own += [] if "--out" in own else ["--out", str(tmp_path / "reward")]
    ends = servers.together([*commands["images"], *own], folder=ROOT).ends()
    assert [code for code, _, _ in ends] == [2, 2], ends
    said = "".join(told for _, _, told in ends)
    assert len(re.findall("^error:", said, re.M)) == 1, said
    assert "Traceback" not in said
    assert line in said
    assert not (tmp_path / "reward").exists()


@pytest.mark.parametrize("index", [0, 1])
def test_a_killed_process_ends_the_fit_in_one_line_and_nothing_is_saved(
    commands, servers, tmp_path, index
):
    out = tmp_path / "reward"
    long = ("epochs=100000", "patience=100000", "--out", out)
    processes = servers.together([*commands["images"], *long], folder=ROOT)
    wait_for(lambda: any(tmp_path.iterdir()), seconds=120)  # its lock
    processes.each[index].kill()
    code, said, told = processes.ends()[1 - index]
    assert (code, said) == (2, "")
    assert told.splitlines()[-1] == (
        f"error: process {1 - index} of 2: another process of this run has ended or cannot be "
        "reached; nothing is saved, start the fit again"
    )
    assert "Traceback" not in told
    assert not out.exists()
