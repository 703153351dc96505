"""The oracle of texts: every flaw costs more than all taste, and taste is that of images."""

import math
import random
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch

from imgalign.errors import InputError
from imgalign.storybook.annotators import (
    FAITHFULNESS_WEIGHT,
    GROUPS,
    RENDERS,
    Annotator,
    Habits,
    panel,
)
from imgalign.storybook.demonstrations import (
    CLEAN,
    FLOURISHES,
    WILD,
    demonstrations,
)
from imgalign.storybook.ideas import carry_out, parse_idea, sample_ideas
from imgalign.storybook.scenes import COLOURS, SETTINGS, evaluation_prompts, prompt_of
from imgalign.storybook.text_oracle import (
    FEATURES,
    LOOKS,
    best_text,
    check_carried_out,
    idea_slice_of,
    rank_texts,
    read_text,
    text_faithfulness,
    text_impressions,
    text_oracle_reward,
    text_taste,
    text_utility,
)

CLEANLY = demonstrations(300, seed=1, rates=CLEAN)
WILDLY = demonstrations(1000, seed=2, rates=WILD)


def utility(idea: str, text: str, group: str = "cosy") -> float:
    return float(text_utility([idea], [text], group=group))


# Faithfulness.


def test_flawless_demonstrations_and_no_others_are_faithful():
    for each in WILDLY:
        faithfulness = text_faithfulness(each.prompt, each.completion)
        assert (faithfulness == 1.0) == (each.flaw is None), each
        assert 0 <= faithfulness <= 1


def test_a_flaw_costs_more_than_all_taste():
    plain, tempting = 0.0, 1.0
    worst = max(
        text_faithfulness(each.prompt, each.completion) for each in WILDLY if each.flaw is not None
    )
    assert FAITHFULNESS_WEIGHT + plain > FAITHFULNESS_WEIGHT * worst + tempting


IDEA = "a red cat on a blue house at night"


@pytest.mark.parametrize(
    "text",
    [
        "a cat on a blue house at night",
        "a red cat on a house at night",
        "a red cat on a blue house",
        "a red cat on a blue house in the snow",
        "a red cat beside a blue house at night",
        "a blue house on a red cat at night",
        "a blue cat on a red house at night",
        "a red fish on a blue house at night",
        "a red cat at night",
        "two red cats at night",
        "a red cat on a blue house at night, very beautiful",
        "a red cat on a blue house at night.",
        "A red cat on a blue house at night",
        "a red red cat on a blue house at night",
        "a red cat on a blue house at night a red cat on a blue house at night",
        "there is a red cat on a blue house at night",
        "red cat, blue house, night",
        "",
    ],
)
def test_each_flaw_lowers_the_utility_by_more_than_taste_can_raise_it(text: str):
    for group in GROUPS:
        assert utility(IDEA, IDEA, group) > utility(IDEA, text, group) + 0.1


def test_more_flaws_are_worse_than_fewer():
    worse_and_worse = [
        IDEA,
        "a red cat on a blue house in the snow",
        "a red cat beside a blue house in the snow",
        "a red cat beside a house in the snow",
        "a cat beside a house in the snow",
        "a cat beside a tree in the snow",
        "a fish beside a tree in the snow",
    ]
    worth = [text_faithfulness(IDEA, text) for text in worse_and_worse]
    assert worth == sorted(worth, reverse=True)
    assert len(set(worth)) == len(worth)


def test_the_words_of_an_idea_in_another_order_are_a_flaw():
    rng = random.Random(3)
    for idea in evaluation_prompts(60, seed=4):
        words = idea.split()
        rng.shuffle(words)
        if " ".join(words) == idea or " beside " in idea:
            continue
        assert text_faithfulness(idea, " ".join(words)) < 0.8 + 1e-9


def test_the_things_of_beside_may_change_places():
    assert text_faithfulness("a cat beside a tree", "a tree beside a cat") == 1.0
    assert text_faithfulness("a cat left of a tree", "a tree left of a cat") < 0.8


def test_the_longer_a_text_rambles_the_worse():
    worth = [
        text_faithfulness("a cat", ", ".join(["a red cat", *FLOURISHES[:num]]))
        for num in range(len(FLOURISHES))
    ]
    assert all(before > after for before, after in pairwise(worth))
    endless = "a red cat " + "in the snow " * 2000
    assert text_faithfulness("a cat", endless) < 1e-3


def test_an_object_that_nobody_asked_for_is_a_flaw():
    assert text_faithfulness("a cat", "a cat beside a tree") == pytest.approx(0.8 * 0.8)
    assert text_faithfulness("two fish", "four fish") == pytest.approx(0.8 * 0.8**2)
    assert text_faithfulness("two fish", "a fish") == pytest.approx(0.8 / 2)
    assert text_faithfulness("two fish", "a fish beside a fish") == pytest.approx(0.8)


def test_points_are_those_of_images():
    # kind 3, colour 2, relation 3, setting 3: 3 + 2 + 3 + 2 + 3 + 3 = 16 points.
    cases = {
        "a red cat on a blue house": 13,
        "a cat on a blue house at night": 14,
        "a red cat above a blue house at night": 13,
        "a red fish on a blue house at night": 8,
    }
    for text, points in cases.items():
        assert text_faithfulness(IDEA, text) == pytest.approx(0.8 * points / 16), text


def test_what_asks_for_nothing_has_no_worth():
    for text in ("", "  ", "hello", "cat", "\N{CAT FACE} \x00", "a an the of"):
        for group in GROUPS:
            assert utility("a cat", text, group) == 0.0


def test_spaces_around_a_text_do_not_matter():
    assert text_faithfulness("a cat", " a red cat\n") == 1.0


def test_a_text_is_read_where_it_is_a_prompt():
    reading = read_text("a cat, a red cat at night, so pretty")
    assert reading.spec == read_text("a red cat at night").spec
    # Besides the five words: "a", "cat", two commas, "so", "pretty".
    assert (reading.excess, reading.exact) == (6, False)
    assert read_text("a red cat at night").excess == 0


def test_reading_a_hostile_text_takes_no_time():
    assert read_text("a red cat left of " * 20_000).excess > 79_000
    assert read_text("a" * 1_000_000).spec is None


# Taste.


def test_a_copy_of_an_open_idea_is_faithful_and_of_average_taste():
    for idea in ("a cat", "two fish", "a cat on a house"):
        for group in GROUPS:
            assert utility(idea, idea, group) == FAITHFULNESS_WEIGHT + 0.5


def test_a_copy_that_the_image_model_cannot_read_is_flawed():
    for idea in ("a cat and a tree", "something on a cup", "something red"):
        assert utility(idea, idea) < FAITHFULNESS_WEIGHT * 0.8 + 1


def test_tastes_are_those_of_images():
    """Warm light is cosy, dim and cool is dreamy, saturated and crisp is graphic."""
    for group, liked, disliked in (
        ("cosy", "a yellow cat in a room", "a blue cat at night"),
        ("dreamy", "a blue cat at night", "an orange cat in the desert"),
        ("graphic", "a red cat in the desert", "a pink cat at night"),
    ):
        good, bad = text_taste(liked, group=group), text_taste(disliked, group=group)
        assert good > 0.7 > 0.3 > bad, group


def test_groups_want_different_texts():
    best = {group: best_text("a cat", group=group) for group in GROUPS}
    assert len(set(best.values())) == 3


def test_looks_are_changes_from_the_average():
    for words in (COLOURS, tuple(SETTINGS)):
        means = np.mean([LOOKS[word] for word in words], axis=0)
        assert np.all(np.abs(means) < 0.05), words  # rounded to tenths
    assert set(LOOKS) == {*COLOURS, *SETTINGS}
    assert set(FEATURES) < set(RENDERS)


def test_taste_is_spread_over_its_range():
    for group in GROUPS:
        taste = np.array([text_taste(each.completion, group=group) for each in CLEANLY])
        assert 0.15 < taste.std() < 0.35
        assert abs(taste.mean() - 0.5) < 0.1
        assert 0 < taste.min() < taste.max() < 1


def test_no_text_beats_the_best_one():
    rng = np.random.default_rng(5)
    for text in sample_ideas(60, seed=6):
        idea = parse_idea(text)
        for group in GROUPS:
            best = best_text(text, group=group)
            assert text_faithfulness(text, best) == 1.0
            for _ in range(10):
                other = prompt_of(carry_out(idea, rng))
                assert utility(text, best, group) >= utility(text, other, group)


# The interface.


def test_utilities_are_in_the_range_that_is_said():
    ideas, texts = [each.prompt for each in WILDLY], [each.completion for each in WILDLY]
    for group in GROUPS:
        worth = text_utility(ideas, texts, group=group)
        assert worth.shape == (1000,)
        assert worth.min() >= 0
        assert worth.max() <= FAITHFULNESS_WEIGHT + 1
        assert torch.equal(worth, text_oracle_reward(group)(prompts=ideas, samples=texts))


def test_faithful_texts_are_those_that_are_checked():
    ideas, texts = [each.prompt for each in WILDLY], [each.completion for each in WILDLY]
    right = check_carried_out(prompts=ideas, samples=texts)
    assert right.tolist() == [each.flaw is None for each in WILDLY]


def test_mistakes_in_a_call_are_named():
    with pytest.raises(InputError, match="'a dragon' is not a storybook idea"):
        text_utility(["a dragon"], ["a cat"], group="cosy")
    with pytest.raises(InputError, match="2 ideas for 1 texts"):
        text_utility(["a cat", "a cat"], ["a cat"], group="cosy")
    with pytest.raises(InputError, match="expected a group of cosy, dreamy, graphic"):
        text_utility(["a cat"], ["a cat"], group="gothic")


def test_ideas_are_sliced_by_what_they_name():
    slices = {
        "a red cat": "one thing",
        "two fish": "several of a kind",
        "a cat and a tree": "two things",
        "a cat on a tree": "two things",
        "something on a cup": "something open",
        "a dragon": "free text",
    }
    assert {text: idea_slice_of(text) for text in slices} == slices


# Annotators.


def test_annotators_rank_texts_with_the_habits_they_have_for_images():
    quiet = Habits(lapse=0.0, skip=0.0, tie_threshold=0.0, position_bias=0.0)
    annotator = Annotator(name="x", group="cosy", seed=1, habits=quiet)
    texts = ["a yellow cat in a room", "a cat"]
    num = 1500
    said = Counter(
        rank_texts(annotator, "a cat", texts, order=(0, 1), item_id=f"{i}").ranking
        for i in range(num)
    )
    first, second = text_utility(["a cat"] * 2, texts, group="cosy").tolist()
    expected = 1 / (1 + math.exp(-(first - second) / quiet.temperature))
    error = math.sqrt(expected * (1 - expected) / num)
    assert said[((0,), (1,))] / num == pytest.approx(expected, abs=4 * error)


def test_annotators_put_flawed_texts_last_and_reject_items_without_a_readable_one():
    steady = Habits(lapse=0.0, skip=0.0, all_bad=1.0)
    for annotator in panel(6, seed=2, habits=steady):
        said = rank_texts(
            annotator, "a red cat", ["a red dog", "a red cat"], order=(0, 1), item_id="i"
        )
        assert said.ranking is not None
        assert said.ranking[0] == (1,)
        bad = rank_texts(annotator, "a red cat", ["well", "so pretty"], order=(0, 1), item_id="i")
        assert bad.verdict == "all_bad"


def test_impressions_have_the_parts_of_the_utility():
    (one,) = text_impressions(["a cat"], ["a cat"], group="cosy")
    assert (one.faithfulness, one.taste) == (1.0, 0.5)
    assert one.utility == utility("a cat", "a cat")
