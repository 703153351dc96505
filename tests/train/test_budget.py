"""Claims: a run with a KL budget ends with weights inside it, also when it was killed before."""

import pytest
import torch
from random_walk import Brightness, RandomWalk, walk_data, walk_settings
from walk_runs import Killed, killed_at, measured, start, trainer_files, weights

from imgalign.errors import ConfigError
from imgalign.runs.checkpoint import checkpoints, read_marker
from imgalign.runs.metrics import read_metrics
from imgalign.train import run as train


def drifting(**changes):
    """Weights that leave the pretrained model further behind with each iteration."""
    settings = {
        "algorithm": {"name": "grpo", "kl": {"kind": "fixed", "coefficient": 0.0}},
        "optimizer": {"learning_rate": 0.05},
        "iterations": 8,
        "checkpoint_every": 1,
    }
    return walk_settings(**settings | changes)


def kl_of(shift: torch.Tensor) -> float:
    """The closed form."""
    sigma = RandomWalk(num_steps=3).sigma[:, None, None, None]
    return (shift**2 / (2 * sigma**2)).sum().item()


@pytest.fixture(scope="module")
def drift(tmp_path_factory) -> list[float]:
    """KL of the weights of steps 0, 1, ..., which no budget changes."""
    out = tmp_path_factory.mktemp("drift") / "run"
    start(out, settings=drifting())
    return [float(record["kl"]) for record in read_metrics(out / "metrics.jsonl")[1:]]


def test_the_kl_budget_ends_the_run_with_the_last_weights_inside(tmp_path):
    settings = walk_settings(
        algorithm={"name": "grpo", "kl": {"kind": "fixed", "coefficient": 0.0}},
        optimizer={"learning_rate": 0.05},
        kl_budget_nats=2.0,
        iterations=60,
        checkpoint_every=1,
    )
    result = start(tmp_path / "run", settings=settings)
    assert result.end == "kl budget"
    assert result.step < 59
    assert f"step-{result.step:06d}" == checkpoints(tmp_path / "run")[-1].name
    shift, sigma = weights(tmp_path / "run"), RandomWalk(num_steps=3).sigma
    kl = (shift**2 / (2 * sigma[:, None, None, None] ** 2)).sum()
    assert 0 < kl <= 2.0
    line = read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]
    assert max(float(line["kl"]), float(line.get("held_out_kl", 0.0))) > 2.0


def test_the_kept_weights_are_inside_the_budget_even_when_only_the_last_step_left_it(tmp_path):
    # Two iterations: the second ends outside, which only the measurement at the end can see.
    for held_out in (0, 2):
        settings = walk_settings(
            algorithm={"name": "grpo", "kl": {"kind": "fixed", "coefficient": 0.0}},
            optimizer={"learning_rate": 0.1},
            data=walk_data(held_out=held_out),
            kl_budget_nats=2.0,
            iterations=2,
        )
        out = tmp_path / f"run{held_out}"
        assert start(out, settings=settings).end == "kl budget"
        shift, sigma = weights(out), RandomWalk(num_steps=3).sigma
        assert 0 < (shift**2 / (2 * sigma[:, None, None, None] ** 2)).sum() <= 2.0


@pytest.mark.parametrize("checkpoint_every", [1, 5])
def test_a_killed_run_ends_inside_its_budget_just_as_the_uninterrupted_one(
    tmp_path, drift, checkpoint_every
):
    # Step 4 is the last inside. A run killed while it made step 6 goes on from step 5, whose KL
    # nobody has measured yet; with checkpoints at 5, 10, .. step 4 is not even on the disk.
    assert drift[3] < drift[4] < drift[5]
    budget = (drift[4] + drift[5]) / 2
    settings = drifting(kl_budget_nats=budget, checkpoint_every=checkpoint_every)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    expected = start(whole, settings=settings)
    with pytest.raises(Killed):
        start(parts, settings=settings, on_step=killed_at(6))
    assert checkpoints(parts)[-1].name == "step-000005"
    result = start(parts, settings=settings, resume=True)
    assert (result.end, result.step, result.message) == ("kl budget", 4, expected.message)
    assert kl_of(weights(parts)) == pytest.approx(drift[4], rel=1e-4)
    assert torch.equal(weights(parts), weights(whole))
    assert measured(parts) == measured(whole)
    assert trainer_files(parts) == trainer_files(whole)


def test_a_run_that_spent_its_budget_goes_on_with_a_larger_one(tmp_path, drift):
    out = tmp_path / "run"
    first = start(out, settings=drifting(kl_budget_nats=(drift[3] + drift[4]) / 2))
    assert (first.end, first.step) == ("kl budget", 3)
    larger = drifting(kl_budget_nats=(drift[5] + drift[6]) / 2)
    again = start(out, settings=larger, resume=True)
    assert (again.end, again.step) == ("kl budget", 5)
    assert kl_of(weights(out)) == pytest.approx(drift[5], rel=1e-4)


@pytest.mark.parametrize("before", [None, 1e6])
def test_a_budget_that_was_spent_before_resuming_is_an_error_and_no_weights_pass_for_inside(
    tmp_path, drift, before
):
    out = tmp_path / "run"
    start(out, settings=drifting(kl_budget_nats=before, iterations=5))
    kept = weights(out)
    with pytest.raises(ConfigError, match=r"kl_budget_nats: expected at least .* iteration 5"):
        start(out, settings=drifting(kl_budget_nats=drift[4] / 2), resume=True)
    assert torch.equal(weights(out), kept)


def test_the_best_checkpoint_inside_the_budget_is_there_when_a_run_goes_back(tmp_path, drift):
    # By the held-out prompts step 5 is inside the budget and the best; by the training prompts of
    # the next iteration it is outside. So the run goes back to step 4, when the best was step 2.
    class MilderOnHeldOut(RandomWalk):
        def step_distributions(self, trajectory, steps):
            if trajectory.prompts[0] not in held_out:
                return super().step_distributions(trajectory, steps)
            shift = self.shift.data.clone()
            self.shift.data.mul_(0.1)
            found = super().step_distributions(trajectory, steps)
            self.shift.data.copy_(shift)
            return found

    class Scripted:
        scores = iter([0.0, 1.0, 5.0, 0.0, 0.0, 9.0, 0.0, 0.0])

        def score(self, *, prompts, samples):
            return torch.full((len(prompts),), next(self.scores))

    settings = drifting(
        kl_budget_nats=(drift[4] + drift[5]) / 2,
        measure_every=1,
        patience=None,
        keep_checkpoints=1,
    )
    held_out = settings.data.load_prompts().held_out
    out = tmp_path / "run"
    result = train.run(
        settings,
        reward=Brightness(),
        held_out_reward=Scripted(),
        out=out,
        policy=MilderOnHeldOut(num_steps=3),
    )
    assert (result.end, result.step) == ("kl budget", 4)
    assert read_marker(out, "best") == 2
    assert result.checkpoint == out / "step-000002"


def test_going_back_inside_the_budget_takes_what_was_remembered_then(tmp_path):
    online = {"name": "dpo", "refresh": {"every": 1, "max_nats": 1e6}}
    budget = {"algorithm": online, "checkpoint_every": 1, "measure_every": 1}
    drifted = drifting(**budget, kl_budget_nats=1.0, iterations=30)
    policy = RandomWalk(num_steps=3)
    result = start(tmp_path / "back", settings=drifted, policy=policy)
    assert (result.end, result.step > 1) == ("kl budget", True)
    ended = RandomWalk(num_steps=3)
    until = drifting(**budget, kl_budget_nats=1e6, iterations=result.step)
    start(tmp_path / "until", settings=until, policy=ended)
    for one, same in zip([*policy.remembered], [*ended.remembered], strict=True):
        assert torch.equal(one, same)
    assert torch.equal(policy.shift, ended.shift)
    assert not torch.equal(policy.shift, policy.remembered[0])
    # Killed before it goes back, it is resumed with the snapshot of its checkpoint.
    with pytest.raises(Killed):
        start(tmp_path / "killed", settings=drifted, on_step=killed_at(result.step + 1))
    again = RandomWalk(num_steps=3)
    start(tmp_path / "killed", settings=drifted, resume=True, policy=again)
    assert torch.equal(again.remembered[0], policy.remembered[0])
