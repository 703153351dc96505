"""Claims: a source is a function of the iteration; given images come in turn, each with the prompt
beside it, and held-out prompts never."""

import math

import pytest
import torch
from algorithm_rows import ALGORITHMS, GIVEN
from random_walk import Brightness, RandomWalk, walk_settings
from walk_runs import measured, start, weights
from worlds import in_two

from imgalign.algorithms.batches import Rollout
from imgalign.errors import ConfigError, NumericsError
from imgalign.policy import RewardModel
from imgalign.prompts import Prompts
from imgalign.runs.world import Alone, World
from imgalign.train.config import TrainConfig
from imgalign.train.data.demonstrations import GivenSamples
from imgalign.train.data.images import ImagesConfig
from imgalign.train.data.rollouts import Rollouts, RolloutsConfig
from imgalign.train.data.source import Parts, Source
from imgalign.train.run import run
from imgalign.train.watcher import Interrupted, Watcher

TOTALS = {"rollouts": (4, 2), "images": (3, 2)}
"""Images of each of two processes, of those in `rollouts_of` and of five in a folder."""
EQUAL = ALGORITHMS[GIVEN[0]]


def source_of(folder, *, held_out=(), count=2, world: World | None = None) -> GivenSamples:
    return ImagesConfig(folder=folder, images_per_iteration=count).build(
        Parts(
            policy=RandomWalk(size=2, batch_size=2),
            reward=None,
            prompts=Prompts((), tuple(held_out)),
            run=folder,
            seed=0,
            world=world or Alone(),
        )
    )


def rollouts_of(reward: RewardModel | None = None, *, world: World | None = None) -> Rollouts:
    """Three prompts of four, with two images each."""
    return Rollouts(
        RolloutsConfig(prompts_per_iteration=3, group_size=2),
        policy=RandomWalk(batch_size=2),
        reward=reward or Brightness(),
        prompts=("a", "b", "c", "d"),
        seed=4,
        world=world or Alone(),
    )


def asked(source, iteration) -> list[str]:
    return [prompt for data in source.batch(iteration).batch for prompt in data.prompts]


def test_a_rollout_is_decided_by_the_iteration_alone():
    straight, other = rollouts_of(), rollouts_of()
    for iteration in range(3):
        expected = straight.batch(iteration)
    found = other.batch(2)
    assert torch.equal(found.rewards, expected.rewards)
    assert found.prompt_ids == expected.prompt_ids
    assert [len(each) for each in found.batch] == [2, 2, 2]
    assert found.prompt_ids[::2] == found.prompt_ids[1::2]


def test_two_processes_share_the_prompts_of_a_batch_and_never_split_a_group():
    def batch(world: World) -> Rollout:
        return rollouts_of(world=world).batch(1)

    def said(each: Rollout) -> list[tuple[str, int, float]]:
        seeds = [seed for trajectory in each.batch for seed in trajectory.seeds]
        return list(zip(each.prompt_ids, seeds, each.rewards.tolist(), strict=True))

    first, second = in_two(batch)
    assert said(first) + said(second) == said(batch(Alone()))
    assert (len(first), len(second)) == (4, 2)
    assert set(first.prompt_ids).isdisjoint(second.prompt_ids)


def test_every_given_image_comes_once_before_any_comes_again(folder):
    source = source_of(folder)
    seen = [prompt for iteration in range(5) for prompt in asked(source, iteration)]
    everything = sorted(f"a {path.stem} house" for path in folder.rglob("*.png"))
    assert sorted(seen[:5]) == sorted(seen[5:]) == everything
    assert asked(source_of(folder), 3) == seen[6:8]


@pytest.mark.parametrize("kind", ["rollouts", "images"])
def test_a_stop_that_one_process_sees_is_heard_by_both_between_parts(folder, kind):
    # Four and two images in parts of two: the second process has no more to do when it is told.
    def work(world: World) -> list[tuple[int, int]]:
        asked, seen = iter([False, True]), []
        watcher = Watcher(
            stop_requested=lambda: world.index == 1 and next(asked),
            on_progress=lambda done, total: seen.append((done, total)),
        )
        source: Source
        if kind == "images":
            source = source_of(folder, count=5, world=world)
        else:
            source = rollouts_of(world=world)
        with pytest.raises(Interrupted):
            source.batch(0, watcher=watcher)
        return seen

    assert in_two(work) == [[(0, TOTALS[kind][0])], [(0, TOTALS[kind][1])]]


def test_a_process_without_any_finite_score_goes_on_while_another_has_one():
    class Only(Brightness):
        def __init__(self, good: bool) -> None:
            self.good = good

        def score(self, *, prompts, samples):
            found = super().score(prompts=prompts, samples=samples)
            return found if self.good else torch.full_like(found, math.nan)

    first, second = in_two(lambda world: rollouts_of(Only(world.index == 0), world=world).batch(0))
    assert first.rewards.isfinite().all()
    assert second.rewards.isnan().all()
    assert first.metrics(Alone())["dropped_images"] == 0

    def none_good(world: World) -> None:
        with pytest.raises(NumericsError, match="none of 6 scores is a finite number"):
            rollouts_of(Only(False), world=world).batch(0)

    in_two(none_good)


def test_images_of_held_out_prompts_are_never_learned_from(folder):
    config = ImagesConfig.model_validate({"folder": folder, "held_out": {"num_prompts": 2}})
    training, held_out = config.load_prompts()
    assert len(training) == 3
    assert len(held_out) == 2
    source = source_of(folder, held_out=held_out, count=3)
    assert sorted(asked(source, 0)) == sorted(training)


def test_a_run_learns_from_given_images_and_resumes_bit_for_bit(folder, tmp_path):
    images = {"from": "images", "folder": str(folder), "images_per_iteration": 2}
    data = images | {"held_out": {"num_prompts": 1}}
    long = walk_settings(algorithm=EQUAL, data=data)
    short = walk_settings(algorithm=EQUAL, data=data, iterations=2)
    policy = RandomWalk(num_steps=3)
    start(tmp_path / "whole", settings=long, policy=policy)
    assert policy.shift.abs().max() > 0.01
    start(tmp_path / "parts", settings=short)
    start(tmp_path / "parts", settings=long, resume=True)
    assert torch.equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert measured(tmp_path / "whole") == measured(tmp_path / "parts")
    last = measured(tmp_path / "whole")[-1]
    assert {"loss", "held_out_reward", "held_out_kl"} <= last.keys()
    assert "reward_mean" not in last


def test_a_run_with_a_kl_budget_goes_back_inside_it_whatever_the_algorithm(tmp_path):
    # Supervised fine-tuning measures no KL of its own: the one on held-out prompts decides.
    settings = walk_settings(
        algorithm={"name": "supervised", "draws": 1},
        optimizer={"learning_rate": 0.05},
        measure_every=1,
        checkpoint_every=1,
        kl_budget_nats=1.0,
        iterations=60,
    )
    result = start(tmp_path / "run", settings=settings)
    assert result.end == "kl budget"
    shift, sigma = weights(tmp_path / "run"), RandomWalk(num_steps=3).sigma
    kl = (shift**2 / (2 * sigma[:, None, None, None] ** 2)).sum()
    assert 0 < kl <= 1.0


@pytest.mark.parametrize(
    ("data", "algorithm", "said"),
    [
        ({"from": "images", "folder": "x"}, {"name": "grpo"}, "expected 'rollouts', got 'images'"),
        ({"from": "images", "folder": "x"}, {"name": "ppo"}, "expected 'rollouts', got 'images'"),
        (
            {"from": "images", "folder": "x"},
            {"name": "supervised"},
            "weighting.kind: expected 'equal' for given samples",
        ),
    ],
)
def test_data_that_an_algorithm_cannot_learn_from_are_refused(data, algorithm, said):
    with pytest.raises(ValueError, match=said):
        TrainConfig.model_validate({"data": data, "algorithm": algorithm})


def test_more_images_than_the_folder_has_are_refused_and_null_takes_what_there_is(folder, tmp_path):
    def settings(**images: object) -> TrainConfig:
        data = {"from": "images", "folder": str(folder), "held_out": {"num_prompts": 1}} | images
        return walk_settings(algorithm=EQUAL, data=data, iterations=1)

    with pytest.raises(ConfigError, match=r"data.images_per_iteration: expected at most 4, .* 5$"):
        start(tmp_path / "run", settings=settings(images_per_iteration=5))
    assert not (tmp_path / "run").exists()
    start(tmp_path / "four", settings=settings(images_per_iteration=4))
    start(tmp_path / "run", settings=settings())
    for name in ("four", "run"):
        assert measured(tmp_path / name)[-1]["samples_used"] == 4


def test_rollouts_want_a_reward_model_before_anything_is_made(tmp_path):
    with pytest.raises(ConfigError, match=r"reward.path: expected a reward model"):
        run(walk_settings(), reward=None, out=tmp_path / "run", policy=RandomWalk(num_steps=3))
    assert not (tmp_path / "run").exists()
