"""What every algorithm must do, on a policy whose numbers are known and on real networks."""

import math
from dataclasses import replace

import pytest
import torch
from algorithm_rows import ALGORITHMS, algorithm_config
from batches import PROMPTS, batch_of, regroup
from contract_rows import (
    OF_POLICY_GRADIENT,
    SAMPLING,
    SUPERVISED,
    each_algorithm,
    each_kind,
    gradient,
    learner_of,
    losses,
    moved_walk,
)
from policies import KINDS, frozen_parameters
from random_walk import RandomWalk
from torch.testing import assert_close
from walk_runs import CLOCK

from imgalign.algorithms.checks import require
from imgalign.algorithms.choice import build_algorithm
from imgalign.algorithms.interface import Algorithm, HeldOutMeasure
from imgalign.algorithms.rankings import ranked_rollout
from imgalign.algorithms.supervised import SupervisedConfig, sample_weights
from imgalign.errors import CheckpointError
from imgalign.policy import StepPolicy
from imgalign.runs.metric_table import METRICS
from imgalign.runs.state import load_state, save_state
from imgalign.runs.world import Alone
from imgalign.train.learner import Learner

# --- at the start


@each_kind
@each_algorithm
def test_its_own_checks_pass_on_a_fresh_policy(models, kind, name):
    policy = KINDS[kind](models)
    algorithm = build_algorithm(algorithm_config(name), seed=0)
    assert isinstance(algorithm, Algorithm)
    with torch.no_grad():
        trajectory = policy.sample(PROMPTS, seeds=[0, 1])
    checks = algorithm.checks(policy, trajectory, fresh=True)
    assert checks
    require(checks)


@each_kind
@pytest.mark.parametrize("name", OF_POLICY_GRADIENT)
def test_before_the_first_step_no_ratio_kl_or_loss_differs_from_nothing(models, kind, name):
    # Advantages have mean 0 over the first batch, whatever they are compared with.
    policy = KINDS[kind](models)
    algorithm = build_algorithm(algorithm_config(name), seed=0)
    losses(algorithm, policy, batch_of(policy, images=4))
    metrics = algorithm.metrics()
    for key in ("log_ratio_max", "kl", "kl_per_step", "approx_kl", "clip_fraction"):
        assert metrics[key] == 0, key
    assert metrics["policy_loss"] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("name", SUPERVISED)
def test_the_supervised_loss_is_minus_the_weighted_mean_of_the_log_density(name):
    # Where the walk ends is N(sum of its moves, 1 + sum of its variances); 12 elements.
    policy = moved_walk()
    batch, config = batch_of(policy), algorithm_config(name)
    assert isinstance(config, SupervisedConfig)
    algorithm = build_algorithm(config, seed=0)
    parts = losses(algorithm, policy, batch)
    latents = batch.batch[0].replay["latents"][:, -1].double()
    mean = (policy.base + policy.shift.detach()).sum(dim=0).double()
    variance = 1 + (policy.sigma.double() ** 2).sum()
    density = -((latents - mean) ** 2 / variance + (2 * math.pi * variance).log()) / 2
    weights = sample_weights(batch.rewards, batch.prompt_ids, config.weighting).double()
    expected = -(weights * density.flatten(1).mean(dim=1)).sum() / weights.sum()
    assert algorithm.metrics()["loss"] == pytest.approx(expected.item(), rel=1e-5)
    # Each optimizer step's losses add up to that mean by themselves.
    total = sum(loss.value.item() for loss in parts)
    steps = sum(loss.ends_step for loss in parts)
    assert total / steps == pytest.approx(expected.item(), rel=1e-5)


# --- its losses


@each_kind
@each_algorithm
def test_losses_are_counted_and_the_last_of_each_step_says_so(models, kind, name, make_batch):
    policy = KINDS[kind](models)
    found = losses(
        build_algorithm(algorithm_config(name), seed=0), policy, make_batch(policy, images=4)
    )
    assert [loss.done for loss in found] == list(range(1, len(found) + 1))
    assert {loss.total for loss in found} == {len(found)}
    assert sum(loss.ends_step for loss in found) == 2  # two minibatches, one epoch
    assert found[-1].ends_step
    for loss in found:
        assert loss.value.shape == ()
        assert loss.value.isfinite()


@each_algorithm
def test_after_the_end_of_a_step_the_next_loss_sees_the_new_weights(name, make_batch):
    def values(*, moving: bool) -> tuple[list[float], int]:
        policy = moved_walk(batch_size=4)
        algorithm = build_algorithm(algorithm_config(name), seed=0)
        generator = torch.Generator().manual_seed(0)
        seen, first_step = [], 0
        batch = make_batch(policy)
        for loss in algorithm.losses(policy, batch, world=Alone(), generator=generator):
            seen.append(loss.value.item())
            if loss.ends_step and not first_step:
                first_step = len(seen)
                with torch.no_grad():
                    policy.shift.add_(0.1 if moving else 0.0)
        return seen, first_step

    (still, end), (moved, _) = values(moving=False), values(moving=True)
    assert 0 < end < len(still)
    assert still[:end] == moved[:end]
    assert all(one != other for one, other in zip(still[end:], moved[end:], strict=True))


@each_kind
@each_algorithm
def test_after_the_first_step_all_that_is_trained_has_a_gradient_and_nothing_else(
    models, kind, name, make_batch
):
    # A fresh LoRA has exact zeros in one of each pair of matrices, so one step is made before.
    policy = KINDS[kind](models)
    learner = learner_of(name, policy)
    learner.update(make_batch(policy, images=4), iteration=0)
    losses(learner.algorithm, policy, make_batch(policy, images=4, first=4))
    assert learner.parameters
    for parameter in learner.parameters:
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
        assert parameter.grad.any()
    for parameter in frozen_parameters(policy):
        assert not parameter.requires_grad
        assert parameter.grad is None


@each_algorithm
def test_the_gradient_is_the_same_for_micro_batches_of_any_size(name, make_batch):
    # The walk's score of given samples is exact, so that no noise depends on the cut either.
    batch = make_batch(moved_walk())
    found = [
        gradient(name, moved_walk(batch_size=size), regroup(batch, sizes))
        for size, sizes in [(8, [8]), (4, [4, 4]), (3, [3, 3, 2]), (1, [1] * 8)]
    ]
    assert found[0].abs().min() > 0
    for other in found[1:]:
        assert_close(other, found[0])


@pytest.mark.parametrize("kind", ["diffusion", "language"])
@each_algorithm
def test_the_gradient_of_a_network_is_the_same_for_micro_batches_of_any_size(
    models, kind, name, make_batch
):
    found = []
    for sizes in ([4], [3, 1]):
        policy = KINDS[kind](models)
        batch = regroup(make_batch(policy, images=4), sizes)
        # What supervised fine-tuning cuts by, after sampling in one batch on both sides.
        policy.config = policy.config.model_copy(update={"batch_size": sizes[0]})
        algorithm = build_algorithm(algorithm_config(name, minibatches=1), seed=0)
        losses(algorithm, policy, batch)
        gradients = [each.grad.flatten() for each in policy.trainable_parameters()]
        found.append(torch.cat(gradients))
    # Networks round by the rows of their batch.
    assert_close(found[1], found[0], rtol=1e-3, atol=1e-3 * found[0].abs().max().item())


@pytest.mark.parametrize("name", SAMPLING)
def test_a_reward_that_is_not_finite_drops_its_image_and_nothing_else(name):
    whole = batch_of(moved_walk())
    (trajectory,) = whole.batch
    broken = replace(whole, rewards=whole.rewards.index_fill(0, torch.tensor([5]), math.nan))
    others = [0, 1, 2, 3, 4, 6, 7]
    without = replace(whole, batch=[trajectory.select(others)], rewards=whole.rewards[others])
    expected = gradient(name, moved_walk(), without)
    assert expected.abs().min() > 0
    assert_close(gradient(name, moved_walk(), broken), expected)


@pytest.mark.parametrize("name", OF_POLICY_GRADIENT)
def test_where_no_reward_is_finite_nothing_is_learned(name):
    whole = batch_of(moved_walk())
    broken = replace(whole, rewards=torch.full_like(whole.rewards, math.nan))
    algorithm = build_algorithm(algorithm_config(name), seed=0)
    assert losses(algorithm, moved_walk(), broken) == []


@pytest.mark.parametrize("weight", [0.5, 3.0])
def test_examples_add_their_weight_times_minus_their_mean_log_probability(models, weight):
    def of(ptx):
        policy = KINDS["language"](models)
        config = algorithm_config("grpo, kl in the reward, examples", ptx=ptx, minibatches=1)
        batch = batch_of(policy)
        losses(build_algorithm(config, seed=0), policy, batch)
        return policy, batch.examples, [each.grad for each in policy.trainable_parameters()]

    policy, examples, without = of(0.0)
    for each in policy.trainable_parameters():
        each.grad = None
    scored = policy.log_prob(examples, policy.draw(examples, seeds=[0, 1]))
    torch.autograd.backward(-weight * scored.values.sum() / policy.elements(examples).sum())
    added = [each.grad for each in policy.trainable_parameters()]
    assert max(each.abs().max() for each in added) > 1e-3
    for whole, first, second in zip(of(weight)[2], without, added, strict=True):
        assert_close(whole, first + second, rtol=1e-4, atol=1e-6)


def test_the_loss_of_examples_is_that_of_the_steps_that_have_some(models):
    policy = KINDS["language"](models)
    batch = batch_of(policy)
    one = batch.examples.select([1])
    scored = policy.log_prob(one, policy.draw(one, seeds=[0]))
    expected = -scored.values.sum().item() / policy.elements(one).sum().item()
    algorithm = build_algorithm(algorithm_config("grpo, kl in the reward, examples"), seed=0)
    losses(algorithm, policy, replace(batch, examples=one))
    assert algorithm.metrics()["ptx_loss"] == pytest.approx(expected, rel=1e-5)


# --- what it says, and remembers


def test_metrics_are_those_of_the_table_and_each_of_them_is_written_by_some_algorithm():
    written: dict[str, set[str]] = {}
    for name in ALGORITHMS:
        policy = moved_walk()
        algorithm = build_algorithm(algorithm_config(name), seed=0)
        losses(algorithm, policy, batch_of(policy))
        module = type(algorithm).__module__.rpartition(".")[2]
        written.setdefault(module, set()).update(algorithm.metrics())
        if isinstance(algorithm, HeldOutMeasure):
            ranked = ranked_rollout(policy, batch_of(policy))
            measured = algorithm.held_out(policy, ranked, world=Alone())
            assert measured is not None
            written[module].update(measured.metrics)
    explained = {
        module: {metric.key for metric in METRICS.values() if module in metric.algorithms}
        for module in written
    }
    assert written == explained


@each_kind
@each_algorithm
def test_it_goes_on_from_a_checkpoint_bit_for_bit(models, tmp_path, kind, name, make_batch):
    def fresh() -> tuple[StepPolicy, Learner]:
        policy = KINDS[kind](models)
        return policy, learner_of(name, policy)

    policy, learner = fresh()
    learner.update(make_batch(policy, images=4), iteration=0)
    policy.save(tmp_path)
    save_state(tmp_path, "learner", learner.state_dict())
    other, resumed = fresh()
    other.load(tmp_path)
    resumed.load_state_dict(load_state(tmp_path, "learner"))
    said = []
    for each_policy, each_learner in [(policy, learner), (other, resumed)]:
        values = each_learner.update(make_batch(each_policy, images=4, first=4), iteration=1)
        said.append({key: values[key] for key in values.keys() - CLOCK - {"seconds_learning"}})
    assert said[0] == said[1]
    for one, same in zip(learner.parameters, resumed.parameters, strict=True):
        assert torch.equal(one, same)
    for folder, each_learner in (("one", learner), ("same", resumed)):
        (tmp_path / folder).mkdir()
        save_state(tmp_path / folder, "learner", each_learner.state_dict())
    for file in ("learner.json", "learner.safetensors"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "same" / file).read_bytes()


@each_algorithm
def test_the_state_of_another_algorithm_is_a_checkpoint_error(name):
    algorithm = build_algorithm(algorithm_config(name), seed=0)
    foreign = {"something": {"else": 1.0}}
    with pytest.raises(CheckpointError):
        algorithm.load_state_dict(foreign)


@pytest.mark.parametrize("name", SAMPLING)
def test_it_learns_an_easy_reward(name):
    # The walk ends with deviation 1.2 around 0, so brightness starts at a half.
    policy = RandomWalk(num_steps=3, size=1, batch_size=32)
    learner = learner_of(name, policy, learning_rate=0.05)
    rewards = []
    for iteration in range(15):
        batch = batch_of(policy, images=32, first=32 * iteration)
        rewards.append(batch.rewards.mean().item())
        learner.update(batch, iteration=iteration)
    assert rewards[0] < 0.55
    assert rewards[-1] > rewards[0] + 0.15
