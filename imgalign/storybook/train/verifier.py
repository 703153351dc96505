"""Train the storybook's verifier on clean, augmented and corrupted images.

Besides the training images it sees free scenes (any objects anywhere, so that it does not rely on
regularities of the prompts such as equal objects in rows) and empty landscapes. Left out:
augmentation and corruption (corruption.py), the network and how its output becomes a reading
(imgalign.storybook.verifier).
"""

import math
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields, replace
from itertools import combinations, repeat
from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor, rand
from torch.nn.functional import binary_cross_entropy_with_logits as bce
from torch.nn.functional import cross_entropy, logsigmoid

from imgalign.runs.world import Alone, World, in_turn
from imgalign.storybook.layout import sample_scene
from imgalign.storybook.scenes import (
    COLOURS,
    OBJECTS,
    RELATIONS,
    SETTINGS,
    WIDTHS,
    Item,
    Placed,
    Scene,
    SceneSpec,
    holds,
    is_held_out,
)
from imgalign.storybook.train.corruption import CORRUPTIONS, HARD_CORRUPTIONS, augment
from imgalign.storybook.train.data import CHUNK, TrainingImages, load_images, scene_arrays
from imgalign.storybook.train.loop import Indices, Schedule, native_precision, part_of, train
from imgalign.storybook.train.shared import gathered, share_batch_norm
from imgalign.storybook.verifier import GRID, WEIGHTS, Maps, Verifier, VerifierNetwork

EMPTY_SHARE = 0.12
BATCH = 64
CORRUPTED_SHARE = 0.19
NUM_FREE = 16_000
RECONSTRUCTED = 0.3


def free_scene(rng: Generator) -> Scene:
    """A scene of up to four independent objects, or none.

    No relation that holds, and no count of equal objects, is a held-out combination.
    """
    while True:
        items = () if rng.random() < EMPTY_SHARE else _free_items(int(rng.integers(1, 5)), rng)
        if not any(is_held_out(spec) for spec in _said_by(items)):
            break
    # Only its light, outlines and backdrop are used.
    canvas = sample_scene(SceneSpec(first=Item(kind="star", colour="red")), rng)
    return replace(canvas, setting=_any(tuple(SETTINGS), rng), items=items)


def draw_free_scenes(
    folder: Path, *, num_images: int, seed: int, workers: int | None = None
) -> None:
    """Write free scenes as a data folder (imgalign.storybook.train.data), with empty captions."""
    folder.mkdir(parents=True, exist_ok=True)
    starts = range(0, num_images, CHUNK)
    ends = [min(start + CHUNK, num_images) for start in starts]
    with ProcessPoolExecutor(workers or os.cpu_count()) as pool:
        chunks = list(pool.map(_draw_chunk, starts, ends, repeat(seed)))
    images, items, settings = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
    np.save(folder / "images.npy", images)
    np.save(folder / "items.npy", items)
    np.save(folder / "settings.npy", settings)
    (folder / "captions.txt").write_text("\n" * num_images, encoding="utf-8")


def _any(choices: tuple[str, ...], rng: Generator) -> str:
    return choices[int(rng.integers(len(choices)))]


def _free_items(count: int, rng: Generator) -> tuple[Placed, ...]:
    items: list[Placed] = []
    largest = 0.62 if count == 1 else 0.46
    kind, colour = _any(OBJECTS, rng), _any(COLOURS, rng)
    for _ in range(40 * count):
        if rng.random() < 0.7:
            kind = _any(OBJECTS, rng)
        if rng.random() < 0.7:
            colour = _any(COLOURS, rng)
        size = float(rng.uniform(0.24, largest))
        size = min(size, 0.94 / WIDTHS[kind])
        half_width = size * WIDTHS[kind] / 2
        x = float(rng.uniform(half_width + 0.02, 0.98 - half_width))
        y = float(rng.uniform(size / 2 + 0.02, 0.98 - size / 2))
        item = Placed(kind=kind, colour=colour, x=x, y=y, size=size, flip=bool(rng.random() < 0.5))
        if all(_overlap(item, other) < 0.12 for other in items):
            items.append(item)
        if len(items) == count:
            break
    return tuple(items)


def _overlap(a: Placed, b: Placed) -> float:
    """Shared area of two boxes, as a part of the smaller one."""
    across = min(a.x + a.width / 2, b.x + b.width / 2) - max(a.x - a.width / 2, b.x - b.width / 2)
    down = min(a.bottom, b.bottom) - max(a.top, b.top)
    smaller = min(a.size * a.width, b.size * b.width)
    return max(0.0, across) * max(0.0, down) / smaller


def _said_by(items: tuple[Placed, ...]) -> list[SceneSpec]:
    """Every prompt without a setting that is true of some of these objects."""
    coloured = [Item(kind=item.kind, colour=item.colour) for item in items]
    specs = [SceneSpec(first=item, count=coloured.count(item)) for item in set(coloured)]
    for i, j in combinations(range(len(items)), 2):
        for a, b in ((i, j), (j, i)):
            specs += [
                SceneSpec(first=coloured[a], relation=relation, second=coloured[b])
                for relation in RELATIONS
                if holds(relation, items[a], items[b])
            ]
    return specs


def _draw_chunk(
    start: int, end: int, seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8]]:
    rngs = (np.random.default_rng((seed, index)) for index in range(start, end))
    return scene_arrays([free_scene(rng) for rng in rngs])


# Targets.


def targets(items: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """For items [b 4 6]: heat [b 16 16], then kind, colour [b 16 16], where [b 3 16 16] and weight.

    A cell belongs to the object whose centre is nearest. Neighbours of the cell that holds the
    centre count too, so that a peak one cell off still reads right.
    """
    present = items[:, :, 0] >= 0
    x, y, size, width = (items[:, :, field] for field in (2, 3, 4, 5))
    middles = (torch.arange(GRID) + 0.5) / GRID
    dx = (x[:, :, None, None] - middles) * GRID
    dy = (y[:, :, None, None] - middles[:, None]) * GRID
    sigma = (0.12 * GRID * torch.minimum(size, width)).clamp(0.5, 1.2)[:, :, None, None]
    # The cell that holds the centre is the peak, wherever in the cell it is.
    cells_apart = dx.round().square() + dy.round().square()
    cells_apart = cells_apart.masked_fill(~present[:, :, None, None], math.inf)
    heat = torch.exp(-cells_apart / (2 * sigma.square())).amax(dim=1)
    distance = (dx.square() + dy.square()).masked_fill(~present[:, :, None, None], math.inf)
    owner = distance.argmin(dim=1)
    weight = torch.exp(-cells_apart.amin(dim=1) / (2 * 0.8**2))

    def owned(values: Tensor) -> Tensor:
        return values.expand(-1, -1, GRID, GRID).gather(1, owner[:, None])[:, 0]

    kind = owned(items[:, :, 0, None, None]).long().clamp_min(0)
    colour = owned(items[:, :, 1, None, None]).long().clamp_min(0)
    height = torch.log(size.clamp_min(0.05) / 0.4)[:, :, None, None]
    where = torch.stack((owned(dx), owned(dy), owned(height)), dim=1)
    return heat, kind, colour, where, weight * (weight > 0.2)


def detection_loss(
    maps: Maps, items: Tensor, settings: Tensor, readable: Tensor, coloured: Tensor
) -> tuple[Tensor, dict[str, float]]:
    """Sum of all heads' losses; unreadable images count for `readable` only.

    Where `coloured` is 0 the colours of an image are unreliable and do not count.
    """
    num = readable.sum().clamp_min(1)
    heat, kind, colour, where, weight = targets(items)
    weight = weight * readable[:, None, None]
    scale = weight.sum().clamp_min(1)
    painted = weight * coloured[:, None, None]
    # Penalty-reduced focal loss of CenterNet, alpha = 2, beta = 4.
    peak = (heat > 0.999).float()
    hit = maps.heat.sigmoid()
    found = peak * (1 - hit).square() * -logsigmoid(maps.heat)
    quiet = (1 - peak) * (1 - heat).pow(4) * hit.square() * -logsigmoid(-maps.heat)
    losses = {
        "heat": ((found + quiet).sum((1, 2)) * readable).sum() / num,
        "kind": (cross_entropy(maps.kind, kind, reduction="none") * weight).sum() / scale,
        "colour": (cross_entropy(maps.colour, colour, reduction="none") * painted).sum() / scale,
        "where": ((maps.where - where).abs().sum(1) * weight).sum() / scale,
        "setting": (cross_entropy(maps.setting, settings, reduction="none") * readable).sum() / num,
        "readable": bce(maps.readable, readable),
    }
    right = ((maps.kind.argmax(1) == kind).float() * weight).sum() / scale
    total = torch.stack(list(losses.values())).sum()
    return total, {name: float(value.detach()) for name, value in losses.items()} | {
        "kind_right": float(right)
    }


# Training.


def train_verifier(
    data: Path,
    out: Path,
    *,
    num_samples: int,
    learning_rate: float,
    reconstructions: Path | None = None,
    refused: Path | None = None,
    batch: int = BATCH,
    world: World | None = None,
) -> None:
    """Train on the images in `data` and on free scenes, drawn into `out/free` if missing.

    Resumes if `out` has state; without state, starts from the weights in `out` if it has any.
    Writes what `Verifier.load(out)` reads. `reconstructions` is an array like `images.npy` of the
    first images in `data` after SDEdit or an autoencoder; a share RECONSTRUCTED of each batch comes
    from there. `refused` is another such array, of unreadable images such as early samples of an
    image model; half of all unreadable images come from there.
    """
    world = world or Alone()
    torch.manual_seed(0)
    # All that is given first: free scenes take minutes to draw.
    given = load_images(data)
    rebuilt = None if reconstructions is None else np.load(reconstructions, mmap_mode="r")
    refused_images = None if refused is None else np.load(refused, mmap_mode="r")
    in_turn(world, lambda: draw_missing_scenes(out / "free"))
    dataset = _Mixed([given, load_images(out / "free")], rebuilt)
    network = VerifierNetwork()
    if (out / WEIGHTS).is_file():
        network = Verifier.load(out).network
    share_batch_norm(network, world)
    network.requires_grad_(True).train().to(memory_format=torch.channels_last)
    corruptions = list(CORRUPTIONS.values())
    shares = torch.tensor([2.0 if corrupt in HARD_CORRUPTIONS else 1.0 for corrupt in corruptions])

    def loss(indices: Indices) -> tuple[Tensor, dict[str, float]]:
        images, items, settings, coloured = dataset.batch(indices)
        num = len(images)
        readable = torch.ones(num)
        for first in range(num - round(CORRUPTED_SHARE * num), num, 4):
            corrupt = corruptions[int(torch.multinomial(shares, 1))]
            unreadable = corrupt(images[first : first + 4])
            if refused_images is not None:
                chosen = torch.randint(0, len(refused_images), (2,)).tolist()
                unreadable[:2] = as_images(refused_images[chosen])
            images[first : first + 4] = unreadable
            readable[first : first + 4] = 0
        own, share = part_of(world, num)
        images = augment(images)[own].contiguous(memory_format=torch.channels_last)
        with native_precision():
            maps = of_all(network(images), world)
        value, terms = detection_loss(maps, items, settings, readable, coloured)
        return value, {name: share * term for name, term in terms.items()}

    def save(step: int) -> None:
        Verifier(network).save(out)
        network.requires_grad_(True).train()

    train(
        out,
        network,
        loss,
        num_images=len(dataset),
        schedule=Schedule(
            num_steps=num_samples // batch, learning_rate=learning_rate, warmup=100, fall=0.4
        ),
        batch=batch,
        weight_decay=0.02,
        decay=0.998,
        on_save=save,
        world=world,
    )


def of_all(maps: Maps, world: World) -> Maps:
    """The maps of all processes' images, in their order."""
    return Maps(*(gathered(world, getattr(maps, each.name)) for each in fields(Maps)))


def draw_missing_scenes(folder: Path) -> None:
    """Draw the free scenes, unless they are there."""
    if not (folder / "captions.txt").is_file():
        draw_free_scenes(folder, num_images=NUM_FREE, seed=77)


def as_images(pixels: NDArray[np.uint8]) -> Tensor:
    """Bytes [b h w 3] as images [b 3 h w] in [0, 1]."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


class _Mixed:
    """Several data folders as one dataset, some images of the first replaced by reconstructions."""

    def __init__(self, parts: Sequence[TrainingImages], rebuilt: NDArray[np.uint8] | None) -> None:
        self._parts = parts
        self._starts = np.cumsum([0, *(len(part) for part in parts)])
        self._items = torch.from_numpy(np.concatenate([part.items for part in parts]))
        settings = np.concatenate([part.settings for part in parts])
        self._settings = torch.from_numpy(settings).long()
        self._rebuilt = rebuilt

    def __len__(self) -> int:
        return int(self._starts[-1])

    def batch(self, indices: Indices) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Images [b 3 64 64], items [b 4 6], settings [b], `coloured` [b]; half are mirrored."""
        num_rebuilt = 0
        if self._rebuilt is not None:
            num_rebuilt = round(RECONSTRUCTED * len(indices))
            indices = indices.copy()
            indices[:num_rebuilt] %= len(self._rebuilt)
        rows = [self._row(int(index)) for index in indices]
        if self._rebuilt is not None:
            rows[:num_rebuilt] = [self._rebuilt[index] for index in indices[:num_rebuilt]]
        images = as_images(np.stack(rows))
        items = self._items[indices]
        mirrored = rand(len(images)) < 0.5
        images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        turned = mirrored[:, None] & (items[:, :, 0] >= 0)
        items[:, :, 2] = torch.where(turned, 1 - items[:, :, 2], items[:, :, 2])
        # An autoencoder may turn yellow into orange, so these colours are no labels.
        coloured = (torch.arange(len(images)) >= num_rebuilt).float()
        return images, items, self._settings[indices], coloured

    def _row(self, index: int) -> NDArray[np.uint8]:
        part = int(np.searchsorted(self._starts, index, side="right")) - 1
        row: NDArray[np.uint8] = self._parts[part].images[index - self._starts[part]]
        return row
