"""Demonstrations: picture prompts as people write them for an idea, some of them flawed.

A flawless demonstration carries out its idea and has no taste: what the idea leaves open is filled
in at random or left open. At most one flaw is in each other one, at documented rates. Left out:
how bad a flaw is (text_oracle.py).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

from numpy.random import Generator, default_rng

from imgalign.storybook.ideas import Idea, carries_out, carry_out, idea_text, sample_idea
from imgalign.storybook.scenes import (
    COLOURS,
    COUNTS,
    OBJECTS,
    RELATIONS,
    SETTINGS,
    Item,
    SceneSpec,
    is_held_out,
    pick,
    prompt_of,
)

Flaw: TypeAlias = Literal["alters", "rambles", "repeats", "leaves"]
"""Alters: drops, changes or adds a word, so that the idea is not carried out. Rambles: adds
flourishes after the prompt. Repeats: says the prompt or a word of it again. Leaves: says it in
words outside of the grammar."""
FLAWS: tuple[Flaw, ...] = get_args(Flaw)

FLOURISHES = (
    "very beautiful",
    "so very pretty",
    "highly detailed",
    "a true masterpiece",
    "best quality",
    "as in a dream",
    "oh how lovely",
    "with a lot of love",
    "and much more",
    "and so on",
)
ENVELOPES = (
    "there is {}",
    "draw me {} please",
    "I would like to see {}",
    "a drawing of {}",
    "{}, I think",
    "maybe {}",
    "it could be {}",
)
"""What says a prompt outside of the grammar; {} is the prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlawRates:
    """Share of the demonstrations with each flaw; the others have none."""

    alters: float = 0.0
    rambles: float = 0.0
    repeats: float = 0.0
    leaves: float = 0.0

    @property
    def clean(self) -> float:
        """Share of the demonstrations without a flaw."""
        return 1 - (self.alters + self.rambles + self.repeats + self.leaves)


CLEAN = FlawRates()
CASUAL = FlawRates(alters=0.1, rambles=0.08, repeats=0.04, leaves=0.06)
"""Of people who write demonstrations by the way: 72 % are clean."""
WILD = FlawRates(alters=0.22, rambles=0.16, repeats=0.08, leaves=0.14)
"""Of texts that nobody selected, as in pretraining: 40 % are clean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstration:
    """An idea and what somebody wrote for it, by the column names of TRL.

    Example: prompt "a cat", completion "a red cat in the snow", flaw None.
    """

    prompt: str
    completion: str
    flaw: Flaw | None = None


def demonstrations(
    num: int, *, seed: int, rates: FlawRates = CASUAL, held_out: bool = False
) -> tuple[Demonstration, ...]:
    """`num` demonstrations, a function of the arguments; of ideas for training by default.

    Ideas may repeat.
    """
    rng = default_rng(seed)
    return tuple(demonstrate(sample_idea(rng, held_out=held_out), rates, rng) for _ in range(num))


def demonstrate(idea: Idea, rates: FlawRates, rng: Generator) -> Demonstration:
    """A random demonstration of `idea`."""
    spec = carry_out(idea, rng)
    flaw = _sample_flaw(rates, rng)
    match flaw:
        case "alters":
            text = prompt_of(alter(idea, spec, rng))
        case "rambles":
            text = _ramble(prompt_of(spec), rng)
        case "repeats":
            text = _repeat(prompt_of(spec), rng)
        case "leaves":
            text = pick(ENVELOPES, rng).format(prompt_of(spec))
        case None:
            text = prompt_of(spec)
    return Demonstration(prompt=idea_text(idea), completion=text, flaw=flaw)


def alter(idea: Idea, spec: SceneSpec, rng: Generator) -> SceneSpec:
    """`spec`, which carries out `idea`, with one change after which it no longer does.

    Never a held-out combination of scenes.py.
    """
    while True:
        changed = _changes(spec, rng)
        flawed = [one for one in changed if not carries_out(one, idea) and not is_held_out(one)]
        if flawed:
            return pick(flawed, rng)


def _changes(spec: SceneSpec, rng: Generator) -> Iterator[SceneSpec]:
    """One of each kind of change: of an object, colour, count, relation or setting."""
    kinds = [spec.first.kind, *([spec.second.kind] if spec.second else [])]
    other = Item(kind=pick([kind for kind in OBJECTS if kind not in kinds], rng))
    yield replace(spec, first=replace(spec.first, kind=other.kind))
    for colour in (None, pick(COLOURS, rng)):
        yield replace(spec, first=replace(spec.first, colour=colour))
    for setting in (None, pick(tuple(SETTINGS), rng)):
        yield replace(spec, setting=setting)
    relation = pick(RELATIONS, rng)
    if spec.second is None:
        yield replace(spec, count=pick(tuple(COUNTS), rng))
        if spec.count == 1:
            yield replace(spec, relation=relation, second=other)
        return
    yield replace(spec, second=replace(spec.second, kind=other.kind))
    for colour in (None, pick(COLOURS, rng)):
        yield replace(spec, second=replace(spec.second, colour=colour))
    yield replace(spec, relation=relation)
    yield replace(spec, first=spec.second, second=spec.first)
    yield replace(spec, relation=None, second=None)
    # Of "something and something" the first object alone may be held out, unless in no colour.
    yield SceneSpec(first=Item(kind=spec.first.kind), setting=spec.setting)


def _sample_flaw(rates: FlawRates, rng: Generator) -> Flaw | None:
    drawn = rng.random()
    for flaw in FLAWS:
        drawn -= getattr(rates, flaw)
        if drawn < 0:
            return flaw
    return None


def _ramble(text: str, rng: Generator) -> str:
    return ", ".join([text, *(pick(FLOURISHES, rng) for _ in range(_few(rng)))])


def _repeat(text: str, rng: Generator) -> str:
    if rng.random() < 0.5:
        return ", ".join([text] * (1 + _few(rng)))
    words = text.split()
    place = int(rng.integers(len(words)))
    return " ".join([*words[:place], *[words[place]] * _few(rng), *words[place:]])


def _few(rng: Generator) -> int:
    """1 to 5; each further one is half as likely."""
    return min(5, int(rng.geometric(0.5)))
