"""Claims: an optimizer step whose loss or gradient is NaN or infinite is left out and counted, and
the run goes on with finite weights; one that only has such steps ends in one line, with its
checkpoints intact. Rewards that are not finite drop their sample alone."""

import math
import random
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from algorithm_rows import ALGORITHMS
from broken_numbers import BrokenWalk
from fault_counts import LONG, repeated
from random_walk import Brightness, walk_data_for, walk_settings
from walk_runs import start, weights

from imgalign.errors import NumericsError
from imgalign.runs.checkpoint import checkpoints, verify
from imgalign.runs.metrics import read_metrics
from imgalign.runs.status import read_status
from imgalign.train.learner import MOST_SKIPPED
from imgalign.train.starting import load_trainer_state

pytestmark = LONG

BROKEN = (math.nan, math.inf, -math.inf)
ITERATIONS = 4


def settings_of(name, folder, **changes):
    algorithm = ALGORITHMS[name]
    data = walk_data_for(algorithm, folder / "images")
    changes = {"iterations": ITERATIONS, **changes}
    return walk_settings(algorithm=algorithm, data=data, **changes)


def all_finite(state: Any) -> bool:
    """Whether all numbers of nested state are: what the next iterations go on from."""
    match state:
        case torch.Tensor():
            return bool(state.isfinite().all())
        case float():
            return math.isfinite(state)
        case dict():
            return all(map(all_finite, state.values()))
        case list() | tuple():
            return all(map(all_finite, state))
    return True


@cache
def num_passes(name: str) -> int:
    """How many forward passes a run learns from."""
    with TemporaryDirectory() as folder:
        policy, settings = BrokenWalk({}), settings_of(name, Path(folder))
        start(Path(folder) / "run", settings=settings, policy=policy, on_step=policy.on_step)
    return policy.learned


@repeated(1)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_steps_that_are_not_finite_are_left_out_and_counted(tmp_path, faults, name, number):
    learned = num_passes(name)
    chance = random.Random(f"{name}, {number}")
    plan = {chance.randrange(learned): chance.choice(BROKEN) for _ in range(chance.randint(1, 2))}
    policy, out = BrokenWalk(plan), tmp_path / str(number)
    settings = settings_of(name, tmp_path)
    with faults.inject("losses that are not finite"):
        start(out, settings=settings, policy=policy, on_step=policy.on_step)
        records = read_metrics(out / "metrics.jsonl")
        skipped = sum(int(record.get("skipped_steps") or 0) for record in records)
        assert policy.broken == len(plan)
        assert 1 <= skipped <= len(plan)
        assert weights(out).isfinite().all()
        assert records[-1]["step"] == ITERATIONS
        assert all_finite(load_trainer_state(checkpoints(out)[-1])["learner"])


@repeated(1)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_run_whose_steps_are_never_finite_any_more_ends_in_one_line(
    tmp_path, faults, name, number
):
    learned = num_passes(name)
    chance = random.Random(f"{name}, {number}, for good")
    begin = chance.randrange(learned // 2, learned)
    plan = dict.fromkeys(range(begin, 100 * learned), chance.choice(BROKEN))
    policy, out = BrokenWalk(plan), tmp_path / str(number)
    settings = settings_of(name, tmp_path, iterations=50, checkpoint_every=1)
    with faults.inject("losses that stay not finite"):
        with pytest.raises(NumericsError, match=r"start a new run with a lower") as raised:
            start(out, settings=settings, policy=policy, on_step=policy.on_step)
        assert str(raised.value).isprintable()
        for checkpoint in checkpoints(out):
            verify(checkpoint)
        assert weights(out).isfinite().all()
        status = read_status(out)
        assert status is not None
        assert (status.state, status.message) == ("failed", str(raised.value))
        records = read_metrics(out / "metrics.jsonl")
        assert sum(int(each.get("skipped_steps") or 0) for each in records) < MOST_SKIPPED


class Patchy(Brightness):
    """A reward that is not finite for some samples."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.bad = 0

    def score(self, *, prompts, samples):
        scores = super().score(prompts=prompts, samples=samples)
        for place in range(1, len(scores)):
            if self.chance.random() < 0.3:
                scores[place] = self.chance.choice(BROKEN)
                self.bad += 1
        return scores


@repeated(1)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_rewards_that_are_not_finite_drop_their_samples_alone(tmp_path, faults, name, number):
    reward = Patchy(random.Random(f"{name}, {number}"))
    with faults.inject("rewards that are not finite"):
        start(tmp_path / str(number), settings=settings_of(name, tmp_path), reward=reward)
        assert reward.bad > 0
        assert weights(tmp_path / str(number)).isfinite().all()
        assert torch.count_nonzero(weights(tmp_path / str(number)))
