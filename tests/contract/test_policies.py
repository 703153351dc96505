"""What every policy must do, whatever it samples."""

from typing import Any

import pytest
import torch
from policies import (
    OF_IMAGES,
    OF_TEXTS,
    POLICIES,
    ROUNDED,
    SCORED_OTHERWISE,
    STEPS,
    move_weights,
)
from torch import Tensor
from torch.distributions import kl_divergence
from torch.testing import assert_close

from imgalign.algorithms.batches import masked, with_density
from imgalign.algorithms.checks import check_likelihood, check_steps
from imgalign.errors import CheckpointError
from imgalign.policy import LikelihoodPolicy, StepPolicy, Trajectory
from imgalign.runs.passes import CountsPasses

PROMPTS = ["a red house", "two blue boat and a tree", "the green tree", "a boat", "a red house"]
SEEDS = [11, 12, 13, 14, 15]
EVERY_STEP = slice(None)
BATCHES = [(4, [0, 1, 2, 3, 4]), (1, [4, 3, 2, 1, 0]), (3, [2, 0, 4, 1, 3])]
"""Sizes of batches, and orders of the samples."""


@pytest.fixture(params=POLICIES)
def row(request) -> str:
    """Of the table."""
    name: str = request.param
    return name


of_images = pytest.mark.parametrize("row", OF_IMAGES, indirect=True)
of_texts = pytest.mark.parametrize("row", OF_TEXTS, indirect=True)


@pytest.fixture
def new_policy(row, models):
    """Makes fresh policies of one kind."""
    return lambda **changes: POLICIES[row](models, **changes)


@pytest.fixture
def policy(new_policy):
    """One that has learned something."""
    learned = new_policy()
    move_weights(learned)
    return learned


@pytest.fixture
def trajectory(policy) -> Trajectory:
    """Two batches of it."""
    return policy.sample(PROMPTS, seeds=SEEDS)


def scored(policy: StepPolicy, trajectory: Trajectory, steps: Tensor | slice) -> Tensor:
    """Log-probability of what was done, under the present weights."""
    distributions = policy.step_distributions(trajectory, steps)
    log_prob: Tensor = distributions.log_prob(policy.actions(trajectory, steps))
    return masked(log_prob, trajectory.mask[:, steps])


def same(first: Any, second: Any) -> bool:
    """Whether samples are equal, images bit for bit."""
    return torch.equal(first, second) if isinstance(first, Tensor) else bool(first == second)


def in_order(policy: Any, order: list[int], size: int) -> Any:
    """Its samples of the prompts in this order, after it has learned something."""
    move_weights(policy)
    assert policy.batch_size == size
    trajectory = policy.sample(
        [PROMPTS[place] for place in order], seeds=[SEEDS[place] for place in order]
    )
    return policy.decode(trajectory)


def test_it_samples_step_by_step_and_scores_what_it_is_given(policy):
    assert isinstance(policy, StepPolicy)
    assert isinstance(policy, LikelihoodPolicy)
    assert policy.default_clip_nats > 0


def test_scoring_again_in_its_units_gives_the_log_probabilities_of_sampling(row, new_policy):
    # As many samples at once as it samples: then a pass repeats the sampler's own bit for bit.
    policy = new_policy(batch_size=4)
    move_weights(policy)
    trajectory = policy.sample(PROMPTS[:4], seeds=SEEDS[:4])
    units = policy.units(trajectory)
    assert torch.cat(units).tolist() == list(range(STEPS))
    # Other rows in the pass round a sum of hundreds of nats in another order.
    tolerance = 1e-3 if row in SCORED_OTHERWISE else 0
    for unit in units:
        steps = with_density(unit, trajectory.mask)
        if len(steps):
            found = scored(policy, trajectory, steps)
            assert found.requires_grad
            assert_close(found, trajectory.log_probs[:, steps], rtol=0, atol=tolerance)
    assert not scored(policy, trajectory, EVERY_STEP)[~trajectory.mask].any()
    assert trajectory.log_probs.dtype == torch.float32
    assert not trajectory.log_probs[~trajectory.mask].any()
    assert trajectory.mask.any()


def test_steps_have_one_shape_in_distributions_actions_and_features(policy, trajectory):
    for steps in (EVERY_STEP, torch.tensor([0, 2])):
        count = STEPS if steps is EVERY_STEP else 2
        distributions = policy.step_distributions(trajectory, steps)
        assert distributions.batch_shape == (5, count)
        actions = policy.actions(trajectory, steps)
        assert actions.shape == (5, count, *distributions.event_shape)
        features = policy.features(trajectory, steps)
        assert features["timestep"].shape == (count,)
        assert features["prompt"].shape[0] == 5
        assert torch.equal(features["prompt"][0], features["prompt"][4])
        assert not torch.equal(features["prompt"][0], features["prompt"][1])
        assert not any(feature.requires_grad for feature in features.values())
        assert features["timestep"].min() >= 0
        assert features["timestep"].max() < 1


def test_samples_are_named_by_their_ids_and_by_their_prompts_without_any(policy, trajectory):
    assert trajectory.prompts == trajectory.prompt_ids == PROMPTS
    assert trajectory.seeds == SEEDS
    named = policy.sample(PROMPTS[:2], seeds=[1, 2], prompt_ids=["x", "y"])
    assert (named.prompts, named.prompt_ids) == (PROMPTS[:2], ["x", "y"])


def test_a_fresh_one_is_its_reference_and_a_learned_one_is_not(new_policy):
    fresh = new_policy()
    trajectory = fresh.sample(PROMPTS, seeds=SEEDS)

    def kl() -> Tensor:
        with torch.no_grad():
            with fresh.using("reference"):
                reference = fresh.step_distributions(trajectory, EVERY_STEP)
            learned = fresh.step_distributions(trajectory, EVERY_STEP)
            return masked(kl_divergence(learned, reference), trajectory.mask)

    assert not kl().any()
    move_weights(fresh)
    assert (kl()[trajectory.mask] > 0).all()


def test_using_the_reference_ends_with_the_block_also_when_it_fails(new_policy):
    policy, fresh = new_policy(), new_policy()
    move_weights(policy)
    trajectory = policy.sample(PROMPTS, seeds=SEEDS)
    learned = scored(policy, trajectory, EVERY_STEP)
    with policy.using("reference"):
        assert_close(scored(policy, trajectory, EVERY_STEP), scored(fresh, trajectory, EVERY_STEP))
    assert torch.equal(scored(policy, trajectory, EVERY_STEP), learned)
    with pytest.raises(KeyError), policy.using("reference"):
        raise KeyError
    assert torch.equal(scored(policy, trajectory, EVERY_STEP), learned)
    assert all(parameter.requires_grad for parameter in policy.trainable_parameters())


@of_images
def test_a_seed_gives_the_same_image_in_any_batch_and_any_order(new_policy):
    images = []
    for size, order in BATCHES:
        policy = new_policy(batch_size=size)
        found = in_order(policy, order, size)
        images.append(found[torch.tensor(order).argsort()])
    # All random numbers are the same bits; only the network rounds by its batch. Where latents
    # are rounded to bfloat16 that may tip over, by 1/256 of a latent.
    coarse = getattr(getattr(policy, "config", None), "latent_dtype", "") == "bfloat16"
    for other in images[1:]:
        assert_close(other, images[0], rtol=0, atol=2e-2 if coarse else 1e-5)


@of_texts
def test_a_seed_gives_the_same_text_in_any_batch_and_any_order(new_policy):
    texts = []
    for size, order in BATCHES:
        found = in_order(new_policy(batch_size=size), order, size)
        texts.append([found[order.index(place)] for place in range(5)])
    assert texts[0] == texts[1] == texts[2]
    assert len(set(texts[0])) > 1


@of_images
def test_each_denoising_step_of_each_image_is_a_pass_of_the_network_and_two_if_guided(row, policy):
    before, sides = policy.passes, 2 if "guidance" in row else 1
    trajectory = policy.sample(PROMPTS[:3], seeds=SEEDS[:3])
    sampled = policy.passes - before
    scored(policy, trajectory, torch.arange(2))
    learned = policy.passes - before - sampled
    assert (sampled.forward, sampled.backward) == (sides * 3 * STEPS, 0)
    assert (learned.forward, learned.backward) == (sides * 3 * 2, sides * 3 * 2)


@of_texts
def test_each_token_that_is_read_is_a_pass_of_the_network(policy):
    before = policy.passes
    trajectory = policy.sample(PROMPTS[:3], seeds=SEEDS[:3])
    sampled = policy.passes - before
    scored(policy, trajectory, EVERY_STEP)
    learned = policy.passes - before - sampled
    assert sampled.backward == 0
    assert sampled.forward >= int(trajectory.mask.sum())
    assert learned.forward == learned.backward >= int(trajectory.mask.sum())


def test_it_counts_its_passes(policy):
    assert isinstance(policy, CountsPasses)


def test_sampling_leaves_torchs_global_generator_alone(policy):
    before = torch.get_rng_state()
    policy.sample(PROMPTS[:1], seeds=SEEDS[:1])
    policy.preview(PROMPTS[:1], seeds=SEEDS[:1])
    assert torch.equal(torch.get_rng_state(), before)


@of_images
def test_previews_are_images_like_samples(policy, trajectory):
    images = policy.decode(trajectory)
    previews = policy.preview(PROMPTS, seeds=SEEDS)
    assert previews.shape == images.shape == (5, 3, *images.shape[2:])
    for each in (images, previews):
        assert each.dtype == torch.float32
        assert each.min() >= 0
        assert each.max() <= 1


@of_texts
def test_previews_are_texts_like_samples(policy, trajectory):
    texts = policy.decode(trajectory)
    for each in (texts, policy.preview(PROMPTS, seeds=SEEDS)):
        assert len(each) == 5
        assert all(isinstance(text, str) for text in each)
    assert any(texts)


def test_a_seed_gives_the_same_preview_each_time(policy):
    first, again = (policy.preview(PROMPTS, seeds=SEEDS) for _ in "ab")
    assert same(first, again)


def test_its_own_samples_and_encoded_ones_are_data_of_one_form(policy, trajectory):
    given, samples = policy.given(trajectory), policy.decode(trajectory)
    if not isinstance(samples, Tensor):  # with its end, one that has none would be too long
        samples = [text[: STEPS - 1] for text in samples]
    encoded = policy.encode(trajectory.prompts, samples)
    for data in (given, encoded):
        assert data.prompts == data.prompt_ids == trajectory.prompts
        assert not any(content.requires_grad for content in data.content.values())
    shapes = [
        {name: (content.shape, content.dtype) for name, content in data.content.items()}
        for data in (given, encoded)
    ]
    assert shapes[0] == shapes[1]
    draws = policy.draw(given, seeds=SEEDS)
    first, second = policy.log_prob(given, draws), policy.log_prob(encoded, draws)
    assert first.values.shape == (5,)
    assert (first.kind, first.num_elements) == (second.kind, second.num_elements)
    for scored in (first, second):
        counts = torch.full((5,), scored.num_elements) if scored.counts is None else scored.counts
        assert counts.shape == (5,)
        assert 1 <= counts.min() <= counts.max() <= scored.num_elements
    assert isinstance(policy.averages_log_ratios, bool)
    assert second.values.isfinite().all()


@of_images
def test_each_sample_draws_from_its_own_seed_in_any_order_batch_and_number(policy, trajectory):
    data, seeds = policy.given(trajectory), [3, 1, 4, 1, 5]
    draws = policy.draw(data, seeds=seeds)
    assert draws.levels.shape == (5,)
    assert draws.noise.shape == data.content["latents"].shape
    assert draws.noise.device.type == draws.levels.device.type == "cpu"
    assert draws.levels.unique().tolist() == sorted(draws.levels[[0, 1, 2, 4]].tolist())
    assert torch.equal(draws.noise[1], draws.noise[3])
    levels = [0.0, 0.25, 0.5, 0.75, 0.999]
    spread = policy.draw(data, seeds=seeds, levels=levels)
    assert torch.equal(spread.noise, draws.noise)
    assert spread.levels.tolist() == pytest.approx(levels)
    turned = policy.draw(data, seeds=seeds[::-1])
    assert torch.equal(turned.levels.flip(0), draws.levels)
    assert torch.equal(turned.noise.flip(0), draws.noise)
    for place in range(5):
        alone = policy.draw(data.select([place]), seeds=[seeds[place]])
        assert torch.equal(alone.levels, draws.levels[[place]])
        assert torch.equal(alone.noise, draws.noise[[place]])


@of_texts
def test_nothing_is_drawn_for_a_text(policy, trajectory):
    data = policy.given(trajectory)
    draws = [
        policy.draw(data, seeds=SEEDS),
        policy.draw(data, seeds=SEEDS[::-1], levels=[0.0, 0.25, 0.5, 0.75, 0.999]),
    ]
    first, other = (policy.log_prob(data, each) for each in draws)
    assert first.kind == "exact"
    assert torch.equal(first.values, other.values)
    for each in draws:
        assert each.levels.shape == (5,)
        assert each.noise.shape[0] == 5


def test_equal_draws_give_equal_scores_for_each_sample_alone_and_in_a_batch(
    row, policy, trajectory
):
    data = policy.given(trajectory)
    draws, again = (policy.draw(data, seeds=SEEDS) for _ in "ab")
    whole = policy.log_prob(data, draws).values
    assert torch.equal(policy.log_prob(data, again).values, whole)
    for place in range(5):
        one = type(draws)(levels=draws.levels[[place]], noise=draws.noise[[place]])
        alone = policy.log_prob(data.select([place]), one).values
        assert_close(alone, whole[[place]], rtol=1e-4, atol=ROUNDED.get(row, 1e-4))


def test_what_is_saved_is_what_another_one_loads_into_the_same_tensors(new_policy, tmp_path):
    policy, other = new_policy(), new_policy()
    move_weights(policy)
    policy.save(tmp_path)
    before = list(other.trainable_parameters())
    other.load(tmp_path)
    after = list(other.trainable_parameters())
    assert all(one is same for one, same in zip(before, after, strict=True)), (
        "an optimizer made before must still hold the weights"
    )
    expected = policy.sample(PROMPTS[:2], seeds=SEEDS[:2])
    found = other.sample(PROMPTS[:2], seeds=SEEDS[:2])
    assert torch.equal(found.log_probs, expected.log_probs)
    assert same(other.decode(found), policy.decode(expected))


def test_loading_from_a_folder_without_weights_is_a_checkpoint_error(policy, tmp_path):
    with pytest.raises(CheckpointError):
        policy.load(tmp_path)


def test_every_check_passes_and_weights_and_gradients_are_as_before(new_policy):
    policy = new_policy()
    with torch.no_grad():
        trajectory = policy.sample(PROMPTS[:4], seeds=SEEDS[:4])
    before = [parameter.detach().clone() for parameter in policy.trainable_parameters()]
    checks = [
        *policy.checks(),
        *check_steps(policy, trajectory, clip=lambda _: policy.default_clip_nats, fresh=True),
        *check_likelihood(policy, trajectory, fresh=True),
    ]
    assert [check for check in checks if not check.passed] == []
    for parameter, value in zip(policy.trainable_parameters(), before, strict=True):
        assert torch.equal(parameter, value)
        assert parameter.grad is None


# --- what it remembers


def test_what_it_remembers_is_its_reference_until_it_is_told_to_remember(new_policy):
    policy, fresh = new_policy(), new_policy()
    move_weights(policy)
    trajectory = policy.sample(PROMPTS, seeds=SEEDS)
    assert not policy.remembered
    with policy.using("remembered"):
        assert_close(scored(policy, trajectory, EVERY_STEP), scored(fresh, trajectory, EVERY_STEP))


def test_it_remembers_the_weights_of_that_time_whatever_is_learned_later(new_policy):
    policy = new_policy()
    move_weights(policy)
    trajectory = policy.sample(PROMPTS, seeds=SEEDS)
    early = scored(policy, trajectory, EVERY_STEP)
    with policy.using("reference"):
        reference = scored(policy, trajectory, EVERY_STEP)
    policy.remember()
    move_weights(policy)
    late = scored(policy, trajectory, EVERY_STEP)
    assert not torch.equal(late, early)
    with policy.using("remembered"):
        assert torch.equal(scored(policy, trajectory, EVERY_STEP), early)
    with policy.using("reference"):
        assert torch.equal(scored(policy, trajectory, EVERY_STEP), reference)
    with pytest.raises(KeyError), policy.using("remembered"):
        raise KeyError
    assert torch.equal(scored(policy, trajectory, EVERY_STEP), late)
    policy.remember()
    with policy.using("remembered"):
        assert torch.equal(scored(policy, trajectory, EVERY_STEP), late)


def test_what_it_remembers_is_saved_loaded_and_forgotten_with_its_weights(new_policy, tmp_path):
    policy, other = new_policy(), new_policy()
    folders = [tmp_path / "without", tmp_path / "with"]
    for folder in folders:
        folder.mkdir()
    move_weights(policy)
    policy.save(folders[0])
    trajectory = policy.sample(PROMPTS, seeds=SEEDS)
    early = scored(policy, trajectory, EVERY_STEP)
    policy.remember()
    move_weights(policy)
    policy.save(folders[1])
    late = scored(policy, trajectory, EVERY_STEP)
    kept: dict[int, object] = {}
    for number in (1, 0, 1):
        other.load(folders[number])
        kept[number] = other.remembered
        assert torch.equal(scored(other, trajectory, EVERY_STEP), [early, late][number])
        with other.using("remembered"):
            remembered = scored(other, trajectory, EVERY_STEP)
        assert torch.equal(remembered, early) == bool(number)
    assert kept[0] == ()
    move_weights(other)
    other.remember()
    other.remembered = kept[1]
    with other.using("remembered"):
        assert torch.equal(scored(other, trajectory, EVERY_STEP), early)
