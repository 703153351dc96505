"""The picture-book world as data: what a prompt can say, and how a scene that obeys it is laid out.

A `SceneSpec` is what a prompt says and nothing more; a `Scene` is one picture that obeys it, with
everything the prompt left open filled in. Some combinations of object, colour and context are held
out: training never sees them, so they measure composition and not memory. Left out: pixels
(drawing.py) and reading a picture back (the verifier).

Units: positions and sizes are fractions of the picture's side; x grows to the right, y downwards.
"""

import difflib
import hashlib
import itertools
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
"""Every object's drawn width as a multiple of its height. shapes.py is tested against it."""

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
"""Objects at home in the air; all others stand on the ground when the layout is free to choose."""

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
    """None: the prompt does not say."""

    def __post_init__(self) -> None:
        _expect("object", self.kind, OBJECTS)
        if self.colour is not None:
            _expect("colour", self.colour, COLOURS)


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneSpec:
    """What a prompt says.

    Example: "three blue fish in the snow" is first=blue fish, count=3, setting="snow"; relation and
    second are None.
    """

    first: Item
    count: int = 1
    relation: str | None = None
    second: Item | None = None
    setting: str | None = None
    """None: the prompt does not say."""

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
    """One object in a picture: (x, y) is the centre of its box, `size` the height of the box."""

    kind: str
    colour: str
    x: float
    y: float
    size: float
    flip: bool = False
    """Drawn as in a mirror. The drawings face right."""

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
    """One picture, complete: drawing it needs nothing else. Items are drawn in order."""

    setting: str
    items: tuple[Placed, ...]
    outline: float = 1.0
    """Thickness of the outlines, as a multiple of the usual one."""
    shade: float = 0.5
    """Strength of light and shadow on objects, 0 (flat) to 1."""
    light_from: float = -0.6
    """Where the light comes from: -1 far left, 1 far right; always from above."""
    warmth: float = 0.0
    """Tint of the light, -1 (cool) to 1 (warm)."""
    backdrop: float = 0.5
    """Which of a continuum of clouds, hills and dunes, 0 to 1."""


def prompt_of(spec: SceneSpec) -> str:
    """The one way to say `spec`. Example: "a red cat left of a blue house at night"."""
    words = [_noun_phrase(spec.first, spec.count)]
    if spec.relation is not None and spec.second is not None:
        words += [spec.relation, _noun_phrase(spec.second, 1)]
    if spec.setting is not None:
        words.append(SETTINGS[spec.setting])
    return " ".join(words)


def parse_prompt(text: str) -> SceneSpec:
    """Exact inverse of `prompt_of`; ValueError for any text that `prompt_of` never gives."""
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
    """Whether `a` stands in `relation` to `b`. The one definition; boxes only, no pixels."""
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
    """Whether training must never see `spec`: one of its coloured objects is held out here.

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
    """`num_prompts` distinct prompts, the same for the same seed; held-out ones unless told."""
    rng = default_rng(seed)
    prompts: dict[str, None] = {}
    while len(prompts) < num_prompts:
        prompts[prompt_of(sample_spec(rng, held_out=held_out))] = None
    return tuple(prompts)


def sample_scene(spec: SceneSpec, rng: Generator) -> Scene:
    """A random scene that obeys `spec`, with a margin, so that small reading errors do not flip it.

    An unsaid colour is never filled with one that is held out in this context.
    """
    context = _context(spec)
    first = _with_colour(spec.first, context, rng)
    if spec.relation is not None and spec.second is not None:
        items = _PAIR_LAYOUTS[spec.relation](first, _with_colour(spec.second, context, rng), rng)
    elif spec.count == 1:
        items = (_place_one(first, rng),)
    else:
        items = _place_several(first, spec.count, rng)
    return Scene(
        setting=_pick(tuple(SETTINGS), rng) if spec.setting is None else spec.setting,
        items=items,
        outline=float(rng.uniform(0.7, 1.4)),
        shade=float(rng.uniform(0.3, 1.0)),
        light_from=float(rng.choice((-1, 1)) * rng.uniform(0.3, 1.0)),
        warmth=float(rng.uniform(-1.0, 1.0)),
        backdrop=float(rng.uniform(0.0, 1.0)),
    )


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
    return Item(kind=item.kind, colour=_pick(seen, rng))


def _sample_any_spec(rng: Generator) -> SceneSpec:
    form = rng.random()
    setting = _pick(tuple(SETTINGS), rng) if rng.random() < 0.5 else None
    first = _sample_item(OBJECTS, rng)
    if form < 0.45:
        return SceneSpec(first=first, setting=setting)
    if form < 0.65:
        return SceneSpec(first=first, count=int(rng.integers(2, 5)), setting=setting)
    others = tuple(kind for kind in OBJECTS if kind != first.kind)
    return SceneSpec(
        first=first,
        relation=_pick(RELATIONS, rng),
        second=_sample_item(others, rng),
        setting=setting,
    )


def _sample_item(kinds: Sequence[str], rng: Generator) -> Item:
    kind = _pick(kinds, rng)
    return Item(kind=kind, colour=_pick(COLOURS, rng) if rng.random() < 0.85 else None)


def _pick(choices: Sequence[Choice], rng: Generator) -> Choice:
    return choices[int(rng.integers(len(choices)))]


# Layout. Nothing is drawn nearer than this to the picture's edge; outlines need the room.
_RIM = 0.03


def _place(item: Item, x: float, y: float, size: float, rng: Generator) -> Placed:
    assert item.colour is not None
    flip = bool(rng.random() < 0.5)
    return Placed(kind=item.kind, colour=item.colour, x=x, y=y, size=size, flip=flip)


def _place_one(item: Item, rng: Generator) -> Placed:
    size = float(rng.uniform(0.38, 0.62))
    size = min(size, (1 - 2 * _RIM) / WIDTHS[item.kind])
    half_width = size * WIDTHS[item.kind] / 2
    x = _between(max(_RIM + half_width, 0.32), min(1 - _RIM - half_width, 0.68), rng)
    lowest = (_RIM + size, 0.9) if item.kind in AIRBORNE else (0.78, 0.93)
    bottom = _between(*lowest, rng)
    return _place(item, x, bottom - size / 2, size, rng)


def _place_several(item: Item, count: int, rng: Generator) -> tuple[Placed, ...]:
    """Rows of equal objects, jittered: a hand would lay them out so, and none overlap."""
    ratio = WIDTHS[item.kind]
    # Three wide things do not fit into one row.
    fitting = [rows for rows in _ROWS[count] if max(rows) * (0.27 * ratio + 0.02) <= 1 - 2 * _RIM]
    rows = _pick(fitting, rng)
    widest = max(rows)
    limit = min(0.36, 0.92 / len(rows) - 0.02, (0.94 / widest - 0.02) / ratio)
    size = _between(0.26, limit, rng)
    placed: list[Placed] = []
    for row, in_row in enumerate(rows):
        row_height = (1 - 2 * _RIM) / len(rows)
        column_width = (1 - 2 * _RIM) / widest
        left = 0.5 - in_row * column_width / 2
        middle = _RIM + (row + 0.5) * row_height
        middle += _between(-1.0, 1.0, rng) * (row_height - size) / 2 * 0.6
        if len(rows) == 1 and item.kind not in AIRBORNE:
            middle = _between(0.8, 0.92, rng) - size / 2
        for column in range(in_row):
            own_size = size * _between(0.97, 1.0, rng)
            x_room = (column_width - own_size * ratio) / 2 - 0.005
            x = left + (column + 0.5) * column_width + _between(-1.0, 1.0, rng) * x_room * 0.7
            y_room = min(0.04, (row_height - size) / 2 * 0.35)
            y = middle + _between(-1.0, 1.0, rng) * y_room
            placed.append(_place(item, x, y, own_size, rng))
    return tuple(placed)


_ROWS: dict[int, tuple[tuple[int, ...], ...]] = {
    2: ((2,), (2,), (1, 1)),
    3: ((1, 2), (2, 1), (3,)),
    4: ((2, 2), (2, 2), (1, 3), (3, 1)),
}


def _pair_side_by_side(a: Item, b: Item, *, swap: bool, rng: Generator) -> tuple[Placed, ...]:
    left, right = (b, a) if swap else (a, b)
    room = 1 - 2 * _RIM - 0.02
    for _ in itertools.count():
        left_size, right_size = rng.uniform(0.28, 0.40, size=2).tolist()
        left_width, right_width = left_size * WIDTHS[left.kind], right_size * WIDTHS[right.kind]
        slack = room - left_width - right_width
        if slack >= 0:
            break
    gap = _between(0.02, 0.02 + min(0.12, slack), rng)
    gap = max(gap, 0.24 - (left_width + right_width) / 2)
    distance = (left_width + right_width) / 2 + gap
    left_x = _RIM + left_width / 2 + _between(0.0, slack + 0.02 - gap, rng)
    baseline = _between(0.7, 0.92, rng)
    if {left.kind, right.kind} <= AIRBORNE:
        baseline = _between(0.45, 0.92, rng)
    left_bottom, right_bottom = baseline + rng.uniform(-0.05, 0.05, size=2)
    lefts = _place(left, left_x, float(left_bottom) - left_size / 2, left_size, rng)
    rights = _place(right, left_x + distance, float(right_bottom) - right_size / 2, right_size, rng)
    return (rights, lefts) if swap else (lefts, rights)


def _pair_left_of(a: Item, b: Item, rng: Generator) -> tuple[Placed, ...]:
    return _pair_side_by_side(a, b, swap=False, rng=rng)


def _pair_beside(a: Item, b: Item, rng: Generator) -> tuple[Placed, ...]:
    return _pair_side_by_side(a, b, swap=bool(rng.random() < 0.5), rng=rng)


def _pair_stacked(
    a: Item, b: Item, *, gap: tuple[float, float], x_reach: float, rng: Generator
) -> tuple[Placed, ...]:
    low, high = gap
    a_size, b_size = rng.uniform(0.28, 0.40, size=2).tolist()
    free = 1 - 2 * _RIM - a_size - b_size
    own_gap = _between(low, min(high, free), rng)
    b_x = _between(*_x_range(b, b_size), rng)
    a_left, a_right = _x_range(a, a_size)
    a_x = _between(max(a_left, b_x - x_reach), min(a_right, b_x + x_reach), rng)
    bottom = 1 - _RIM - _between(0.0, min(0.15, free - own_gap), rng)
    b_y = bottom - b_size / 2
    a_y = bottom - b_size - own_gap - a_size / 2
    return _place(a, a_x, a_y, a_size, rng), _place(b, b_x, b_y, b_size, rng)


def _pair_above(a: Item, b: Item, rng: Generator) -> tuple[Placed, ...]:
    # A gap of 0.1 is well clear of "on", which ends at 0.07.
    return _pair_stacked(a, b, gap=(0.10, 0.22), x_reach=0.15, rng=rng)


def _pair_on(a: Item, b: Item, rng: Generator) -> tuple[Placed, ...]:
    # A little sunk in, so that round tops are touched and not hovered over.
    return _pair_stacked(a, b, gap=(-0.035, -0.01), x_reach=0.08, rng=rng)


_PAIR_LAYOUTS: dict[str, Callable[[Item, Item, Generator], tuple[Placed, ...]]] = {
    "left of": _pair_left_of,
    "above": _pair_above,
    "on": _pair_on,
    "beside": _pair_beside,
}


def _x_range(item: Item, size: float) -> tuple[float, float]:
    """Where its centre may be: inside the picture, and not far from the middle."""
    half_width = size * WIDTHS[item.kind] / 2
    return max(_RIM + half_width, 0.34), min(1 - _RIM - half_width, 0.66)


def _between(low: float, high: float, rng: Generator) -> float:
    return float(rng.uniform(low, max(low, high)))
