"""Random layouts of a prompt: positions, sizes and light of a scene.

Whatever a prompt leaves open is random, with a margin, so that small reading errors do not change a
relation. Left out: the grammar and the meaning of prompts (scenes.py).

Units: as in scenes.py.
"""

import itertools
from collections.abc import Callable

from numpy.random import Generator

from imgalign.storybook.scenes import (
    AIRBORNE,
    SETTINGS,
    WIDTHS,
    Item,
    Placed,
    Scene,
    SceneSpec,
    pick,
    with_colours,
)

_RIM = 0.03
"""Least distance of boxes from the edge of the image, for outlines."""


def sample_scene(spec: SceneSpec, rng: Generator) -> Scene:
    """A random scene that obeys `spec`."""
    first, second = with_colours(spec, rng)
    if spec.relation is not None and second is not None:
        items = _PAIR_LAYOUTS[spec.relation](first, second, rng)
    elif spec.count == 1:
        items = (_place_one(first, rng),)
    else:
        items = _place_several(first, spec.count, rng)
    return Scene(
        setting=pick(tuple(SETTINGS), rng) if spec.setting is None else spec.setting,
        items=items,
        outline=float(rng.uniform(0.7, 1.4)),
        shade=float(rng.uniform(0.3, 1.0)),
        light_from=float(rng.choice((-1, 1)) * rng.uniform(0.3, 1.0)),
        warmth=float(rng.uniform(-1.0, 1.0)),
        backdrop=float(rng.uniform(0.0, 1.0)),
    )


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
    """Jittered rows of equal objects that do not overlap."""
    ratio = WIDTHS[item.kind]
    # Three wide things do not fit into one row.
    fitting = [rows for rows in _ROWS[count] if max(rows) * (0.27 * ratio + 0.02) <= 1 - 2 * _RIM]
    rows = pick(fitting, rng)
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
    """Where its centre may be: inside the image, and not far from the middle."""
    half_width = size * WIDTHS[item.kind] / 2
    return max(_RIM + half_width, 0.34), min(1 - _RIM - half_width, 0.66)


def _between(low: float, high: float, rng: Generator) -> float:
    return float(rng.uniform(low, max(low, high)))
