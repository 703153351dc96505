"""Pretraining texts of the storybook's language model, and the chat format they are written in.

Captions, ideas, sentences about the world, and conversations in which somebody asks with an idea
and the answer is a demonstration of unselected quality. So the base model knows the grammar, the
words of the world and the format, and answers as well as people do on average. Left out: the
tokenizer (chat_tokenizer.py).
"""

from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

from numpy.random import Generator, default_rng

from imgalign.storybook.demonstrations import WILD, demonstrate
from imgalign.storybook.ideas import idea_text, sample_idea
from imgalign.storybook.scenes import (
    AIRBORNE,
    OBJECTS,
    SETTINGS,
    Item,
    SceneSpec,
    pick,
    prompt_of,
    sample_spec,
)

BEGIN, END, PAD = "<|begin|>", "<|end|>", "<|pad|>"
"""Every text begins and ends with the first two; padding is a token of its own."""
USER, ASSISTANT = "<|user|>", "<|assistant|>"
"""What somebody says follows the first, the answer the second."""

Source: TypeAlias = Literal["captions", "ideas", "sentences", "conversations"]
SOURCES: Mapping[Source, float] = {
    "captions": 0.1,
    "ideas": 0.05,
    "sentences": 0.15,
    "conversations": 0.7,
}
"""Share of the pretraining texts from each source."""


def pretraining_texts(num: int, *, seed: int, held_out: bool = False) -> tuple[str, ...]:
    """The first `num` texts of a seed, without BEGIN and END; texts may repeat.

    With `held_out`, of ideas and combinations that pretraining never shows, to measure on.
    """
    rng = default_rng(seed)
    sources, shares = list(SOURCES), list(SOURCES.values())
    return tuple(
        _WRITERS[sources[int(rng.choice(len(sources), p=shares))]](rng, held_out)
        for _ in range(num)
    )


def conversation(idea: str, answer: str = "") -> str:
    """An idea and its answer in the chat format; without an answer, what a model continues."""
    return f"{USER}{idea}{ASSISTANT}{answer}"


def _caption(rng: Generator, held_out: bool) -> str:
    return prompt_of(sample_spec(rng, held_out=held_out))


def _idea(rng: Generator, held_out: bool) -> str:
    return idea_text(sample_idea(rng, held_out=held_out))


def _conversation(rng: Generator, held_out: bool) -> str:
    said = demonstrate(sample_idea(rng, held_out=held_out), WILD, rng)
    return conversation(said.prompt, said.completion)


def _sentence(rng: Generator, held_out: bool) -> str:
    return pick(_SENTENCES, rng)(rng, held_out)


def _sight(rng: Generator, held_out: bool) -> str:
    spec = sample_spec(rng, held_out=held_out)
    there = "There is" if spec.count == 1 else "There are"
    return f"{pick((there, 'I see', 'Somebody drew'), rng)} {prompt_of(spec)}."


def _place(rng: Generator, held_out: bool) -> str:
    setting = pick(tuple(SETTINGS), rng)
    phrase = SETTINGS[setting]
    return f"It is {WEATHER[setting]} {phrase}. {_sight(rng, held_out)}"


def _habit(rng: Generator, held_out: bool) -> str:
    kind = pick(OBJECTS, rng)
    name = prompt_of(SceneSpec(first=Item(kind=kind)))
    does = "may float in the air" if kind in AIRBORNE else "stands on the ground"
    return f"{name.capitalize()} {does}."


def _story(rng: Generator, held_out: bool) -> str:
    hero, friend = (_one_thing(rng, held_out) for _ in range(2))
    the_hero, the_friend = (f"the {thing.split(' ', 1)[1]}" for thing in (hero, friend))
    where = SETTINGS[pick(tuple(SETTINGS), rng)]
    end = pick(("became friends", "went home", "had a good day"), rng)
    return (
        f"Once upon a time there was {hero}. One day {the_hero} met {friend} {where}."
        f" Then {the_hero} and {the_friend} {end}."
    )


def _one_thing(rng: Generator, held_out: bool) -> str:
    while True:
        spec = sample_spec(rng, held_out=held_out)
        if spec.count == 1 and spec.relation is None:
            return prompt_of(SceneSpec(first=spec.first))


WEATHER: Mapping[str, str] = {
    "meadow": "green and bright",
    "night": "dark and cool",
    "snow": "cold and white",
    "sea": "blue and fresh",
    "desert": "hot and dry",
    "room": "warm and quiet",
}
"""What sentences say of each setting."""

_SENTENCES: tuple[Callable[[Generator, bool], str], ...] = (_sight, _place, _habit, _story)
_WRITERS: Mapping[Source, Callable[[Generator, bool], str]] = {
    "captions": _caption,
    "ideas": _idea,
    "sentences": _sentence,
    "conversations": _conversation,
}
