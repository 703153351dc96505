"""Claims: where a batch does not fit into the device's memory, at the start or amid a run, the run
goes on from its newest checkpoint with half of it, and ends as one of such batches does; what
cannot go on ends in one line with the cure."""

import logging
import weakref

import pytest
import torch
from random_walk import Brightness, RandomWalk, walk_settings
from walk_runs import measured, weights

from imgalign.config import load_config
from imgalign.errors import ConfigError
from imgalign.runs.folder import CONFIG
from imgalign.runs.status import read_status
from imgalign.runs.world import Alone
from imgalign.train import run as train
from imgalign.train.config import TrainConfig
from imgalign.train.loop import Session
from imgalign.train.memory import with_smaller_batches


class Crowded(RandomWalk):
    """Runs out of memory with more than `largest` samples at a time, after so many passes."""

    def __init__(self, settings, *, largest, after):
        super().__init__(num_steps=3, batch_size=settings.policy.batch_size)
        self.largest = largest
        self.after = after

    def step_means(self, latents, steps):
        self.after -= 1
        if self.after < 0 and len(latents) > self.largest:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().step_means(latents, steps)


@pytest.fixture
def crowd(monkeypatch):
    """Makes models that runs load run out of memory; returns weak references to those loaded."""

    def begin(*, largest, after=0):
        loaded = []

        def load(settings, *, resumed=None):
            gone = [each() is None for each in loaded]
            assert all(gone), "the model that did not fit is still in memory"
            loaded.append(weakref.ref(policy := Crowded(settings, largest=largest, after=after)))
            return policy

        monkeypatch.setattr(train, "load_policy", load)
        return loaded

    return begin


def go(out, size, **how):
    settings = walk_settings(policy={"batch_size": size})
    return train.run(settings, reward=Brightness(), out=out, **how)


@pytest.mark.parametrize("after", [0, 30])
def test_a_run_goes_on_with_half_of_a_batch_that_does_not_fit(crowd, tmp_path, caplog, after):
    crowd(largest=99)
    go(tmp_path / "small", 2)
    loaded = crowd(largest=2, after=after)
    with caplog.at_level(logging.WARNING):
        result = go(tmp_path / "run", 8)
    assert len(loaded) == 3
    assert (result.end, result.step) == ("finished", 6)
    assert [line for line in caplog.messages if "memory" in line] == [
        f"policy.batch_size: {size} samples at a time do not fit into the device's memory; "
        f"going on with {size // 2} at a time"
        for size in (8, 4)
    ]
    assert weights(tmp_path / "run").equal(weights(tmp_path / "small"))
    assert measured(tmp_path / "run") == measured(tmp_path / "small")
    assert load_config(TrainConfig, tmp_path / "run" / CONFIG).policy.batch_size == 8


def test_what_was_saved_before_is_not_made_again(crowd, tmp_path, caplog, monkeypatch):
    resumed = []
    original = Session.resume

    def resume(session, checkpoint):
        resumed.append(checkpoint.name)
        original(session, checkpoint)

    monkeypatch.setattr(Session, "resume", resume)
    crowd(largest=4, after=80)
    result = go(tmp_path / "run", 8)
    assert resumed == ["step-000002"]
    assert result.step == 6
    assert [record["step"] for record in measured(tmp_path / "run")] == [*range(7)]


def test_a_single_sample_that_does_not_fit_ends_the_run_in_one_line(crowd, tmp_path):
    crowd(largest=0)
    with pytest.raises(ConfigError, match=r"^policy\.batch_size: one sample at a time does not"):
        go(tmp_path / "run", 4)
    status = read_status(tmp_path / "run")
    assert status.state == "failed"
    assert "policy.gradient_checkpointing=true" in status.message


def test_a_model_that_was_handed_in_keeps_its_batches(tmp_path):
    policy = Crowded(walk_settings(), largest=2, after=0)
    with pytest.raises(torch.OutOfMemoryError):
        go(tmp_path / "run", 4, policy=policy)


def test_processes_end_with_the_batch_to_go_on_with(crowd, tmp_path):
    class OneOfTwo(Alone):
        size = 2
        index = 1

    cure = r"process 1 of 2; go on with --resume policy\.batch_size=2$"
    with pytest.raises(ConfigError, match=cure):
        with_smaller_batches(walk_settings(policy={"batch_size": 4}), world=OneOfTwo())
    crowd(largest=4)
    go(tmp_path / "run", 4)
    go(tmp_path / "run", 2, resume=True)  # which is no change of the run
