"""Claims: a resumed run has the checkpoints, prompts and rewards that it began with, or says what
is missing; a run that was killed in its first moment can be resumed; a project can be moved."""

import json
import shutil
import signal
from contextlib import suppress

import pytest
import torch
from random_walk import walk_data, walk_settings
from walk_runs import Killed, killed_at, measured, start, weights

from imgalign.errors import CheckpointError, ConfigError
from imgalign.runs.checkpoint import checkpoints, write_manifest
from imgalign.runs.folder import run_prompts
from imgalign.runs.state import load_state, save_state
from imgalign.train import starting as folder
from imgalign.train.reward_record import find_rewards


def make_reward(path, *, bias: float = 0.0):
    """A folder as `imgalign reward train` leaves it, as far as a run looks at it."""
    path.mkdir(parents=True)
    (path / "contract.json").write_text(json.dumps({"format": 1}))
    (path / "model.safetensors").write_bytes(f"{bias}".encode())
    (path / "report.json").write_text("{}")
    return path


def rewarded(path, **changes):
    return walk_settings(reward={"path": str(path)}, **changes)


# --- checkpoints


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


# --- the first moment of a run


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


# --- rewards


def test_another_reward_at_the_same_path_is_refused(tmp_path):
    reward = make_reward(tmp_path / "reward")
    start(tmp_path / "run", settings=rewarded(reward, iterations=2))
    shutil.rmtree(reward)
    make_reward(reward, bias=1.0)
    with pytest.raises(ConfigError, match=r"reward.path: .*holds another reward than"):
        start(tmp_path / "run", settings=rewarded(reward), resume=True)
    kept = json.loads((tmp_path / "run" / "rewards.json").read_text())["path"]
    assert len(kept["sha256"]) == 64


def test_another_reward_is_not_accepted_because_the_record_was_lost(tmp_path):
    reward = make_reward(tmp_path / "reward")
    out = tmp_path / "run"
    start(out, settings=rewarded(reward, iterations=2))
    (out / "rewards.json").unlink()
    shutil.rmtree(reward)
    make_reward(reward, bias=1.0)
    with pytest.raises(CheckpointError, match=r"rewards.json: missing.*put it back"):
        start(out, settings=rewarded(reward), resume=True)
    assert not (out / "rewards.json").exists()


def test_a_reward_that_others_wrote_notes_into_is_still_the_same(tmp_path):
    reward = make_reward(tmp_path / "reward")
    start(tmp_path / "run", settings=rewarded(reward, iterations=2))
    (reward / "notes.txt").write_text("mine")
    (reward / "report.json").write_text('{"again": 1}')
    assert start(tmp_path / "run", settings=rewarded(reward), resume=True).step == 6


def test_a_moved_project_resumes_by_its_old_paths_and_by_its_new_ones(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    reward = make_reward(old / "reward")
    start(tmp_path / "whole", settings=rewarded(reward))
    start(old / "run", settings=rewarded(reward, iterations=2))
    old.rename(new)
    by_old_path = find_rewards(rewarded(reward, iterations=4), new / "run")
    assert by_old_path.reward.path is not None
    assert (new / "reward").samefile(by_old_path.reward.path)
    start(new / "run", settings=by_old_path, resume=True)
    start(new / "run", settings=rewarded(new / "reward"), resume=True)
    assert torch.equal(weights(new / "run"), weights(tmp_path / "whole"))


def test_a_reward_of_the_same_name_elsewhere_is_not_taken_for_one_that_is_there(tmp_path):
    reward = make_reward(tmp_path / "reward")
    start(tmp_path / "run", settings=rewarded(reward, iterations=2))
    settings = rewarded(reward)
    assert find_rewards(settings, tmp_path / "run") == settings
    assert find_rewards(settings, tmp_path / "no run") == settings


def test_a_reward_without_a_record_is_told_by_its_path(tmp_path):
    start(tmp_path / "run", settings=walk_settings(reward={"path": "a"}, iterations=2))
    with pytest.raises(ConfigError, match=r"reward.path: the run began with 'a', got 'b'"):
        start(tmp_path / "run", settings=walk_settings(reward={"path": "b"}), resume=True)


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


# --- trainer state


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
