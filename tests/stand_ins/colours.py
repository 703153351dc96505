"""How far colours of a screen are from each other, for whoever sees all of them or not all."""

from collections.abc import Mapping
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Colour = NDArray[np.float64]

SEEN: Mapping[str, Colour] = {
    "by most": np.eye(3),
    "without red cones": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "without green cones": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "without blue cones": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
"""In linear RGB: Machado, Oliveira and Fernandes, 2009, at severity 1."""
TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
TO_OKLAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
"""https://bottosson.github.io/posts/oklab/"""


def linear(colour: str) -> Colour:
    """Linear RGB of "#rrggbb"."""
    values = np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """Contrast ratio, https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio."""
    weights = np.array([0.2126, 0.7152, 0.0722])
    dark, light = sorted(float(linear(each) @ weights) for each in (one, other))
    return (light + 0.05) / (dark + 0.05)


def least_distance(colours: list[str]) -> tuple[float, str]:
    """Of any two, in OKLab, where black and white are 1 apart; and which, seen by whom."""
    return min(
        (
            float(np.linalg.norm(_oklab(matrix @ linear(one)) - _oklab(matrix @ linear(other)))),
            f"{one} {other} {who}",
        )
        for who, matrix in SEEN.items()
        for one, other in combinations(colours, 2)
    )


def _oklab(light: Colour) -> Colour:
    found: Colour = TO_OKLAB @ np.cbrt(TO_CONES @ np.clip(light, 0, 1))
    return found
