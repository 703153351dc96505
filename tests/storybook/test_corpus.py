"""Pretraining texts: their mix, the chat format, and that nothing held out is shown."""

from collections import Counter

import pytest

from imgalign.storybook.corpus import (
    ASSISTANT,
    SOURCES,
    USER,
    conversation,
    pretraining_texts,
)
from imgalign.storybook.demonstrations import WILD
from imgalign.storybook.ideas import is_held_out_idea, parse_idea
from imgalign.storybook.scenes import is_held_out, parse_prompt
from imgalign.storybook.text_oracle import text_faithfulness

NUM = 2000
TEXTS = pretraining_texts(NUM, seed=1)


def turns(text: str) -> tuple[str, str] | None:
    """The idea and the answer of a conversation."""
    if not text.startswith(USER):
        return None
    idea, answer = text.removeprefix(USER).split(ASSISTANT)
    return idea, answer


def source_of(text: str) -> str:
    if turns(text):
        return "conversations"
    if text.endswith("."):
        return "sentences"
    try:
        parse_prompt(text)
    except ValueError:
        return "ideas"
    return "captions or ideas"


def test_the_sources_come_at_their_shares():
    assert sum(SOURCES.values()) == pytest.approx(1)
    found = Counter(source_of(text) for text in TEXTS)
    for source in ("conversations", "sentences"):
        assert found[source] / NUM == pytest.approx(SOURCES[source], abs=0.05)
    rest = found["ideas"] + found["captions or ideas"]
    assert rest / NUM == pytest.approx(SOURCES["captions"] + SOURCES["ideas"], abs=0.05)
    assert found["ideas"] > 0


def test_conversations_are_as_flawed_as_said():
    said = [pair for text in TEXTS if (pair := turns(text))]
    faithful = [text_faithfulness(idea, answer) == 1.0 for idea, answer in said]
    assert sum(faithful) / len(faithful) == pytest.approx(WILD.clean, abs=0.07)


def test_nothing_that_is_held_out_is_shown():
    for text in TEXTS:
        if pair := turns(text):
            assert not is_held_out_idea(parse_idea(pair[0]))
        elif source_of(text) == "captions or ideas":
            assert not is_held_out(parse_prompt(text))
        elif source_of(text) == "ideas":
            assert not is_held_out_idea(parse_idea(text))


def test_sentences_show_no_held_out_combination_either():
    shown = [
        text.rstrip(".").removeprefix(start)
        for text in TEXTS
        for start in ("There is ", "There are ", "I see ", "Somebody drew ")
        if text.startswith(start)
    ]
    assert len(shown) > 50
    assert not any(is_held_out(parse_prompt(text)) for text in shown)


def test_held_out_texts_are_of_held_out_ideas():
    pairs = [pair for text in pretraining_texts(60, seed=2, held_out=True) if (pair := turns(text))]
    assert pairs
    assert all(is_held_out_idea(parse_idea(idea)) for idea, _ in pairs)


def test_texts_are_the_first_of_their_seed():
    assert pretraining_texts(50, seed=1) == TEXTS[:50]
    assert pretraining_texts(NUM, seed=3) != TEXTS


def test_a_conversation_without_an_answer_is_the_beginning_of_one_with_it():
    assert conversation("a cat") == "<|user|>a cat<|assistant|>"
    assert conversation("a cat", "a red cat") == conversation("a cat") + "a red cat"
