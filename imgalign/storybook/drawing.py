"""Render a scene to an image.

Drawn at four times the size without antialiasing and then averaged down. Rendering is
deterministic: a scene gives the same bytes every time. Backdrops are pale and show nothing that
resembles an object. Left out: the shapes of objects (shapes.py) and their layout (layout.py).

Units: inside, canvas pixels, `side` of them to a side; colours are RGB bytes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import default_rng
from PIL import Image, ImageChops, ImageDraw

from imgalign.errors import InputError
from imgalign.storybook.layout import sample_scene
from imgalign.storybook.pen import Paint, Part, Points
from imgalign.storybook.scenes import AIRBORNE, Placed, Scene, parse_prompt
from imgalign.storybook.shapes import sketch

RGB = tuple[int, int, int]

_OVERSAMPLING = 4
_TURN = 2 * math.pi


@dataclass(frozen=True, slots=True)
class Tube:
    """The four shades of a named colour, all of one hue."""

    main: RGB
    deep: RGB
    pale: RGB
    ink: RGB
    """For contours."""


TUBES = {
    "red": Tube((218, 46, 44), (182, 30, 40), (244, 122, 106), (98, 16, 30)),
    "orange": Tube((246, 140, 32), (230, 112, 16), (255, 190, 110), (128, 58, 10)),
    "yellow": Tube((250, 212, 58), (238, 184, 26), (255, 238, 156), (134, 96, 12)),
    "green": Tube((76, 168, 80), (48, 134, 66), (154, 216, 142), (22, 72, 40)),
    "blue": Tube((54, 116, 216), (36, 84, 178), (138, 184, 246), (18, 40, 98)),
    "purple": Tube((138, 78, 188), (108, 54, 156), (192, 150, 228), (56, 24, 88)),
    "pink": Tube((250, 152, 190), (238, 118, 168), (255, 206, 224), (140, 50, 92)),
    "brown": Tube((128, 80, 48), (98, 58, 34), (182, 136, 96), (54, 30, 18)),
}
"""Brown is dark enough not to be orange; pink is light enough to be neither red nor purple."""

_NEUTRALS: dict[Paint, RGB] = {
    "cream": (255, 246, 226),
    "wood": (150, 118, 92),
    "leaf": (132, 164, 116),
    "gold": (240, 206, 128),
    "glass": (206, 226, 232),
}
_INK = (62, 44, 48)
_GLOW = (255, 252, 236)

_PALETTES: dict[str, dict[Paint, RGB]] = {
    name: {**_NEUTRALS, "main": tube.main, "deep": tube.deep, "pale": tube.pale, "ink": _INK}
    for name, tube in TUBES.items()
}


def draw(scene: Scene, *, size: int = 64) -> Image.Image:
    """The image of `scene`, RGB, `size` pixels to a side."""
    side = size * _OVERSAMPLING
    backdrop = _BACKDROPS[scene.setting]
    canvas = _gradient(backdrop.sky, side)
    backdrop.paint(_Ground(ImageDraw.Draw(canvas), side, scene.backdrop))
    for item in scene.items:
        _draw_item(canvas, item, scene)
    return canvas.reduce(_OVERSAMPLING).point(_tint(scene.warmth))


def draw_prompt(prompt: str, *, seed: int, size: int = 64) -> Image.Image:
    """A render of `prompt`, a function of the seed; InputError outside the grammar."""
    try:
        spec = parse_prompt(prompt)
    except ValueError as error:
        raise InputError(f"{error}") from None
    return draw(sample_scene(spec, default_rng(seed)), size=size)


def _gradient(stops: tuple[RGB, ...], side: int) -> Image.Image:
    heights = np.linspace(0, 1, side)
    at = np.linspace(0, 1, len(stops))
    column = np.stack([np.interp(heights, at, channel) for channel in zip(*stops, strict=True)], 1)
    strip = Image.fromarray(column.round().astype(np.uint8)[:, None, :])
    return strip.resize((side, side), Image.Resampling.NEAREST)


def _tint(warmth: float) -> list[int]:
    """A lookup table per channel, weak enough to keep the eight colours apart."""
    gains = (1 + 0.035 * warmth, 1 + 0.005 * warmth, 1 - 0.06 * warmth)
    levels = np.outer(gains, np.arange(256)).round().clip(0, 255).astype(int)
    return [int(level) for level in levels.ravel()]


# Objects.


def _draw_item(canvas: Image.Image, item: Placed, scene: Scene) -> None:
    side, backdrop, drawing = canvas.width, _BACKDROPS[scene.setting], sketch(item.kind)
    pen = ImageDraw.Draw(canvas)
    if item.kind not in AIRBORNE and item.bottom > backdrop.horizon:
        _contact_shadow(pen, item, side, backdrop.shadow)
    mirror = np.array([-1.0 if item.flip else 1.0, 1.0])
    points = drawing.points * mirror * (item.size * side) + (item.x * side, item.top * side)
    outward = drawing.outward * mirror
    contour = scene.outline * (0.0045 + 0.013 * item.size) * side
    solid = [span for part in drawing.parts if part.contour for span in _flat_spans(part)]
    halo = _flat(points + outward * (contour + 0.007 * side))
    for first, last in solid:
        pen.polygon(halo[first:last], fill=backdrop.halo)
    tube, palette = TUBES[item.colour], _PALETTES[item.colour]
    filled = _flat(points)
    edged = {
        thickness: _flat(points + outward * (contour * thickness))
        for thickness in {part.contour for part in drawing.parts}
    }
    for part in drawing.parts:
        if part.contour:
            for first, last in _flat_spans(part):
                pen.polygon(edged[part.contour][first:last], fill=tube.ink)
        for first, last in _flat_spans(part):
            pen.polygon(filled[first:last], fill=palette[part.paint])
    _shade(canvas, points, solid, item, scene)


def _flat_spans(part: Part) -> list[tuple[int, int]]:
    return [(2 * first, 2 * last) for first, last in part.spans]


def _flat(points: Points) -> list[float]:
    flat: list[float] = points.ravel().tolist()
    return flat


def _contact_shadow(pen: ImageDraw.ImageDraw, item: Placed, side: int, colour: RGB) -> None:
    x, y = item.x * side, item.bottom * side
    rx, ry = item.width * side * 0.47, item.size * side * 0.055
    pen.ellipse((x - rx, y - ry, x + rx, y + ry), fill=colour)


def _shade(
    canvas: Image.Image, points: Points, solid: list[tuple[int, int]], item: Placed, scene: Scene
) -> None:
    """A shadow along the far rim and a light along the near one."""
    step = item.size * canvas.width
    across, down = round(-0.075 * step * scene.light_from), round(0.06 * step)
    # Moved outlines wrap around, so they need empty paper on every side.
    low = np.floor(points.min(axis=0)).astype(int) - round(0.08 * step)
    high = np.ceil(points.max(axis=0)).astype(int) + round(0.08 * step)
    width, height = (high - low + 1).tolist()
    stencil = Image.new("L", (width, height))
    pen = ImageDraw.Draw(stencil)
    local = _flat(points - low)
    for first, last in solid:
        pen.polygon(local[first:last], fill=round(92 * scene.shade))
    towards_light = ImageChops.offset(stencil, -across, -down)
    from_light = ImageChops.offset(stencil, across, down)
    corner = (int(low[0]), int(low[1]))
    canvas.paste(TUBES[item.colour].ink, corner, ImageChops.subtract(stencil, towards_light))
    canvas.paste(_GLOW, corner, ImageChops.subtract(stencil, from_light))


# Backdrops.


@dataclass(frozen=True, slots=True)
class _Ground:
    """Drawing operations of a backdrop, in unit coordinates."""

    pen: ImageDraw.ImageDraw
    side: int
    variation: float
    """0 to 1."""

    def oval(self, x: float, y: float, rx: float, ry: float, colour: RGB) -> None:
        box = (
            (x - rx) * self.side,
            (y - ry) * self.side,
            (x + rx) * self.side,
            (y + ry) * self.side,
        )
        self.pen.ellipse(box, fill=colour)

    def rect(self, x0: float, y0: float, x1: float, y1: float, colour: RGB) -> None:
        left, top = x0 * self.side, y0 * self.side
        # Pillow includes the last pixel, and refuses a box that is less than empty.
        right, bottom = max(left, x1 * self.side - 1), max(top, y1 * self.side - 1)
        self.pen.rectangle((left, top, right, bottom), fill=colour)

    def crescent(self, x: float, y: float, r: float, colour: RGB) -> None:
        angle = np.linspace(0.08, 0.72, 17) * _TURN
        outer = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        # The inner edge is a flatter arc between the same two tips.
        bulge = np.sin(np.linspace(0.0, 0.5, 17) * _TURN)[:, None] * np.array([[0.36, -0.26]])
        inner = outer[0] + np.linspace(0.0, 1.0, 17)[:, None] * (outer[-1] - outer[0]) - bulge
        edge = np.concatenate([outer, inner[::-1]]) * r + (x, y)
        self.pen.polygon(_flat(edge * self.side), fill=colour)

    def hill(self, y: float, height: float, waves: float, phase: float, colour: RGB) -> None:
        x = np.linspace(0, 1, 25)
        top = y - height * np.sin((x * waves + phase) * _TURN)
        ridge = _flat(np.stack([x, top], axis=1) * self.side)
        self.pen.polygon([*ridge, self.side, self.side, 0, self.side], fill=colour)

    def cloud(self, x: float, y: float, scale: float, colour: RGB) -> None:
        for dx, dy, r in (
            (-0.1, 0.015, 0.045),
            (-0.03, -0.02, 0.065),
            (0.06, 0.0, 0.055),
            (0.12, 0.02, 0.035),
        ):
            self.oval(x + dx * scale, y + dy * scale, r * scale, r * scale * 0.85, colour)
        self.oval(x, y + 0.035 * scale, 0.15 * scale, 0.025 * scale, colour)


def _meadow(ground: _Ground) -> None:
    v = ground.variation
    ground.cloud((0.12 + 0.9 * v) % 1, 0.14, 1.0, (250, 251, 248))
    ground.cloud((0.62 + 0.7 * v) % 1, 0.3, 0.7, (243, 248, 247))
    ground.hill(0.62, 0.07, 0.9, v, (206, 222, 184))
    ground.hill(0.72, 0.05, 1.1, 0.45 - v, (194, 214, 166))
    ground.hill(0.86, 0.03, 0.8, v + 0.2, (184, 206, 152))
    for k in range(9):
        x, y = (0.07 + 0.113 * k + 0.31 * v) % 1, 0.8 + 0.17 * ((k * 0.618 + v) % 1)
        ground.rect(x, y, x + 0.007, y + 0.028, (162, 188, 132))
        ground.rect(x + 0.013, y + 0.01, x + 0.02, y + 0.028, (162, 188, 132))


def _night(ground: _Ground) -> None:
    v = ground.variation
    for k in range(16):
        x, y = (0.05 + 0.7549 * k + 0.5 * v) % 1, 0.03 + 0.56 * ((0.5698 * k + 0.2 * v) % 1)
        r = 0.0065 if k % 3 else 0.0095
        ground.oval(x, y, r, r, (206, 206, 200))
    ground.crescent(0.12 + 0.72 * v, 0.12, 0.065, (216, 212, 190))
    ground.hill(0.66, 0.06, 0.9, v + 0.5, (62, 74, 98))
    ground.hill(0.76, 0.05, 1.0, 0.2 - v, (54, 68, 86))
    ground.hill(0.9, 0.03, 0.8, v, (48, 62, 76))


def _snow(ground: _Ground) -> None:
    v = ground.variation
    ground.hill(0.62, 0.07, 0.9, v + 0.1, (222, 230, 240))
    ground.hill(0.72, 0.05, 1.1, 0.6 - v, (236, 241, 247))
    ground.hill(0.86, 0.03, 0.9, v, (247, 249, 252))
    for k in range(22):
        x, y = (0.03 + 0.7549 * k + 0.4 * v) % 1, 0.78 * ((0.02 + 0.5698 * k + 0.6 * v) % 1)
        r = 0.008 if k % 3 else 0.013
        ground.oval(x, y, r, r, (252, 253, 255))


def _sea(ground: _Ground) -> None:
    v = ground.variation
    ground.cloud((0.2 + 0.8 * v) % 1, 0.17, 0.85, (250, 250, 246))
    ground.rect(0.0, 0.5, 1.0, 1.0, (166, 200, 208))
    for row, y in enumerate((0.56, 0.64, 0.72)):
        colour = (176 + 8 * row, 208 + 4 * row, 213 + 3 * row)
        ground.hill(y, 0.011, 5.0 - row * 0.5, v + 0.3 * row, colour)
    ground.hill(0.815, 0.014, 1.5, v, (246, 247, 240))
    ground.hill(0.84, 0.014, 1.5, v + 0.02, (236, 224, 194))
    for k in range(7):
        x, y = (0.1 + 0.618 * k + 0.3 * v) % 1, 0.88 + 0.1 * ((0.41 * k + v) % 1)
        ground.oval(x, y, 0.008, 0.005, (218, 202, 168))


def _desert(ground: _Ground) -> None:
    v = ground.variation
    ground.oval(0.15 + 0.7 * ((v + 0.4) % 1), 0.24, 0.1, 0.1, (253, 239, 218))
    ground.hill(0.62, 0.06, 0.8, v, (238, 212, 182))
    x, y, green = 0.08 + 0.84 * ((v * 3) % 1), 0.55, (190, 194, 164)
    ground.rect(x - 0.01, y - 0.02, x + 0.01, y + 0.12, green)
    ground.rect(x - 0.035, y + 0.035, x, y + 0.05, green)
    ground.rect(x - 0.035, y + 0.005, x - 0.022, y + 0.05, green)
    ground.rect(x, y + 0.055, x + 0.035, y + 0.07, green)
    ground.rect(x + 0.022, y + 0.02, x + 0.035, y + 0.07, green)
    ground.hill(0.7, 0.05, 1.0, 0.55 - v, (233, 204, 168))
    ground.hill(0.83, 0.04, 0.9, v + 0.3, (227, 196, 156))
    ground.hill(0.95, 0.02, 1.1, 0.1 - v, (221, 188, 146))


def _room(ground: _Ground) -> None:
    v = ground.variation
    width = 0.1
    for k in range(-1, 11):
        x = (k + v) * width
        ground.rect(x, 0.0, x + width / 2, 0.7, (240, 228, 214))
    ground.rect(0.0, 0.665, 1.0, 0.71, (250, 245, 236))
    ground.rect(0.0, 0.703, 1.0, 0.711, (214, 200, 184))
    ground.rect(0.0, 0.71, 1.0, 1.0, (216, 192, 164))
    for row, (top, bottom) in enumerate(((0.71, 0.78), (0.78, 0.87), (0.87, 1.0))):
        ground.rect(0.0, bottom - 0.006, 1.0, bottom, (196, 170, 142))
        for k in range(-1, 3):
            x = (k + 0.45 * row + v) * 0.42
            ground.rect(x, top, x + 0.006, bottom, (196, 170, 142))


@dataclass(frozen=True, slots=True)
class _Backdrop:
    sky: tuple[RGB, ...]
    """From top to bottom."""
    paint: Callable[[_Ground], None]
    horizon: float
    """Objects whose bottom is below this cast a shadow on the ground."""
    shadow: RGB
    halo: RGB


_BACKDROPS = {
    "meadow": _Backdrop(
        sky=((190, 218, 232), (214, 232, 236), (238, 240, 226), (238, 240, 226)),
        paint=_meadow,
        horizon=0.7,
        shadow=(152, 176, 124),
        halo=(250, 250, 240),
    ),
    "night": _Backdrop(
        sky=((44, 50, 88), (66, 72, 110), (104, 104, 136), (104, 104, 136)),
        paint=_night,
        horizon=0.72,
        shadow=(34, 44, 58),
        halo=(190, 188, 196),
    ),
    "snow": _Backdrop(
        sky=((196, 208, 224), (212, 221, 233), (228, 233, 240), (228, 233, 240)),
        paint=_snow,
        horizon=0.7,
        shadow=(204, 213, 228),
        halo=(252, 252, 252),
    ),
    "sea": _Backdrop(
        sky=((192, 216, 228), (222, 234, 234), (246, 238, 222), (246, 238, 222)),
        paint=_sea,
        horizon=0.82,
        shadow=(210, 194, 162),
        halo=(250, 250, 242),
    ),
    "desert": _Backdrop(
        sky=((244, 222, 204), (248, 230, 208), (250, 238, 216), (250, 238, 216)),
        paint=_desert,
        horizon=0.7,
        shadow=(200, 166, 124),
        halo=(255, 248, 234),
    ),
    "room": _Backdrop(
        sky=((232, 216, 204), (232, 216, 204)),
        paint=_room,
        horizon=0.72,
        shadow=(182, 154, 126),
        halo=(252, 246, 236),
    ),
}
