"""Claims: IPO compares the mean log-ratio of an element where it is told to or the policy does."""

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from random_walk import RandomWalk
from ranked_batches import (
    CONFIGS,
    UnevenWalk,
    log_ratios,
    moved_walk,
    num_elements,
    ranked,
    run,
)
from torch import Tensor
from torch.testing import assert_close

from imgalign.algorithms.direct import Direct
from imgalign.algorithms.implicit import DrawKey, elements_of, rows_of
from imgalign.algorithms.objectives import DPOConfig, IPOConfig
from imgalign.algorithms.rankings import RankedBatch
from imgalign.runs.world import Alone

BETA, ELEMENTS = 0.5, 12
"""Of the settings, and of a sample of the random walk."""


def ipo(*, average: bool | None = None, **settings: object) -> Direct:
    beta = {"kind": "per_nat", "value": BETA}
    return Direct(IPOConfig.model_validate({"beta": beta, "average": average} | settings))


def per_nat(value: float, *, kind: str = "per_nat") -> dict[str, object]:
    return {"kind": kind, "value": value}


def mean_log_ratios(policy: RandomWalk, batch: RankedBatch) -> Tensor:
    """Log-ratio of each candidate over its number of elements; differentiable, in closed form."""
    return log_ratios(policy, batch) / num_elements(batch.data)[batch.index.clamp(min=0)]


def margins(values: Tensor, batch: RankedBatch) -> Iterator[Tensor]:
    """Of the pairs of each ranking."""
    for own, ranks in zip(values, batch.ranks.tolist(), strict=True):
        places = [place for place, rank in enumerate(ranks) if rank >= 0]
        yield torch.stack([own[a] - own[b] for a in places for b in places if ranks[a] < ranks[b]])


@pytest.mark.parametrize("batch_size", [64, 3])  # of 3 no ranking of four fits into one pass
def test_it_is_the_squared_distance_of_mean_log_ratios_to_their_target(batch_size):
    policy, batch, algorithm = (
        moved_walk(kind=UnevenWalk, batch_size=batch_size),
        ranked(),
        ipo(average=True),
    )
    assert len(num_elements(batch.data).unique()) > 3
    found = margins(mean_log_ratios(policy, batch), batch)
    loss = torch.stack([((BETA * own - 0.5) ** 2).mean() for own in found]).mean()
    (expected,) = torch.autograd.grad(loss, policy.shift)
    gradient = run(algorithm, policy, batch)
    assert algorithm.metrics()["preference_loss"] == pytest.approx(loss.item(), rel=1e-5)
    # Divided by beta, and by the elements of a sample inside the mean.
    assert_close(gradient, expected / BETA, rtol=1e-3, atol=1e-6)


def test_how_many_elements_a_sample_has_changes_the_mean_and_not_the_sum():
    batch = ranked()
    gradients = {
        average: [
            run(ipo(average=average), moved_walk(kind=kind), batch)
            for kind in (RandomWalk, UnevenWalk)
        ]
        for average in (True, False)
    }
    assert torch.equal(*gradients[False])
    even, uneven = gradients[True]
    assert not torch.allclose(even, uneven, rtol=0.1)


def test_elements_are_those_of_each_candidate_in_any_draw_and_one_where_there_is_none():
    policy, batch = moved_walk(kind=UnevenWalk), ranked()
    rows = rows_of(batch, [[DrawKey(seed, 0.5) for seed in (1, 2)]] * 3)
    log_prob = policy.log_prob(rows.data, policy.draw(rows.data, seeds=[0] * len(rows)))
    found = elements_of(log_prob, rows, batch.index.shape)
    expected = num_elements(batch.data)[batch.index.clamp(min=0)]
    assert torch.equal(found, torch.where(batch.present, expected, 1.0))


class Even(RandomWalk):
    """Says of each sample that it has as many elements as all have, and only a bound of it."""

    def log_prob(self, data, draws):
        found = super().log_prob(data, draws)
        counts = torch.full((len(data),), float(found.num_elements))
        return replace(found, kind="elbo", counts=counts)


@pytest.mark.parametrize("kind", [RandomWalk, Even])
def test_of_samples_of_one_length_the_mean_is_the_sum_with_another_beta(kind):
    batch = ranked()
    averaged = ipo(average=True)
    summed = ipo(average=False, beta=per_nat(BETA / ELEMENTS))
    one, other = (run(each, moved_walk(kind=kind), batch) for each in (averaged, summed))
    assert_close(one, other)
    for name in ("preference_loss", "implicit_margin", "chosen_log_ratio", "gradient_factor"):
        assert averaged.metrics()[name] == pytest.approx(summed.metrics()[name], rel=1e-5)


@pytest.mark.parametrize("kind", [RandomWalk, UnevenWalk])
def test_without_a_setting_the_policy_decides(kind):
    batch = ranked()
    usual = ipo(average=kind.averages_log_ratios)
    unset, told = (run(each, moved_walk(kind=kind), batch) for each in (ipo(), usual))
    assert torch.equal(unset, told)


def test_only_ipo_averages():
    for name, config in CONFIGS.items():
        assert config.averages(default=True) == (name == "ipo")
    batch, algorithm = ranked(), Direct(CONFIGS["all pairs"])
    one, other = (run(algorithm, moved_walk(kind=each), batch) for each in (RandomWalk, UnevenWalk))
    assert torch.equal(one, other)


def test_log_ratios_are_reported_in_nats_and_margins_as_they_are_compared():
    policy, batch, algorithm = moved_walk(kind=UnevenWalk), ranked(), ipo(average=True)
    run(algorithm, policy, batch)
    found = torch.cat(list(margins(mean_log_ratios(policy, batch).detach(), batch)))
    best = log_ratios(policy, batch).detach()[batch.ranks == 0]
    metrics = algorithm.metrics()
    assert metrics["implicit_margin"] == pytest.approx(BETA * found.mean().item(), rel=1e-3)
    assert metrics["chosen_log_ratio"] == pytest.approx(best.mean().item(), rel=1e-3)
    held_out = algorithm.held_out(policy, batch, world=Alone())
    assert held_out is not None
    assert held_out.metrics["held_out_implicit_margin"] == pytest.approx(
        metrics["implicit_margin"], rel=1e-5
    )


def test_a_beta_that_sets_itself_follows_from_the_margins_that_are_compared():
    auto = {"kind": "auto", "gradient_factor": 0.4, "steps": 1}
    policy, batch, algorithm = moved_walk(kind=UnevenWalk), ranked(), ipo(beta=auto)
    run(algorithm, policy, batch)
    found = torch.cat(list(margins(mean_log_ratios(policy, batch).detach(), batch)))
    size = found.square().mean().sqrt().item()
    assert algorithm.beta.value(1) == pytest.approx(math.log(1.5) / size, rel=1e-3)


def test_a_beta_that_multiplies_a_mean_squared_error_multiplies_the_mean_log_ratio():
    gradients = [
        run(ipo(average=True, beta=per_nat(0.7, kind=kind)), moved_walk(), ranked())
        for kind in ("salesforce", "per_nat")
    ]
    assert torch.equal(*gradients)


def test_fine_tuning_on_the_best_is_of_its_mean_log_ratio_too():
    policy, batch = moved_walk(kind=UnevenWalk), ranked()
    gradients = [run(ipo(sft=weight), policy, batch).clone() for weight in (0.0, 0.3)]
    rewards = mean_log_ratios(policy, batch)
    # Two of the second ranking are best.
    best = torch.stack(
        [own[ranks == 0].mean() for own, ranks in zip(rewards, batch.ranks, strict=True)]
    )
    (expected,) = torch.autograd.grad(-0.3 * best.mean(), policy.shift)
    assert_close(gradients[1] - gradients[0], expected, rtol=1e-3, atol=1e-6)


def test_the_safeguard_does_not_depend_on_how_losses_are_scaled():
    class Sloped(Even):
        def log_prob(self, data, draws):
            found = super().log_prob(data, draws)
            return replace(found, slopes=data.content["latents"])

    averaged = ipo(average=True, keep_chosen=0.9)
    summed = ipo(average=False, keep_chosen=0.9, beta=per_nat(BETA / ELEMENTS))
    one, other = (run(each, moved_walk(kind=Sloped), ranked()) for each in (averaged, summed))
    assert_close(one, other)
    assert averaged.metrics()["push_limit"] == pytest.approx(summed.metrics()["push_limit"])
    assert averaged.metrics()["push_limit"] < 1


def test_other_methods_do_not_have_the_setting():
    with pytest.raises(ValueError, match="average"):
        DPOConfig.model_validate({"average": True})
