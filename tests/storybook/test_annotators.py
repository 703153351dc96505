"""Simulated annotators: what they want, how they err, and that the two can be told apart."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from readings import reading_of

from imgalign.errors import InputError
from imgalign.storybook.annotators import (
    FAITHFULNESS_WEIGHT,
    GROUPS,
    RENDERS,
    Annotator,
    Habits,
    Impression,
    extent,
    oracle_utility,
    panel,
    pixel_features,
    read_impressions,
)
from imgalign.storybook.drawing import draw
from imgalign.storybook.layout import sample_scene
from imgalign.storybook.scenes import (
    evaluation_prompts,
    parse_prompt,
    sample_spec,
)
from imgalign.storybook.verifier import FLAWED, default_verifier

STEADY = Habits(lapse=0.0, skip=0.0, tie_threshold=0.0, position_bias=0.0)
NUM = 1500


def render(scenes):
    pixels = np.stack([np.asarray(draw(scene)) for scene in scenes])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


@pytest.fixture(scope="module")
def mix():
    """Images of the training mix, four of each prompt."""
    rng = np.random.default_rng(11)
    prompts = [p for p in evaluation_prompts(70, seed=6, held_out=False) for _ in range(4)]
    scenes = [sample_scene(parse_prompt(prompt), rng) for prompt in prompts]
    return prompts, render(scenes), [reading_of(scene) for scene in scenes]


@pytest.fixture(scope="module")
def tastes(mix):
    """Taste of each group for each image, [3 n]."""
    return np.array([[i.taste for i in read_impressions(*mix, group=group)] for group in GROUPS])


def answers(habits, utilities, *, order=(0, 1), num=NUM, seed=5):
    """How often each answer came; utilities are taste, of faithful images."""
    annotator = Annotator(name="x", group="cosy", seed=seed, habits=habits)
    shown = [Impression(faithfulness=1.0, taste=utility) for utility in utilities]
    said = [annotator.rank(shown, order=order, item_id=f"item {i}") for i in range(num)]
    return Counter((judgement.verdict, judgement.ranking) for judgement in said)


def close_to(probability, num=NUM):
    """A frequency within four standard errors."""
    error = math.sqrt(probability * (1 - probability) / num)
    return pytest.approx(probability, abs=4 * error + 1e-9)


# Wishes.


def test_taste_never_makes_up_for_a_flaw():
    plain = Impression(faithfulness=1.0, taste=0.0)
    tempting = Impression(faithfulness=FLAWED, taste=1.0)
    assert plain.utility > tempting.utility + 0.1
    assert FAITHFULNESS_WEIGHT * (1 - FLAWED) > 1.0


def test_taste_is_spread_over_its_range_on_renders(tastes):
    assert tastes.min() >= 0
    assert tastes.max() <= 1
    assert np.all((tastes.std(axis=1) > 0.2) & (tastes.std(axis=1) < 0.35))
    assert np.all(np.abs(tastes.mean(axis=1) - 0.5) < 0.08)


def test_taste_varies_among_images_of_one_prompt_as_much_as_the_noise(tastes):
    within = tastes.reshape(3, -1, 4).std(axis=2).mean(axis=1)
    assert np.all(within > 0.7 * Habits().temperature)


def test_groups_want_different_things(tastes):
    by_prompt = tastes.reshape(3, -1, 4)
    within = (by_prompt - by_prompt.mean(axis=2, keepdims=True)).reshape(3, -1)
    for values in (tastes, within):
        correlations = np.corrcoef(values)[np.triu_indices(3, k=1)]
        assert correlations.max() < 0.1
        assert correlations.min() < -0.4


def test_calibration_constants_are_those_of_renders(mix):
    _, images, readings = mix
    features = {name: values.numpy() for name, values in pixel_features(images).items()}
    features["extent"] = np.array([extent(reading) for reading in readings])
    assert features.keys() == RENDERS.keys()
    for name, (mean, deviation) in RENDERS.items():
        assert abs(features[name].mean() - mean) < 0.25 * deviation
        assert features[name].std() == pytest.approx(deviation, rel=0.25)


def test_a_step_towards_a_taste_raises_it():
    rng = np.random.default_rng(2)
    scene = sample_scene(parse_prompt("a red cat in a room"), rng)
    (item,) = scene.items
    cold = replace(scene, warmth=-1.0, items=(replace(item, size=0.4),))
    steps = [
        replace(cold, warmth=w, items=(replace(item, size=s),))
        for w, s in zip(np.linspace(-1, 1, 6), np.linspace(0.4, 0.6, 6), strict=True)
    ]
    prompts, readings = ["a red cat in a room"] * 6, [reading_of(step) for step in steps]

    def taste(group):
        worth = read_impressions(prompts, render(steps), readings, group=group)
        assert {impression.faithfulness for impression in worth} == {1.0}
        return np.diff([impression.taste for impression in worth])

    assert np.all(taste("cosy") > 0)
    assert np.all(taste("dreamy") < 0)


def test_tastes_do_not_depend_on_the_resolution():
    scene = sample_scene(parse_prompt("a red cat"), np.random.default_rng(2))
    pixels = torch.from_numpy(np.array(draw(scene, size=256))).permute(2, 0, 1)[None] / 255
    small, large = pixel_features(render([scene])), pixel_features(pixels)
    for name, values in small.items():
        # Resizing softens edges a little more than drawing does.
        tolerance = (1.6 if name == "crispness" else 0.2) * RENDERS[name][1]
        assert float(large[name]) == pytest.approx(float(values), abs=tolerance)


def test_what_cannot_be_read_pleases_nobody():
    noise = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for group in GROUPS:
        assert oracle_utility(["a red cat"] * 2, noise, group=group).tolist() == [0.0, 0.0]


def test_oracle_utility_prefers_the_image_that_was_asked_for():
    rng = np.random.default_rng(8)
    asked = evaluation_prompts(24, seed=3)
    images = render([sample_scene(parse_prompt(prompt), rng) for prompt in asked])
    others = images.roll(1, 0)
    for group in GROUPS:
        right, wrong = (oracle_utility(asked, shown, group=group) for shown in (images, others))
        assert (right > wrong).float().mean() > 0.95
        assert torch.all(right <= FAITHFULNESS_WEIGHT + 1)


def test_oracle_utility_refuses_a_list_that_does_not_fit():
    with pytest.raises(InputError, match="1 prompts for 2 images"):
        oracle_utility(["a red cat"], torch.zeros(2, 3, 64, 64), group="cosy")


# Habits.


def test_the_same_item_gets_the_same_answer():
    shown = [Impression(faithfulness=0.9, taste=t) for t in (0.1, 0.5, 0.6, 0.9)]
    one = Annotator(name="x", group="cosy", seed=1)
    first = [one.rank(shown, order=(2, 0, 1, 3), item_id=f"{i}") for i in range(50)]
    again = [one.rank(shown, order=(2, 0, 1, 3), item_id=f"{i}") for i in reversed(range(50))]
    assert first == again[::-1]
    other = Annotator(name="x", group="cosy", seed=2)
    assert first != [other.rank(shown, order=(2, 0, 1, 3), item_id=f"{i}") for i in range(50)]


@pytest.mark.parametrize("gap", [0.0, 0.2, 0.6])
def test_two_candidates_are_ranked_with_the_probability_of_bradley_and_terry(gap):
    said = answers(STEADY, (0.2 + gap, 0.2))
    expected = 1 / (1 + math.exp(-gap / STEADY.temperature))
    assert said["ranked", ((0,), (1,))] / NUM == close_to(expected)
    assert said.total() == NUM


def logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def preference_probability(
    better_by: float, habits: Habits, *, shown_first: bool = True
) -> tuple[float, float, float]:
    """Probabilities that the first of two images is preferred, that they tie, that the second is.

    `better_by` is the first utility minus the second. In closed form, because the difference of two
    Gumbel variables is logistic; conditional on the verdict "ranked".
    """
    bias = habits.position_bias if shown_first else -habits.position_bias
    wins = logistic((better_by + bias - habits.tie_threshold) / habits.temperature)
    loses = logistic((-better_by - bias - habits.tie_threshold) / habits.temperature)
    careful, lapsed = 1 - habits.lapse, habits.lapse / 2
    return careful * wins + lapsed, careful * (1 - wins - loses), careful * loses + lapsed


def test_frequencies_with_all_habits_match_the_closed_form():
    habits = Habits(lapse=0.2, skip=0.1, tie_threshold=0.15, position_bias=0.3)
    said = answers(habits, (0.5, 0.4))
    skipped = said["skipped", None]
    assert skipped / NUM == close_to(0.1)
    looked = NUM - skipped
    outcomes = (((0,), (1,)), ((0, 1),), ((1,), (0,)))
    expected = preference_probability(0.1, habits)
    assert sum(expected) == pytest.approx(1)
    for outcome, probability in zip(outcomes, expected, strict=True):
        assert said["ranked", outcome] / looked == close_to(probability, looked)


def test_preference_probability_without_ties_is_the_logistic_function_and_the_lapse():
    habits = replace(STEADY, lapse=0.1)
    first, tied, _ = preference_probability(0.3, habits)
    assert first == pytest.approx(0.9 / (1 + math.exp(-0.3 / habits.temperature)) + 0.05)
    assert tied == pytest.approx(0)


def test_the_best_of_several_comes_first_as_often_as_plackett_and_luce_say():
    tastes = (0.1, 0.3, 0.5, 0.8)
    said = answers(STEADY, tastes, order=(3, 1, 0, 2))
    worth = np.exp(np.array(tastes) / STEADY.temperature)
    for i, expected in enumerate(worth / worth.sum()):
        first = sum(n for (_, ranking), n in said.items() if ranking[0] == (i,))
        assert first / NUM == close_to(expected)


def test_what_is_shown_first_is_preferred():
    habits = replace(STEADY, position_bias=0.2)
    shown_first = answers(habits, (0.5, 0.5), order=(0, 1))["ranked", ((0,), (1,))]
    shown_last = answers(habits, (0.5, 0.5), order=(1, 0))["ranked", ((0,), (1,))]
    odds = 1 / (1 + math.exp(-0.2 / habits.temperature))
    assert shown_first / NUM == close_to(odds)
    assert shown_last / NUM == close_to(1 - odds)


def test_without_position_bias_the_order_changes_nothing():
    shown = [Impression(faithfulness=1.0, taste=t) for t in (0.4, 0.5, 0.6)]
    annotator = Annotator(name="x", group="dreamy", seed=3, habits=replace(STEADY, lapse=0.5))
    for item in map(str, range(40)):
        said = {annotator.rank(shown, order=o, item_id=item) for o in ((0, 1, 2), (2, 1, 0))}
        assert len(said) == 1


def test_lapses_are_blind():
    said = answers(replace(STEADY, lapse=1.0), (1.0, 0.0))
    assert said["ranked", ((0,), (1,))] / NUM == close_to(0.5)


def test_skips_and_lapses_do_not_keep_company():
    said = answers(replace(STEADY, temperature=1e-6, skip=0.5, lapse=0.5), (1.0, 0.0))
    looked = NUM - said["skipped", None]
    assert said["ranked", ((0,), (1,))] / looked == close_to(0.75, looked)


def test_images_that_seem_alike_are_tied():
    calm = replace(STEADY, temperature=1e-6, tie_threshold=0.05)
    assert set(answers(calm, (0.5, 0.52, 0.9), order=(0, 1, 2), num=5)) == {
        ("ranked", ((2,), (0, 1)))
    }


def test_all_bad_is_said_of_bad_images_only_and_not_always():
    annotator = Annotator(name="x", group="cosy", seed=4, habits=replace(STEADY, all_bad=0.7))
    bad, fair = Impression(faithfulness=0.1, taste=0.9), Impression(faithfulness=0.5, taste=0.0)

    def verdicts(*shown):
        return Counter(
            annotator.rank(shown, order=(0, 1), item_id=f"{i}").verdict for i in range(NUM)
        )

    assert verdicts(bad, bad)["all_bad"] / NUM == close_to(0.7)
    assert verdicts(bad, fair)["all_bad"] == 0


def test_a_ranking_holds_each_candidate_once():
    shown = [Impression(faithfulness=1.0, taste=t) for t in (0.1, 0.5, 0.9)]
    said = Annotator(name="x", group="graphic", seed=9).rank(shown, order=(1, 2, 0), item_id="i")
    assert sorted(i for group in said.ranking or () for i in group) == [0, 1, 2]


def test_mistakes_in_a_call_are_named():
    annotator = Annotator(name="x", group="cosy", seed=0)
    with pytest.raises(InputError, match="order of the 1 candidates"):
        annotator.rank([Impression(faithfulness=1.0, taste=0.5)], order=(1,), item_id="i")
    with pytest.raises(InputError, match="got none"):
        annotator.rank([], order=(), item_id="i")
    with pytest.raises(InputError, match="expected a group of cosy, dreamy, graphic"):
        Annotator(name="x", group="gothic", seed=0)


# Panels.


def test_a_panel_has_all_groups_and_different_people():
    people = panel(7, seed=0)
    assert Counter(person.group for person in people) == {"cosy": 3, "dreamy": 2, "graphic": 2}
    assert len({person.name for person in people}) == 7
    assert len({person.habits.temperature for person in people}) == 7
    assert people == panel(7, seed=0)
    assert people != panel(7, seed=1)


def test_extent_is_read_as_it_was_drawn():
    rng = np.random.default_rng(12)
    specs = [sample_spec(rng) for _ in range(40)]
    scenes = [sample_scene(spec, rng) for spec in specs]
    read = default_verifier().read(render(scenes))
    sizes = [
        (extent(one), extent(reading_of(scene))) for one, scene in zip(read, scenes, strict=True)
    ]
    assert np.mean([abs(a - b) < 0.04 for a, b in sizes]) > 0.9
