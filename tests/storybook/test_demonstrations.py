"""Demonstrations: flaws at the rates that are said, and that each flaw is one."""

from collections import Counter

import pytest
from numpy.random import default_rng

from imgalign.storybook.demonstrations import (
    CASUAL,
    CLEAN,
    ENVELOPES,
    FLAWS,
    WILD,
    FlawRates,
    alter,
    demonstrations,
)
from imgalign.storybook.ideas import (
    carries_out,
    carry_out,
    is_held_out_idea,
    parse_idea,
    sample_ideas,
)
from imgalign.storybook.scenes import evaluation_prompts, is_held_out, parse_prompt, prompt_of

NUM = 2000
SAID = demonstrations(NUM, seed=1, rates=WILD)


def readable(text: str) -> bool:
    try:
        parse_prompt(text)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(("rates", "clean"), [(CLEAN, 1.0), (CASUAL, 0.72), (WILD, 0.4)])
def test_flaws_come_at_their_rates(rates: FlawRates, clean: float):
    assert rates.clean == pytest.approx(clean)
    found = Counter(each.flaw for each in demonstrations(NUM, seed=2, rates=rates))
    for flaw in FLAWS:
        assert found[flaw] / NUM == pytest.approx(
            getattr(rates, flaw), abs=0.04
        )  # 4.3 standard errors
    assert found[None] / NUM == pytest.approx(clean, abs=0.05)


def test_a_flawless_demonstration_carries_out_its_idea():
    for each in SAID:
        if each.flaw is None:
            assert carries_out(parse_prompt(each.completion), parse_idea(each.prompt))


def test_an_altered_one_is_a_prompt_that_does_not_carry_out_its_idea():
    for each in SAID:
        if each.flaw == "alters":
            assert not carries_out(parse_prompt(each.completion), parse_idea(each.prompt))


def test_an_alteration_is_a_single_change_to_no_held_out_combination():
    rng = default_rng(3)
    for text in sample_ideas(300, seed=4):
        idea = parse_idea(text)
        spec = carry_out(idea, rng)
        changed = alter(idea, spec, rng)
        assert not is_held_out(changed)
        words, others = Counter(prompt_of(spec).split()), Counter(prompt_of(changed).split())
        same = {"first", "count", "relation", "second", "setting"}
        kept = {name for name in same if getattr(spec, name) == getattr(changed, name)}
        swapped = words == others
        related = {"relation", "second"} <= same - kept
        assert len(same - kept) == 1 or swapped or related, (prompt_of(spec), prompt_of(changed))


def test_the_other_flaws_leave_the_grammar_and_nothing_else_does():
    for each in SAID:
        assert readable(each.completion) == (each.flaw in (None, "alters")), each


def test_who_rambles_says_the_whole_prompt_first():
    for each in SAID:
        if each.flaw == "rambles":
            prompt, *flourishes = each.completion.split(", ")
            assert flourishes
            assert carries_out(parse_prompt(prompt), parse_idea(each.prompt))


def test_who_leaves_the_grammar_says_the_prompt_in_other_words():
    said = [each.completion for each in SAID if each.flaw == "leaves"]
    around = [envelope.split("{}") for envelope in ENVELOPES]
    for text in said:
        inside = [
            text[len(before) : len(text) - len(after)]
            for before, after in around
            if text.startswith(before) and text.endswith(after)
        ]
        assert any(readable(each) for each in inside), text


def test_demonstrations_are_a_function_of_the_seed():
    assert demonstrations(50, seed=5) == demonstrations(50, seed=5)
    assert demonstrations(50, seed=5) != demonstrations(50, seed=6)


def test_demonstrations_are_of_training_ideas_unless_held_out_ones_are_asked_for():
    assert not any(is_held_out_idea(parse_idea(each.prompt)) for each in SAID)
    held_out = demonstrations(100, seed=7, held_out=True)
    assert all(is_held_out_idea(parse_idea(each.prompt)) for each in held_out)


def test_no_demonstration_shows_what_images_hold_out():
    for each in SAID:
        if each.flaw in (None, "alters"):
            assert not is_held_out(parse_prompt(each.completion))
    assert any(is_held_out(parse_prompt(prompt)) for prompt in evaluation_prompts(5, seed=8))


def test_every_spec_can_be_altered_whatever_is_held_out():
    rng = default_rng(9)
    idea, alone = parse_idea("something and something"), parse_prompt("a pink boat in the snow")
    assert is_held_out(alone)
    spec = parse_prompt("a pink boat left of a pink apple in the snow")
    assert not carries_out(alter(idea, spec, rng), idea)
