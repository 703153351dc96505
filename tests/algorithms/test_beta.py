"""Claims: betas mean the same in every unit; one that sets itself aims at its gradient factor."""

import math
from dataclasses import replace
from itertools import combinations

import pytest
import torch
from ranked_batches import (
    CONFIGS,
    FIXED,
    each_config,
    log_ratios,
    moved_walk,
    ranked,
    run,
)

from imgalign.algorithms.direct import Direct
from imgalign.algorithms.objectives import CardinalConfig, DPOConfig, KTOConfig


def test_published_betas_are_converted_to_nats():
    def value(kind: str, value: float) -> float:
        beta = {"beta": {"kind": kind, "value": value}}
        return Direct(DPOConfig.model_validate(beta)).beta.value(16_384)

    # -beta / 2 of a mean squared error is beta / 16384 of half the sum; diffusers has no half.
    assert value("salesforce", 5000) == pytest.approx(0.3052, abs=1e-4)
    assert value("diffusers", 2500) == value("salesforce", 5000)
    assert value("per_nat", 0.3) == 0.3


def test_beta_gives_a_typical_margin_the_gradient_factor_that_was_asked_for():
    beta = Direct(
        DPOConfig.model_validate({"beta": {"kind": "auto", "gradient_factor": 0.25, "steps": 3}})
    ).beta
    for _ in range(3):
        beta.update(4.0)
    assert 1 / (1 + math.exp(4.0 * beta.value(1))) == pytest.approx(0.25)
    before = beta.value(1)
    beta.update(400.0)  # after its steps it stays
    assert beta.value(1) == before


def test_until_it_is_fixed_beta_limits_nothing_and_waits_for_margins():
    beta = Direct(
        DPOConfig.model_validate({"beta": {"kind": "auto", "gradient_factor": 0.4, "steps": 2}})
    ).beta
    for margin in (0.0, 5.0, 0.0):
        assert beta.value(1) < 1e-5
        beta.update(margin)
    beta.update(5.0)
    assert beta.value(1) == pytest.approx(math.log(1.5) / 5)


def test_beta_follows_from_the_root_mean_square_of_all_margins_of_a_step():
    algorithm = Direct(
        DPOConfig.model_validate({"beta": {"kind": "auto", "gradient_factor": 0.4, "steps": 1}})
    )
    policy, batch = moved_walk(), ranked()
    run(algorithm, policy, batch)
    # Of the pairs with a preference: 6 in the first ranking, 4 in the second, 3 in the third.
    one, two, three = log_ratios(policy, batch).detach()
    pairs = [one[a] - one[b] for a, b in combinations(range(4), 2)]
    pairs += [two[a] - two[b] for a in (0, 1) for b in (2, 3)]
    pairs += [three[1] - three[2], three[1] - three[0], three[2] - three[0]]
    size = torch.stack(pairs).square().mean().sqrt().item()
    assert algorithm.beta.value(1) == pytest.approx(math.log(1.5) / size, rel=1e-4)


def test_without_an_order_beta_follows_from_what_the_objective_compares():
    free = {"beta": {"kind": "auto", "steps": 1, "gradient_factor": 0.25}}
    batch = ranked(torch.tensor([[-1, -1, -1, -1], [-1, -1, -1, -1]]), all_bad=[0, 1])
    kto, policy = Direct(KTOConfig.model_validate(free)), moved_walk()
    kto.baseline = 0.5
    run(kto, policy, batch)
    size = (log_ratios(policy, batch).detach() - 0.5).square().mean().sqrt().item()
    assert kto.beta.value(1) == pytest.approx(math.log(3) / size, rel=1e-4)

    tied = replace(ranked(torch.tensor([[0, 0, 0]])), scores=torch.tensor([[0.3, 0.1, 0.3]]))
    cardinal = Direct(CardinalConfig.model_validate(free))
    run(cardinal, policy, tied)
    one, other, third = log_ratios(policy, tied).detach()[0]
    size = (((one - other) ** 2 + (third - other) ** 2) / 2).sqrt().item()
    assert cardinal.beta.value(1) == pytest.approx(math.log(3) / size, rel=1e-4)


@each_config
def test_beta_does_not_change_the_size_of_the_first_gradient(name):
    sizes = []
    for per_nat in (0.01, 1.0):
        config = CONFIGS[name].model_copy(
            update={"beta": DPOConfig.model_validate({"beta": FIXED | {"value": per_nat}}).beta}
        )
        sizes.append(run(Direct(config), moved_walk(by=0.0), ranked()).norm().item())
    assert sizes[0] == pytest.approx(sizes[1], rel=1e-4)
