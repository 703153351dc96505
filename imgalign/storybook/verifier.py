"""The storybook's verifier: an object detector that checks images against their prompts.

A small convolutional detector like CenterNet (Zhou et al. 2019, arXiv:1904.07850): a heat map of
object centres with kind, colour, offset and size at each centre, and a global head for the setting
and for whether the image is readable at all. It is part of the oracle reward and never used in
training. It is trained in imgalign.storybook.train.verifier.

Shapes: b = images, k = kinds, c = colours, s = settings; the grid is 16x16 over 64x64 pixels.
Positions and sizes are fractions of the image's side, as in scenes.py.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from imgalign.errors import CheckpointError, InputError
from imgalign.files import read_json
from imgalign.storybook.scenes import (
    COLOURS,
    OBJECTS,
    SETTINGS,
    Item,
    Placed,
    SceneSpec,
    holds,
    parse_prompt,
)

SIDE = 64
GRID = 16
BATCH = 128
WEIGHTS = "verifier.safetensors"
ASSETS = Path(__file__).parent / "assets" / "verifier"

PRESENT = 0.3
"""Peaks of the heat map of at least this probability are objects."""
CLEAR = 0.5
"""A kind or colour of a lower probability counts as wrong."""
TOLERANCE = 0.015
"""Error of positions, along each axis, within which a relation still holds; one pixel of 64."""

KIND_POINTS, COLOUR_POINTS, RELATION_POINTS, SETTING_POINTS = 3, 2, 3, 3
"""Points for each part of a prompt; those for kind and colour count for every object."""
EXTRA_FACTOR = 0.8
"""Faithfulness is multiplied by this for each object that the prompt does not ask for."""
FLAWED = 0.8
"""Upper bound on faithfulness once anything is wrong."""


class _Unit(nn.Sequential):
    """Convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _Unit(channels, channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.norm(self.second(self.first(x))))


@dataclass(frozen=True, slots=True)
class Maps:
    """Output of the network before decoding; all but `where` are logits."""

    heat: Float[Tensor, "b 16 16"]
    kind: Float[Tensor, "b k 16 16"]
    colour: Float[Tensor, "b c 16 16"]
    where: Float[Tensor, "b 3 16 16"]
    """Centre relative to the middle of the cell, in cells (x, y), and log height over 0.4."""
    setting: Float[Tensor, "b s"]
    readable: Float[Tensor, " b"]


class VerifierNetwork(nn.Module):
    """The detection network; `width` channels at the finest of three scales."""

    def __init__(self, *, width: int = 32, blocks: int = 2) -> None:
        super().__init__()
        self.width, self.blocks = width, blocks
        self.stem = nn.Sequential(
            _Unit(3, width, stride=2), _Unit(width, 2 * width, stride=2), _Residual(2 * width)
        )
        self.deep = nn.Sequential(
            _Unit(2 * width, 4 * width, stride=2), *(_Residual(4 * width) for _ in range(blocks))
        )
        self.lift = _Unit(4 * width, 2 * width, kernel=1)
        self.fuse = _Unit(2 * width, 3 * width)
        self.heads = nn.Conv2d(3 * width, 1 + len(OBJECTS) + len(COLOURS) + 3, 1)
        self.whole = nn.Linear(8 * width, len(SETTINGS) + 1)
        # Centres are rare: start from a probability of 1 %, as for RetinaNet (arXiv:1708.02002).
        with torch.no_grad():
            self.heads.bias[0] = -4.6  # type: ignore[index]

    def forward(self, images: Float[Tensor, "b 3 64 64"]) -> Maps:
        """Maps of images in [0, 1]."""
        fine = self.stem(images * 4 - 2)
        deep = self.deep(fine)
        lifted = F.interpolate(self.lift(deep), scale_factor=2.0, mode="nearest")
        cells = self.heads(self.fuse(fine + lifted)).float()
        heat, kind, colour, where = cells.split((1, len(OBJECTS), len(COLOURS), 3), dim=1)
        whole = self.whole(torch.cat((deep.mean((2, 3)), deep.amax((2, 3))), dim=1)).float()
        return Maps(heat[:, 0], kind, colour, where, whole[:, :-1], whole[:, -1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One detected object: (x, y) is the centre of its box, `size` the height of the box."""

    kind: str
    colour: str
    x: float
    y: float
    size: float
    confidence: float
    """Probability that there is an object at this place."""
    kind_probability: float
    colour_probability: float

    @property
    def placed(self) -> Placed:
        """The object as `scenes.holds` takes it."""
        return Placed(kind=self.kind, colour=self.colour, x=self.x, y=self.y, size=self.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The contents of one image; items are in order of confidence.

    `unsure` marks noise, blends and other unreadable images, whose other fields mean nothing. An
    empty landscape is readable and has no items.
    """

    items: tuple[Seen, ...]
    setting: str
    setting_probability: float
    readable_probability: float
    unsure: bool


class Verifier:
    """Detects the objects and the setting of images. Loading takes longer than reading a batch."""

    def __init__(self, network: VerifierNetwork) -> None:
        self.network = network.eval().requires_grad_(False)

    @classmethod
    def load(cls, folder: Path = ASSETS, *, device: str | torch.device = "cpu") -> "Verifier":
        """The shipped verifier, or the one in `folder`; CheckpointError when it does not fit."""
        config_path, weights = folder / "config.json", folder / WEIGHTS
        if not config_path.is_file() or not weights.is_file():
            raise CheckpointError(
                f"{folder}: expected config.json and {WEIGHTS}; make them with "
                "`imgalign storybook train verifier`"
            )
        config = read_json(config_path)
        for name, known in _VOCABULARY.items():
            if tuple(config[name]) != known:
                raise CheckpointError(
                    f"{config_path}: {name} are not those of scenes.py; train the verifier again"
                )
        network = VerifierNetwork(width=config["width"], blocks=config["blocks"])
        try:
            network.load_state_dict(load_file(weights))
        except (RuntimeError, SafetensorError) as error:
            reason = str(error).splitlines()[0]
            raise CheckpointError(
                f"{weights}: not the weights of this network: {reason}"
            ) from error
        return cls(network.to(device).to(memory_format=torch.channels_last))

    def save(self, folder: Path) -> None:
        """Write config and weights; kernels in half precision, which costs no accuracy."""
        folder.mkdir(parents=True, exist_ok=True)
        network = self.network
        config = {"width": network.width, "blocks": network.blocks, **_VOCABULARY}
        text = json.dumps(config, indent=1) + "\n"
        (folder / "config.json").write_text(text, encoding="utf-8")
        weights = {
            name: value.contiguous().to(torch.float16 if value.ndim > 1 else value.dtype)
            for name, value in network.state_dict().items()
        }
        save_file(weights, folder / WEIGHTS)

    @torch.inference_mode()
    def read(self, images: Float[Tensor, "b 3 h w"]) -> list[Reading]:
        """A reading of each image; other sizes than 64x64 are resized.

        Pixels are in [0, 1]; anything else, NaN included, is an InputError.
        """
        _check(images)
        parameter = self.network.whole.weight
        readings: list[Reading] = []
        for part in torch.split(images, BATCH):
            pixels = at_reading_size(part.to(parameter.device)).clamp(0, 1)
            pixels = pixels.contiguous(memory_format=torch.channels_last)
            readings += decode(self.network(pixels))
        return readings


def at_reading_size(images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 64 64"]:
    """Images in single precision, resized to 64x64 with antialiasing if they are not."""
    images = images.float()
    if images.shape[-2:] == (SIDE, SIDE):
        return images
    return F.interpolate(images, size=(SIDE, SIDE), mode="bilinear", antialias=True)


@cache
def default_verifier() -> Verifier:
    """The shipped verifier on the CPU, loaded once."""
    return Verifier.load()


_VOCABULARY = {"objects": OBJECTS, "colours": COLOURS, "settings": tuple(SETTINGS)}


def decode(maps: Maps) -> list[Reading]:
    """Readings from the network's output; duplicate detections of one object are dropped."""
    heat = maps.heat.sigmoid()
    is_peak = (heat == F.max_pool2d(heat[:, None], 3, 1, 1)[:, 0]) & (heat >= PRESENT)
    which, row, column = is_peak.nonzero().T
    kinds, kind = maps.kind.softmax(1)[which, :, row, column].max(1)
    colours, colour = maps.colour.softmax(1)[which, :, row, column].max(1)
    dx, dy, height = maps.where[which, :, row, column].T
    numbers = torch.stack(
        (
            (column + 0.5 + dx) / GRID,
            (row + 0.5 + dy) / GRID,
            0.4 * height.clamp(-3, 1).exp(),
            heat[which, row, column],
            kinds,
            colours,
        ),
        dim=1,
    ).tolist()
    found: list[list[Seen]] = [[] for _ in range(len(heat))]
    for image, k, c, (x, y, size, confidence, kind_p, colour_p) in zip(
        which.tolist(), kind.tolist(), colour.tolist(), numbers, strict=True
    ):
        found[image].append(
            Seen(
                kind=OBJECTS[k],
                colour=COLOURS[c],
                x=x,
                y=y,
                size=size,
                confidence=confidence,
                kind_probability=kind_p,
                colour_probability=colour_p,
            )
        )
    settings, setting = maps.setting.softmax(1).max(1)
    names = tuple(SETTINGS)
    return [
        Reading(
            items=_distinct(items),
            setting=names[s],
            setting_probability=probability,
            readable_probability=readable,
            unsure=readable < 0.5,
        )
        for items, s, probability, readable in zip(
            found,
            setting.tolist(),
            settings.tolist(),
            maps.readable.sigmoid().tolist(),
            strict=True,
        )
    ]


def _distinct(items: list[Seen]) -> tuple[Seen, ...]:
    kept: list[Seen] = []
    for item in sorted(items, key=lambda item: -item.confidence):
        near = (
            abs(item.x - other.x) + abs(item.y - other.y) < 0.3 * min(item.size, other.size)
            for other in kept
        )
        if not any(near):
            kept.append(item)
    return tuple(kept)


def _check(images: Tensor) -> None:
    low, high = (float(x) for x in images.aminmax()) if images.numel() else (0.0, 1.0)
    # A NaN fails every comparison.
    if not (low >= -0.01 and high <= 1.01):
        raise InputError(
            f"verifier: expected pixels in [0, 1], got {low:.3g} to {high:.3g}; "
            "scale the images, or find out where they break"
        )


def verified(prompt: str, reading: Reading) -> bool:
    """Whether the image shows exactly what the prompt asks for.

    Kinds, colours, count, relation and setting are right, nothing else is in the image, and it is
    readable. InputError for a prompt outside the grammar.
    """
    return faithfulness(prompt, reading) == 1.0


def faithfulness(prompt: str, reading: Reading) -> float:
    """How well the image follows the prompt, in [0, 1]; 1 exactly when verified, 0 if unsure.

    The share of points earned (an object of the right kind, its colour, the relation, the setting)
    times EXTRA_FACTOR per object too many, and times FLAWED unless everything is right.
    """
    spec = _parsed(prompt)
    if reading.unsure:
        return 0.0
    earned, possible, num_asked = _object_points(spec, reading.items)
    if spec.setting is not None:
        possible += SETTING_POINTS
        earned += SETTING_POINTS * (reading.setting == spec.setting)
    extra = max(0, len(reading.items) - num_asked)
    if earned == possible and extra == 0:
        return 1.0
    return FLAWED * earned / possible * EXTRA_FACTOR**extra


@cache
def _parsed(prompt: str) -> SceneSpec:
    try:
        return parse_prompt(prompt)
    except ValueError as error:
        raise InputError(f"verifier: {prompt!r} is not a storybook prompt: {error}") from error


def _object_points(spec: SceneSpec, seen: Sequence[Seen]) -> tuple[int, int, int]:
    """Points of the objects and their relation, points possible, number of objects asked for."""
    if spec.relation is None or spec.second is None:
        points = sorted((_points(spec.first, item) for item in seen), reverse=True)
        return sum(points[: spec.count]), spec.count * _most(spec.first), spec.count
    first = [_points(spec.first, item) for item in seen]
    second = [_points(spec.second, item) for item in seen]
    best = max([*first, *second], default=0)
    for i, a in enumerate(seen):
        for j, b in enumerate(seen):
            if i == j:
                continue
            # A relation between other things than the ones asked for is worth nothing.
            both = first[i] >= KIND_POINTS and second[j] >= KIND_POINTS
            related = both and holds_nearly(spec.relation, a.placed, b.placed)
            best = max(best, first[i] + second[j] + RELATION_POINTS * related)
    return best, _most(spec.first) + _most(spec.second) + RELATION_POINTS, 2


def _most(asked: Item) -> int:
    return KIND_POINTS + (0 if asked.colour is None else COLOUR_POINTS)


def _points(asked: Item, seen: Seen) -> int:
    # A colour on the wrong kind of object earns nothing.
    if seen.kind != asked.kind or seen.kind_probability < CLEAR:
        return 0
    if asked.colour is None:
        return KIND_POINTS
    right = seen.colour == asked.colour and seen.colour_probability >= CLEAR
    return KIND_POINTS + COLOUR_POINTS * right


def holds_nearly(relation: str, a: Placed, b: Placed, *, tolerance: float = TOLERANCE) -> bool:
    """Whether `a` is, or is `tolerance` along each axis from being, in `relation` to `b`."""
    steps = (0.0, -tolerance, tolerance)
    return any(
        holds(relation, replace(a, x=a.x + dx, y=a.y + dy), b) for dx in steps for dy in steps
    )
