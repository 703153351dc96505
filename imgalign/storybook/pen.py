"""Vector drawing: outlines, the pen that collects them, and the sketch that results.

A sketch is a list of flat shapes with a paint each, back to front, without colours or pixels. Left
out: the objects themselves (shapes.py) and rendering (drawing.py).

Units: arbitrary; `Pen.sketch` fits the result to a box of height 1. x grows to the
right and y downwards. Angles are in turns, clockwise from the right.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Paint = Literal["main", "deep", "pale", "cream", "ink", "wood", "leaf", "gold", "glass"]
"""What a shape is filled with. "main" is the colour the prompt names, "deep" and "pale" are of the
same hue; all others are the same for every colour."""

Points = NDArray[np.float64]
"""n 2. A closed outline, the last point joined to the first, unless said otherwise."""

_TURN = 2 * math.pi


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Outlines filled with one paint, with one contour around all of them together."""

    paint: Paint
    contour: float
    """Thickness as a multiple of the scene's usual one; 0 for a mark on another part."""
    spans: tuple[tuple[int, int], ...]
    """For each outline its range in the sketch's points."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sketch:
    """One object. All points in one array, so that scaling it is one operation."""

    points: Points
    """In a box that is centred on x = 0 and reaches from y = 0 to y = 1."""
    outward: Points
    """For each point the step that moves its contour out by 1, mitred."""
    parts: tuple[Part, ...]

    @property
    def width(self) -> float:
        """As a multiple of the height."""
        return float(np.ptp(self.points[:, 0]))


class Pen:
    """Collects the shapes of one object, back to front."""

    def __init__(self) -> None:
        self._outlines: list[Points] = []
        self._parts: list[Part] = []
        self._num_points = 0

    def body(self, paint: Paint, *outlines: Points) -> None:
        """Add a part with a full contour, such as the body of the object."""
        self._add(paint, 1.0, outlines)

    def piece(self, paint: Paint, *outlines: Points) -> None:
        """Add a part with a fine contour, such as a small part on or beside the body."""
        self._add(paint, 0.6, outlines)

    def mark(self, paint: Paint, *outlines: Points) -> None:
        """Add a part without a contour, such as an eye, a stripe or a highlight."""
        self._add(paint, 0.0, outlines)

    def face(self, x: float, y: float, scale: float) -> None:
        """Add two eyes and a smile."""
        for side in (-1, 1):
            self.mark("ink", oval(x + side * 0.09 * scale, y, 0.028 * scale, 0.04 * scale))
        smile = arc(x, y + 0.03 * scale, 0.075 * scale, 0.07 * scale, 0.06, 0.44, 0.03 * scale)
        self.mark("ink", smile)

    def sketch(self) -> Sketch:
        """The collected shapes, fitted to their box."""
        points = np.concatenate(self._outlines)
        low, high = points.min(axis=0), points.max(axis=0)
        origin = np.array([(low[0] + high[0]) / 2, low[1]])
        return Sketch(
            points=(points - origin) / (high[1] - low[1]),
            outward=np.concatenate([_outward(outline) for outline in self._outlines]),
            parts=tuple(self._parts),
        )

    def _add(self, paint: Paint, contour: float, outlines: tuple[Points, ...]) -> None:
        spans: list[tuple[int, int]] = []
        for outline in outlines:
            start, self._num_points = self._num_points, self._num_points + len(outline)
            spans.append((start, self._num_points))
        self._outlines += outlines
        self._parts.append(Part(paint=paint, contour=contour, spans=tuple(spans)))


def oval(x: float, y: float, rx: float, ry: float, tilt: float = 0.0) -> Points:
    """An ellipse, with more points the larger it is."""
    num_points = max(8, min(28, int(80 * max(rx, ry)) + 6))
    angle = np.arange(num_points) * (_TURN / num_points)
    flat = np.stack([rx * np.cos(angle), ry * np.sin(angle)], axis=1)
    return moved(turned(flat, tilt), x, y)


def polygon(*corners: tuple[float, float]) -> Points:
    """Straight lines from corner to corner."""
    return np.array(corners, dtype=np.float64)


def rectangle(x0: float, y0: float, x1: float, y1: float, round_by: float = 0.0) -> Points:
    """A rectangle, its corners rounded with radius `round_by`."""
    if round_by == 0:
        return polygon((x0, y0), (x1, y0), (x1, y1), (x0, y1))
    angle = np.linspace(0, 0.25, 4) * _TURN
    quarter = np.stack([np.cos(angle), np.sin(angle)], axis=1) * round_by
    left, top, right, bottom = x0 + round_by, y0 + round_by, x1 - round_by, y1 - round_by
    corners = ((right, bottom), (left, bottom), (left, top), (right, top))
    return np.concatenate([moved(turned(quarter, k / 4), *c) for k, c in enumerate(corners)])


def blob(*knots: tuple[float, float]) -> Points:
    """A smooth line through the knots."""
    p1 = np.array(knots, dtype=np.float64)
    return _spline(np.roll(p1, 1, axis=0), p1, np.roll(p1, -1, axis=0), np.roll(p1, -2, axis=0))


def even_blob(*knots: tuple[float, float]) -> Points:
    """A smooth line that is its own mirror image; the knots are its right half, top to bottom."""
    return blob(*knots, *((-x, y) for x, y in reversed(knots) if x > 0))


def curve(*knots: tuple[float, float]) -> Points:
    """An open smooth line through the knots."""
    ends = np.array([knots[0], *knots, knots[-1]], dtype=np.float64)
    return np.concatenate([_spline(ends[:-3], ends[1:-2], ends[2:-1], ends[3:]), ends[-1:]])


def stroke(line: Points, width: float, end_width: float | None = None) -> Points:
    """The outline of a brush stroke along an open line; it may thin or thicken to its end."""
    direction = np.gradient(line, axis=0)
    direction /= np.maximum(np.linalg.norm(direction, axis=1, keepdims=True), 1e-9)
    last = width if end_width is None else end_width
    half = np.linspace(width, last, len(line))[:, None] / 2
    side = np.stack([-direction[:, 1], direction[:, 0]], axis=1) * half
    tip = line[-1:] + direction[-1:] * half[-1:]
    tail = line[:1] - direction[:1] * half[:1]
    return np.concatenate([line + side, tip, (line - side)[::-1], tail])


def segment(x0: float, y0: float, x1: float, y1: float, width: float) -> Points:
    """A straight stroke."""
    return stroke(polygon((x0, y0), (x1, y1)), width)


def arc(
    x: float, y: float, rx: float, ry: float, start: float, stop: float, width: float
) -> Points:
    """A stroke along an oval."""
    angle = np.linspace(start, stop, 9) * _TURN
    return stroke(np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], axis=1), width)


def turned(points: Points, turns: float) -> Points:
    """Turned clockwise around (0, 0)."""
    c, s = math.cos(turns * _TURN), math.sin(turns * _TURN)
    return np.asarray(points @ np.array([[c, s], [-s, c]]))


def moved(points: Points, x: float, y: float) -> Points:
    """Moved by (x, y)."""
    return np.asarray(points + np.array([x, y]))


def mirrored(points: Points) -> Points:
    """Mirrored at x = 0."""
    return np.asarray(points * np.array([-1.0, 1.0]))


def both(points: Points) -> tuple[Points, Points]:
    """The outline and its mirror image, for ears, wings and eyes."""
    return points, mirrored(points)


def softened(corners: Points) -> Points:
    """The outline with rounded corners."""
    before, after = np.roll(corners, 1, axis=0), np.roll(corners, -1, axis=0)
    near, far = corners + (before - corners) * 0.16, corners + (after - corners) * 0.16
    middle = corners * 0.7 + (near + far) * 0.15
    return np.stack([near, middle, far], axis=1).reshape(-1, 2)


def _spline(p0: Points, p1: Points, p2: Points, p3: Points) -> Points:
    """Catmull-Rom: four points from each p1 on towards its p2."""
    t = np.arange(0.0, 1.0, 0.25)[None, :, None]
    a, b, c, d = (p[:, None, :] for p in (p0, p1, p2, p3))
    line = 2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * (b - c) + d - a) * t**3
    return np.asarray(line / 2).reshape(-1, 2)


def _outward(outline: Points) -> Points:
    following = np.roll(outline, -1, axis=0)
    edges = following - outline
    edges /= np.maximum(np.linalg.norm(edges, axis=1, keepdims=True), 1e-9)
    area = np.sum(outline[:, 0] * following[:, 1] - following[:, 0] * outline[:, 1])
    normals = np.stack([edges[:, 1], -edges[:, 0]], axis=1) * np.sign(area)
    corner = normals + np.roll(normals, 1, axis=0)
    # A sharp corner's mitre is endless; beyond about 1.6 the tip is cut short.
    return np.asarray(corner / np.maximum(np.sum(corner**2, axis=1, keepdims=True) / 2, 0.78))
