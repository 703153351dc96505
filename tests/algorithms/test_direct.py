"""Claims: implicit rewards compare policy and pretrained model with the same draws; each objective
is the published one at the start and in its gradient; a batch can be cut in any way."""

import math
from collections.abc import Sequence

import pytest
import torch
from random_walk import RandomWalk
from torch import Tensor
from torch.testing import assert_close

from imgalign.algorithms.batches import Rollout
from imgalign.algorithms.choice import build_algorithm
from imgalign.algorithms.direct import (
    AnyDirectConfig,
    CardinalConfig,
    Direct,
    DPOConfig,
    IPOConfig,
    KTOConfig,
)
from imgalign.algorithms.implicit import Rows, Scored, push_limits
from imgalign.algorithms.rankings import (
    RankedBatch,
    best,
    better_pairs,
    ranked_rollout,
    worst,
)
from imgalign.errors import CheckpointError, ConfigError, NumericsError
from imgalign.policy import Data, LogProb
from imgalign.train.world import Alone

FIXED = {"kind": "per_nat", "value": 0.5}

CONFIGS: dict[str, AnyDirectConfig] = {
    "ranking": DPOConfig.model_validate({"beta": FIXED}),
    "all pairs": DPOConfig.model_validate({"beta": FIXED, "compare": "all_pairs"}),
    "best and worst": DPOConfig.model_validate({"beta": FIXED, "compare": "best_worst"}),
    "ipo": IPOConfig.model_validate({"beta": FIXED}),
    "kto": KTOConfig.model_validate({"beta": FIXED}),
    "cardinal": CardinalConfig.model_validate({"beta": FIXED}),
}
each_config = pytest.mark.parametrize("name", CONFIGS)

RANKS = torch.tensor([[0, 1, 2, 3], [0, 0, 1, 1], [2, 0, 1, -1]])


def moved_walk(*, batch_size: int = 64, by: float = 0.1) -> RandomWalk:
    policy = RandomWalk(num_steps=3, batch_size=batch_size)
    with torch.no_grad():
        policy.shift.normal_(generator=torch.Generator().manual_seed(1)).mul_(by)
    return policy


def samples(count: int) -> Data:
    latents = [
        torch.randn(3, 2, 2, generator=torch.Generator().manual_seed(number))
        for number in range(count)
    ]
    return Data(
        prompts=["a red fox"] * count,
        prompt_ids=["a red fox"] * count,
        content={"latents": torch.stack(latents)},
    )


def ranked(ranks: Tensor = RANKS, *, all_bad: Sequence[int] = ()) -> RankedBatch:
    """Rankings of different samples; scores that agree with the ranks."""
    there = ranks >= 0
    there[list(all_bad)] = True
    index = torch.full_like(ranks, -1)
    index[there] = torch.arange(int(there.sum()))
    bad = torch.zeros(len(ranks), dtype=torch.bool)
    bad[list(all_bad)] = True
    return RankedBatch(
        data=samples(int(there.sum())),
        index=index,
        ranks=ranks,
        all_bad=bad,
        weights=torch.ones(len(ranks)),
        scores=torch.where(there, -ranks.float(), math.nan),
    )


def run(algorithm: Direct, policy: RandomWalk, batch: RankedBatch) -> Tensor:
    """The gradient of one iteration."""
    policy.shift.grad = None
    generator = torch.Generator().manual_seed(0)
    for loss in algorithm.losses(policy, batch, world=Alone(), generator=generator):
        torch.autograd.backward(loss.value)
    assert policy.shift.grad is not None
    return policy.shift.grad


def log_ratios(policy: RandomWalk, batch: RankedBatch) -> Tensor:
    """Closed form, differentiable, in float64: where the walk ends is a Gaussian."""
    latents = batch.data.content["latents"].double()
    variance = 1 + (policy.sigma.double() ** 2).sum()

    def log_density(mean: Tensor) -> Tensor:
        return (-((latents - mean) ** 2) / (2 * variance)).flatten(1).sum(dim=1)

    base = policy.base.sum(dim=0).double()
    ratio = log_density(base + policy.shift.sum(dim=0).double()) - log_density(base)
    return torch.where(batch.present, ratio[batch.index.clamp(min=0)], 0.0)


# --- at the start


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # 24 orders; of pairs log 2; a margin of 0 where 1 was asked for; a half of each sample.
        ("ranking", math.log(24)),
        ("all pairs", math.log(2)),
        ("best and worst", math.log(2)),
        ("ipo", 0.25),
        ("kto", 0.5),
        ("cardinal", 0.0),
    ],
)
def test_the_loss_of_a_policy_that_is_the_pretrained_model_is_known(name, expected):
    algorithm = Direct(CONFIGS[name])
    algorithm.log_tie = [-80.0] * 3  # no ties, so that all orders are equally likely
    run(algorithm, moved_walk(by=0.0), ranked(RANKS[:1]))
    assert algorithm.metrics()["preference_loss"] == pytest.approx(expected, abs=1e-6)
    assert algorithm.metrics()["implicit_accuracy"] == 0.5
    assert algorithm.metrics()["gradient_factor"] == 0.5


@each_config
def test_the_first_step_raises_the_best_against_the_worst(name):
    policy, batch = moved_walk(by=0.0), ranked()
    gradient = run(Direct(CONFIGS[name]), policy, batch)
    with torch.no_grad():
        policy.shift.sub_(0.1 * gradient / gradient.norm())
    ratio = log_ratios(policy, batch).detach()
    assert ratio[best(RANKS)].mean() > ratio[worst(RANKS)].mean()


# --- its gradient


def expected_loss(name: str, ratio: Tensor, batch: RankedBatch, *, beta: float) -> Tensor:
    """The published loss of each ranking, written out for one ranking at a time."""
    losses = []
    for row, ranks in zip(ratio, batch.ranks.tolist(), strict=True):
        groups = [[i for i, rank in enumerate(ranks) if rank == place] for place in range(4)]
        groups = [group for group in groups if group]
        pairs = [
            (i, j)
            for place, group in enumerate(groups)
            for i in group
            for other in groups[place + 1 :]
            for j in other
            if name == "all pairs" or name == "ipo" or (place == 0 and other is groups[-1])
        ]
        margins = torch.stack([row[i] - row[j] for i, j in pairs])
        if name == "ipo":
            losses.append((beta**2 * (margins - 1 / (2 * beta)) ** 2).mean())
        elif name == "kto":
            liked = 1 - torch.sigmoid(beta * row[groups[0]])
            disliked = 1 - torch.sigmoid(-beta * row[groups[-1]])
            losses.append(torch.cat([liked, disliked]).mean())
        else:
            losses.append(-torch.sigmoid(beta * margins).log().mean())
    return torch.stack(losses)


@pytest.mark.parametrize("name", ["all pairs", "best and worst", "ipo", "kto"])
def test_loss_and_gradient_are_those_of_the_paper(name):
    policy, batch = moved_walk(), ranked()
    algorithm = Direct(CONFIGS[name])
    gradient = run(algorithm, policy, batch)
    loss = expected_loss(name, log_ratios(policy, batch), batch, beta=0.5).mean()
    assert algorithm.metrics()["preference_loss"] == pytest.approx(loss.item(), rel=1e-5)
    (expected,) = torch.autograd.grad(loss, policy.shift)
    # Divided by beta and by the 12 elements of a sample.
    assert_close(gradient, expected / (0.5 * 12), rtol=1e-4, atol=1e-7)


def test_a_ranking_of_two_is_dpo():
    policy, batch = moved_walk(), ranked(torch.tensor([[0, 1], [1, 0]]))
    listwise, pairwise = Direct(CONFIGS["ranking"]), Direct(CONFIGS["all pairs"])
    listwise.log_tie = [-80.0]
    assert_close(run(listwise, policy, batch), run(pairwise, policy, batch))
    assert listwise.metrics()["preference_loss"] == pytest.approx(
        pairwise.metrics()["preference_loss"]
    )


@each_config
def test_a_constant_added_to_both_models_changes_nothing(name):
    class Shifted(RandomWalk):
        def log_prob(self, data, draws):
            found = super().log_prob(data, draws)
            return LogProb(
                values=found.values + 100, kind=found.kind, num_elements=found.num_elements
            )

    plain, shifted = moved_walk(), Shifted(num_steps=3, batch_size=64)
    with torch.no_grad():
        shifted.shift.copy_(plain.shift)
    assert_close(
        run(Direct(CONFIGS[name]), shifted, ranked()),
        run(Direct(CONFIGS[name]), plain, ranked()),
        rtol=1e-3,
        atol=1e-6,
    )


@each_config
def test_the_order_of_candidates_and_rankings_changes_nothing(name):
    batch, policy = ranked(), moved_walk()
    rows, columns = torch.tensor([2, 0, 1]), torch.tensor([3, 1, 0, 2])
    mixed = RankedBatch(
        data=batch.data,
        index=batch.index[rows][:, columns],
        ranks=batch.ranks[rows][:, columns],
        all_bad=batch.all_bad[rows],
        weights=batch.weights,
        scores=batch.scores[rows][:, columns],
    )
    expected = run(Direct(CONFIGS[name]), policy, batch)
    assert_close(run(Direct(CONFIGS[name]), policy, mixed), expected)


@each_config
@pytest.mark.parametrize("batch_size", [1, 3, 4, 5, 8])
def test_a_batch_may_be_cut_anywhere_even_within_a_ranking(name, batch_size):
    config = CONFIGS[name].model_copy(update={"draws": 2})
    expected = run(Direct(config), moved_walk(), ranked())
    cut = run(Direct(config), moved_walk(batch_size=batch_size), ranked())
    assert_close(cut, expected)


@each_config
def test_a_ranking_of_twice_the_weight_counts_as_two(name):
    doubled = ranked()
    doubled.weights[0] = 2.0
    twice = doubled.select(torch.tensor([0, 0, 1, 2]))
    twice.weights[:] = 1.0
    policy = moved_walk()
    assert_close(
        run(Direct(CONFIGS[name]), policy, doubled), run(Direct(CONFIGS[name]), policy, twice)
    )


# --- draws


class Noisy(RandomWalk):
    """Log-densities with a noise of the draws, which records them."""

    def __init__(self) -> None:
        super().__init__(num_steps=3, batch_size=64)
        self.seen: list[tuple[bool, Tensor]] = []

    def log_prob(self, data, draws):
        found = super().log_prob(data, draws)
        self.seen.append((self.adapter_on, draws.noise))
        noise = 100 * draws.noise.flatten(1).mean(dim=1)
        return LogProb(
            values=found.values + noise, kind=found.kind, num_elements=found.num_elements
        )


@each_config
def test_all_candidates_of_a_ranking_have_the_same_draws_under_both_models(name):
    policy = Noisy()
    run(Direct(CONFIGS[name]), policy, ranked())
    (_, reference), (_, current) = policy.seen
    assert {on for on, _ in policy.seen} == {False, True}
    assert torch.equal(reference, current)
    # Rankings of four, four and three candidates, one after the other in some order.
    different, sizes = torch.unique_consecutive(current, dim=0, return_counts=True)
    assert sorted(sizes.tolist()) == [3, 4, 4]
    assert len(torch.unique(different, dim=0)) == 3


def test_held_out_rankings_are_scored_with_the_same_draws_every_time():
    policy, algorithm = Noisy(), Direct(CONFIGS["all pairs"])
    first = algorithm.held_out(policy, ranked(), world=Alone())
    again = algorithm.held_out(policy, ranked(), world=Alone())
    assert first == again
    assert all(name.startswith("held_out_") for name in first.metrics)
    draws = [noise for _, noise in policy.seen]
    assert torch.equal(draws[0], draws[-1])


# --- beta


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


def test_beta_waits_for_the_first_margins():
    beta = Direct(DPOConfig()).beta
    start = beta.value(1)
    beta.update(0.0)
    assert beta.value(1) == start
    beta.update(5.0)
    assert beta.value(1) == pytest.approx(math.log(7 / 3) / 5)


@each_config
def test_beta_does_not_change_the_size_of_the_first_gradient(name):
    sizes = []
    for per_nat in (0.01, 1.0):
        config = CONFIGS[name].model_copy(
            update={"beta": DPOConfig.model_validate({"beta": FIXED | {"value": per_nat}}).beta}
        )
        sizes.append(run(Direct(config), moved_walk(by=0.0), ranked()).norm().item())
    assert sizes[0] == pytest.approx(sizes[1], rel=1e-4)


# --- what counts


def test_all_that_is_judged_all_bad_is_disliked_by_kto_and_left_out_by_others():
    ranks = torch.tensor([[0, 1], [-1, -1]])
    batch = ranked(ranks, all_bad=[1])
    policy = moved_walk()
    only = ranked(ranks[:1])
    for name in ("ranking", "all pairs", "ipo"):
        gradient = run(Direct(CONFIGS[name]), policy, batch)
        assert_close(gradient, run(Direct(CONFIGS[name]), policy, only))
    kto = Direct(CONFIGS["kto"])
    gradient = run(kto, policy, batch)
    assert not torch.allclose(gradient, run(Direct(CONFIGS["kto"]), policy, only))


def test_ties_alone_teach_pairwise_methods_nothing_and_that_is_said():
    batch = ranked(torch.tensor([[0, 0, 0]]))
    for name in ("all pairs", "best and worst", "ipo", "kto"):
        with pytest.raises(NumericsError, match="no ranking of this iteration prefers anything"):
            run(Direct(CONFIGS[name]), moved_walk(), batch)


def test_ties_become_as_likely_as_they_are():
    # Two of three rankings of two equals are ties: delta / (2 + delta) = 2/3, so delta = 4.
    batch = ranked(torch.tensor([[0, 0], [0, 0], [0, 1]]))
    algorithm, policy = Direct(CONFIGS["ranking"]), moved_walk(by=0.0)
    for _ in range(100):
        run(algorithm, policy, batch)
    assert algorithm.log_tie == pytest.approx([math.log(4)], abs=0.01)


def test_the_best_and_worst_of_a_ranking_share_their_places():
    assert best(RANKS).tolist()[1] == [True, True, False, False]
    assert worst(RANKS).tolist()[1] == [False, False, True, True]
    assert better_pairs(RANKS).sum().item() == 6 + 4 + 3
    assert better_pairs(RANKS, extremes=True).sum().item() == 1 + 4 + 1
    assert not best(torch.tensor([[0, 0]])).any()  # nothing is worse


def test_samples_of_a_policy_are_ranked_by_their_rewards_within_a_prompt():
    policy = moved_walk()
    trajectory = policy.sample(["a", "b", "a", "b", "a"], seeds=range(5))
    rewards = torch.tensor([0.5, 1.0, 2.0, math.nan, 0.5])
    batch = ranked_rollout(policy, Rollout(batch=[trajectory], rewards=rewards))
    assert batch.index.tolist() == [[0, 2, 4], [1, -1, -1]]
    assert batch.ranks.tolist() == [[1, 0, 1], [0, -1, -1]]


# --- the safeguard


def scored(slopes: Tensor) -> Scored:
    values = torch.zeros(len(slopes))
    return Scored(
        log_prob=LogProb(values=values, kind="elbo", num_elements=2, slopes=slopes),
        log_ratio=values,
    )


def rows_of_one(count: int) -> Rows:
    return Rows(
        data=samples(count),
        seeds=[0] * count,
        ranking=torch.zeros(count, dtype=torch.long),
        candidate=torch.arange(count),
        draw=torch.zeros(count, dtype=torch.long),
    )


@pytest.mark.parametrize(
    ("loser", "keep", "expected"),
    [
        ([2.0, 0.0], 0.0, 0.5),  # half of a push of twice the size leaves the pull at nothing
        ([2.0, 0.0], 0.5, 0.25),  # and a quarter of it leaves a half
        ([0.5, 0.0], 0.0, 1.0),  # less than the pull: no limit
        ([0.0, 9.0], 0.9, 1.0),  # at right angles
        ([-1.0, 0.0], 0.9, 1.0),  # it helps
    ],
)
def test_the_push_is_limited_to_what_leaves_a_share_of_the_pull(loser, keep, expected):
    slopes = torch.tensor([[1.0, 0.0], loser])
    limit = push_limits(torch.tensor([[-1.0, 1.0]]), scored(slopes), rows_of_one(2), keep=keep)
    assert limit.tolist() == pytest.approx([expected])


def test_a_policy_without_slopes_cannot_have_the_safeguard():
    config = CONFIGS["ranking"].model_copy(update={"keep_chosen": 0.5})
    with pytest.raises(ConfigError, match=r"algorithm\.keep_chosen"):
        run(Direct(config), moved_walk(), ranked())


# --- state


def test_it_goes_on_exactly_from_its_state():
    config = DPOConfig.model_validate({"beta": {"kind": "auto", "steps": 2}})
    one, other = Direct(config), Direct(config)
    for seed in range(3):
        run(one, moved_walk(by=0.1 * (seed + 1)), ranked())
    other.load_state_dict(one.state_dict())
    assert_close(run(other, moved_walk(), ranked()), run(one, moved_walk(), ranked()))
    assert other.state_dict() == one.state_dict()


def test_the_state_of_another_algorithm_is_refused():
    with pytest.raises(CheckpointError, match="of another algorithm"):
        Direct(DPOConfig()).load_state_dict({"kl": {}})
    with pytest.raises(CheckpointError, match="beta"):
        Direct(DPOConfig()).load_state_dict(Direct(CONFIGS["ipo"]).state_dict() | {"beta": {}})


def test_every_kind_is_built_from_its_settings():
    for config in CONFIGS.values():
        assert isinstance(build_algorithm(config, seed=0), Direct)
