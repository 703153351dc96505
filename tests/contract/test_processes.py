"""What every algorithm must do in two processes: together, what one does."""

import math
from pathlib import Path

import pytest
import torch
from algorithm_rows import ALGORITHMS, DRAWN, GIVEN, algorithm_config
from batches import Batch, batch_of, cut
from contract_rows import (
    SAMPLING,
    each_algorithm,
    gradient,
    losses,
    moved_walk,
)
from policies import KINDS
from torch import Tensor
from torch.testing import assert_close
from worlds import OneOfTwo, in_two

from imgalign.algorithms.batches import Rollout
from imgalign.algorithms.choice import build_algorithm
from imgalign.policy import StepPolicy
from imgalign.prompts import Prompts
from imgalign.runs.state import save_state
from imgalign.runs.world import Alone, World
from imgalign.train.assemble import build_learner
from imgalign.train.config import OptimizerConfig
from imgalign.train.data.images import ImagesConfig
from imgalign.train.data.source import Parts


@each_algorithm
def test_the_gradients_of_two_processes_add_up_to_that_of_one(name, make_batch):
    # Each has the images of one prompt, and not the same number of them.
    whole = make_batch(moved_walk())
    mine = [[0, 2, 4, 6], [1, 3, 5]]
    together = cut(whole, [mine[0] + mine[1]])
    expected = gradient(name, moved_walk(), together)

    def work(world: World) -> tuple[Tensor, dict[str, float]]:
        policy, share = moved_walk(), cut(whole, [mine[world.index]])
        algorithm = build_algorithm(algorithm_config(name, minibatches=1), seed=0)
        losses(algorithm, policy, share, world=world)
        assert isinstance(world, OneOfTwo)
        assert world.num_totals > 0
        assert policy.shift.grad is not None
        return policy.shift.grad, dict(algorithm.metrics())

    (first, said), (second, also) = in_two(work)
    assert_close(first + second, expected)
    alone = build_algorithm(algorithm_config(name, minibatches=1), seed=0)
    losses(alone, moved_walk(), together)
    assert said == also
    assert said == pytest.approx(dict(alone.metrics()), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "drawn"),
    [*((name, "") for name in ALGORITHMS), *(("grpo", drawn) for drawn in DRAWN if drawn)],
)
def test_two_processes_make_the_steps_of_one_however_many_passes_each_needs(
    name, drawn, make_batch, tmp_path
):
    whole = make_batch(moved_walk())
    mine = [[[0, 2], [4], [6]], [[1, 3, 5]]]  # as sampled: three parts in one process, one in other

    def learned(batch: Batch, world: World, folder: Path) -> Tensor:
        policy = moved_walk(batch_size=2)
        learner = build_learner(
            policy,
            algorithm=algorithm_config(name, **DRAWN[drawn]),
            optimizer=OptimizerConfig(learning_rate=0.02),
            seed=0,
            world=world,
        )
        for iteration in range(2):
            learner.update(batch, iteration=iteration)
        folder.mkdir()
        save_state(folder, "learner", learner.state_dict())
        return policy.shift.detach().clone()

    folders = [tmp_path / "0", tmp_path / "1"]
    expected = learned(cut(whole, mine[0] + mine[1]), Alone(), tmp_path / "one")
    first, second = in_two(
        lambda world: learned(
            cut(whole, mine[world.index], examples=[world.index]), world, folders[world.index]
        )
    )
    assert torch.equal(first, second)
    assert_close(first, expected)
    for file in ("learner.json", "learner.safetensors"):
        one, other = ((folder / file).read_bytes() for folder in folders)
        assert one == other


def test_processes_refresh_together_by_the_distance_of_all():
    whole = batch_of(moved_walk())
    shares = [[0, 2, 4, 6], [1, 3, 5, 7]]

    def distance_of(places: list[int], world: World, **refresh: float) -> tuple[float, bool]:
        policy = moved_walk()
        config = algorithm_config(
            "dpo, refreshed", minibatches=1, refresh={"every": 1, "max_nats": 1e3, **refresh}
        )
        algorithm = build_algorithm(config, seed=0)
        losses(algorithm, policy, cut(whole, [places]), world=world)
        return algorithm.metrics()["reference_distance"], bool(policy.remembered)

    alone = [distance_of(share, Alone())[0] for share in shares]
    together, _ = distance_of(shares[0] + shares[1], Alone())
    near, far = sorted(alone)
    assert near < together < far
    for bound, expected in (((near + together) / 2, False), ((together + far) / 2, True)):

        def share_of(world: World, most: float = bound) -> tuple[float, bool]:
            return distance_of(shares[world.index], world, max_nats=most)

        found = in_two(share_of)
        assert found[0] == found[1]
        assert found[0][1] == expected
        assert found[0][0] == pytest.approx(together if expected else 0)


@pytest.mark.parametrize("name", SAMPLING)
def test_a_process_without_any_finite_reward_waits_for_the_other(name):
    whole = batch_of(moved_walk())
    (trajectory,) = whole.batch
    good, bad = [0, 2, 4, 6], [1, 3, 5, 7]
    rewards = [whole.rewards[good], torch.full((4,), math.nan)]

    def work(world: World) -> list[bool]:
        policy = moved_walk()
        share = Rollout(
            batch=[trajectory.select([good, bad][world.index])], rewards=rewards[world.index]
        )
        algorithm = build_algorithm(algorithm_config(name, minibatches=1), seed=0)
        return [loss.ends_step for loss in losses(algorithm, policy, share, world=world)]

    for ends in in_two(work):
        assert sum(ends) == 1
        assert ends[-1]


def test_a_process_that_is_dealt_no_example_waits_for_the_other(folder, tmp_path):
    def learned(world: World) -> Tensor:
        policy = moved_walk()
        parts = Parts(
            policy=policy, reward=None, prompts=Prompts((), ()), run=tmp_path, seed=0, world=world
        )
        batch = ImagesConfig(folder=folder, images_per_iteration=1).build(parts).batch(0)
        algorithm = build_algorithm(algorithm_config(GIVEN[0]), seed=0)
        losses(algorithm, policy, batch, world=world)
        found = policy.shift.grad
        return torch.zeros(policy.shift.shape) if found is None else found

    first, second = in_two(learned)
    assert not second.any()
    assert first.any()
    assert_close(first, learned(Alone()))


def test_two_processes_draw_for_each_image_what_one_draws(models):
    # One image in a pass, so that no rounding depends on who scores it.
    policies = [KINDS["diffusion"](models, batch_size=1) for _ in range(3)]
    whole = batch_of(policies[0], images=6)
    mine = [[0, 2], [1, 3, 5, 4]]
    config = algorithm_config("supervised, given images")

    def shares(policy: StepPolicy, places: list[int], world: World) -> list[float]:
        batch = [whole.batch[place] for place in places]
        share = Rollout(batch=batch, rewards=whole.rewards[places])
        algorithm = build_algorithm(config, seed=0)
        return [
            loss.value.item()
            for loss in losses(algorithm, policy, share, world=world)
            if loss.value is not None
        ]

    expected = torch.tensor(shares(policies[0], mine[0] + mine[1], Alone())).view(4, 6)
    first, second = in_two(
        lambda world: shares(policies[1 + world.index], mine[world.index], world)
    )
    found = torch.cat([torch.tensor(first).view(4, 2), torch.tensor(second).view(4, 4)], dim=1)
    assert_close(found, expected)
    assert len(found.unique()) == 24
