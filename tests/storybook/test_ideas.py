"""Ideas: their words, what is held out of training, and what carries them out."""

import pytest
from numpy.random import default_rng

from imgalign.storybook import scenes
from imgalign.storybook.ideas import (
    AND,
    HELD_OUT_IDEA_SHARE,
    Idea,
    Thing,
    carries_out,
    carry_out,
    idea_text,
    is_held_out_idea,
    parse_idea,
    sample_idea,
    sample_ideas,
)
from imgalign.storybook.scenes import SceneSpec, evaluation_prompts, parse_prompt

IDEAS = [parse_idea(text) for text in sample_ideas(400, seed=1)]


def test_every_idea_is_read_as_it_is_written():
    for held_out in (False, True):
        for text in sample_ideas(150, seed=2, held_out=held_out):
            assert idea_text(parse_idea(text)) == text


@pytest.mark.parametrize(
    ("text", "idea"),
    [
        ("a cat", Idea(first=Thing(kind="cat"))),
        ("two fish", Idea(first=Thing(kind="fish"), count=2)),
        ("something red", Idea(first=Thing(colour="red"))),
        (
            "a house and an orange tree",
            Idea(
                first=Thing(kind="house"),
                joint=AND,
                second=Thing(kind="tree", colour="orange"),
            ),
        ),
        (
            "something on a cup at night",
            Idea(first=Thing(), joint="on", second=Thing(kind="cup"), setting="night"),
        ),
    ],
)
def test_what_an_idea_says_and_leaves_open(text: str, idea: Idea):
    assert parse_idea(text) == idea
    assert idea_text(idea) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "cat",
        "a dragon",
        "something big",
        "two something",
        "a cat and",
        "two cats and a tree",
        "a cat and two trees",
        "a cat at night and a tree",
        "a cat and a tree and a house",
        "A cat",
        "a cat.",
    ],
)
def test_what_is_no_idea_is_refused(text: str):
    with pytest.raises(ValueError):
        parse_idea(text)


def test_an_idea_that_no_prompt_carries_out_is_refused():
    cat, tree = Thing(kind="cat"), Thing(kind="tree")
    for wrong in (
        {"first": cat, "joint": AND},
        {"first": cat, "second": tree},
        {"first": cat, "joint": "under", "second": tree},
        {"first": cat, "joint": AND, "second": tree, "count": 2},
        {"first": Thing(), "count": 3},
        {"first": cat, "setting": "moon"},
    ):
        with pytest.raises(ValueError):
            Idea(**wrong)
    with pytest.raises(ValueError, match="did you mean 'purple'"):
        Thing(colour="purpel")


def test_every_prompt_is_an_idea_that_it_carries_out():
    for prompt in evaluation_prompts(200, seed=4):
        idea = parse_idea(prompt)
        assert idea_text(idea) == prompt
        assert carries_out(parse_prompt(prompt), idea)


def test_training_and_held_out_ideas_have_none_in_common():
    training = set(sample_ideas(800, seed=5))
    held_out = set(sample_ideas(200, seed=6, held_out=True))
    assert not training & held_out
    assert not any(is_held_out_idea(parse_idea(text)) for text in training)


def test_about_as_many_ideas_are_held_out_as_said():
    prompts = evaluation_prompts(3000, seed=7, held_out=False)
    share = sum(is_held_out_idea(parse_idea(prompt)) for prompt in prompts) / 3000
    assert share == pytest.approx(HELD_OUT_IDEA_SHARE, abs=0.025)  # 4.5 standard errors


def test_an_idea_of_a_held_out_combination_is_held_out():
    for prompt in evaluation_prompts(200, seed=8, held_out=True):
        assert is_held_out_idea(parse_idea(prompt))


def test_ideas_are_a_function_of_the_seed_and_distinct():
    ideas = sample_ideas(500, seed=9)
    assert ideas == sample_ideas(500, seed=9)
    assert ideas != sample_ideas(500, seed=10)
    assert len(set(ideas)) == 500


def test_the_mix_of_ideas_is_as_said():
    rng = default_rng(11)
    ideas = [sample_idea(rng) for _ in range(1500)]
    shares = {
        "one": sum(idea.count == 1 and idea.joint is None for idea in ideas) / 1500,
        "several": sum(idea.count > 1 for idea in ideas) / 1500,
        "and": sum(idea.joint == AND for idea in ideas) / 1500,
        "relation": sum(idea.joint not in (None, AND) for idea in ideas) / 1500,
    }
    assert shares == pytest.approx(
        {"one": 0.4, "several": 0.2, "and": 0.2, "relation": 0.2}, abs=0.05
    )
    assert Idea(first=Thing()) not in ideas


def test_what_is_filled_in_carries_the_idea_out_and_is_never_held_out():
    rng = default_rng(12)
    for idea in IDEAS:
        spec = carry_out(idea, rng)
        assert carries_out(spec, idea), (idea, spec)
        assert not scenes.is_held_out(spec)


def test_what_an_idea_leaves_open_is_filled_in_in_many_ways():
    rng = default_rng(13)
    specs = {carry_out(parse_idea("something and a cat"), rng) for _ in range(300)}
    assert len({spec.relation for spec in specs}) == 4
    assert len({spec.setting for spec in specs}) == 7
    assert len({spec.first.kind for spec in specs}) > 15
    assert {spec.first.kind == "cat" for spec in specs} == {True, False}
    assert None in {spec.first.colour for spec in specs}


def test_a_held_out_idea_can_be_carried_out_too():
    rng = default_rng(14)
    for text in sample_ideas(100, seed=15, held_out=True):
        assert carries_out(carry_out(parse_idea(text), rng), parse_idea(text))


@pytest.mark.parametrize(
    ("idea", "prompt", "kept"),
    [
        ("a cat", "a red cat in the snow", True),
        ("a cat", "a red cat beside a tree", False),
        ("a cat", "two cats", False),
        ("a red cat", "a blue cat", False),
        ("two fish", "a fish beside a fish", False),
        ("a cat at night", "a cat", False),
        ("a cat and a tree", "a tree above a cat", True),
        ("a cat beside a tree", "a tree beside a cat", True),
        ("a cat above a tree", "a tree above a cat", False),
        ("a cat and something", "two cats", False),
        ("something red and a cat", "a red cat beside a tree", False),
        ("something red and a cat", "a cat on a red tree", True),
        ("something", "a cat", True),
    ],
)
def test_whether_a_prompt_keeps_every_word(idea: str, prompt: str, kept: bool):
    assert carries_out(parse_prompt(prompt), parse_idea(idea)) == kept


def test_a_spec_of_other_words_does_not_carry_out_the_idea():
    rng = default_rng(16)
    for idea in IDEAS[:200]:
        spec = carry_out(idea, rng)
        more = SceneSpec(first=spec.first, count=4 if spec.count < 4 else 3, setting=spec.setting)
        assert not carries_out(more, idea)
