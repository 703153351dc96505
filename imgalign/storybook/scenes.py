"""The storybook world as data: what a prompt can say, and what an image of it holds.

A `SceneSpec` is the content of a prompt; a `Scene` is one image of it, with everything that the
prompt leaves open filled in. Some combinations of object, colour and context are held
out of training, so that they measure composition and not memory. Left out: where
things stand (layout.py), pixels (drawing.py), reading an image back (the verifier).

Units: positions and sizes are fractions of the image's side; x grows to the right, y downwards.
"""

import difflib
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from numpy.random import Generator, default_rng

WIDTHS = {
    "house": 1.00,
    "tree": 0.90,
    "boat": 1.10,
    "fish": 1.28,
    "sun": 1.05,
    "cat": 0.95,
    "car": 1.51,
    "flower": 0.68,
    "bird": 1.18,
    "star": 1.05,
    "heart": 1.11,
    "balloon": 0.61,
    "mushroom": 0.95,
    "umbrella": 0.97,
    "cup": 0.98,
    "apple": 0.92,
    "butterfly": 1.16,
    "rocket": 0.69,
    "kite": 0.77,
    "snail": 1.31,
    "rabbit": 0.61,
    "hat": 1.16,
    "cake": 1.00,
    "crown": 1.20,
}
"""Width of every object as a multiple of its height; shapes.py is tested against it."""

CANDIDATE_PROMPTS = 11
"""Seed of the prompts to rank."""

OBJECTS = tuple(WIDTHS)
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown")
COUNTS = {1: "a", 2: "two", 3: "three", 4: "four"}
RELATIONS = ("left of", "above", "on", "beside")
SETTINGS = {
    "meadow": "by day",
    "night": "at night",
    "snow": "in the snow",
    "sea": "by the sea",
    "desert": "in the desert",
    "room": "in a room",
}
"""Every setting with the phrase that asks for it."""

AIRBORNE = frozenset({"sun", "bird", "star", "heart", "balloon", "butterfly", "rocket", "kite"})
"""Objects that may float; all others stand on the ground unless a relation places them."""

HELD_OUT_RELATION_SHARE = 0.08
HELD_OUT_COUNT_SHARE = 0.04

_IRREGULAR_PLURALS = {"fish": "fish", "butterfly": "butterflies"}
_PLURALS = {kind: _IRREGULAR_PLURALS.get(kind, f"{kind}s") for kind in OBJECTS}
_KIND_OF_PLURAL = {plural: kind for kind, plural in _PLURALS.items()}

Choice = TypeVar("Choice")


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One thing a prompt names. Example: "a red cat" is kind "cat", colour "red"."""

    kind: str
    colour: str | None = None
    """None where the prompt leaves it open."""

    def __post_init__(self) -> None:
        _expect("object", self.kind, OBJECTS)
        if self.colour is not None:
            _expect("colour", self.colour, COLOURS)


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneSpec:
    """The content of a prompt.

    Example: "three blue fish in the snow" is first=blue fish, count=3, setting="snow"; relation and
    second are None.
    """

    first: Item
    count: int = 1
    relation: str | None = None
    second: Item | None = None
    setting: str | None = None
    """None where the prompt leaves it open."""

    def __post_init__(self) -> None:
        if self.count not in COUNTS:
            raise ValueError(f"count: expected 1 to {max(COUNTS)}, got {self.count}")
        if self.relation is not None:
            _expect("relation", self.relation, RELATIONS)
        if self.setting is not None:
            _expect("setting", self.setting, SETTINGS)
        if (self.relation is None) != (self.second is None):
            raise ValueError("relation and second: expected both or neither, got one of them")
        if self.relation is not None and self.count != 1:
            raise ValueError(f"count: expected 1 beside a relation, got {self.count}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """One object in an image: (x, y) is the centre of its box, `size` the height of the box."""

    kind: str
    colour: str
    x: float
    y: float
    size: float
    flip: bool = False
    """Mirrored; drawings face right otherwise."""

    @property
    def width(self) -> float:
        """Width of its box."""
        return self.size * WIDTHS[self.kind]

    @property
    def top(self) -> float:
        """Upper edge of its box."""
        return self.y - self.size / 2

    @property
    def bottom(self) -> float:
        """Lower edge of its box, where it stands."""
        return self.y + self.size / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A complete description of one image. Items are drawn in order."""

    setting: str
    items: tuple[Placed, ...]
    outline: float = 1.0
    """Thickness of the outlines, as a multiple of the usual one."""
    shade: float = 0.5
    """Strength of light and shadow on objects, 0 (flat) to 1."""
    light_from: float = -0.6
    """Direction of the light: -1 far left, 1 far right; always from above."""
    warmth: float = 0.0
    """Tint of the light, -1 (cool) to 1 (warm)."""
    backdrop: float = 0.5
    """Variation of clouds, hills and dunes, 0 to 1."""


def prompt_of(spec: SceneSpec) -> str:
    """The prompt of `spec`. Example: "a red cat left of a blue house at night"."""
    words = [_noun_phrase(spec.first, spec.count)]
    if spec.relation is not None and spec.second is not None:
        words += [spec.relation, _noun_phrase(spec.second, 1)]
    if spec.setting is not None:
        words.append(SETTINGS[spec.setting])
    return " ".join(words)


def parse_prompt(text: str) -> SceneSpec:
    """The inverse of `prompt_of`; ValueError for any other text."""
    rest, setting = text, None
    for name, phrase in SETTINGS.items():
        if text.endswith(f" {phrase}"):
            rest, setting = text.removesuffix(f" {phrase}"), name
    for relation in RELATIONS:
        left, found, right = rest.partition(f" {relation} ")
        if found:
            first, count = _parse_noun_phrase(left)
            second, second_count = _parse_noun_phrase(right)
            if count != 1 or second_count != 1:
                raise ValueError(
                    f"prompt: expected one object on each side of {relation!r}, got {text!r}"
                )
            return SceneSpec(first=first, relation=relation, second=second, setting=setting)
    first, count = _parse_noun_phrase(rest)
    return SceneSpec(first=first, count=count, setting=setting)


def vocabulary() -> tuple[str, ...]:
    """Every word a prompt can have, sorted."""
    phrases = (*OBJECTS, *_KIND_OF_PLURAL, *COLOURS, *COUNTS.values(), *RELATIONS)
    words = " ".join((*phrases, *SETTINGS.values(), "an")).split()
    return tuple(sorted(set(words)))


def holds(relation: str, a: Placed, b: Placed) -> bool:
    """Whether `a` is in `relation` to `b`, by their boxes."""
    return _GEOMETRY[relation](a, b)


def _left_of(a: Placed, b: Placed) -> bool:
    return a.x + 0.18 <= b.x and abs(a.y - b.y) <= 0.22


def _above(a: Placed, b: Placed) -> bool:
    return a.y + 0.24 <= b.y and abs(a.x - b.x) <= 0.22


def _on(a: Placed, b: Placed) -> bool:
    return abs(a.bottom - b.top) <= 0.07 and abs(a.x - b.x) <= 0.16


def _beside(a: Placed, b: Placed) -> bool:
    return 0.18 <= abs(a.x - b.x) <= 0.62 and abs(a.y - b.y) <= 0.22


_GEOMETRY: dict[str, Callable[[Placed, Placed], bool]] = {
    "left of": _left_of,
    "above": _above,
    "on": _on,
    "beside": _beside,
}


def is_held_out(spec: SceneSpec) -> bool:
    """Whether `spec` is a held-out combination, which training must never see.

    The context of an object is its relation, on either side of it, or its count. An object whose
    colour is unsaid is never held out.
    """
    context = _context(spec)
    return any(
        item.colour is not None and _is_held_out_in(context, item.kind, item.colour)
        for item in _items(spec)
    )


def sample_spec(rng: Generator, *, held_out: bool = False) -> SceneSpec:
    """A random spec of the training mix, or with `held_out` only ones that training never sees.

    45 % one object, 20 % two to four of a kind, 35 % two different objects in a relation; colours
    are said 85 % of the time, the setting half of the time.
    """
    while True:
        spec = _sample_any_spec(rng)
        if is_held_out(spec) == held_out:
            return spec


def evaluation_prompts(num_prompts: int, *, seed: int, held_out: bool = True) -> tuple[str, ...]:
    """`num_prompts` distinct prompts, a function of the seed; held-out combinations by default."""
    rng = default_rng(seed)
    prompts: dict[str, None] = {}
    while len(prompts) < num_prompts:
        prompts[prompt_of(sample_spec(rng, held_out=held_out))] = None
    return tuple(prompts)


def with_colours(spec: SceneSpec, rng: Generator) -> tuple[Item, Item | None]:
    """The items of the prompt, with a random colour where it names none.

    Never a colour that is held out in this context.
    """
    context = _context(spec)
    first = _with_colour(spec.first, context, rng)
    return first, None if spec.second is None else _with_colour(spec.second, context, rng)


def _expect(what: str, got: str, known: Iterable[str]) -> None:
    if got in known:
        return
    close = difflib.get_close_matches(got, tuple(known), n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise ValueError(f"{what}: expected one of {', '.join(known)}, got {got!r}{hint}")


def _noun_phrase(item: Item, count: int) -> str:
    noun = item.kind if count == 1 else _PLURALS[item.kind]
    described = noun if item.colour is None else f"{item.colour} {noun}"
    return f"{_article(described) if count == 1 else COUNTS[count]} {described}"


def _article(described: str) -> str:
    return "an" if described[0] in "aeiou" else "a"


def _parse_noun_phrase(text: str) -> tuple[Item, int]:
    match text.split(" "):
        case [number, noun]:
            colour = None
        case [number, colour, noun]:
            _expect("prompt: colour", colour, COLOURS)
        case _:
            raise ValueError(f"prompt: expected '<a or number> [colour] <object>', got {text!r}")
    if number in {"a", "an"}:
        _expect("prompt: object", noun, OBJECTS)
        if number != _article(colour or noun):
            raise ValueError(
                f"prompt: expected {_article(colour or noun)!r} in {text!r}, got {number!r}"
            )
        return Item(kind=noun, colour=colour), 1
    numbers = {word: count for count, word in COUNTS.items() if count > 1}
    _expect("prompt: article or number", number, ("a", "an", *numbers))
    _expect("prompt: objects", noun, _KIND_OF_PLURAL)
    return Item(kind=_KIND_OF_PLURAL[noun], colour=colour), numbers[number]


def _items(spec: SceneSpec) -> tuple[Item, ...]:
    return (spec.first,) if spec.second is None else (spec.first, spec.second)


def _context(spec: SceneSpec) -> str | int:
    return spec.count if spec.relation is None else spec.relation


def _is_held_out_in(context: str | int, kind: str, colour: str) -> bool:
    # hashlib, not hash(): the split must be the same in every process and on every machine.
    digest = hashlib.sha256(f"{kind}|{colour}|{context}".encode()).digest()
    share = HELD_OUT_COUNT_SHARE if isinstance(context, int) else HELD_OUT_RELATION_SHARE
    return int.from_bytes(digest[:4], "big") < share * 2**32


def _with_colour(item: Item, context: str | int, rng: Generator) -> Item:
    if item.colour is not None:
        return item
    seen = [colour for colour in COLOURS if not _is_held_out_in(context, item.kind, colour)]
    return Item(kind=item.kind, colour=pick(seen, rng))


def _sample_any_spec(rng: Generator) -> SceneSpec:
    form = rng.random()
    setting = pick(tuple(SETTINGS), rng) if rng.random() < 0.5 else None
    first = _sample_item(OBJECTS, rng)
    if form < 0.45:
        return SceneSpec(first=first, setting=setting)
    if form < 0.65:
        return SceneSpec(first=first, count=int(rng.integers(2, 5)), setting=setting)
    others = tuple(kind for kind in OBJECTS if kind != first.kind)
    return SceneSpec(
        first=first,
        relation=pick(RELATIONS, rng),
        second=_sample_item(others, rng),
        setting=setting,
    )


def _sample_item(kinds: Sequence[str], rng: Generator) -> Item:
    kind = pick(kinds, rng)
    return Item(kind=kind, colour=pick(COLOURS, rng) if rng.random() < 0.85 else None)


def pick(choices: Sequence[Choice], rng: Generator) -> Choice:
    """A uniform random choice."""
    return choices[int(rng.integers(len(choices)))]


def candidate_prompts(num: int) -> tuple[str, ...]:
    """The prompts whose images are ranked: a fixed sample of the training mix."""
    return evaluation_prompts(num, seed=CANDIDATE_PROMPTS, held_out=False)
