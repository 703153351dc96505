"""The 24 objects as drawings.

One function per object adds its shapes, back to front. The paint "main" fills most of each, since
it is the colour that a prompt names. Left out: colours, contours, light and pixels (drawing.py),
and sizes (scenes.py).

Units: roughly a box of height 1 with x = 0 in its middle and y = 0 at its top; what is drawn is
fitted to it afterwards. Objects face right.
"""

import math
from collections.abc import Callable
from functools import cache

import numpy as np

from imgalign.storybook.pen import (
    Pen,
    Sketch,
    arc,
    blob,
    both,
    curve,
    even_blob,
    mirrored,
    moved,
    oval,
    polygon,
    rectangle,
    segment,
    softened,
    stroke,
    turned,
)

_TURN = 2 * math.pi


@cache
def sketch(kind: str) -> Sketch:
    """The drawing of `kind`, cached."""
    pen = Pen()
    _DRAWINGS[kind](pen)
    return pen.sketch()


def _house(pen: Pen) -> None:
    pen.body("deep", rectangle(0.2, 0.06, 0.33, 0.4))
    pen.body("cream", rectangle(0.17, 0.02, 0.36, 0.1))
    pen.body("main", rectangle(-0.4, 0.4, 0.4, 1.0))
    pen.body("deep", polygon((0.0, 0.0), (0.52, 0.46), (-0.52, 0.46)))
    pen.mark("main", segment(-0.34, 0.4, 0.34, 0.4, 0.022), segment(-0.22, 0.29, 0.22, 0.29, 0.02))
    pen.mark("cream", oval(0.0, 0.29, 0.075, 0.075))
    pen.mark("glass", oval(0.0, 0.29, 0.045, 0.045))
    pen.piece("wood", blob((-0.28, 1.0), (-0.28, 0.7), (-0.17, 0.6), (-0.06, 0.7), (-0.06, 1.0)))
    pen.mark("gold", oval(-0.1, 0.81, 0.022, 0.022))
    pen.piece("cream", rectangle(0.07, 0.58, 0.31, 0.82))
    pen.mark("glass", rectangle(0.1, 0.61, 0.28, 0.79))
    pen.mark("cream", segment(0.19, 0.6, 0.19, 0.8, 0.025), segment(0.09, 0.7, 0.29, 0.7, 0.025))


def _tree(pen: Pen) -> None:
    pen.body("wood", even_blob((0.09, 0.6), (0.09, 0.85), (0.17, 1.0)))
    crown = (oval(0.0, 0.24, 0.28, 0.24), *both(oval(0.22, 0.42, 0.24, 0.21)))
    pen.body("main", *crown, oval(0.0, 0.54, 0.26, 0.2))
    for x, y in ((-0.2, 0.46), (0.2, 0.4), (0.0, 0.26), (0.02, 0.57)):
        pen.mark("deep", arc(x, y, 0.13, 0.1, 0.05, 0.4, 0.03))
    pen.mark("pale", oval(-0.12, 0.14, 0.07, 0.045, -0.1), oval(-0.32, 0.36, 0.05, 0.03, -0.1))


def _boat(pen: Pen) -> None:
    pen.piece("wood", rectangle(-0.045, 0.0, 0.015, 0.74))
    pen.body("main", polygon((0.04, 0.04), (0.24, 0.3), (0.46, 0.62), (0.04, 0.62)))
    pen.body("cream", polygon((-0.08, 0.14), (-0.08, 0.62), (-0.38, 0.62), (-0.24, 0.4)))
    pen.mark("pale", polygon((0.04, 0.34), (0.265, 0.34), (0.33, 0.44), (0.04, 0.44)))
    rim, keel = ((-0.52, 0.68), (0.0, 0.7), (0.54, 0.66)), ((0.44, 0.86), (0.3, 0.98), (0.0, 1.0))
    pen.body("main", blob(*rim, *keel, (-0.3, 0.98), (-0.44, 0.86)))
    pen.mark("cream", polygon((-0.5, 0.74), (0.5, 0.73), (0.48, 0.79), (-0.47, 0.8)))
    for x in (-0.16, 0.04, 0.24):
        pen.mark("deep", oval(x, 0.88, 0.045, 0.045))


def _fish(pen: Pen) -> None:
    tail = ((-0.36, 0.5), (-0.56, 0.2), (-0.66, 0.16), (-0.6, 0.5), (-0.66, 0.84), (-0.56, 0.8))
    pen.body("deep", blob(*tail))
    pen.body("deep", blob((-0.2, 0.24), (-0.06, 0.02), (0.16, 0.0), (0.22, 0.2), (0.0, 0.3)))
    pen.body("deep", blob((-0.1, 0.82), (-0.2, 1.0), (0.0, 1.0), (0.12, 0.86)))
    back = ((0.66, 0.54), (0.5, 0.28), (0.2, 0.14), (-0.12, 0.24), (-0.4, 0.5))
    pen.body("main", blob(*back, (-0.12, 0.8), (0.2, 0.9), (0.5, 0.78)))
    pen.mark("deep", arc(0.12, 0.52, 0.16, 0.3, -0.2, 0.2, 0.035))
    for x, y in ((-0.12, 0.42), (-0.12, 0.62), (0.02, 0.52), (-0.25, 0.52)):
        pen.mark("deep", arc(x, y, 0.08, 0.09, -0.2, 0.2, 0.03))
    pen.piece("cream", oval(0.42, 0.43, 0.1, 0.11))
    pen.mark("ink", oval(0.44, 0.44, 0.055, 0.065))
    pen.mark("ink", arc(0.58, 0.56, 0.1, 0.1, 0.12, 0.38, 0.03))


def _sun(pen: Pen) -> None:
    ray = polygon((0.31, -0.12), (0.5, 0.0), (0.31, 0.12))
    pen.body("deep", *[moved(turned(ray, k / 10), 0.0, 0.5) for k in range(10)])
    pen.body("main", oval(0.0, 0.5, 0.33, 0.33))
    pen.mark("deep", *both(oval(0.2, 0.57, 0.055, 0.04)))
    pen.face(0.0, 0.47, 1.15)


def _cat(pen: Pen) -> None:
    tail = curve((0.18, 0.92), (0.4, 0.93), (0.47, 0.76), (0.38, 0.6), (0.46, 0.5))
    pen.body("main", stroke(tail, 0.11, 0.08))
    pen.body("main", even_blob((0.0, 0.48), (0.2, 0.56), (0.28, 0.84), (0.24, 0.99), (0.0, 1.0)))
    pen.mark("pale", oval(0.0, 0.8, 0.12, 0.15))
    pen.mark("ink", *both(segment(0.07, 0.84, 0.07, 0.98, 0.022)))
    head = even_blob((0.0, 0.1), (0.24, 0.14), (0.36, 0.33), (0.26, 0.53), (0.0, 0.59))
    pen.body("main", *both(polygon((0.34, 0.0), (0.06, 0.13), (0.33, 0.32))), head)
    pen.mark("pale", *both(polygon((0.3, 0.07), (0.16, 0.14), (0.28, 0.22))))
    pen.mark("deep", segment(0.0, 0.12, 0.0, 0.2, 0.028))
    pen.mark("deep", *both(segment(0.08, 0.13, 0.07, 0.19, 0.024)))
    pen.mark("cream", *both(oval(0.14, 0.33, 0.055, 0.065)))
    pen.mark("ink", *both(oval(0.13, 0.335, 0.033, 0.055)))
    pen.mark("ink", polygon((-0.04, 0.41), (0.04, 0.41), (0.0, 0.455)))
    pen.mark("ink", *both(arc(0.05, 0.46, 0.05, 0.045, 0.1, 0.48, 0.022)))
    pen.mark("ink", *both(segment(0.2, 0.42, 0.43, 0.4, 0.018)))
    pen.mark("ink", *both(segment(0.2, 0.47, 0.43, 0.5, 0.018)))


def _car(pen: Pen) -> None:
    cabin = ((-0.46, 0.48), (-0.34, 0.06), (-0.2, 0.0), (0.12, 0.0), (0.24, 0.06), (0.42, 0.46))
    pen.body("main", blob(*cabin, (0.0, 0.56)))
    pen.mark("glass", blob((-0.32, 0.42), (-0.25, 0.17), (-0.08, 0.13), (-0.08, 0.42)))
    pen.mark("glass", blob((0.03, 0.42), (0.03, 0.13), (0.16, 0.17), (0.28, 0.42)))
    bonnet = ((-0.72, 0.56), (-0.6, 0.44), (0.4, 0.42), (0.64, 0.48), (0.73, 0.62), (0.7, 0.8))
    pen.body("main", blob(*bonnet, (0.0, 0.82), (-0.7, 0.8)))
    pen.mark("deep", segment(-0.66, 0.72, 0.66, 0.72, 0.04))
    pen.mark("deep", segment(-0.02, 0.46, -0.02, 0.7, 0.02), segment(0.06, 0.54, 0.14, 0.54, 0.03))
    pen.piece("gold", oval(0.66, 0.58, 0.05, 0.06))
    pen.piece("ink", *both(oval(0.4, 0.82, 0.17, 0.18)))
    pen.mark("cream", *both(oval(0.4, 0.82, 0.08, 0.085)))


def _flower(pen: Pen) -> None:
    pen.piece("leaf", stroke(curve((0.0, 0.5), (0.03, 0.75), (0.0, 1.0)), 0.055))
    pen.piece("leaf", blob((0.01, 0.94), (0.1, 0.8), (0.28, 0.76), (0.22, 0.9)))
    pen.piece("leaf", blob((0.01, 0.98), (-0.08, 0.85), (-0.26, 0.8), (-0.2, 0.95)))
    petal, crease = oval(0.0, -0.22, 0.135, 0.165), oval(0.0, -0.2, 0.026, 0.07)
    for k in range(6):
        pen.body("main", moved(turned(petal, k / 6), 0.0, 0.38))
    pen.mark("deep", *[moved(turned(crease, k / 6), 0.0, 0.38) for k in range(6)])
    pen.piece("cream", oval(0.0, 0.38, 0.115, 0.115))
    pen.mark("gold", *both(oval(0.035, 0.36, 0.02, 0.02)), oval(0.0, 0.42, 0.02, 0.02))


def _bird(pen: Pen) -> None:
    for x in (0.0, 0.14):
        leg, toes = segment(x, 0.82, x, 0.97, 0.03), segment(x - 0.02, 0.985, x + 0.08, 0.985, 0.03)
        pen.mark("ink", leg, toes)
    tail = polygon((-0.2, 0.46), (-0.56, 0.36), (-0.5, 0.5), (-0.58, 0.6), (-0.2, 0.68))
    pen.body("deep", tail)
    pen.piece("gold", polygon((0.42, 0.2), (0.6, 0.3), (0.4, 0.36)))
    breast = ((0.28, 0.0), (0.46, 0.12), (0.47, 0.34), (0.4, 0.66), (0.16, 0.88), (-0.12, 0.82))
    pen.body("main", blob(*breast, (-0.32, 0.6), (-0.2, 0.46), (0.04, 0.3), (0.1, 0.1)))
    pen.mark("pale", blob((0.42, 0.44), (0.4, 0.64), (0.2, 0.82), (0.04, 0.8), (0.24, 0.66)))
    wing = ((0.16, 0.44), (0.2, 0.6), (0.0, 0.72), (-0.3, 0.72), (-0.16, 0.52), (0.02, 0.42))
    pen.piece("deep", blob(*wing))
    pen.mark("main", arc(0.02, 0.54, 0.1, 0.08, 0.1, 0.4, 0.025))
    pen.mark("cream", oval(0.31, 0.2, 0.06, 0.06))
    pen.mark("ink", oval(0.325, 0.205, 0.04, 0.042))


def _star(pen: Pen) -> None:
    tip, dip = polygon((0.0, -0.52)), polygon((0.0, -0.255))
    corners = [turned(tip if k % 2 == 0 else dip, k / 10) for k in range(10)]
    pen.body("main", moved(softened(np.concatenate(corners)), 0.0, 0.52))
    pen.mark("deep", *both(oval(0.17, 0.57, 0.045, 0.03)))
    pen.face(0.0, 0.48, 1.0)


def _heart(pen: Pen) -> None:
    angle = np.linspace(0.0, _TURN, 36, endpoint=False)
    x = 16 * np.sin(angle) ** 3
    y = 5 * np.cos(2 * angle) + 2 * np.cos(3 * angle) + np.cos(4 * angle) - 13 * np.cos(angle)
    pen.body("main", moved(np.stack([x, y], axis=1) / 29, 0.0, 0.42))
    shine = blob((-0.38, 0.22), (-0.3, 0.09), (-0.18, 0.07), (-0.26, 0.14), (-0.32, 0.26))
    pen.mark("pale", shine, oval(-0.36, 0.34, 0.025, 0.03))


def _balloon(pen: Pen) -> None:
    pen.mark("ink", stroke(curve((0.0, 0.68), (0.05, 0.78), (-0.05, 0.88), (0.02, 1.0)), 0.032))
    pen.body("deep", polygon((0.0, 0.62), (0.07, 0.71), (-0.07, 0.71)))
    pen.body("main", even_blob((0.0, 0.0), (0.22, 0.08), (0.31, 0.28), (0.2, 0.52), (0.0, 0.66)))
    shine = blob((-0.2, 0.28), (-0.17, 0.14), (-0.08, 0.08), (-0.1, 0.15), (-0.14, 0.27))
    pen.mark("pale", shine, oval(-0.17, 0.36, 0.022, 0.03))


def _mushroom(pen: Pen) -> None:
    pen.body("cream", even_blob((0.11, 0.5), (0.13, 0.8), (0.19, 0.98), (0.0, 1.0)))
    pen.mark("ink", *both(oval(0.05, 0.74, 0.02, 0.03)))
    pen.mark("ink", arc(0.0, 0.79, 0.045, 0.05, 0.08, 0.42, 0.02))
    cap = ((0.0, 0.0), (0.27, 0.08), (0.45, 0.34), (0.45, 0.54), (0.24, 0.6), (0.0, 0.61))
    pen.body("main", even_blob(*cap))
    pen.mark("cream", oval(-0.05, 0.18, 0.085, 0.075), oval(0.22, 0.3, 0.075, 0.08))
    pen.mark("cream", oval(-0.27, 0.36, 0.07, 0.075), oval(0.0, 0.43, 0.07, 0.06))
    pen.mark("cream", oval(0.34, 0.49, 0.045, 0.04))


def _umbrella(pen: Pen) -> None:
    hook = curve((0.0, 0.88), (0.04, 0.96), (0.11, 0.97), (0.16, 0.9))
    pen.piece("wood", stroke(np.concatenate([polygon((0.0, 0.1), (0.0, 0.6)), hook]), 0.05))
    pen.mark("wood", segment(0.0, 0.01, 0.0, 0.1, 0.045))
    angle = np.linspace(0.5, 1.0, 15) * _TURN
    dome = np.stack([0.49 * np.cos(angle), 0.54 + 0.47 * np.sin(angle)], axis=1)
    along = np.linspace(0.0, 1.0, 25)[1:-1]
    scallops = 0.55 - 0.075 * np.abs(np.sin(along * 2 * _TURN))
    pen.body("main", np.concatenate([dome, np.stack([0.49 - 0.98 * along, scallops], axis=1)]))
    rib = np.linspace(0.0, 0.25, 9) * _TURN
    seam = np.stack([0.245 * np.sin(rib), 0.08 + 0.46 * (1 - np.cos(rib))], axis=1)
    pen.mark("deep", np.concatenate([seam, polygon((0.12, 0.475), (0.0, 0.54))]))
    pen.mark("deep", np.concatenate([mirrored(seam), dome[:7]]))
    pen.mark("ink", *both(stroke(seam, 0.022)), segment(0.0, 0.08, 0.0, 0.54, 0.022))


def _cup(pen: Pen) -> None:
    pen.mark("cream", stroke(curve((-0.2, 0.24), (-0.25, 0.16), (-0.17, 0.1), (-0.21, 0.0)), 0.05))
    pen.mark("cream", stroke(curve((0.04, 0.22), (-0.01, 0.15), (0.07, 0.09), (0.03, 0.0)), 0.05))
    pen.body("main", arc(0.32, 0.58, 0.16, 0.16, -0.28, 0.3, 0.085))
    bowl = even_blob((0.0, 0.3), (0.42, 0.32), (0.4, 0.66), (0.29, 0.93), (0.1, 1.0))
    pen.body("main", moved(bowl, -0.04, 0.0))
    pen.piece("pale", oval(-0.04, 0.33, 0.42, 0.085))
    pen.mark("wood", oval(-0.04, 0.345, 0.35, 0.055))
    pen.mark("cream", oval(-0.04, 0.66, 0.11, 0.11))
    pen.mark("main", oval(-0.04, 0.66, 0.055, 0.055))


def _apple(pen: Pen) -> None:
    pen.piece("wood", stroke(curve((0.0, 0.26), (0.0, 0.12), (0.06, 0.02)), 0.055))
    pen.piece("leaf", blob((0.04, 0.16), (0.14, 0.03), (0.33, 0.02), (0.24, 0.15)))
    cheek = ((0.0, 0.24), (0.2, 0.18), (0.41, 0.28), (0.46, 0.52), (0.36, 0.82), (0.17, 1.0))
    pen.body("main", even_blob(*cheek, (0.0, 0.96)))
    pen.mark("deep", arc(0.0, 0.2, 0.12, 0.07, 0.08, 0.42, 0.03))
    pen.mark("pale", blob((-0.34, 0.52), (-0.3, 0.36), (-0.2, 0.3), (-0.24, 0.4), (-0.27, 0.54)))


def _butterfly(pen: Pen) -> None:
    lower = ((0.04, 0.52), (0.26, 0.52), (0.45, 0.64), (0.42, 0.88), (0.26, 1.0), (0.12, 0.86))
    pen.body("deep", *both(blob(*lower)))
    upper = ((0.04, 0.42), (0.2, 0.08), (0.46, 0.0), (0.58, 0.14), (0.5, 0.42), (0.26, 0.54))
    pen.body("main", *both(blob(*upper, (0.04, 0.52))))
    pen.mark("cream", *both(oval(0.38, 0.21, 0.085, 0.09)), *both(oval(0.28, 0.76, 0.06, 0.07)))
    pen.mark("deep", *both(oval(0.38, 0.21, 0.04, 0.04)))
    pen.mark("pale", *both(oval(0.26, 0.4, 0.04, 0.03)))
    pen.mark("ink", *both(stroke(curve((0.02, 0.24), (0.06, 0.12), (0.14, 0.05)), 0.024)))
    pen.mark("ink", *both(oval(0.15, 0.05, 0.028, 0.028)))
    pen.mark("ink", oval(0.0, 0.54, 0.05, 0.3), oval(0.0, 0.26, 0.062, 0.062))


def _rocket(pen: Pen) -> None:
    pen.piece("gold", even_blob((0.14, 0.76), (0.1, 0.9), (0.0, 1.05)))
    pen.mark("cream", even_blob((0.07, 0.76), (0.0, 0.96)))
    fin = blob((0.14, 0.52), (0.33, 0.7), (0.35, 0.88), (0.22, 0.82), (0.12, 0.78))
    pen.body("deep", *both(fin))
    hull = even_blob((0.0, 0.0), (0.15, 0.18), (0.22, 0.44), (0.17, 0.78), (0.0, 0.82))
    pen.body("main", hull)
    pen.mark("deep", even_blob((0.0, 0.01), (0.1, 0.12), (0.155, 0.23), (0.0, 0.26)))
    pen.piece("cream", oval(0.0, 0.43, 0.115, 0.115))
    pen.mark("glass", oval(0.0, 0.43, 0.075, 0.075))
    pen.mark("pale", polygon((-0.18, 0.68), (0.18, 0.68), (0.175, 0.73), (-0.175, 0.73)))
    pen.piece("deep", polygon((-0.02, 0.64), (0.02, 0.64), (0.025, 0.86), (-0.025, 0.86)))


def _kite(pen: Pen) -> None:
    pen.mark("ink", stroke(curve((0.0, 0.66), (0.07, 0.76), (-0.07, 0.87), (0.03, 1.0)), 0.028))
    half = ((-0.12, -0.055), (0.0, -0.012), (0.12, -0.055))
    bow = polygon(*half, (0.12, 0.055), (0.0, 0.012), (-0.12, 0.055))
    for x, y, tilt in ((0.045, 0.79, 0.03), (-0.03, 0.92, -0.04)):
        pen.piece("main", moved(turned(bow, tilt), x, y))
    pen.body("main", polygon((0.0, 0.0), (0.39, 0.29), (0.0, 0.71), (-0.39, 0.29)))
    pen.mark("deep", polygon((0.0, 0.29), (0.375, 0.29), (0.0, 0.695)))
    pen.mark("pale", polygon((0.0, 0.015), (0.0, 0.29), (-0.375, 0.29)))
    pen.mark("cream", segment(0.0, 0.02, 0.0, 0.69, 0.026))
    pen.mark("cream", segment(-0.375, 0.29, 0.375, 0.29, 0.026))


def _snail(pen: Pen) -> None:
    for x, tip in ((0.46, 0.42), (0.55, 0.63)):
        pen.piece("cream", segment(x, 0.56, tip, 0.32, 0.04), oval(tip, 0.3, 0.05, 0.05))
        pen.mark("ink", oval(tip + 0.01, 0.3, 0.024, 0.024))
    foot = ((-0.6, 0.99), (-0.4, 0.9), (0.2, 0.88), (0.36, 0.74), (0.37, 0.58))
    head = ((0.49, 0.51), (0.61, 0.57), (0.6, 0.77), (0.46, 0.96), (0.2, 1.0))
    pen.body("cream", blob(*foot, *head))
    pen.mark("ink", arc(0.52, 0.66, 0.06, 0.05, 0.08, 0.42, 0.025))
    pen.body("main", oval(-0.08, 0.47, 0.475, 0.47))
    turns = np.linspace(0.0, 2.15, 34)
    radius, angle = 0.37 - 0.155 * turns, turns * _TURN + 0.7
    spiral = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    pen.mark("ink", stroke(moved(spiral, -0.08, 0.49), 0.045, 0.035))


def _rabbit(pen: Pen) -> None:
    pen.body("cream", oval(-0.26, 0.88, 0.1, 0.095))
    pen.body("main", even_blob((0.0, 0.5), (0.2, 0.62), (0.27, 0.86), (0.22, 0.99), (0.0, 1.0)))
    pen.mark("pale", oval(0.0, 0.84, 0.12, 0.12))
    pen.piece("main", *both(oval(0.13, 0.97, 0.11, 0.05)))
    ears = both(oval(0.13, 0.18, 0.085, 0.2, 0.03))
    pen.body("main", *ears, oval(0.0, 0.46, 0.25, 0.2))
    pen.mark("cream", *both(oval(0.13, 0.19, 0.04, 0.14, 0.03)))
    pen.mark("ink", *both(oval(0.11, 0.43, 0.035, 0.045)))
    pen.mark("cream", oval(0.0, 0.535, 0.1, 0.075))
    pen.mark("ink", oval(0.0, 0.5, 0.035, 0.025), segment(0.0, 0.52, 0.0, 0.57, 0.02))


def _hat(pen: Pen) -> None:
    pen.body("deep", oval(0.0, 0.86, 0.58, 0.14))
    pen.body("main", even_blob((0.0, 0.0), (0.36, 0.06), (0.33, 0.4), (0.34, 0.84), (0.0, 0.93)))
    pen.mark("pale", oval(0.0, 0.075, 0.34, 0.055))
    pen.mark("cream", even_blob((0.0, 0.7), (0.33, 0.62), (0.34, 0.8), (0.0, 0.89)))
    pen.piece("gold", rectangle(0.08, 0.66, 0.24, 0.86))
    pen.mark("cream", rectangle(0.12, 0.71, 0.2, 0.81))


def _cake(pen: Pen) -> None:
    pen.piece("cream", rectangle(-0.04, 0.11, 0.04, 0.34))
    pen.mark("main", polygon((-0.04, 0.2), (0.04, 0.16), (0.04, 0.21), (-0.04, 0.25)))
    pen.piece("gold", even_blob((0.0, 0.0), (0.055, 0.08), (0.0, 0.13)))
    pen.body("cream", oval(0.0, 0.95, 0.5, 0.05))
    pen.body("main", rectangle(-0.42, 0.6, 0.42, 0.97, 0.05))
    pen.body("main", rectangle(-0.31, 0.3, 0.31, 0.64, 0.05))
    for half, y in ((0.31, 0.3), (0.42, 0.6)):
        across = np.linspace(1.0, -1.0, 25)
        drips = y + 0.05 + 0.055 * np.abs(np.sin(across * _TURN * 0.75))
        top = polygon((-half, y + 0.03), (0.04 - half, y), (half - 0.04, y), (half, y + 0.03))
        pen.mark("cream", np.concatenate([top, np.stack([across * half, drips], axis=1)]))
    pen.mark("deep", *both(oval(0.26, 0.85, 0.04, 0.04)), oval(0.0, 0.85, 0.04, 0.04))


def _crown(pen: Pen) -> None:
    points = ((-0.5, 0.14), (-0.28, 0.46), (0.0, 0.08), (0.28, 0.46), (0.5, 0.14))
    pen.body("main", polygon(*points, (0.44, 0.94), (0.2, 1.0), (-0.2, 1.0), (-0.44, 0.94)))
    band = ((-0.455, 0.72), (0.0, 0.78), (0.455, 0.72), (0.44, 0.93), (0.2, 0.985))
    pen.mark("deep", polygon(*band, (-0.2, 0.985), (-0.44, 0.93)))
    for x, y in ((-0.53, 0.1), (0.53, 0.1), (0.0, 0.07)):
        pen.piece("cream", oval(x, y, 0.075, 0.075))
    pen.mark("cream", oval(0.0, 0.88, 0.075, 0.065), *both(oval(0.28, 0.84, 0.05, 0.05)))
    pen.mark("pale", polygon((0.0, 0.4), (0.06, 0.52), (0.0, 0.64), (-0.06, 0.52)))


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
