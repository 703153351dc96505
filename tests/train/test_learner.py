"""Claims: the learning rate warms up, gradients are cut to their limit, and the price of the KL
moves by its rule from one update to the next."""

import math

import pytest
import torch
from algorithm_rows import algorithm_config
from broken_numbers import BrokenWalk
from random_walk import Brightness, RandomWalk

from imgalign.algorithms.choice import build_algorithm
from imgalign.algorithms.kl import AdaptiveKLConfig
from imgalign.algorithms.policy_gradient import GRPOConfig, PolicyGradient
from imgalign.errors import NumericsError
from imgalign.runs.world import Alone
from imgalign.train.config import OptimizerConfig
from imgalign.train.data.rollouts import collect
from imgalign.train.learner import MOST_SKIPPED, Learner


def learn(learner: Learner, policy: RandomWalk, iterations: int) -> list[dict[str, float]]:
    return [
        learner.update(
            collect(
                policy,
                Brightness(),
                ["a red fox"] * 8,
                seeds=range(8 * iteration, 8 * iteration + 8),
                world=Alone(),
            ),
            iteration=iteration,
        )
        for iteration in range(iterations)
    ]


def learner_of(policy: RandomWalk, *, algorithm=None, **optimizer) -> Learner:
    return Learner(
        policy,
        algorithm=PolicyGradient(algorithm or GRPOConfig(), seed=0),
        optimizer=OptimizerConfig(**optimizer),
        seed=0,
        world=Alone(),
    )


def test_the_learning_rate_grows_linearly_while_it_warms_up():
    policy = RandomWalk(num_steps=2, batch_size=8)
    learner = learner_of(policy, learning_rate=0.03, warmup_iterations=2)
    applied = []
    learner.optimizer.register_step_pre_hook(
        lambda optimizer, *_: applied.append(optimizer.param_groups[0]["lr"])
    )
    reported = [values["learning_rate"] for values in learn(learner, policy, 4)]
    assert reported == pytest.approx([0.01, 0.02, 0.03, 0.03])
    assert applied == reported


@pytest.mark.parametrize("limit", [1e-3, None])
def test_a_gradient_beyond_its_limit_is_scaled_down_to_it(limit):
    policy = RandomWalk(num_steps=2, batch_size=8)
    learner = learner_of(policy, max_grad_norm=limit)
    used = []
    learner.optimizer.register_step_pre_hook(
        lambda *_: used.append(policy.shift.grad.norm().item())
    )
    (values,) = learn(learner, policy, 1)
    assert values["grad_norm"] > 1e-2  # as it was before it was cut
    assert used == pytest.approx([values["grad_norm"] if limit is None else limit], rel=1e-3)


def test_the_price_of_the_kl_moves_towards_its_target_by_the_rule_of_ziegler():
    # At first the KL is 0, a whole target below: 1 - rate * 0.2. Later it is far above: 1 + that.
    kl = AdaptiveKLConfig(coefficient=0.1, target_nats=0.01, rate=0.5)
    policy = RandomWalk(num_steps=2, batch_size=8)
    learner = learner_of(policy, algorithm=GRPOConfig(kl=kl), learning_rate=0.1)
    values = learn(learner, policy, 4)
    assert values[0]["kl"] == 0
    assert min(each["kl"] for each in values[1:]) > 0.012
    expected = [0.1, 0.1 * 0.9, 0.1 * 0.9 * 1.1, 0.1 * 0.9 * 1.1**2]
    assert [each["kl_coefficient"] for each in values] == pytest.approx(expected)
    assert torch.isfinite(policy.shift).all()


def test_its_state_stays_what_it_was_while_it_learns_on_and_takes_it_back_to_then():
    policy = RandomWalk()
    learner = learner_of(policy)
    learn(learner, policy, 1)
    weights, state = learner.weights(), learner.state_dict()
    learn(learner, policy, 1)
    expected = [each.clone() for each in learner.weights()]
    learner.set_weights(weights)
    learner.load_state_dict(state)
    learn(learner, policy, 1)
    assert all(map(torch.equal, learner.weights(), expected))


@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_a_step_whose_gradient_is_not_finite_is_left_out_and_the_others_are_made(factor):
    def learned(plan) -> tuple[list[dict[str, float]], RandomWalk]:
        policy = BrokenWalk(plan)
        policy.armed = True
        learner = learner_of(policy, algorithm=GRPOConfig(minibatches=2), learning_rate=0.1)
        return learn(learner, policy, 1), policy

    (whole,), _ = learned({})
    (values,), policy = learned({0: factor})  # of the first of two steps
    assert (whole["optimizer_steps"], whole["skipped_steps"]) == (2, 0)
    assert (values["optimizer_steps"], values["skipped_steps"]) == (1, 1)
    assert math.isfinite(values["grad_norm_max"])
    assert policy.shift.isfinite().all()
    assert policy.shift.any()


def test_too_many_such_steps_in_a_row_are_an_error_also_over_a_resumption():
    policy = BrokenWalk(dict.fromkeys(range(10**4), math.nan))
    policy.armed = True

    def learner() -> Learner:
        return Learner(
            policy,
            algorithm=build_algorithm(algorithm_config("dpo", minibatches=1), seed=0),
            optimizer=OptimizerConfig(),
            seed=0,
            world=Alone(),
        )

    first, second = learner(), learner()
    learn(first, policy, MOST_SKIPPED - 1)
    second.load_state_dict(first.state_dict())
    with pytest.raises(NumericsError, match=rf"{MOST_SKIPPED} optimizer steps in a row"):
        learn(second, policy, 1)
    assert not policy.shift.any()
