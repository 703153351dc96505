"""Claims: a run goes on with the rewards that it began with, wherever they lie now, or says what
is another."""

import json
import shutil

import pytest
import torch
from random_walk import walk_settings
from walk_runs import start, weights

from imgalign.errors import CheckpointError, ConfigError
from imgalign.train.config import RewardConfig
from imgalign.train.drawn import DrawnConfig
from imgalign.train.reward_record import find_rewards, recorded_rewards, same_rewards


def make_reward(path, *, bias: float = 0.0):
    """A folder as `imgalign reward train` leaves it, as far as a run looks at it."""
    path.mkdir(parents=True)
    (path / "contract.json").write_text(json.dumps({"format": 1}))
    (path / "model.safetensors").write_bytes(f"{bias}".encode())
    (path / "report.json").write_text("{}")
    return path


def rewarded(path, **changes):
    return walk_settings(reward={"path": str(path)}, **changes)


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


def drawn_by(adapter) -> RewardConfig:
    return RewardConfig(path="reward of images", drawn=DrawnConfig(adapter=str(adapter)))


def make_adapter(path, weights: bytes):
    path.mkdir(parents=True, exist_ok=True)
    (path / "pytorch_lora_weights.safetensors").write_bytes(weights)
    return path


def record(run, reward: RewardConfig) -> None:
    run.mkdir(parents=True)
    (run / "rewards.json").write_text(json.dumps(recorded_rewards(reward, run)))


def test_other_weights_that_draw_what_is_scored_are_refused(tmp_path):
    adapter = make_adapter(tmp_path / "adapter", b"first")
    record(tmp_path / "run", drawn_by(adapter))
    assert same_rewards(tmp_path / "run", drawn_by(adapter)) == {"drawn.adapter"}
    make_adapter(adapter, b"second")
    with pytest.raises(ConfigError, match=r"reward.drawn.adapter: .*holds other weights than"):
        same_rewards(tmp_path / "run", drawn_by(adapter))


def test_weights_that_draw_are_found_again_after_a_move(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    adapter = make_adapter(old / "adapter", b"weights")
    record(old / "run", drawn_by(adapter))
    old.rename(new)
    settings = walk_settings().model_copy(update={"reward": drawn_by(adapter)})
    drawn = find_rewards(settings, new / "run").reward.drawn
    assert drawn is not None
    assert drawn.adapter is not None
    assert (new / "adapter").samefile(drawn.adapter)
