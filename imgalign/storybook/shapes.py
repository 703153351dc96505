"""The 24 objects as drawings: flat outlines in a unit box, each with the paint it takes.

One function per object lays down shapes with a `Pen`; `sketch` runs it once and fits the result to
a box of height 1, so that an object's box is what one sees of it. Left out: colours, outlines, light
and pixels (drawing.py), and the size of things (scenes.py).

Units: x is 0 in the middle and grows to the right, y is 0 at the top and 1 at the bottom. Objects
face right. The paint "main" is the colour the prompt names; "deep" and "pale" are of the same hue.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Paint = Literal["main", "deep", "pale", "cream", "ink", "wood", "leaf", "gold", "glass"]
Outline = NDArray[np.float64]
"""A closed line, n 2."""

_TURN = 2 * math.pi


@dataclass(frozen=True, slots=True)
class Part:
    """Outlines filled with one paint. An edge of 0 has no contour: it is a mark on the object."""

    first: int
    last: int
    """The outlines of this part, as a range into the sketch's `spans`."""
    paint: Paint
    edge: float
    """Thickness of the contour, as a multiple of the scene's."""


@dataclass(frozen=True, slots=True)
class Sketch:
    """One object, ready to scale: all points in one array so that a drawing is three operations."""

    points: Outline
    outward: Outline
    """For each point the step that moves its contour out by 1, mitred."""
    spans: tuple[tuple[int, int], ...]
    """For each outline its range of points."""
    parts: tuple[Part, ...]
    width: float
    """As a multiple of the height."""


class Pen:
    """Lays down the shapes of one object, back to front."""

    def __init__(self) -> None:
        self.outlines: list[Outline] = []
        self.parts: list[Part] = []

    def body(self, *outlines: Outline, paint: Paint = "main", edge: float = 1.0) -> None:
        """A part with a contour around all its outlines together."""
        first = len(self.outlines)
        self.outlines += outlines
        self.parts.append(Part(first, len(self.outlines), paint, edge))

    def mark(self, *outlines: Outline, paint: Paint) -> None:
        """A part without a contour: an eye, a stripe, a shine."""
        self.body(*outlines, paint=paint, edge=0.0)


@cache
def sketch(kind: str) -> Sketch:
    """The drawing of `kind`, fitted to a box of height 1 that is centred on x = 0."""
    pen = Pen()
    _DRAWINGS[kind](pen)
    points = np.concatenate(pen.outlines)
    low, high = points.min(axis=0), points.max(axis=0)
    height = high[1] - low[1]
    origin = np.array([(low[0] + high[0]) / 2, low[1]])
    stops = np.cumsum([len(outline) for outline in pen.outlines]).tolist()
    return Sketch(
        points=(points - origin) / height,
        outward=np.concatenate([_outward(outline) for outline in pen.outlines]),
        spans=tuple(zip([0, *stops[:-1]], stops, strict=True)),
        parts=tuple(pen.parts),
        width=float((high[0] - low[0]) / height),
    )


def _outward(outline: Outline) -> Outline:
    edges = np.roll(outline, -1, axis=0) - outline
    edges /= np.maximum(np.linalg.norm(edges, axis=1, keepdims=True), 1e-9)
    following = outline[(np.arange(len(outline)) + 1) % len(outline)]
    area = np.sum(outline[:, 0] * following[:, 1] - following[:, 0] * outline[:, 1])
    normals = np.stack([edges[:, 1], -edges[:, 0]], axis=1) * np.sign(area)
    corner = normals + np.roll(normals, 1, axis=0)
    # A sharp corner's mitre is endless; beyond 1.6 the tip is cut short.
    return np.asarray(corner / np.maximum(np.sum(corner**2, axis=1, keepdims=True) / 2, 0.78))


# Outlines.


def _oval(x: float, y: float, rx: float, ry: float, tilt: float = 0.0, num: int = 0) -> Outline:
    """`tilt` in turns."""
    count = num or max(8, min(28, int(80 * max(rx, ry)) + 6))
    angle = np.arange(count) * (_TURN / count)
    flat = np.stack([rx * np.cos(angle), ry * np.sin(angle)], axis=1)
    return _moved(_turned(flat, tilt), x, y)


def _poly(*corners: tuple[float, float]) -> Outline:
    return np.array(corners, dtype=np.float64)


def _blob(*knots: tuple[float, float], steps: int = 4) -> Outline:
    """A closed smooth line through the knots."""
    p1 = np.array(knots, dtype=np.float64)
    p0, p2, p3 = np.roll(p1, 1, axis=0), np.roll(p1, -1, axis=0), np.roll(p1, -2, axis=0)
    return _spline(p0, p1, p2, p3, steps).reshape(-1, 2)


def _curve(*knots: tuple[float, float], steps: int = 4) -> Outline:
    """An open smooth line through the knots."""
    ends = np.array([knots[0], *knots, knots[-1]], dtype=np.float64)
    inner = _spline(ends[:-3], ends[1:-2], ends[2:-1], ends[3:], steps).reshape(-1, 2)
    return np.concatenate([inner, ends[-1:]])


def _spline(p0: Outline, p1: Outline, p2: Outline, p3: Outline, steps: int) -> Outline:
    t = (np.arange(steps) / steps)[None, :, None]
    a, b, c, d = (p[:, None, :] for p in (p0, p1, p2, p3))
    return np.asarray(
        0.5
        * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * (b - c) + d - a) * t**3)
    )


def _stroke(line: Outline, width: float, end_width: float | None = None) -> Outline:
    """The outline of a brush stroke along an open line, thinning or thickening to its end."""
    direction = np.gradient(line, axis=0)
    direction /= np.maximum(np.linalg.norm(direction, axis=1, keepdims=True), 1e-9)
    side = np.stack([-direction[:, 1], direction[:, 0]], axis=1)
    last = width if end_width is None else end_width
    half = np.linspace(width, last, len(line))[:, None] / 2
    cap_end = line[-1] + direction[-1] * last / 2
    cap_start = line[0] - direction[0] * width / 2
    return np.concatenate(
        [line + side * half, cap_end[None], (line - side * half)[::-1], cap_start[None]]
    )


def _line(x0: float, y0: float, x1: float, y1: float, width: float) -> Outline:
    return _stroke(np.array([[x0, y0], [x1, y1]]), width)


def _arc(
    x: float, y: float, rx: float, ry: float, start: float, stop: float, width: float
) -> Outline:
    """A stroke along an oval, from `start` to `stop` in turns clockwise from the right."""
    angle = np.linspace(start, stop, 9) * _TURN
    return _stroke(np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], axis=1), width)


def _rect(x0: float, y0: float, x1: float, y1: float, round_by: float = 0.0) -> Outline:
    if round_by == 0:
        return _poly((x0, y0), (x1, y0), (x1, y1), (x0, y1))
    r, angle = round_by, np.linspace(0, 0.25, 4) * _TURN
    quarter = np.stack([np.cos(angle), np.sin(angle)], axis=1) * r
    centres = ((x1 - r, y1 - r), (x0 + r, y1 - r), (x0 + r, y0 + r), (x1 - r, y0 + r))
    return np.concatenate([_turned(quarter, k / 4) + c for k, c in enumerate(centres)])


def _turned(outline: Outline, turns: float) -> Outline:
    c, s = math.cos(turns * _TURN), math.sin(turns * _TURN)
    return np.asarray(outline @ np.array([[c, s], [-s, c]]))


def _moved(outline: Outline, x: float, y: float) -> Outline:
    return outline + np.array([x, y])


def _mirrored(outline: Outline) -> Outline:
    return outline * (-1.0, 1.0)


def _face(pen: Pen, x: float, y: float, scale: float) -> None:
    """Two eyes, a smile and blushing cheeks."""
    pen.mark(_oval(x - 0.09 * scale, y, 0.028 * scale, 0.04 * scale), paint="ink")
    pen.mark(_oval(x + 0.09 * scale, y, 0.028 * scale, 0.04 * scale), paint="ink")
    pen.mark(
        _arc(x, y + 0.03 * scale, 0.075 * scale, 0.07 * scale, 0.06, 0.44, 0.03 * scale),
        paint="ink",
    )


# Objects.


def _house(pen: Pen) -> None:
    pen.body(_rect(0.2, 0.06, 0.33, 0.4), paint="deep")
    pen.body(_rect(0.17, 0.02, 0.36, 0.1), paint="cream")
    pen.body(_rect(-0.4, 0.4, 0.4, 1.0))
    pen.body(_poly((0.0, 0.0), (0.52, 0.46), (-0.52, 0.46)), paint="deep")
    pen.mark(
        _line(-0.34, 0.4, 0.34, 0.4, 0.022), _line(-0.22, 0.29, 0.22, 0.29, 0.02), paint="main"
    )
    pen.mark(_oval(0.0, 0.29, 0.075, 0.075), paint="cream")
    pen.mark(_oval(0.0, 0.29, 0.045, 0.045), paint="glass")
    pen.body(
        _blob((-0.28, 1.0), (-0.28, 0.7), (-0.17, 0.6), (-0.06, 0.7), (-0.06, 1.0)),
        paint="wood",
        edge=0.6,
    )
    pen.mark(_oval(-0.1, 0.81, 0.022, 0.022), paint="gold")
    pen.body(_rect(0.07, 0.58, 0.31, 0.82), paint="cream", edge=0.6)
    pen.mark(_rect(0.1, 0.61, 0.28, 0.79), paint="glass")
    pen.mark(_line(0.19, 0.6, 0.19, 0.8, 0.025), _line(0.09, 0.7, 0.29, 0.7, 0.025), paint="cream")


def _tree(pen: Pen) -> None:
    pen.body(
        _blob((-0.09, 0.6), (0.09, 0.6), (0.09, 0.85), (0.17, 1.0), (-0.17, 1.0), (-0.09, 0.85)),
        paint="wood",
    )
    pen.body(
        _oval(0.0, 0.24, 0.28, 0.24),
        _oval(-0.22, 0.42, 0.24, 0.21),
        _oval(0.22, 0.42, 0.24, 0.21),
        _oval(0.0, 0.54, 0.26, 0.2),
    )
    pen.mark(
        _arc(-0.2, 0.46, 0.13, 0.1, 0.05, 0.4, 0.03),
        _arc(0.2, 0.4, 0.13, 0.1, 0.05, 0.4, 0.03),
        paint="deep",
    )
    pen.mark(
        _arc(0.0, 0.26, 0.13, 0.1, 0.05, 0.4, 0.03),
        _arc(0.02, 0.58, 0.12, 0.08, 0.05, 0.4, 0.03),
        paint="deep",
    )
    pen.mark(
        _oval(-0.12, 0.14, 0.07, 0.045, -0.1), _oval(-0.32, 0.36, 0.05, 0.03, -0.1), paint="pale"
    )


def _boat(pen: Pen) -> None:
    pen.body(_rect(-0.045, 0.0, 0.015, 0.74), paint="wood", edge=0.7)
    pen.body(_poly((0.04, 0.04), (0.24, 0.3), (0.46, 0.62), (0.04, 0.62)))
    pen.body(_poly((-0.08, 0.14), (-0.08, 0.62), (-0.38, 0.62), (-0.24, 0.4)), paint="cream")
    pen.mark(_poly((0.04, 0.34), (0.265, 0.34), (0.33, 0.44), (0.04, 0.44)), paint="pale")
    pen.body(
        _blob(
            (-0.52, 0.68),
            (0.0, 0.7),
            (0.54, 0.66),
            (0.44, 0.86),
            (0.3, 0.98),
            (0.0, 1.0),
            (-0.3, 0.98),
            (-0.44, 0.86),
        )
    )
    pen.mark(_poly((-0.5, 0.74), (0.5, 0.73), (0.48, 0.79), (-0.47, 0.8)), paint="cream")
    pen.mark(
        _oval(-0.16, 0.88, 0.045, 0.045),
        _oval(0.04, 0.88, 0.045, 0.045),
        _oval(0.24, 0.88, 0.045, 0.045),
        paint="deep",
    )


def _fish(pen: Pen) -> None:
    pen.body(
        _blob((-0.36, 0.5), (-0.56, 0.2), (-0.66, 0.16), (-0.6, 0.5), (-0.66, 0.84), (-0.56, 0.8)),
        paint="deep",
    )
    pen.body(_blob((-0.2, 0.24), (-0.06, 0.02), (0.16, 0.0), (0.22, 0.2), (0.0, 0.3)), paint="deep")
    pen.body(_blob((-0.1, 0.82), (-0.2, 1.0), (0.0, 1.0), (0.12, 0.86)), paint="deep")
    pen.body(
        _blob(
            (0.66, 0.54),
            (0.5, 0.28),
            (0.2, 0.14),
            (-0.12, 0.24),
            (-0.4, 0.5),
            (-0.12, 0.8),
            (0.2, 0.9),
            (0.5, 0.78),
        )
    )
    pen.mark(_arc(0.12, 0.52, 0.16, 0.3, -0.2, 0.2, 0.035), paint="deep")
    pen.mark(
        _arc(-0.12, 0.42, 0.08, 0.09, -0.2, 0.2, 0.03),
        _arc(-0.12, 0.62, 0.08, 0.09, -0.2, 0.2, 0.03),
        paint="deep",
    )
    pen.mark(
        _arc(0.02, 0.52, 0.08, 0.09, -0.2, 0.2, 0.03),
        _arc(-0.25, 0.52, 0.08, 0.08, -0.2, 0.2, 0.03),
        paint="deep",
    )
    pen.body(_oval(0.42, 0.43, 0.1, 0.11), paint="cream", edge=0.5)
    pen.mark(_oval(0.44, 0.44, 0.055, 0.065), paint="ink")
    pen.mark(_arc(0.58, 0.56, 0.1, 0.1, 0.12, 0.38, 0.03), paint="ink")


def _sun(pen: Pen) -> None:
    ray = _poly((0.31, -0.12), (0.5, 0.0), (0.31, 0.12))
    pen.body(*[_moved(_turned(ray, k / 10), 0.0, 0.5) for k in range(10)], paint="deep")
    pen.body(_oval(0.0, 0.5, 0.33, 0.33))
    pen.mark(_oval(-0.2, 0.57, 0.055, 0.04), _oval(0.2, 0.57, 0.055, 0.04), paint="deep")
    _face(pen, 0.0, 0.47, 1.15)


def _cat(pen: Pen) -> None:
    tail = _curve((0.18, 0.92), (0.4, 0.93), (0.47, 0.76), (0.38, 0.6), (0.46, 0.5))
    pen.body(_stroke(tail, 0.11, 0.08))
    pen.body(
        _blob(
            (0.0, 0.48),
            (0.2, 0.56),
            (0.28, 0.84),
            (0.24, 0.99),
            (0.0, 1.0),
            (-0.24, 0.99),
            (-0.28, 0.84),
            (-0.2, 0.56),
        )
    )
    pen.mark(_oval(0.0, 0.8, 0.12, 0.15), paint="pale")
    pen.mark(
        _line(-0.07, 0.84, -0.07, 0.98, 0.022), _line(0.07, 0.84, 0.07, 0.98, 0.022), paint="ink"
    )
    ears = _poly((-0.34, 0.0), (-0.06, 0.13), (-0.33, 0.32))
    head = _blob(
        (0.0, 0.1),
        (0.24, 0.14),
        (0.36, 0.33),
        (0.26, 0.53),
        (0.0, 0.59),
        (-0.26, 0.53),
        (-0.36, 0.33),
        (-0.24, 0.14),
    )
    pen.body(ears, _mirrored(ears), head)
    inner = _poly((-0.3, 0.07), (-0.16, 0.14), (-0.28, 0.22))
    pen.mark(inner, _mirrored(inner), paint="pale")
    pen.mark(
        _line(0.0, 0.12, 0.0, 0.2, 0.028),
        _line(-0.08, 0.13, -0.07, 0.19, 0.024),
        _line(0.08, 0.13, 0.07, 0.19, 0.024),
        paint="deep",
    )
    pen.mark(_oval(-0.14, 0.33, 0.055, 0.065), _oval(0.14, 0.33, 0.055, 0.065), paint="cream")
    pen.mark(_oval(-0.13, 0.335, 0.033, 0.055), _oval(0.13, 0.335, 0.033, 0.055), paint="ink")
    pen.mark(_poly((-0.04, 0.41), (0.04, 0.41), (0.0, 0.455)), paint="ink")
    pen.mark(
        _arc(-0.05, 0.46, 0.05, 0.045, 0.02, 0.4, 0.022),
        _arc(0.05, 0.46, 0.05, 0.045, 0.1, 0.48, 0.022),
        paint="ink",
    )
    for y, lift in ((0.42, -0.02), (0.47, 0.03)):
        pen.mark(
            _line(0.2, y, 0.43, y + lift, 0.018),
            _line(-0.2, y, -0.43, y + lift, 0.018),
            paint="ink",
        )


def _car(pen: Pen) -> None:
    pen.body(
        _blob(
            (-0.46, 0.48),
            (-0.34, 0.06),
            (-0.2, 0.0),
            (0.12, 0.0),
            (0.24, 0.06),
            (0.42, 0.46),
            (0.0, 0.56),
        )
    )
    pen.mark(_blob((-0.32, 0.42), (-0.25, 0.17), (-0.08, 0.13), (-0.08, 0.42)), paint="glass")
    pen.mark(_blob((0.03, 0.42), (0.03, 0.13), (0.16, 0.17), (0.28, 0.42)), paint="glass")
    pen.body(
        _blob(
            (-0.72, 0.56),
            (-0.6, 0.44),
            (0.4, 0.42),
            (0.64, 0.48),
            (0.73, 0.62),
            (0.7, 0.8),
            (0.0, 0.82),
            (-0.7, 0.8),
        )
    )
    pen.mark(_line(-0.66, 0.72, 0.66, 0.72, 0.04), paint="deep")
    pen.mark(
        _line(-0.02, 0.46, -0.02, 0.7, 0.02), _line(0.06, 0.54, 0.14, 0.54, 0.03), paint="deep"
    )
    pen.body(_oval(0.66, 0.58, 0.05, 0.06), paint="gold", edge=0.5)
    pen.body(_oval(-0.4, 0.82, 0.17, 0.18), _oval(0.4, 0.82, 0.17, 0.18), paint="ink", edge=0.5)
    pen.mark(_oval(-0.4, 0.82, 0.08, 0.085), _oval(0.4, 0.82, 0.08, 0.085), paint="cream")


def _flower(pen: Pen) -> None:
    pen.body(_stroke(_curve((0.0, 0.5), (0.03, 0.75), (0.0, 1.0)), 0.055), paint="leaf", edge=0.7)
    pen.body(_blob((0.01, 0.94), (0.1, 0.8), (0.28, 0.76), (0.22, 0.9)), paint="leaf", edge=0.7)
    pen.body(_blob((0.01, 0.98), (-0.08, 0.85), (-0.26, 0.8), (-0.2, 0.95)), paint="leaf", edge=0.7)
    for k in range(6):
        pen.body(_moved(_turned(_oval(0.0, -0.22, 0.135, 0.165), k / 6), 0.0, 0.38))
    crease = _oval(0.0, -0.2, 0.026, 0.07)
    creases = [_moved(_turned(crease, k / 6), 0.0, 0.38) for k in range(6)]
    pen.mark(*creases, paint="deep")
    pen.body(_oval(0.0, 0.38, 0.115, 0.115), paint="cream", edge=0.7)
    seed = _oval(0.035, 0.36, 0.02, 0.02)
    pen.mark(seed, _mirrored(seed), _oval(0.0, 0.42, 0.02, 0.02), paint="gold")


def _bird(pen: Pen) -> None:
    pen.mark(_line(0.0, 0.82, 0.0, 0.97, 0.03), _line(0.14, 0.82, 0.14, 0.97, 0.03), paint="ink")
    pen.mark(
        _line(-0.02, 0.985, 0.08, 0.985, 0.03), _line(0.12, 0.985, 0.22, 0.985, 0.03), paint="ink"
    )
    pen.body(
        _poly((-0.2, 0.46), (-0.56, 0.36), (-0.5, 0.5), (-0.58, 0.6), (-0.2, 0.68)), paint="deep"
    )
    pen.body(_poly((0.42, 0.2), (0.6, 0.3), (0.4, 0.36)), paint="gold", edge=0.8)
    pen.body(
        _blob(
            (0.28, 0.0),
            (0.46, 0.12),
            (0.47, 0.34),
            (0.4, 0.66),
            (0.16, 0.88),
            (-0.12, 0.82),
            (-0.32, 0.6),
            (-0.2, 0.46),
            (0.04, 0.3),
            (0.1, 0.1),
        )
    )
    pen.mark(_blob((0.42, 0.44), (0.4, 0.64), (0.2, 0.82), (0.04, 0.8), (0.24, 0.66)), paint="pale")
    pen.body(
        _blob((0.16, 0.44), (0.2, 0.6), (0.0, 0.72), (-0.3, 0.72), (-0.16, 0.52), (0.02, 0.42)),
        paint="deep",
        edge=0.7,
    )
    pen.mark(_arc(0.02, 0.54, 0.1, 0.08, 0.1, 0.4, 0.025), paint="main")
    pen.mark(_oval(0.31, 0.2, 0.06, 0.06), paint="cream")
    pen.mark(_oval(0.325, 0.205, 0.04, 0.042), paint="ink")


def _star(pen: Pen) -> None:
    tips = [_turned(_poly((0.0, -0.52)), k / 5)[0] for k in range(5)]
    dips = [_turned(_poly((0.0, -0.255)), (k + 0.5) / 5)[0] for k in range(5)]
    corners = np.array([corner for pair in zip(tips, dips, strict=True) for corner in pair])
    pen.body(_moved(_softened(corners), 0.0, 0.52))
    pen.mark(_oval(-0.17, 0.57, 0.045, 0.03), _oval(0.17, 0.57, 0.045, 0.03), paint="deep")
    _face(pen, 0.0, 0.48, 1.0)


def _softened(corners: Outline) -> Outline:
    """Cuts every corner a little, as a hand would round it."""
    before, after = np.roll(corners, 1, axis=0), np.roll(corners, -1, axis=0)
    near, far = corners + (before - corners) * 0.16, corners + (after - corners) * 0.16
    middle = corners * 0.7 + (near + far) * 0.15
    return np.stack([near, middle, far], axis=1).reshape(-1, 2)


def _heart(pen: Pen) -> None:
    angle = np.arange(36) * (_TURN / 36)
    x = 16 * np.sin(angle) ** 3
    y = 13 * np.cos(angle) - 5 * np.cos(2 * angle) - 2 * np.cos(3 * angle) - np.cos(4 * angle)
    pen.body(np.stack([x, -y], axis=1) / 29 + (0.0, 0.42))
    pen.mark(
        _blob((-0.38, 0.22), (-0.3, 0.09), (-0.18, 0.07), (-0.26, 0.14), (-0.32, 0.26)),
        paint="pale",
    )
    pen.mark(_oval(-0.36, 0.34, 0.025, 0.03), paint="pale")


def _balloon(pen: Pen) -> None:
    string = _curve((0.0, 0.68), (0.05, 0.78), (-0.05, 0.88), (0.02, 1.0))
    pen.mark(_stroke(string, 0.032), paint="ink")
    pen.body(_poly((0.0, 0.62), (0.07, 0.71), (-0.07, 0.71)), paint="deep")
    pen.body(
        _blob(
            (0.0, 0.0),
            (0.22, 0.08),
            (0.31, 0.28),
            (0.2, 0.52),
            (0.0, 0.66),
            (-0.2, 0.52),
            (-0.31, 0.28),
            (-0.22, 0.08),
        )
    )
    pen.mark(
        _blob((-0.2, 0.28), (-0.17, 0.14), (-0.08, 0.08), (-0.1, 0.15), (-0.14, 0.27)), paint="pale"
    )
    pen.mark(_oval(-0.17, 0.36, 0.022, 0.03), paint="pale")


def _mushroom(pen: Pen) -> None:
    pen.body(
        _blob(
            (-0.11, 0.5),
            (0.11, 0.5),
            (0.13, 0.8),
            (0.19, 0.98),
            (0.0, 1.0),
            (-0.19, 0.98),
            (-0.13, 0.8),
        ),
        paint="cream",
    )
    pen.mark(_oval(-0.05, 0.74, 0.02, 0.03), _oval(0.05, 0.74, 0.02, 0.03), paint="ink")
    pen.mark(_arc(0.0, 0.79, 0.045, 0.05, 0.08, 0.42, 0.02), paint="ink")
    pen.body(
        _blob(
            (0.0, 0.0),
            (0.27, 0.08),
            (0.45, 0.34),
            (0.45, 0.54),
            (0.24, 0.6),
            (0.0, 0.61),
            (-0.24, 0.6),
            (-0.45, 0.54),
            (-0.45, 0.34),
            (-0.27, 0.08),
        )
    )
    pen.mark(_oval(-0.05, 0.18, 0.085, 0.075), _oval(0.22, 0.3, 0.075, 0.08), paint="cream")
    pen.mark(
        _oval(-0.27, 0.36, 0.07, 0.075),
        _oval(0.0, 0.43, 0.07, 0.06),
        _oval(0.34, 0.49, 0.045, 0.04),
        paint="cream",
    )


def _umbrella(pen: Pen) -> None:
    hook = np.concatenate(
        [
            _curve((0.0, 0.1), (0.0, 0.85), steps=3),
            _curve((0.0, 0.88), (0.04, 0.96), (0.11, 0.97), (0.16, 0.9), steps=3),
        ]
    )
    pen.body(_stroke(hook, 0.05), paint="wood", edge=0.7)
    pen.mark(_line(0.0, 0.01, 0.0, 0.1, 0.045), paint="wood")
    angle = np.linspace(0.5, 1.0, 15) * _TURN
    dome = np.stack([0.49 * np.cos(angle), 0.54 + 0.47 * np.sin(angle)], axis=1)
    edge = np.linspace(0.0, 1.0, 25)
    scallops = np.stack(
        [0.49 - 0.98 * edge, 0.55 - 0.075 * np.abs(np.sin(edge * 2 * _TURN))], axis=1
    )
    pen.body(np.concatenate([dome, scallops[1:-1]]))
    rib = np.linspace(0.0, 1.0, 9) * _TURN / 4
    seam = np.stack([0.245 * np.sin(rib), 0.08 + 0.46 * (1 - np.cos(rib))], axis=1)
    panel = np.concatenate([seam, [[0.12, 0.475], [0.0, 0.54]]])
    pen.mark(panel, paint="deep")
    pen.mark(np.concatenate([_mirrored(seam), dome[:7]]), paint="deep")
    pen.mark(_stroke(seam, 0.022), _stroke(_mirrored(seam), 0.022), paint="ink")
    pen.mark(_line(0.0, 0.08, 0.0, 0.54, 0.022), paint="ink")


def _cup(pen: Pen) -> None:
    pen.mark(
        _stroke(_curve((-0.2, 0.24), (-0.25, 0.16), (-0.17, 0.1), (-0.21, 0.0)), 0.05),
        paint="cream",
    )
    pen.mark(
        _stroke(_curve((0.04, 0.22), (-0.01, 0.15), (0.07, 0.09), (0.03, 0.0)), 0.05), paint="cream"
    )
    pen.body(_arc(0.32, 0.58, 0.16, 0.16, -0.28, 0.3, 0.085))
    pen.body(
        _blob(
            (-0.46, 0.32),
            (-0.44, 0.66),
            (-0.32, 0.94),
            (-0.1, 1.0),
            (0.1, 0.94 + 0.06),
            (0.27, 0.92),
            (0.36, 0.66),
            (0.38, 0.32),
            (-0.04, 0.3),
        )
    )
    pen.body(_oval(-0.04, 0.33, 0.42, 0.085), paint="pale", edge=0.7)
    pen.mark(_oval(-0.04, 0.345, 0.35, 0.055), paint="wood")
    pen.mark(_oval(-0.04, 0.66, 0.11, 0.11), paint="cream")
    pen.mark(_oval(-0.04, 0.66, 0.055, 0.055), paint="main")


def _apple(pen: Pen) -> None:
    pen.body(_stroke(_curve((0.0, 0.26), (0.0, 0.12), (0.06, 0.02)), 0.055), paint="wood", edge=0.7)
    pen.body(_blob((0.04, 0.16), (0.14, 0.03), (0.33, 0.02), (0.24, 0.15)), paint="leaf", edge=0.7)
    pen.body(
        _blob(
            (0.0, 0.24),
            (0.2, 0.18),
            (0.41, 0.28),
            (0.46, 0.52),
            (0.36, 0.82),
            (0.17, 1.0),
            (0.0, 0.96),
            (-0.17, 1.0),
            (-0.36, 0.82),
            (-0.46, 0.52),
            (-0.41, 0.28),
            (-0.2, 0.18),
        )
    )
    pen.mark(_arc(0.0, 0.2, 0.12, 0.07, 0.08, 0.42, 0.03), paint="deep")
    pen.mark(
        _blob((-0.34, 0.52), (-0.3, 0.36), (-0.2, 0.3), (-0.24, 0.4), (-0.27, 0.54)), paint="pale"
    )


def _butterfly(pen: Pen) -> None:
    upper = _blob(
        (0.04, 0.42),
        (0.2, 0.08),
        (0.46, 0.0),
        (0.58, 0.14),
        (0.5, 0.42),
        (0.26, 0.54),
        (0.04, 0.52),
    )
    lower = _blob((0.04, 0.52), (0.26, 0.52), (0.45, 0.64), (0.42, 0.88), (0.26, 1.0), (0.12, 0.86))
    pen.body(lower, _mirrored(lower), paint="deep")
    pen.body(upper, _mirrored(upper))
    spot, small = _oval(0.38, 0.21, 0.085, 0.09), _oval(0.28, 0.76, 0.06, 0.07)
    pen.mark(spot, _mirrored(spot), small, _mirrored(small), paint="cream")
    dot, tick = _oval(0.38, 0.21, 0.04, 0.04), _oval(0.26, 0.4, 0.04, 0.03)
    pen.mark(dot, _mirrored(dot), paint="deep")
    pen.mark(tick, _mirrored(tick), paint="pale")
    feeler = _stroke(_curve((0.02, 0.24), (0.06, 0.12), (0.14, 0.05)), 0.024)
    pen.mark(
        feeler,
        _mirrored(feeler),
        _oval(0.15, 0.05, 0.028, 0.028),
        _oval(-0.15, 0.05, 0.028, 0.028),
        paint="ink",
    )
    pen.mark(_oval(0.0, 0.54, 0.05, 0.3), _oval(0.0, 0.26, 0.062, 0.062), paint="ink")


def _rocket(pen: Pen) -> None:
    pen.body(
        _blob((-0.12, 0.8), (0.12, 0.8), (0.08, 0.92), (0.0, 1.0), (-0.08, 0.92)),
        paint="gold",
        edge=0.6,
    )
    pen.mark(_blob((-0.06, 0.8), (0.06, 0.8), (0.0, 0.93)), paint="cream")
    fin = _blob((0.14, 0.52), (0.33, 0.7), (0.35, 0.88), (0.22, 0.82), (0.12, 0.78))
    pen.body(fin, _mirrored(fin), paint="deep")
    pen.body(
        _blob(
            (0.0, 0.0),
            (0.15, 0.18),
            (0.22, 0.44),
            (0.17, 0.78),
            (0.0, 0.82),
            (-0.17, 0.78),
            (-0.22, 0.44),
            (-0.15, 0.18),
        )
    )
    pen.mark(
        _blob((0.0, 0.01), (0.1, 0.12), (0.155, 0.23), (0.0, 0.26), (-0.155, 0.23), (-0.1, 0.12)),
        paint="deep",
    )
    pen.body(_oval(0.0, 0.43, 0.115, 0.115), paint="cream", edge=0.6)
    pen.mark(_oval(0.0, 0.43, 0.075, 0.075), paint="glass")
    pen.mark(_poly((-0.18, 0.68), (0.18, 0.68), (0.175, 0.73), (-0.175, 0.73)), paint="pale")
    pen.body(
        _poly((-0.02, 0.64), (0.02, 0.64), (0.025, 0.86), (-0.025, 0.86)), paint="deep", edge=0.5
    )


def _kite(pen: Pen) -> None:
    tail = _curve((0.0, 0.66), (0.07, 0.76), (-0.07, 0.87), (0.03, 1.0))
    pen.mark(_stroke(tail, 0.028), paint="ink")
    for x, y, tilt in ((0.045, 0.79, 0.03), (-0.03, 0.92, -0.04)):
        bow = _turned(
            _poly(
                (-0.12, -0.055),
                (0.0, -0.012),
                (0.12, -0.055),
                (0.12, 0.055),
                (0.0, 0.012),
                (-0.12, 0.055),
            ),
            tilt,
        )
        pen.body(_moved(bow, x, y), edge=0.6)
    pen.body(_poly((0.0, 0.0), (0.39, 0.29), (0.0, 0.71), (-0.39, 0.29)))
    pen.mark(_poly((0.0, 0.29), (0.375, 0.29), (0.0, 0.695)), paint="deep")
    pen.mark(_poly((0.0, 0.015), (0.0, 0.29), (-0.375, 0.29)), paint="pale")
    pen.mark(
        _line(0.0, 0.02, 0.0, 0.69, 0.026), _line(-0.375, 0.29, 0.375, 0.29, 0.026), paint="cream"
    )


def _snail(pen: Pen) -> None:
    for x, tip in ((0.46, 0.42), (0.55, 0.63)):
        pen.body(
            _line(x, 0.56, tip, 0.32, 0.04),
            _oval(tip, 0.3, 0.05, 0.05),
            paint="cream",
            edge=0.6,
        )
        pen.mark(_oval(tip + 0.01, 0.3, 0.024, 0.024), paint="ink")
    foot = ((-0.6, 0.99), (-0.4, 0.9), (0.2, 0.88), (0.36, 0.74), (0.37, 0.58))
    head = ((0.49, 0.51), (0.61, 0.57), (0.6, 0.77), (0.46, 0.96), (0.2, 1.0))
    pen.body(_blob(*foot, *head), paint="cream")
    pen.mark(_arc(0.52, 0.66, 0.06, 0.05, 0.08, 0.42, 0.025), paint="ink")
    pen.body(_oval(-0.08, 0.47, 0.475, 0.47))
    turns = np.linspace(0.0, 2.15, 34)
    radius = 0.37 - 0.155 * turns
    angle = turns * _TURN + 0.7
    spiral = np.stack([-0.08 + radius * np.cos(angle), 0.49 + radius * np.sin(angle)], axis=1)
    pen.mark(_stroke(spiral, 0.045, 0.035), paint="ink")


def _rabbit(pen: Pen) -> None:
    pen.body(_oval(-0.26, 0.88, 0.1, 0.095), paint="cream")
    pen.body(
        _blob(
            (0.0, 0.5),
            (0.2, 0.62),
            (0.27, 0.86),
            (0.22, 0.99),
            (0.0, 1.0),
            (-0.22, 0.99),
            (-0.27, 0.86),
            (-0.2, 0.62),
        )
    )
    pen.mark(_oval(0.0, 0.84, 0.12, 0.12), paint="pale")
    pen.body(_oval(-0.13, 0.97, 0.11, 0.05), _oval(0.13, 0.97, 0.11, 0.05), edge=0.7)
    ear, inner = _oval(0.13, 0.18, 0.085, 0.2, 0.03), _oval(0.13, 0.19, 0.04, 0.14, 0.03)
    pen.body(ear, _mirrored(ear), _oval(0.0, 0.46, 0.25, 0.2))
    pen.mark(inner, _mirrored(inner), paint="cream")
    pen.mark(_oval(-0.11, 0.43, 0.035, 0.045), _oval(0.11, 0.43, 0.035, 0.045), paint="ink")
    pen.mark(_oval(0.0, 0.535, 0.1, 0.075), paint="cream")
    pen.mark(_oval(0.0, 0.5, 0.035, 0.025), _line(0.0, 0.52, 0.0, 0.57, 0.02), paint="ink")


def _hat(pen: Pen) -> None:
    pen.body(_oval(0.0, 0.86, 0.58, 0.14), paint="deep")
    pen.body(
        _blob(
            (-0.36, 0.06),
            (0.0, 0.0),
            (0.36, 0.06),
            (0.33, 0.4),
            (0.34, 0.84),
            (0.0, 0.93),
            (-0.34, 0.84),
            (-0.33, 0.4),
        )
    )
    pen.mark(_oval(0.0, 0.075, 0.34, 0.055), paint="pale")
    pen.mark(
        _blob((-0.33, 0.62), (0.0, 0.7), (0.33, 0.62), (0.34, 0.8), (0.0, 0.89), (-0.34, 0.8)),
        paint="cream",
    )
    pen.body(_rect(0.08, 0.66, 0.24, 0.86), paint="gold", edge=0.5)
    pen.mark(_rect(0.12, 0.71, 0.2, 0.81), paint="cream")


def _cake(pen: Pen) -> None:
    pen.body(_rect(-0.04, 0.11, 0.04, 0.34), paint="cream", edge=0.7)
    pen.mark(_poly((-0.04, 0.2), (0.04, 0.16), (0.04, 0.21), (-0.04, 0.25)), paint="main")
    pen.body(_blob((0.0, 0.0), (0.055, 0.08), (0.0, 0.13), (-0.055, 0.08)), paint="gold", edge=0.6)
    pen.body(_oval(0.0, 0.95, 0.5, 0.05), paint="cream")
    pen.body(_rect(-0.42, 0.6, 0.42, 0.97, 0.05))
    pen.body(_rect(-0.31, 0.3, 0.31, 0.64, 0.05))
    for half, y in ((0.31, 0.3), (0.42, 0.6)):
        x = np.linspace(half, -half, 25)
        drip = y + 0.05 + 0.055 * np.abs(np.sin(x / half * _TURN * 0.75))
        top = np.array([[-half, y + 0.03], [-half + 0.04, y], [half - 0.04, y], [half, y + 0.03]])
        pen.mark(np.concatenate([top, np.stack([x, drip], axis=1)]), paint="cream")
    dot = _oval(0.26, 0.85, 0.04, 0.04)
    pen.mark(dot, _mirrored(dot), _oval(0.0, 0.85, 0.04, 0.04), paint="deep")


def _crown(pen: Pen) -> None:
    pen.body(
        _poly(
            (-0.5, 0.14),
            (-0.28, 0.46),
            (0.0, 0.08),
            (0.28, 0.46),
            (0.5, 0.14),
            (0.44, 0.94),
            (0.2, 1.0),
            (-0.2, 1.0),
            (-0.44, 0.94),
        )
    )
    pen.mark(
        _poly(
            (-0.455, 0.72),
            (0.0, 0.78),
            (0.455, 0.72),
            (0.44, 0.93),
            (0.2, 0.985),
            (-0.2, 0.985),
            (-0.44, 0.93),
        ),
        paint="deep",
    )
    for x, y in ((-0.53, 0.1), (0.53, 0.1), (0.0, 0.07)):
        pen.body(_oval(x, y, 0.075, 0.075), paint="cream", edge=0.7)
    pen.mark(
        _oval(0.0, 0.88, 0.075, 0.065),
        _oval(-0.28, 0.84, 0.05, 0.05),
        _oval(0.28, 0.84, 0.05, 0.05),
        paint="cream",
    )
    pen.mark(_poly((0.0, 0.4), (0.06, 0.52), (0.0, 0.64), (-0.06, 0.52)), paint="pale")


_DRAWINGS: dict[str, Callable[[Pen], None]] = {
    "house": _house,
    "tree": _tree,
    "boat": _boat,
    "fish": _fish,
    "sun": _sun,
    "cat": _cat,
    "car": _car,
    "flower": _flower,
    "bird": _bird,
    "star": _star,
    "heart": _heart,
    "balloon": _balloon,
    "mushroom": _mushroom,
    "umbrella": _umbrella,
    "cup": _cup,
    "apple": _apple,
    "butterfly": _butterfly,
    "rocket": _rocket,
    "kite": _kite,
    "snail": _snail,
    "rabbit": _rabbit,
    "hat": _hat,
    "cake": _cake,
    "crown": _crown,
}
