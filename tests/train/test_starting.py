"""Claims: a run takes only a folder that is its own, also after a crash in its first moment; a
resumed run has the settings, prompts and checkpoints it began with, or says what is missing."""

import errno
import json
import os
import shutil
import signal
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from random_walk import walk_data, walk_data_for, walk_settings
from walk_runs import Killed, killed_at, measured, start, weights

from imgalign.config import dump_config, load_config
from imgalign.errors import CheckpointError, ConfigError, InputError, StorageFullError
from imgalign.runs.checkpoint import checkpoints, write_manifest
from imgalign.runs.folder import run_prompts
from imgalign.runs.state import load_state, save_state
from imgalign.runs.trained import ADAPTER
from imgalign.train import starting as folder
from imgalign.train.config import TrainConfig


def test_a_folder_with_other_things_and_a_missing_run_are_refused(tmp_path):
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(InputError, match="holiday"):
        start(tmp_path)
    with pytest.raises(InputError, match="no run to resume"):
        start(tmp_path / "nowhere", resume=True)
    with pytest.raises(InputError, match="got a file"):
        start(tmp_path / "holiday.jpg")


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
    asked = long.data.load_prompts()
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


def test_a_second_run_in_the_same_folder_is_one_clear_error(tmp_path, whole_run):
    before = {path: path.stat().st_mtime_ns for path in whole_run.rglob("*")}
    with pytest.raises(InputError, match=r"already holds a run .*--resume"):
        start(whole_run)
    assert {path: path.stat().st_mtime_ns for path in whole_run.rglob("*")} == before


def test_resuming_with_other_settings_names_the_first_that_differs(tmp_path):
    start(tmp_path / "run", settings=walk_settings(iterations=1))
    with pytest.raises(ConfigError, match="seed: the run began with 0, got 1"):
        start(tmp_path / "run", settings=walk_settings(seed=1), resume=True)


def test_resuming_where_every_checkpoint_is_damaged_does_not_start_over(tmp_path):
    start(tmp_path / "run", settings=walk_settings(iterations=2))
    (tmp_path / "run" / "step-000002" / ADAPTER).unlink()
    with pytest.raises(CheckpointError, match="none of its 1 checkpoints is whole"):
        start(tmp_path / "run", resume=True)


def test_resuming_passes_over_a_damaged_newest_checkpoint(tmp_path, whole_run, caplog):
    start(tmp_path / "run", settings=walk_settings(iterations=4))
    (tmp_path / "run" / "step-000004" / ADAPTER).write_bytes(b"")
    start(tmp_path / "run", resume=True)
    assert "step-000004" in caplog.text
    assert torch.equal(weights(tmp_path / "run"), weights(whole_run))


@pytest.mark.parametrize("markers", [True, False])
def test_resuming_after_the_checkpoints_were_removed_keeps_the_metrics_and_says_so(
    tmp_path, markers
):
    out = tmp_path / "run"
    start(out, settings=walk_settings(iterations=4))
    for path in checkpoints(out):
        shutil.rmtree(path)
    if not markers:
        for name in ("latest.json", "best.json"):
            (out / name).unlink(missing_ok=True)
    before = (out / "metrics.jsonl").read_bytes()
    with pytest.raises(CheckpointError, match=r"run: its checkpoints are gone.*put them back, or"):
        start(out, resume=True)
    assert (out / "metrics.jsonl").read_bytes() == before


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again(tmp_path):
    settings = walk_settings(checkpoint_every=4, measure_every=100, iterations=6)
    start(tmp_path / "whole", settings=settings)
    with pytest.raises(Killed):
        start(tmp_path / "run", settings=settings, on_step=killed_at(3))
    assert not checkpoints(tmp_path / "run")
    start(tmp_path / "run", settings=settings, resume=True)
    assert measured(tmp_path / "run") == measured(tmp_path / "whole")


def terminated_at(number):
    def on_step(step, values):
        if step == number:
            signal.raise_signal(signal.SIGTERM)

    return on_step


@pytest.mark.parametrize(
    ("measured_every", "on_step"),
    [
        pytest.param(100, None, id="finished"),
        pytest.param(100, terminated_at(3), id="stopped"),
        pytest.param(1, killed_at(5), id="killed after its best step was saved"),
    ],
)
def test_a_short_run_whose_checkpoints_were_removed_does_not_begin_again(
    tmp_path, measured_every, on_step
):
    out = tmp_path / "run"
    settings = walk_settings(checkpoint_every=40, measure_every=measured_every)
    with suppress(Killed):
        start(out, settings=settings, on_step=on_step)
    assert checkpoints(out)
    for path in checkpoints(out):
        shutil.rmtree(path)
    for name in ("latest.json", "best.json"):
        (out / name).unlink(missing_ok=True)
    before = (out / "metrics.jsonl").read_bytes()
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"run: its checkpoints are gone.*put them back"):
            start(out, settings=settings, resume=True)
    assert (out / "metrics.jsonl").read_bytes() == before


def test_who_insisted_on_an_end_before_the_first_checkpoint_may_begin_again(tmp_path):
    settings = walk_settings(checkpoint_every=40, measure_every=100, iterations=6)

    def insist(step, values):
        if step == 3:
            raise KeyboardInterrupt  # as the third Ctrl-C does, which saves nothing

    with pytest.raises(KeyboardInterrupt):
        start(tmp_path / "run", settings=settings, on_step=insist)
    assert start(tmp_path / "run", settings=settings, resume=True).step == 6


def test_beginning_again_is_said(tmp_path, caplog):
    out = tmp_path / "run"
    settings = walk_settings(checkpoint_every=40, measure_every=100, iterations=6)
    with pytest.raises(Killed):
        start(out, settings=settings, on_step=killed_at(3))
    assert "begins again" not in caplog.text
    start(out, settings=settings, resume=True)
    (said,) = [each for each in caplog.messages if "begins again" in each]
    assert said.startswith(f"{out}: ")
    assert "3 iterations" in said


def test_going_on_from_an_older_checkpoint_than_the_newest_saved_says_so(tmp_path, caplog):
    out = tmp_path / "run"
    start(out, settings=walk_settings(iterations=4))
    shutil.rmtree(out / "step-000004")
    start(out, resume=True)
    assert "latest.json names step-000004, which is gone; going on from step-000002" in caplog.text


@pytest.mark.parametrize("missing", [["prompts.json"], ["prompts.json", "rewards.json"]])
def test_a_kill_between_the_first_files_of_a_run_does_not_ask_for_a_new_one(tmp_path, missing):
    out = tmp_path / "run"
    with pytest.raises(Killed):
        start(out, on_step=killed_at(0))
    (out / "metrics.jsonl").unlink()
    for name in missing:
        (out / name).unlink()
    assert start(out, resume=True).step == 6


def test_prompts_that_were_lost_after_the_first_step_are_still_an_error(tmp_path):
    out = tmp_path / "run"
    start(out, settings=walk_settings(iterations=2))
    (out / "prompts.json").unlink()
    with pytest.raises(CheckpointError, match=r"prompts.json: missing"):
        start(out, resume=True)


def test_a_run_begun_again_never_has_the_prompts_of_the_one_before(tmp_path, monkeypatch):
    out = tmp_path / "run"
    with pytest.raises(Killed):
        start(out, on_step=killed_at(0))
    (out / "metrics.jsonl").unlink()
    other = walk_settings(data=walk_data(prompts={"num_storybook": 7}), iterations=2)

    def killed(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(folder, "write_atomically", killed)  # after config.yaml was written
        with pytest.raises(Killed):
            start(out, settings=other)
    start(out, settings=other, resume=True)
    assert len(run_prompts(out).training) == 7


def test_a_start_that_was_killed_before_its_settings_were_there_begins_anew(tmp_path, monkeypatch):
    out, algorithm = tmp_path / "run", {"name": "grpo", "ptx": 0.5}
    data = walk_data_for(algorithm, tmp_path / "images")
    settings = walk_settings(data=data, algorithm=algorithm, iterations=1)
    dumped = dump_config

    def killed(config, path):
        if (out / "images.json").exists():
            raise Killed
        dumped(config, path)

    with monkeypatch.context() as patch:
        patch.setattr(folder, "dump_config", killed)
        for _ in range(2):  # the second time before it has written anything
            with pytest.raises(Killed):
                start(out, settings=settings)
    assert (out / "images.json").exists()
    assert not (out / "config.yaml").exists()
    assert start(out, settings=settings).step == 1
    assert not any(out.glob(".tmp-*"))


def test_the_same_prompts_from_another_file_are_the_same_prompts(tmp_path):
    one, other = tmp_path / "one.txt", tmp_path / "other.txt"
    one.write_text("".join(f"prompt {number}\n" for number in range(8)))
    shutil.copy(one, other)

    def asking(file, **changes):
        return walk_settings(data=walk_data(prompts={"file": str(file)}), **changes)

    start(tmp_path / "run", settings=asking(one, iterations=2))
    start(tmp_path / "run", settings=asking(other, iterations=4), resume=True)
    one.write_text(one.read_text() + "one more\n")
    with pytest.raises(ConfigError, match=r"prompts.file: the run began with .*other.txt', got"):
        start(tmp_path / "run", settings=asking(one), resume=True)


@pytest.mark.parametrize("part", ["step", "learner", "best", "rng", "rng.cpu", "learner.algorithm"])
def test_a_trainer_state_without_one_of_its_parts_is_one_line(tmp_path, part):
    out = tmp_path / "run"
    start(out, settings=walk_settings(iterations=2))
    state = load_state(out / "step-000002", "trainer")
    owner, _, name = part.rpartition(".")
    del (state[owner] if owner else state)[name]
    save_state(out / "step-000002", "trainer", state)
    (out / "step-000002" / "manifest.json").unlink()
    write_manifest(out / "step-000002", 2)
    with pytest.raises(CheckpointError, match=f"step-000002: its trainer state .*{part}"):
        start(out, resume=True)
