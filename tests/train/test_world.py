"""Claims: two processes make together the run that one makes, stop together, and only the first
writes."""

import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from algorithm_rows import ALGORITHMS, algorithm_config
from random_walk import Brightness, RandomWalk, walk_data, walk_data_for, walk_settings
from torch import Tensor
from walk_batches import sample
from walk_runs import measured, start
from worlds import OneOfTwo, in_two

from imgalign.errors import ConfigError
from imgalign.policy import Trajectory
from imgalign.prompts import EVALUATION_SEEDS
from imgalign.runs.checkpoint import checkpoints
from imgalign.runs.world import World, writes_files
from imgalign.train import run as train
from imgalign.train.assemble import build_learner
from imgalign.train.config import OptimizerConfig
from imgalign.train.data.source import Parts
from imgalign.train.loop import Rewards, Session
from imgalign.train.recorder import Recorder
from imgalign.train.stopping import StopRequest


def test_a_step_whose_gradient_is_not_finite_in_one_process_is_left_out_by_both():
    def work(world: World) -> Tensor:
        policy = RandomWalk(num_steps=2)
        learner = build_learner(
            policy,
            algorithm=algorithm_config("grpo"),
            optimizer=OptimizerConfig(),
            seed=0,
            world=world,
        )
        if world.index == 1:
            policy.shift.register_hook(lambda gradient: gradient * torch.nan)
        metrics = learner.update(sample(policy), iteration=0)
        assert metrics["skipped_steps"] > 0 == metrics["optimizer_steps"]
        return policy.shift.detach()

    for shift in in_two(work):
        assert not shift.any()


@pytest.mark.parametrize("name", ALGORITHMS)
def test_two_processes_make_the_run_of_one_and_only_the_first_writes(tmp_path, capsys, name):
    # One prompt of two each, in training and held out. One minibatch: its order plays no role.
    algorithm = {**ALGORITHMS[name], "minibatches": 1}
    data = walk_data_for(algorithm, tmp_path / "images")
    settings = walk_settings(algorithm=algorithm, data=data, iterations=4)
    start(tmp_path / "alone", settings=settings)
    capsys.readouterr()

    def work(world: World) -> tuple[train.RunResult, Tensor]:
        assert isinstance(world, OneOfTwo)
        policy = RandomWalk(num_steps=3)
        out = tmp_path / str(world.index)
        result = train.run(settings, reward=Brightness(), out=out, policy=policy, world=world)
        return result, policy.shift.detach()

    (first, weights), (second, same) = in_two(work)
    assert (first.end, first.step) == (second.end, second.step) == ("finished", 4)
    assert torch.equal(weights, same)
    assert weights.abs().max() > 0.01
    assert capsys.readouterr().err.count("checks passed") == 1
    written = {path.name for path in (tmp_path / "0").iterdir()}
    assert written == {path.name for path in (tmp_path / "alone").iterdir()}
    assert not (tmp_path / "1").exists()
    for expected, found in zip(measured(tmp_path / "alone"), measured(tmp_path / "0"), strict=True):
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_a_signal_to_one_process_ends_both_at_the_same_iteration_without_that_batch(tmp_path):
    settings = walk_settings(iterations=6)
    prompts = settings.data.load_prompts()

    def work(world: World) -> tuple[str, int]:
        stop = StopRequest()

        class Stopping(RandomWalk):
            """Two parts of two images an iteration; the second process is told in the third."""

            parts = 0

            def sample(
                self,
                prompts: Sequence[str],
                *,
                seeds: Sequence[int],
                prompt_ids: Sequence[str] | None = None,
            ) -> Trajectory:
                self.parts += seeds[0] not in EVALUATION_SEEDS
                if self.parts == 5 and world.index == 1:
                    stop.signal = signal.SIGTERM
                return super().sample(prompts, seeds=seeds, prompt_ids=prompt_ids)

        out = tmp_path / str(world.index)
        out.mkdir()
        policy = Stopping(num_steps=3, batch_size=2)
        session = Session(
            settings,
            policy=policy,
            rewards=Rewards(training=Brightness(), held_out=Brightness()),
            prompts=prompts,
            source=settings.data.build(
                Parts(
                    policy=policy,
                    reward=Brightness(),
                    prompts=prompts,
                    run=out,
                    seed=settings.seed,
                    world=world,
                )
            ),
            recorder=Recorder(out, settings.run, writes=writes_files(world)),
            stop=stop,
            world=world,
        )
        return session.go(), session.step

    assert in_two(work) == [("signal", 2)] * 2
    assert [path.name for path in checkpoints(tmp_path / "0")] == ["step-000002"]
    assert list(Path(tmp_path / "1").iterdir()) == []


def test_each_process_needs_a_prompt(tmp_path):
    settings = walk_settings(data=walk_data(prompts_per_iteration=1))

    def work(world: World) -> None:
        with pytest.raises(ConfigError, match="at least 2, one for each process, got 1"):
            train.run(settings, reward=Brightness(), out=tmp_path / "run", world=world)

    in_two(work)
    assert not (tmp_path / "run").exists()
