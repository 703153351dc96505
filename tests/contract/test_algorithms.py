"""What every algorithm must do, on a policy whose numbers are known and on a diffusion model."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias, get_args

import pytest
import torch
from algorithms import ALGORITHMS, GIVEN, algorithm_config
from batches import PROMPTS, Batch, batch_of, cut, rankings_of, regroup
from PIL import Image
from policies import KINDS, frozen_parameters
from random_walk import RandomWalk
from torch import Tensor
from torch.testing import assert_close
from walk_runs import CLOCK
from worlds import OneOfTwo, in_two

from imgalign.algorithms.batches import Rollout
from imgalign.algorithms.checks import require
from imgalign.algorithms.choice import AlgorithmConfig, build_algorithm
from imgalign.algorithms.interface import Algorithm, HeldOutMeasure, Loss, World
from imgalign.algorithms.rankings import ranked_rollout
from imgalign.algorithms.supervised import SupervisedConfig, sample_weights
from imgalign.config import Config
from imgalign.errors import CheckpointError
from imgalign.policy import StepPolicy
from imgalign.runs.metric_table import METRICS
from imgalign.runs.state import load_state, save_state
from imgalign.train.assemble import build_learner
from imgalign.train.config import OptimizerConfig
from imgalign.train.data.choice import DataConfig
from imgalign.train.data.images import GivenImages, ImagesConfig
from imgalign.train.data.rankings import FolderConfig, RankingsConfig, TableConfig
from imgalign.train.data.rollouts import RolloutsConfig
from imgalign.train.learner import Learner
from imgalign.train.world import Alone

MakeBatch: TypeAlias = Callable[..., Any]
"""From a policy, a number of `images` and that of the `first` the batch of a row of the table."""

SAMPLING = [name for name in ALGORITHMS if name not in GIVEN]
OF_POLICY_GRADIENT = [name for name in ALGORITHMS if name.startswith(("grpo", "ppo"))]
SUPERVISED = [name for name in ALGORITHMS if name.startswith("supervised")]

each_algorithm = pytest.mark.parametrize("name", ALGORITHMS)
each_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Eight images of two prompts."""
    out, generator = tmp_path_factory.mktemp("given"), torch.Generator().manual_seed(0)
    for number in range(8):
        pixels = torch.randint(256, (16, 16, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(out / f"{number}.png")
        (out / f"{number}.txt").write_text(PROMPTS[number % 2])
    return out


@pytest.fixture
def make_batch(name, folder) -> MakeBatch:
    """Makes batches for the row of the table, from its source of data."""

    def made(policy: Any, *, images: int = 8, first: int = 0) -> Batch:
        if name not in GIVEN:
            return batch_of(policy, images=images, first=first)
        if name == "dpo, given rankings":
            return rankings_of(policy, folder, images=images)
        config = ImagesConfig(folder=folder, images_per_iteration=images)
        source = GivenImages(config, policy=policy, held_out=(), seed=0, world=Alone())
        return source.batch(first // images)

    return made


def losses(
    algorithm: Algorithm[Any], policy: StepPolicy, batch: Batch, *, world: World | None = None
) -> list[Loss]:
    """All losses of a batch, added to the gradients, without a step in between."""
    world, found = world or Alone(), []
    generator = torch.Generator().manual_seed(0)
    for loss in algorithm.losses(policy, batch, world=world, generator=generator):
        if loss.value is not None:
            torch.autograd.backward(loss.value)
        found.append(loss)
    return found


def gradient(name: str, policy: RandomWalk, batch: Batch, *, world: World | None = None) -> Tensor:
    """Of one optimizer step on a whole batch."""
    policy.shift.grad = None
    losses(
        build_algorithm(algorithm_config(name, minibatches=1), seed=0), policy, batch, world=world
    )
    assert policy.shift.grad is not None
    return policy.shift.grad


def learner_of(name: str, policy: StepPolicy, *, learning_rate: float = 0.02, **changes) -> Learner:
    return build_learner(
        policy,
        algorithm=algorithm_config(name, **changes),
        optimizer=OptimizerConfig(learning_rate=learning_rate, weight_decay=0.0),
        seed=0,
        world=Alone(),
    )


def moved_walk(*, batch_size: int = 8) -> RandomWalk:
    policy = RandomWalk(num_steps=3, batch_size=batch_size)
    with torch.no_grad():
        policy.shift.normal_(generator=torch.Generator().manual_seed(1)).mul_(0.1)
    return policy


# --- at the start


@each_kind
@each_algorithm
def test_its_own_checks_pass_on_a_fresh_policy(tiny_pipeline_folder, kind, name):
    policy = KINDS[kind](tiny_pipeline_folder)
    algorithm = build_algorithm(algorithm_config(name), seed=0)
    assert isinstance(algorithm, Algorithm)
    with torch.no_grad():
        trajectory = policy.sample(PROMPTS, seeds=[0, 1])
    checks = algorithm.checks(policy, trajectory, fresh=True)
    assert checks
    require(checks)


@each_kind
@pytest.mark.parametrize("name", OF_POLICY_GRADIENT)
def test_before_the_first_step_no_ratio_kl_or_loss_differs_from_nothing(
    tiny_pipeline_folder, kind, name
):
    # Advantages have mean 0 over the first batch, whatever they are compared with.
    policy = KINDS[kind](tiny_pipeline_folder)
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
def test_losses_are_counted_and_the_last_of_each_step_says_so(
    tiny_pipeline_folder, kind, name, make_batch
):
    policy = KINDS[kind](tiny_pipeline_folder)
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
    tiny_pipeline_folder, kind, name, make_batch
):
    # A fresh LoRA has exact zeros in one of each pair of matrices, so one step is made before.
    policy = KINDS[kind](tiny_pipeline_folder)
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


@each_algorithm
def test_the_gradient_of_a_diffusion_model_is_the_same_for_micro_batches_of_any_size(
    tiny_pipeline_folder, name, make_batch
):
    found = []
    for sizes in ([4], [3, 1]):
        policy = KINDS["diffusion"](tiny_pipeline_folder)
        batch = regroup(make_batch(policy, images=4), sizes)
        # What supervised fine-tuning cuts by, after sampling in one batch on both sides.
        policy.config = policy.config.model_copy(update={"batch_size": sizes[0]})
        algorithm = build_algorithm(algorithm_config(name, minibatches=1), seed=0)
        losses(algorithm, policy, batch)
        gradients = [each.grad.flatten() for each in policy.trainable_parameters()]
        found.append(torch.cat(gradients))
    # Convolutions round by the rows of their batch.
    assert_close(found[1], found[0], rtol=1e-3, atol=1e-3 * found[0].abs().max().item())


@pytest.mark.parametrize("name", SAMPLING)
def test_a_reward_that_is_not_finite_drops_its_image_and_nothing_else(name):
    whole = batch_of(moved_walk())
    (trajectory,) = whole.batch
    broken = replace(whole, rewards=whole.rewards.index_fill(0, torch.tensor([5]), math.nan))
    others = [0, 1, 2, 3, 4, 6, 7]
    without = Rollout(batch=[trajectory.select(others)], rewards=whole.rewards[others])
    expected = gradient(name, moved_walk(), without)
    assert expected.abs().min() > 0
    assert_close(gradient(name, moved_walk(), broken), expected)


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
            written[module].update(measured.metrics)
    explained = {
        module: {metric.key for metric in METRICS.values() if module in metric.algorithms}
        for module in written
    }
    assert written == explained


@each_kind
@each_algorithm
def test_it_goes_on_from_a_checkpoint_bit_for_bit(
    tiny_pipeline_folder, tmp_path, kind, name, make_batch
):
    def fresh() -> tuple[StepPolicy, Learner]:
        policy = KINDS[kind](tiny_pipeline_folder)
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


# --- several processes


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


@each_algorithm
def test_two_processes_make_the_steps_of_one_however_many_passes_each_needs(
    name, make_batch, tmp_path
):
    whole = make_batch(moved_walk())
    mine = [[[0, 2], [4], [6]], [[1, 3, 5]]]  # as sampled: three parts in one process, one in other

    def learned(batch: Batch, world: World, folder: Path) -> Tensor:
        policy = moved_walk(batch_size=2)
        learner = build_learner(
            policy,
            algorithm=algorithm_config(name, minibatches=1),
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
        lambda world: learned(cut(whole, mine[world.index]), world, folders[world.index])
    )
    assert torch.equal(first, second)
    assert_close(first, expected)
    for file in ("learner.json", "learner.safetensors"):
        one, other = ((folder / file).read_bytes() for folder in folders)
        assert one == other


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


def test_two_processes_draw_for_each_image_what_one_draws(tiny_pipeline_folder):
    # One image in a pass, so that no rounding depends on who scores it.
    policies = [KINDS["diffusion"](tiny_pipeline_folder, batch_size=1) for _ in range(3)]
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


def kinds(annotation: Any) -> set[type[Config]]:
    """Every section that a setting of this type can be, and those inside it."""
    if not (isinstance(annotation, type) and issubclass(annotation, Config)):
        return {kind for each in get_args(annotation) for kind in kinds(each)}
    fields = annotation.model_fields.values()
    return {annotation}.union(*(kinds(field.annotation) for field in fields))


def sections(settings: Config) -> Iterator[Config]:
    """Settings and all sections inside."""
    yield settings
    for name in type(settings).model_fields:
        if isinstance(value := getattr(settings, name), Config):
            yield from sections(value)


def test_the_table_has_every_kind_of_algorithm_baseline_kl_weighting_and_data():
    tried = {type(each) for name in ALGORITHMS for each in sections(algorithm_config(name))}
    assert tried == kinds(AlgorithmConfig)
    of = {"supervised, given images": ImagesConfig, "dpo, given rankings": RankingsConfig}
    sources = {of.get(name, RolloutsConfig) for name in ALGORITHMS}
    same: set[type[Config]] = {FolderConfig, TableConfig}  # through the source of RankingsConfig
    assert sources == set(get_args(DataConfig)) - same
