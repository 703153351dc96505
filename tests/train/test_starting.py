"""Claims: a run takes only a folder that is its own, also after a crash in its first moment, and
keeps in it what it was trained on."""

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from random_walk import walk_data, walk_settings
from walk_runs import start, weights

from imgalign.config import load_config
from imgalign.errors import CheckpointError, ConfigError, InputError, StorageFullError
from imgalign.runs.folder import run_prompts
from imgalign.runs.status import RunStatus, write_status
from imgalign.train import run as train
from imgalign.train import starting as folder
from imgalign.train.config import TrainConfig
from imgalign.train.sources import load_prompts


def test_a_folder_with_other_things_and_a_missing_run_are_refused(tmp_path):
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(InputError, match="holiday"):
        start(tmp_path)
    with pytest.raises(InputError, match="no run to resume"):
        start(tmp_path / "nowhere", resume=True)
    with pytest.raises(InputError, match="got a file"):
        start(tmp_path / "holiday.jpg")


def test_too_many_prompts_per_iteration_is_a_clear_error(tmp_path):
    with pytest.raises(ConfigError, match="expected at most 5"):
        start(tmp_path / "run", settings=walk_settings(data=walk_data(prompts_per_iteration=6)))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["data.group_size=1"], "data.group_size: expected at least 2 with grpo, got 1"),
        (
            ["data.group_size=1", "algorithm={name: supervised}"],
            "data.group_size: expected at least 2 with weighting 'best', got 1",
        ),
        (
            ["policy.num_inference_steps=5", "algorithm.credited_steps=6"],
            "algorithm.credited_steps: expected at most policy.num_inference_steps, 5, got 6",
        ),
        (
            ["policy.num_inference_steps=5", "algorithm.timesteps_per_update=6"],
            "algorithm.timesteps_per_update: expected at most policy.num_inference_steps, 5, got 6",
        ),
        (["policy.num_inference_steps=1"], "policy.num_inference_steps: "),
        (["policy.target_modules=[]"], "policy.target_modules: "),
        (["seed=99999999999999999999"], "seed: "),
    ],
)
def test_settings_that_cannot_work_together_are_refused_by_name(overrides, said):
    with pytest.raises(ConfigError, match=said):
        load_config(TrainConfig, None, overrides)
    fitting = {
        "data.group_size=1": "data.group_size=2",
        "policy.num_inference_steps=1": "policy.num_inference_steps=2",
        "policy.target_modules=[]": "policy.target_modules=[conv2]",
        "seed=99999999999999999999": "seed=9223372036854775807",
    }
    alone = [fitting.get(each, each.replace("=6", "=5")) for each in overrides]
    load_config(TrainConfig, None, alone)


def test_a_crash_while_the_settings_were_written_leaves_a_folder_that_can_be_used(tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / ".lock").touch()
    (out / ".tmp-config.yaml").write_text("model: story")
    with pytest.raises(InputError, match="no run to resume"):
        start(out, settings=walk_settings(iterations=1), resume=True)
    assert start(out, settings=walk_settings(iterations=1)).step == 1
    assert not (out / ".tmp-config.yaml").exists()


@pytest.mark.parametrize("writer", ["dump_config", "write_atomically"])
def test_a_full_disk_while_the_settings_are_written_costs_nothing(tmp_path, monkeypatch, writer):
    def full(*_):
        (tmp_path / "run" / ".tmp-config.yaml").write_text("model: story")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(folder, writer, full)
        with pytest.raises(StorageFullError, match=r"settings; free some space and try again$"):
            start(tmp_path / "run", settings=walk_settings(iterations=1))
    assert start(tmp_path / "run", settings=walk_settings(iterations=1)).step == 1


@pytest.mark.parametrize("state", ["running", "finished"])
def test_a_full_disk_while_the_status_is_written_is_one_line(tmp_path, monkeypatch, state):
    def full(out, status: RunStatus):
        if status.state == state:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_status(out, status)

    monkeypatch.setattr(train, "write_status", full)
    with pytest.raises(StorageFullError, match=r"writing status.json; .* and resume$"):
        start(tmp_path / "run", settings=walk_settings(iterations=1))


def test_a_folder_below_a_file_is_refused_in_one_line(tmp_path):
    (tmp_path / "afile").touch()
    with pytest.raises(InputError, match=r"afile: expected a folder for the run, got a file"):
        start(tmp_path / "afile" / "deep" / "x")


def test_a_run_keeps_its_prompts_and_goes_on_with_them_when_their_file_changed(
    tmp_path, monkeypatch
):
    # A relative path, as people write them, and another folder to resume from.
    (tmp_path / "prompts.txt").write_text("".join(f"prompt {number}\n" for number in range(8)))
    monkeypatch.chdir(tmp_path)
    data = walk_data(prompts={"file": "prompts.txt"})
    long, short = walk_settings(data=data), walk_settings(data=data, iterations=4)
    asked = load_prompts(long.data)
    start(tmp_path / "whole", settings=long)
    start(tmp_path / "parts", settings=short)
    (tmp_path / "prompts.txt").write_text("another\nyet another\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    start(tmp_path / "parts", settings=long, resume=True)
    assert torch.equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert run_prompts(tmp_path / "parts") == run_prompts(tmp_path / "whole") == asked
    assert set(json.loads((tmp_path / "parts" / "prompts.json").read_text())) == {
        "training",
        "held_out",
    }


@pytest.mark.parametrize("content", [None, "{", "[]", '{"training": ["a"]}', '{"training": 5}'])
def test_prompts_that_were_lost_are_one_clear_error(tmp_path, content):
    if content is not None:
        (tmp_path / "prompts.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"prompts.json: (missing|damaged)"):
        run_prompts(tmp_path)


@pytest.mark.parametrize(
    "override",
    ["data.prompts.seed=-1", "optimizer.betas=[1.5,0.9]", "optimizer.betas=[0.9,-0.1]"],
)
def test_settings_that_no_library_accepts_are_refused_by_name(override):
    with pytest.raises(ConfigError, match=override.split("=")[0]):
        load_config(TrainConfig, None, [override])


def test_the_noise_floor_is_printed_beside_the_clip(tmp_path, capsys):
    # The walk scores again exactly, so its floor is 0; the clip is the one set here.
    settings = walk_settings(iterations=1, algorithm={"name": "grpo", "clip_nats": 1.25})
    start(tmp_path / "run", settings=settings)
    line = next(line for line in capsys.readouterr().err.splitlines() if "noise floor" in line)
    assert "noise floor of the log-ratio: 0 nats" in line
    assert "third of the clip, 1.25 nats" in line


def test_the_commands_in_the_docs_name_a_reward_and_resume_what_they_began():
    root = Path(__file__).parents[2]
    page = (root / "docs" / "algorithms" / "policy-gradient.md").read_text(encoding="utf-8")
    lines = [line.split() for line in page.splitlines() if line.startswith("imgalign train ")]
    begun, resumed = ([word for word in line if "=" in word] for line in lines)
    recipe = root / "configs" / "storybook_grpo.yaml"
    before = load_config(TrainConfig, recipe, begun)
    now = load_config(TrainConfig, recipe, [*begun, *resumed])
    assert before.reward.path == "runs/reward"
    assert now.run.iterations > before.run.iterations
    folder.refuse_changes(before, now)
