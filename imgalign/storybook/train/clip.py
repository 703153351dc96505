"""Train the storybook's CLIP (arXiv:2103.00020), which the reward model starts from.

A small `open_clip.CLIP`. Images are renders and, where a file of them is given, SDEdit versions
(sdedit.py), which resemble the images to be judged; half are augmented. Captions of a batch are
distinct, because equal captions would be false negatives. Hard negatives (arXiv:2210.01936): each
image is contrasted with captions that are false in a single detail, and each caption with a
counterpart, the render of such a false caption, because candidates of one prompt differ by no more.
An auxiliary loss keeps light and texture readable from the image features, which captions do not
mention and annotators' tastes depend on. Left out: mirrored images, because left and right are part
of the captions. Reasons: docs/adr/0005.

Shapes: b = images, half of them counterparts; t = captions, the first b of them the images' own.
"""

import json
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import torch
from numpy.random import Generator, default_rng
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy, mse_loss, softplus

from imgalign.runs.world import Alone, World, in_turn
from imgalign.storybook.drawing import draw
from imgalign.storybook.layout import sample_scene
from imgalign.storybook.scenes import (
    COLOURS,
    COUNTS,
    OBJECTS,
    SETTINGS,
    Item,
    SceneSpec,
    is_held_out,
    parse_prompt,
    prompt_of,
    vocabulary,
)
from imgalign.storybook.tokenizer import build_tokenizer
from imgalign.storybook.train.corruption import HARD_CORRUPTIONS, augment
from imgalign.storybook.train.data import TrainingImages, load_images
from imgalign.storybook.train.loop import Indices, Schedule, native_precision, part_of, say, train
from imgalign.storybook.train.pipeline import CONTEXT
from imgalign.storybook.train.shared import counted_once, gathered, share_batch_norm

BATCH = 128
EMBED_DIM = 128
MAX_LOGIT_SCALE = float(np.log(100))
EDITED = 0.5
"""Share of SDEdit versions among the images that have one."""
AUGMENTED = 0.5
FALSE_CAPTIONS = 3
"""Per image; the first of them is also rendered, as the counterpart."""
CORRUPTED = 4
"""One of so many images is added in a corrupted version."""
APPEARANCE_WEIGHT = 1.0
THUMBNAIL = 8
TEXTURE = 4
"""Cells to a side of the grids of light and of texture that the auxiliary loss predicts."""
APPEARANCE = 3 * (THUMBNAIL**2 + TEXTURE**2)

VISION = {"image_size": 64, "layers": [2, 2, 2, 2], "width": 24, "head_width": 32}
TEXT = {"width": 128, "heads": 4, "layers": 3, "hf_tokenizer_name": "."}
PREPROCESS = {
    "size": 64,
    "mean": [0.5] * 3,
    "std": [0.5] * 3,
    "interpolation": "bicubic",
    "resize_mode": "squash",
}


def train_clip(
    data: Path,
    out: Path,
    *,
    num_samples: int,
    learning_rate: float,
    reconstructions: Path | None = None,
    batch: int = BATCH,
    world: World | None = None,
) -> None:
    """Train on `data`, resume if `out` has state, write `out/clip` as open_clip's `local-dir:`."""
    world = world or Alone()
    torch.manual_seed(0)
    dataset = load_images(data)
    alternative = None if reconstructions is None else np.load(reconstructions, mmap_mode="r")
    folder = out / "clip"
    config = in_turn(world, lambda: prepared(folder))
    model = open_clip.CLIP(**deepcopy(config)).train()
    share_batch_norm(model, world)
    model.visual.to(memory_format=torch.channels_last)
    appearance = nn.Linear(EMBED_DIM, APPEARANCE)
    tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")

    def loss(indices: Indices) -> tuple[Tensor, dict[str, float]]:
        chosen = distinct(indices, dataset.captions)
        # Drawn from torch's generator, which the loop seeds with the step.
        rng = default_rng(int(torch.randint(2**62, ())))
        captions = [dataset.captions[i] for i in chosen]
        false = [falsified(caption, rng, num=FALSE_CAPTIONS) for caption in captions]
        counterparts = [own[0] for own in false]
        first = given(dataset, alternative, chosen)
        whole = shown(first, drawn(counterparts, rng))
        images = torch.cat([whole, corrupted(shown(first[: len(chosen) // CORRUPTED]))])
        tokens = tokenize([*captions, *counterparts, *(c for own in false for c in own[1:])])
        (own, share), (own_tokens, _) = (part_of(world, len(each)) for each in (images, tokens))
        with native_precision():
            image, text, scale = model(images[own], tokens[own_tokens])
        image, text = image.float(), text.float()
        lost = mse_loss(appearance(image * EMBED_DIM**0.5), appearance_targets(images)[own])
        image, text = gathered(world, image), gathered(world, text)
        scale = counted_once(world, scale)
        contrastive, logits = contrast(image[: len(whole)], text, scale.float())
        right = logits.diagonal()
        misread = near_misses(logits, FALSE_CAPTIONS)
        unreadable = (scale * image[len(whole) :] @ text.T).diagonal()
        ordered = above(right, torch.cat([*misread, unreadable.float()]))
        # Clamped before use rather than after the update: a saved model is always within bounds.
        with torch.no_grad():
            model.logit_scale.clamp_(0, MAX_LOGIT_SCALE)
            nearest = logits[:, : len(whole)].amax(1)
        terms = {
            "loss": contrastive.item(),
            "order": ordered.item(),
            "appearance_lost": lost.item(),
            "retrieved": (right >= nearest).float().mean().item(),
            "told_from_false_caption": (right[: len(chosen)] > misread[0]).float().mean().item(),
            "told_from_counterpart": (right[: len(chosen)] > misread[1]).float().mean().item(),
            "told_from_corrupted": (right[: len(unreadable)] > unreadable).float().mean().item(),
        }
        value = contrastive + ordered + APPEARANCE_WEIGHT * share * lost
        return value, {name: share * term for name, term in terms.items()}

    def save(step: int) -> None:
        write_weights(model, folder)
        say(f"{folder}: written at step {step}")

    train(
        out,
        nn.ModuleDict({"clip": model, "appearance": appearance}),
        loss,
        num_images=len(dataset),
        schedule=Schedule(num_steps=num_samples // batch, learning_rate=learning_rate),
        batch=batch,
        weight_decay=0.1,
        decay=0.999,
        betas=(0.9, 0.98),
        on_save=save,
        world=world,
    )


def write_weights(model: nn.Module, folder: Path) -> None:
    """Write them in half precision where open_clip looks for them."""
    state = {key: value.detach().contiguous() for key, value in model.state_dict().items()}
    half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    save_file(half, folder / "open_clip_model.safetensors")


def prepared(folder: Path) -> dict[str, object]:
    """The architecture, written to a new folder of a CLIP together with its tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    config = model_config(
        vocabulary_size=len(build_tokenizer(vocabulary(), folder, max_length=CONTEXT))
    )
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": PREPROCESS}, indent=2) + "\n"
    )
    return config


def model_config(*, vocabulary_size: int) -> dict[str, object]:
    """The architecture as open_clip's model configuration."""
    return {
        "embed_dim": EMBED_DIM,
        "vision_cfg": dict(VISION),
        "text_cfg": {**TEXT, "context_length": CONTEXT, "vocab_size": vocabulary_size},
        "quick_gelu": False,
    }


def contrast(image: Tensor, text: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """CLIP's symmetric loss, and the logits [b t] of images against captions.

    `text` [t d] holds the b captions, then false captions without an image.
    """
    own = torch.arange(len(image))
    logits = scale * image @ text.T
    loss = cross_entropy(logits, own) + cross_entropy(logits[:, : len(image)].T, own)
    return loss / 2, logits


def near_misses(logits: Tensor, num: int) -> tuple[Tensor, ...]:
    """Logits of the hard negatives, `b / 2` each.

    Images with the counterparts' captions, counterparts with the images' own, and images with each
    of their other false captions.

    `logits` [b t]: images, then counterparts; captions in the same order, then for each image
    its other `num` - 1 false ones.
    """
    half = len(logits) // 2
    row = torch.arange(half)
    others = [2 * half + row * (num - 1) + k for k in range(num - 1)]
    return (
        logits[row, row + half],
        logits[row + half, row],
        *(logits[row, column] for column in others),
    )


def above(right: Tensor, wrong: Tensor) -> Tensor:
    """Ranking loss between matching and false pairs across images (RankNet; Burges et al. 2005).

    The mean logistic loss of all differences. A softmax over captions leaves an offset per image
    undetermined, and a reward model compares images.
    """
    return softplus(wrong[None, :] - right[:, None]).mean()


def corrupted(images: Tensor) -> Tensor:
    """Images in [-1, 1] corrupted so much that they no longer match their captions."""
    corrupt = HARD_CORRUPTIONS[int(torch.randint(len(HARD_CORRUPTIONS), ()))]
    return corrupt(images / 2 + 0.5).clamp(0, 1) * 2 - 1


def falsified(caption: str, rng: Generator, *, num: int) -> list[str]:
    """`num` false captions, each with one detail of `caption` changed.

    Of different kinds as far as there are any; never a held-out combination.
    """
    allowed = [
        [spec for spec in kind if not is_held_out(spec)] for kind in changes(parse_prompt(caption))
    ]
    kinds = [kind for kind in allowed if kind]
    order = rng.permutation(len(kinds))
    chosen = (kinds[order[index % len(kinds)]] for index in range(num))
    return [prompt_of(kind[int(rng.integers(len(kind)))]) for kind in chosen]


def changes(spec: SceneSpec) -> list[list[SceneSpec]]:
    """All changes of one detail that contradict `spec`, in groups: object, colour, ..."""
    first, second = spec.first, spec.second
    found = [
        [replace(spec, first=item) for item in other_kinds(first, second)],
        [replace(spec, first=item) for item in other_colours(first)],
    ]
    if spec.setting is not None:
        found.append([replace(spec, setting=each) for each in SETTINGS if each != spec.setting])
    if spec.relation is None or second is None:
        found.append([replace(spec, count=each) for each in COUNTS if each != spec.count])
        return [kind for kind in found if kind]
    found += [
        [replace(spec, second=item) for item in other_kinds(second, first)],
        [replace(spec, second=item) for item in other_colours(second)],
        # "above" may be true of what is "on", "beside" of what is "left of"; not across the two.
        [replace(spec, relation=each) for each in OTHER_AXIS[spec.relation]],
    ]
    if spec.relation != "beside":
        found.append([replace(spec, first=second, second=first)])
    if first.colour and second.colour and first.colour != second.colour:
        traded = replace(first, colour=second.colour), replace(second, colour=first.colour)
        found.append([replace(spec, first=traded[0], second=traded[1])])
    return [kind for kind in found if kind]


OTHER_AXIS = {
    "left of": ("above", "on"),
    "beside": ("above", "on"),
    "above": ("left of", "beside"),
    "on": ("left of", "beside"),
}


def other_kinds(item: Item, company: Item | None) -> Sequence[Item]:
    """The item as every other kind of object but that of `company`."""
    taken = {item.kind, company.kind if company else item.kind}
    return [replace(item, kind=kind) for kind in OBJECTS if kind not in taken]


def other_colours(item: Item) -> Sequence[Item]:
    """The item in every other colour; none where the prompt names no colour."""
    if item.colour is None:
        return []
    return [replace(item, colour=colour) for colour in COLOURS if colour != item.colour]


def distinct(indices: Indices, captions: tuple[str, ...]) -> Indices:
    """One index for each different caption among `indices`, sorted."""
    return np.sort(np.array(list({captions[i]: i for i in indices}.values())))


def given(
    dataset: TrainingImages, alternative: NDArray[np.uint8] | None, chosen: Indices
) -> Tensor:
    """Images of the dataset as uint8 `b 3 h w`, some replaced by their SDEdit version."""
    images = np.array(dataset.images[chosen])
    if alternative is not None:
        swap = (torch.rand(len(chosen)) < EDITED).numpy() & (chosen < len(alternative))
        images[swap] = alternative[chosen[swap]]
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def drawn(captions: Sequence[str], rng: Generator) -> Tensor:
    """A new render of each caption, uint8 `b 3 h w`."""
    scenes = (sample_scene(parse_prompt(caption), rng) for caption in captions)
    return torch.from_numpy(np.stack([np.asarray(draw(scene)) for scene in scenes])).permute(
        0, 3, 1, 2
    )


def shown(*parts: Tensor) -> Tensor:
    """Images, uint8 `b 3 h w`, concatenated as float in [-1, 1]; half are augmented."""
    clean = torch.cat(parts).contiguous(memory_format=torch.channels_last).float() / 255
    chosen = torch.rand(len(clean), 1, 1, 1) < AUGMENTED
    return torch.where(chosen, augment(clean), clean) * 2 - 1


def appearance_targets(images: Tensor) -> Tensor:
    """Light and texture, `b APPEARANCE`: a thumbnail, and the local standard deviation.

    Each is standardised over the batch.
    """
    coarse = images.shape[-1] // TEXTURE
    mean, square = avg_pool2d(images, coarse), avg_pool2d(images.square(), coarse)
    texture = (square - mean.square()).clamp(min=0).sqrt()
    light = avg_pool2d(images, images.shape[-1] // THUMBNAIL)
    both = torch.cat([light.flatten(1), texture.flatten(1)], dim=1)
    return (both - both.mean(0)) / both.std(0).clamp(min=0.01)
