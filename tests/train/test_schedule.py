"""Claims: without a number of iterations a run takes one epoch of its examples, and keeps it."""

import json
from pathlib import Path

import pytest
from language_runs import language_settings, start_language, write_talker

from imgalign.config import load_config
from imgalign.errors import ConfigError
from imgalign.runs.folder import CONFIG
from imgalign.train.config import TrainConfig
from imgalign.train.data.source import Amount
from imgalign.train.schedule import RunConfig, within_an_epoch

WORDS = ("a boat", "the tree", "a red house", "a gate", "the sun", "two geese", "one dune")


def examples(path: Path, count: int) -> Path:
    rows = ({"prompt": word, "completion": word[::-1][:6]} for word in WORDS[:count])
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(("available", "expected"), [(64, 1), (65, 2), (128, 2), (1, 1)])
def test_an_epoch_is_as_many_iterations_as_it_takes_to_see_all(available, expected):
    amount = Amount("completions_per_iteration", min(64, available), available, "completions")
    assert within_an_epoch(RunConfig(iterations=None), amount).total == expected
    assert within_an_epoch(RunConfig(iterations=7), amount).total == 7


def test_a_run_takes_an_epoch_of_its_examples_and_keeps_that_when_they_change(tmp_path, caplog):
    caplog.set_level("INFO")
    data = {
        "from": "completions",
        "file": str(examples(tmp_path / "rows.jsonl", 5)),
        "completions_per_iteration": 2,
        "held_out": {"num_prompts": 1},
    }
    settings = language_settings(
        write_talker(tmp_path / "model"),
        iterations=None,
        data=data,
        algorithm={"name": "supervised", "weighting": {"kind": "equal"}},
    )
    out = tmp_path / "run"
    assert start_language(out, settings).step == 2  # a prompt is held out
    assert "2 iterations of 2 examples: each of 4 is learned from 1 times" in caplog.text
    assert load_config(TrainConfig, out / CONFIG).run.iterations == 2
    examples(tmp_path / "rows.jsonl", 7)
    assert start_language(out, settings, resume=True).total == 2
    assert start_language(tmp_path / "new", settings).total == 3


def test_what_is_no_given_example_has_no_epoch():
    with pytest.raises(ConfigError, match=r"run.iterations: expected a number, got null, which is"):
        load_config(TrainConfig, None, ["run.iterations=null"])
