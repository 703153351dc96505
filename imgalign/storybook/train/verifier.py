"""Train the storybook's verifier on clean, damaged and meaningless pictures.

Besides the training pictures it sees free scenes (any objects anywhere, so that it learns no
habits of the prompts: equal objects, tidy rows) and empty landscapes. Damage it must read through:
noise, blur, a shift of light, what an autoencoder loses. What it must refuse: noise, scrambled
phases, cross-fades, mosaics, shuffled blocks, strong blur, strong warps. Left out: the network and
how its output becomes a reading (imgalign.storybook.verifier).
"""

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache
from itertools import combinations, repeat
from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, rand, randint, randn
from torch.nn.functional import (
    binary_cross_entropy_with_logits as bce,
)
from torch.nn.functional import (
    conv2d,
    cross_entropy,
    grid_sample,
    interpolate,
    logsigmoid,
    pad,
)

from imgalign.storybook.drawing import draw
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
    sample_scene,
)
from imgalign.storybook.train.data import CHUNK, SIDE, describe, load_pictures
from imgalign.storybook.train.loop import Indices, Schedule, train
from imgalign.storybook.verifier import GRID, WEIGHTS, Maps, VerifierNetwork

EMPTY_SHARE = 0.12
BATCH = 64
NUM_GARBAGE = 8
RECONSTRUCTED = 0.3


def free_scene(rng: Generator) -> Scene:
    """Up to four objects that have nothing to do with each other; some scenes are empty.

    Held-out combinations stay unseen here too: no relation that holds, and no count of equal
    objects, is one of them.
    """
    while True:
        items = () if rng.random() < EMPTY_SHARE else _free_items(int(rng.integers(1, 5)), rng)
        if not any(is_held_out(spec) for spec in _said_by(items)):
            break
    # Only its light, outlines and backdrop are used.
    canvas = sample_scene(SceneSpec(first=Item(kind="star", colour="red")), rng)
    return replace(canvas, setting=_any(tuple(SETTINGS), rng), items=items)


def draw_free_scenes(
    folder: Path, *, num_pictures: int, seed: int, workers: int | None = None
) -> None:
    """Write free scenes as a data folder (imgalign.storybook.train.data), with empty captions."""
    folder.mkdir(parents=True, exist_ok=True)
    starts = range(0, num_pictures, CHUNK)
    ends = [min(start + CHUNK, num_pictures) for start in starts]
    with ProcessPoolExecutor(workers or os.cpu_count()) as pool:
        chunks = list(pool.map(_draw_chunk, starts, ends, repeat(seed)))
    images, items, settings = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
    np.save(folder / "images.npy", images)
    np.save(folder / "items.npy", items)
    np.save(folder / "settings.npy", settings)
    (folder / "captions.txt").write_text("\n" * num_pictures, encoding="utf-8")


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
    """Every prompt without a setting that speaks of some of these objects and is true."""
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
    images, items, settings = [], [], []
    names = tuple(SETTINGS)
    for index in range(start, end):
        scene = free_scene(np.random.default_rng((seed, index)))
        images.append(np.asarray(draw(scene, size=SIDE)))
        items.append(describe(scene))
        settings.append(names.index(scene.setting))
    return np.stack(images), np.stack(items), np.array(settings, dtype=np.uint8)


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
    maps: Maps, items: Tensor, settings: Tensor, readable: Tensor
) -> tuple[Tensor, dict[str, float]]:
    """Sum of all heads' losses; unreadable pictures count for `readable` only."""
    num = readable.sum().clamp_min(1)
    heat, kind, colour, where, weight = targets(items)
    weight = weight * readable[:, None, None]
    scale = weight.sum().clamp_min(1)
    # Penalty-reduced focal loss of CenterNet, alpha = 2, beta = 4.
    peak = (heat > 0.999).float()
    hit = maps.heat.sigmoid()
    found = peak * (1 - hit).square() * -logsigmoid(maps.heat)
    quiet = (1 - peak) * (1 - heat).pow(4) * hit.square() * -logsigmoid(-maps.heat)
    losses = {
        "heat": ((found + quiet).sum((1, 2)) * readable).sum() / num,
        "kind": (cross_entropy(maps.kind, kind, reduction="none") * weight).sum() / scale,
        "colour": (cross_entropy(maps.colour, colour, reduction="none") * weight).sum() / scale,
        "where": ((maps.where - where).abs().sum(1) * weight).sum() / scale,
        "setting": (cross_entropy(maps.setting, settings, reduction="none") * readable).sum() / num,
        "readable": bce(maps.readable, readable),
    }
    right = ((maps.kind.argmax(1) == kind).float() * weight).sum() / scale
    total = torch.stack(list(losses.values())).sum()
    return total, {name: float(value.detach()) for name, value in losses.items()} | {
        "kind_right": float(right)
    }


# Pictures to read through: noise, blur, a shift of light, what an autoencoder loses.


def damage(images: Tensor) -> Tensor:
    """Pictures as they may come back from an autoencoder or a diffusion model; still readable."""
    b = len(images)
    gain = 1 + 0.08 * randn(b, 1, 1, 1).clamp(-2, 2) + 0.02 * randn(b, 3, 1, 1).clamp(-2, 2)
    images = (images - 0.5) * gain + 0.5 + 0.03 * randn(b, 1, 1, 1).clamp(-2, 2)
    images = _some(images, 0.25, lambda part: lose_detail(part))
    images = _some(images, 0.2, lambda part: blur(part, float(0.4 + 0.6 * rand(()))))
    images = _some(images, 0.15, lambda part: sharpen(part, float(1.5 * rand(()))))
    images = _some(images, 0.15, lambda part: warp(part, float(0.3 + 0.9 * rand(()))))
    images = images + 0.04 * rand(b, 1, 1, 1).square() * randn(images.shape)
    return images.clamp(0, 1)


def lose_detail(images: Tensor) -> Tensor:
    """Keep few coefficients of each 8x8 block's cosine transform, and disturb them."""
    b = len(images)
    basis = _cosines()
    blocks = images.unfold(2, 8, 8).unfold(3, 8, 8)
    coefficients = torch.einsum("bchwij,ui,vj->bchwuv", blocks, basis, basis)
    frequency = torch.arange(8)[:, None] + torch.arange(8)
    kept = torch.sigmoid((3.5 + 5 * rand(b, 1, 1) - frequency) * 1.5)[:, None, None, None]
    disturbed = 1 + 0.08 * randn(coefficients.shape)
    disturbed[..., 0, 0] = 1  # a tile of another shade would be too easy a sign
    coefficients = coefficients * kept * disturbed
    blocks = torch.einsum("bchwuv,ui,vj->bchwij", coefficients, basis, basis)
    return blocks.permute(0, 1, 2, 4, 3, 5).reshape(images.shape)


def blur(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur, `sigma` in pixels."""
    reach = math.ceil(2.5 * sigma)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma).square())
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    padded = pad(images, (reach,) * 4, mode="replicate")
    return conv2d(conv2d(padded, kernel, groups=3), kernel.transpose(2, 3), groups=3)


def sharpen(images: Tensor, amount: float) -> Tensor:
    """Unsharp mask after a slight blur: soft edges with halos."""
    soft = blur(images, 0.6)
    return soft + amount * (soft - blur(soft, 1.0))


def warp(images: Tensor, strength: float, *, knots: int = 6) -> Tensor:
    """Smooth random displacement of `strength` pixels standard deviation."""
    b = len(images)
    shift = interpolate(
        randn(b, 2, knots, knots), size=(SIDE, SIDE), mode="bicubic", align_corners=True
    )
    steps = torch.linspace(-1, 1, SIDE)
    here = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1)
    there = here + shift.permute(0, 2, 3, 1) * (strength * 2 / SIDE)
    return grid_sample(images, there, padding_mode="border", align_corners=True)


# Pictures to refuse.


def noise(images: Tensor) -> Tensor:
    """Uniform or Gaussian, white or with some smoothness, of any contrast."""
    white = rand(images.shape) if rand(()) < 0.5 else 0.5 + 0.25 * randn(images.shape)
    coarse = int(2 ** randint(0, 5, ()))
    white = interpolate(white[:, :, : SIDE // coarse, : SIDE // coarse], size=SIDE, mode="bicubic")
    mean = images.mean((2, 3), keepdim=True) if rand(()) < 0.5 else rand(len(images), 3, 1, 1)
    return (mean + (white - 0.5) * (0.2 + 1.3 * rand(len(images), 1, 1, 1))).clamp(0, 1)


def scrambled_phases(images: Tensor) -> Tensor:
    """The spectrum of the picture with the phases of noise."""
    phases = torch.fft.rfft2(rand(images.shape[0], 1, SIDE, SIDE)).angle()
    spectrum = torch.fft.rfft2(images)
    mixed = torch.polar(spectrum.abs(), spectrum.angle() + phases * (0.8 + 0.2 * rand(())))
    mixed[:, :, 0, 0] = spectrum[:, :, 0, 0]
    scrambled: Tensor = torch.fft.irfft2(mixed, s=(SIDE, SIDE))
    return scrambled.clamp(0, 1)


def cross_fades(images: Tensor) -> Tensor:
    """Two pictures on top of each other."""
    share = 0.35 + 0.3 * rand(len(images), 1, 1, 1)
    return images * share + images.roll(1, 0) * (1 - share)


def strong_blurs(images: Tensor) -> Tensor:
    """Blurred beyond recognition."""
    return blur(images, float(5.0 + 5 * rand(())))


def shuffled_blocks(images: Tensor) -> Tensor:
    """The picture's own blocks in a random order, some of them turned."""
    block = (4, 8, 16)[int(randint(0, 3, ()))]
    n = SIDE // block
    blocks = (
        images.unfold(2, block, block).unfold(3, block, block).reshape(-1, 3, n * n, block, block)
    )
    blocks = blocks[:, :, torch.randperm(n * n)]
    if rand(()) < 0.5:
        blocks = blocks.flip(-1).transpose(-1, -2)
    blocks = blocks.reshape(-1, 3, n, n, block, block)
    return blocks.permute(0, 1, 2, 4, 3, 5).reshape(images.shape)


def mosaics(images: Tensor) -> Tensor:
    """Blocks cut from several pictures and pasted together."""
    block = (4, 8, 16)[int(randint(0, 3, ()))]
    n = SIDE // block
    source = randint(0, min(4, len(images)), (len(images), 1, n, n)).float()
    source = interpolate(source, scale_factor=block, mode="nearest").long()
    stack = torch.stack([images.roll((i, i * 16), (0, 3)) for i in range(min(4, len(images)))])
    return stack.gather(0, source[None].expand(1, -1, 3, -1, -1))[0]


def strong_warps(images: Tensor) -> Tensor:
    """Bent until nothing keeps its shape."""
    return warp(images, float(6 + 4 * rand(())), knots=int(randint(8, 13, ())))


GARBAGE: dict[str, Callable[[Tensor], Tensor]] = {
    "noise": noise,
    "scrambled phases": scrambled_phases,
    "cross-fades": cross_fades,
    "strong blur": strong_blurs,
    "shuffled blocks": shuffled_blocks,
    "mosaics": mosaics,
    "strong warps": strong_warps,
}


def _some(images: Tensor, share: float, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply `change` to about `share` of the batch; always to the same number of pictures."""
    chosen = torch.randperm(len(images))[: round(share * len(images))]
    changed = images.clone()
    changed[chosen] = change(images[chosen])
    return changed


@cache
def _cosines() -> Tensor:
    """Orthonormal DCT-II of length 8, [frequency position]."""
    basis = torch.cos(math.pi * (torch.arange(8) + 0.5) * torch.arange(8)[:, None] / 8) / 2
    basis[0] /= math.sqrt(2)
    return basis


# Training.


def train_verifier(
    folders: Sequence[Path],
    out: Path,
    *,
    num_samples: int,
    learning_rate: float,
    reconstructions: Path | None = None,
) -> VerifierNetwork:
    """Train on all pictures in `folders`; resume if `out` has state; weights go to `out`.

    `reconstructions` is an array like `images.npy` of the first pictures of the first folder as an
    autoencoder gives them back; RECONSTRUCTED of each batch is taken from there. A training that
    starts with weights in `out` but without state goes on from these weights.
    """
    torch.manual_seed(0)
    pictures = [load_pictures(folder) for folder in folders]
    bounds = np.cumsum([len(part) for part in pictures])
    items = torch.from_numpy(np.concatenate([part.items for part in pictures]))
    settings = torch.from_numpy(np.concatenate([part.settings for part in pictures])).long()
    rebuilt = None if reconstructions is None else np.load(reconstructions, mmap_mode="r")
    network = VerifierNetwork()
    if (out / WEIGHTS).is_file():
        network.load_state_dict(load_file(out / WEIGHTS))
    network.train().to(memory_format=torch.channels_last)
    readable = torch.ones(BATCH)
    readable[-NUM_GARBAGE:] = 0

    def loss(indices: Indices) -> tuple[Tensor, dict[str, float]]:
        if rebuilt is not None:
            num = round(RECONSTRUCTED * BATCH)
            indices[:num] %= len(rebuilt)
        which = np.searchsorted(bounds, indices, side="right")
        rows = [
            pictures[k].images[i - (bounds[k - 1] if k else 0)]
            for k, i in zip(which, indices, strict=True)
        ]
        if rebuilt is not None:
            rows[:num] = [rebuilt[i] for i in indices[:num]]
        images = torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2).float() / 255
        there, setting = items[indices].clone(), settings[indices]
        mirrored = rand(BATCH) < 0.5
        images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        there[:, :, 2] = torch.where(
            mirrored[:, None] & (there[:, :, 0] >= 0), 1 - there[:, :, 2], there[:, :, 2]
        )
        kinds = list(GARBAGE.values())
        for first in range(BATCH - NUM_GARBAGE, BATCH, 4):
            images[first : first + 4] = kinds[int(randint(0, len(kinds), ()))](
                images[first : first + 4]
            )
        images = damage(images).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            maps = network(images)
        return detection_loss(maps, there, setting, readable)

    def save(step: int) -> None:
        weights = {name: value.contiguous() for name, value in network.state_dict().items()}
        save_file(weights, out / WEIGHTS)

    train(
        out,
        network,
        loss,
        num_pictures=int(bounds[-1]),
        schedule=Schedule(
            num_steps=num_samples // BATCH, learning_rate=learning_rate, warmup=100, fall=0.4
        ),
        batch=BATCH,
        weight_decay=0.02,
        decay=0.998,
        on_save=save,
    )
    return network
