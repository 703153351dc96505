"""Ideas: short wishes for an image, which leave open what a prompt of the storybook may say.

A prompt of scenes.py carries out an idea when it keeps every word of it and fills in what it leaves
open: colours, the setting, which object "something" is, and the relation of two things joined by
"and". Every prompt is an idea too. A share of the ideas is held out of training. Left out:
what people write for an idea (demonstrations.py), how well a text carries it out (text_oracle.py).
"""

import hashlib
from dataclasses import dataclass

from numpy.random import Generator, default_rng

from imgalign.storybook.scenes import (
    COLOURS,
    OBJECTS,
    RELATIONS,
    SETTINGS,
    Item,
    SceneSpec,
    is_held_out,
    parse_prompt,
    pick,
    prompt_of,
)

AND = "and"
"""Joins two things whose relation and order are left open."""
UNORDERED = (AND, "beside")
"""Joints whose two things may change places."""
SOMETHING = "something"
"""A thing whose kind is left open; a colour may follow."""

HELD_OUT_IDEA_SHARE = 0.1

COLOUR_SAID, SETTING_SAID = 0.3, 0.2
"""How often a sampled idea says the colour of a thing, and the setting."""
COLOUR_FILLED, SETTING_FILLED = 0.6, 0.6
"""How often `carry_out` says a colour or the setting that the idea leaves open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """One thing that an idea names; None is left open. Example: "something red" has no kind."""

    kind: str | None = None
    colour: str | None = None

    def __post_init__(self) -> None:
        Item(kind=self.kind or OBJECTS[0], colour=self.colour)  # ValueError for unknown ones


@dataclass(frozen=True, slots=True, kw_only=True)
class Idea:
    """The content of an idea.

    Example: "something on a cup at night" is first=Thing(), joint="on", second=Thing(kind="cup"),
    setting="night". ValueError for parts that are unknown or do not go together.
    """

    first: Thing
    count: int = 1
    joint: str | None = None
    """A relation of scenes.py, or AND."""
    second: Thing | None = None
    setting: str | None = None

    def __post_init__(self) -> None:
        if self.first.kind is None and self.count != 1:
            raise ValueError(f"count: expected 1 of {SOMETHING!r}, got {self.count}")
        for relation in self.relations:
            self._outline(relation)

    @property
    def relations(self) -> tuple[str | None, ...]:
        """Every relation that a prompt may give the two things; None of a single thing."""
        return RELATIONS if self.joint == AND else (self.joint,)

    @property
    def open_relations(self) -> tuple[str | None, ...]:
        """Those of `relations` in which what the idea says is no held-out combination."""
        return tuple(each for each in self.relations if not is_held_out(self._outline(each)))

    def _outline(self, relation: str | None) -> SceneSpec:
        """What the idea says as a spec; "something" is any object, in no colour."""
        return SceneSpec(
            first=_item(self.first),
            count=self.count,
            relation=relation,
            second=None if self.second is None else _item(self.second),
            setting=self.setting,
        )


def idea_text(idea: Idea) -> str:
    """The words of `idea`. Example: "a house and something red by the sea"."""
    words = [_phrase(idea.first, idea.count)]
    if idea.joint is not None and idea.second is not None:
        words += [idea.joint, _phrase(idea.second, 1)]
    if idea.setting is not None:
        words.append(SETTINGS[idea.setting])
    return " ".join(words)


def parse_idea(text: str) -> Idea:
    """The inverse of `idea_text`; ValueError for any other text."""
    rest, setting = text, None
    for name, phrase in SETTINGS.items():
        if text.endswith(f" {phrase}"):
            rest, setting = text.removesuffix(f" {phrase}"), name
    for joint in (*RELATIONS, AND):
        left, found, right = rest.partition(f" {joint} ")
        if found:
            first, count = _parse_thing(left)
            second, second_count = _parse_thing(right)
            if count != 1 or second_count != 1:
                raise ValueError(
                    f"idea: expected one thing on each side of {joint!r}, got {text!r}"
                )
            return Idea(first=first, joint=joint, second=second, setting=setting)
    first, count = _parse_thing(rest)
    return Idea(first=first, count=count, setting=setting)


def is_held_out_idea(idea: Idea) -> bool:
    """Whether `idea` is held out of training.

    A share of HELD_OUT_IDEA_SHARE, by a hash of the words, and every idea that only held-out
    combinations of scenes.py carry out.
    """
    # hashlib, not hash(): the split must be the same in every process and on every machine.
    digest = hashlib.sha256(f"idea|{idea_text(idea)}".encode()).digest()
    hashed = int.from_bytes(digest[:4], "big") < HELD_OUT_IDEA_SHARE * 2**32
    return hashed or not idea.open_relations


def sample_idea(rng: Generator, *, held_out: bool = False) -> Idea:
    """A random idea of the training mix, or with `held_out` only ones that training never sees.

    40 % one thing, 20 % two to four of a kind, 20 % two things joined by "and", 20 % two different
    things in a relation. An eighth of the things are "something", but no idea is that word alone.
    """
    while True:
        idea = _sample_any_idea(rng)
        if idea != Idea(first=Thing()) and is_held_out_idea(idea) == held_out:
            return idea


def sample_ideas(num_prompts: int, *, seed: int, held_out: bool = False) -> tuple[str, ...]:
    """The words of distinct ideas, a function of the seed; of the training mix by default."""
    rng = default_rng(seed)
    ideas: dict[str, None] = {}
    while len(ideas) < num_prompts:
        ideas[idea_text(sample_idea(rng, held_out=held_out))] = None
    return tuple(ideas)


def carries_out(spec: SceneSpec, idea: Idea) -> bool:
    """Whether `spec` keeps every word of `idea` and names nothing that it does not ask for.

    The two things of "beside" and of "and" may change places.
    """
    if idea.setting not in (None, spec.setting):
        return False
    if idea.second is None or spec.second is None:
        single = idea.second is None and spec.second is None
        return single and idea.count == spec.count and _is(spec.first, idea.first)
    if spec.relation not in idea.relations:
        return False
    pairs = [(spec.first, spec.second)]
    if idea.joint in UNORDERED:
        pairs.append((spec.second, spec.first))
    return any(_is(one, idea.first) and _is(other, idea.second) for one, other in pairs)


def carry_out(idea: Idea, rng: Generator) -> SceneSpec:
    """A random spec that carries out `idea`, with what it leaves open filled in or left open.

    Never a held-out combination of scenes.py where the idea leaves a choice.
    """
    relations = idea.open_relations
    while True:
        spec = _filled(idea, pick(relations or idea.relations, rng), rng)
        if not relations or not is_held_out(spec):
            return spec


def _filled(idea: Idea, relation: str | None, rng: Generator) -> SceneSpec:
    if idea.second is None:
        first, second = _fill(idea.first, (), rng), None
    else:
        first = _fill(idea.first, (idea.second.kind,), rng)
        second = _fill(idea.second, (first.kind,), rng)
        if idea.joint == AND and rng.random() < 0.5:
            first, second = second, first
    setting = idea.setting
    if setting is None and rng.random() < SETTING_FILLED:
        setting = pick(tuple(SETTINGS), rng)
    return SceneSpec(
        first=first, count=idea.count, relation=relation, second=second, setting=setting
    )


def _fill(thing: Thing, company: tuple[str | None, ...], rng: Generator) -> Item:
    kind = thing.kind or pick([kind for kind in OBJECTS if kind not in company], rng)
    colour = thing.colour
    if colour is None and rng.random() < COLOUR_FILLED:
        colour = pick(COLOURS, rng)
    return Item(kind=kind, colour=colour)


def _is(item: Item, thing: Thing) -> bool:
    return thing.kind in (None, item.kind) and thing.colour in (None, item.colour)


def _item(thing: Thing) -> Item:
    # An object whose colour is unsaid is never held out, and "something red" need not be either.
    return Item(kind=thing.kind, colour=thing.colour) if thing.kind else Item(kind=OBJECTS[0])


def _phrase(thing: Thing, count: int) -> str:
    if thing.kind is None:
        return SOMETHING if thing.colour is None else f"{SOMETHING} {thing.colour}"
    return prompt_of(SceneSpec(first=Item(kind=thing.kind, colour=thing.colour), count=count))


def _parse_thing(text: str) -> tuple[Thing, int]:
    match text.split(" "):
        case [word] if word == SOMETHING:
            return Thing(), 1
        case [word, colour] if word == SOMETHING:
            return Thing(colour=colour), 1
    spec = parse_prompt(text)
    if spec.second is not None or spec.setting is not None:
        raise ValueError(f"idea: expected one thing, got {text!r}")
    return Thing(kind=spec.first.kind, colour=spec.first.colour), spec.count


def _sample_any_idea(rng: Generator) -> Idea:
    form = rng.random()
    setting = pick(tuple(SETTINGS), rng) if rng.random() < SETTING_SAID else None
    first = _sample_thing(OBJECTS, rng)
    if form < 0.4:
        return Idea(first=first, setting=setting)
    if form < 0.6:
        while first.kind is None:
            first = _sample_thing(OBJECTS, rng)
        return Idea(first=first, count=int(rng.integers(2, 5)), setting=setting)
    others = tuple(kind for kind in OBJECTS if kind != first.kind)
    return Idea(
        first=first,
        joint=AND if form < 0.8 else pick(RELATIONS, rng),
        second=_sample_thing(others, rng),
        setting=setting,
    )


def _sample_thing(kinds: tuple[str, ...], rng: Generator) -> Thing:
    colour = pick(COLOURS, rng) if rng.random() < COLOUR_SAID else None
    return Thing(kind=None if rng.random() < 0.125 else pick(kinds, rng), colour=colour)
