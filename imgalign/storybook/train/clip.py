"""Train the storybook's CLIP (arXiv:2103.00020): what the reward model starts from.

A small `open_clip.CLIP`: pictures and captions in one space. Pictures are drawn ones and, where a
file of them is given, redrawn ones, which is what it will be asked to judge; half are damaged.
Captions of a batch are distinct, for an equal pair of captions would be a wrong negative. Each
picture must tell its caption from others that are false in a single detail (hard negatives as in
arXiv:2210.01936), and each caption its picture from a counterpart, a drawing of such a false
caption: candidates of one prompt differ by no more. What captions leave open must stay readable
too, or nothing could be learned of tastes. Left out: mirrored pictures (left and right mean
something here). Why all this: docs/adr/0005.

Shapes: b = pictures, half of them counterparts; t = captions, first the b of the pictures.
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
from imgalign.storybook.train.damage import HARD_GARBAGE, damage
from imgalign.storybook.train.data import Pictures, load_pictures
from imgalign.storybook.train.loop import Indices, Schedule, native_precision, say, train
from imgalign.storybook.train.pipeline import CONTEXT

BATCH = 128
EMBED_DIM = 128
MAX_LOGIT_SCALE = float(np.log(100))
REDRAWN = 0.5
"""Share of pictures shown redrawn, among those that are."""
DAMAGED = 0.5
FALSE_CAPTIONS = 3
"""Of each picture; the first of them gets a picture of its own, the counterpart."""
SPOILT = 4
"""Of so many pictures one is shown spoilt as well."""
APPEARANCE_WEIGHT = 1.0
THUMBNAIL = 8
TEXTURE = 4
"""Fields to a side of what the image features must still show of light and of texture."""
LOOK = 3 * (THUMBNAIL**2 + TEXTURE**2)

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
) -> None:
    """Train on `data`, resume if `out` has state, write `out/clip` as open_clip's `local-dir:`."""
    torch.manual_seed(0)
    pictures = load_pictures(data)
    alternative = None if reconstructions is None else np.load(reconstructions, mmap_mode="r")
    folder = out / "clip"
    folder.mkdir(parents=True, exist_ok=True)
    config = model_config(
        vocabulary_size=len(build_tokenizer(vocabulary(), folder, max_length=CONTEXT))
    )
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": PREPROCESS}, indent=2) + "\n"
    )
    model = open_clip.CLIP(**deepcopy(config)).train()
    model.visual.to(memory_format=torch.channels_last)
    appearance = nn.Linear(EMBED_DIM, LOOK)
    tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")

    def loss(indices: Indices) -> tuple[Tensor, dict[str, float]]:
        chosen = distinct(indices, pictures.captions)
        # Drawn from torch's generator, which the loop seeds with the step.
        rng = default_rng(int(torch.randint(2**62, ())))
        captions = [pictures.captions[i] for i in chosen]
        false = [falsified(caption, rng, num=FALSE_CAPTIONS) for caption in captions]
        counterparts = [own[0] for own in false]
        first = given(pictures, alternative, chosen)
        whole = shown(first, drawn(counterparts, rng))
        images = torch.cat([whole, spoilt(shown(first[: len(chosen) // SPOILT]))])
        tokens = tokenize([*captions, *counterparts, *(c for own in false for c in own[1:])])
        with native_precision():
            image, text, scale = model(images, tokens)
        image, text = image.float(), text.float()
        lost = mse_loss(appearance(image * EMBED_DIM**0.5), look(images))
        contrastive, logits = contrast(image[: len(whole)], text, scale.float())
        right = logits.diagonal()
        misread = near_misses(logits, FALSE_CAPTIONS)
        unreadable = (scale * image[len(whole) :] @ text.T).diagonal()
        ordered = above(right, torch.cat([*misread, unreadable.float()]))
        # Clamped before use rather than after the update: a saved model is always within bounds.
        with torch.no_grad():
            model.logit_scale.clamp_(0, MAX_LOGIT_SCALE)
            nearest = logits[:, : len(whole)].amax(1)
        return contrastive + ordered + APPEARANCE_WEIGHT * lost, {
            "loss": contrastive.item(),
            "order": ordered.item(),
            "appearance_lost": lost.item(),
            "retrieved": (right >= nearest).float().mean().item(),
            "told_from_false_caption": (right[: len(chosen)] > misread[0]).float().mean().item(),
            "told_from_counterpart": (right[: len(chosen)] > misread[1]).float().mean().item(),
            "told_from_spoilt": (right[: len(unreadable)] > unreadable).float().mean().item(),
        }

    def save(step: int) -> None:
        state = {key: value.detach().contiguous() for key, value in model.state_dict().items()}
        half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
        save_file(half, folder / "open_clip_model.safetensors")
        say(f"{folder}: written at step {step}")

    train(
        out,
        nn.ModuleDict({"clip": model, "appearance": appearance}),
        loss,
        num_pictures=len(pictures),
        schedule=Schedule(num_steps=num_samples // BATCH, learning_rate=learning_rate),
        batch=BATCH,
        weight_decay=0.1,
        decay=0.999,
        betas=(0.9, 0.98),
        on_save=save,
    )


def model_config(*, vocabulary_size: int) -> dict[str, object]:
    """The architecture in open_clip's own terms."""
    return {
        "embed_dim": EMBED_DIM,
        "vision_cfg": dict(VISION),
        "text_cfg": {**TEXT, "context_length": CONTEXT, "vocab_size": vocabulary_size},
        "quick_gelu": False,
    }


def contrast(image: Tensor, text: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """CLIP's symmetric loss, and the logits [b t] of images against captions.

    `text` [t d] holds the b captions, then false ones, which have no picture of their own.
    """
    own = torch.arange(len(image))
    logits = scale * image @ text.T
    loss = cross_entropy(logits, own) + cross_entropy(logits[:, : len(image)].T, own)
    return loss / 2, logits


def near_misses(logits: Tensor, num: int) -> tuple[Tensor, ...]:
    """Logits of what is false in one detail: pictures with the counterparts' captions, counterparts
    with the pictures' own, and pictures with each of their other false captions; `b / 2` each.

    `logits` [b t]: pictures, then counterparts; captions in the same order, then for each picture
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
    """How far right pairs of any picture and caption are from lying above all wrong ones.

    The mean logistic loss of all differences (RankNet; Burges et al. 2005). A softmax over captions
    leaves each picture a level of its own; a reward model compares pictures.
    """
    return softplus(wrong[None, :] - right[:, None]).mean()


def spoilt(images: Tensor) -> Tensor:
    """Pictures in [-1, 1] that no longer show what their captions say: bent, melted, mixed."""
    spoil = HARD_GARBAGE[int(torch.randint(len(HARD_GARBAGE), ()))]
    return spoil(images / 2 + 0.5).clamp(0, 1) * 2 - 1


def falsified(caption: str, rng: Generator, *, num: int) -> list[str]:
    """The caption with one thing that it says changed, so that its picture shows otherwise.

    `num` times, of different kinds as far as there are any; never a combination that is held out.
    """
    allowed = [
        [spec for spec in kind if not is_held_out(spec)] for kind in changes(parse_prompt(caption))
    ]
    kinds = [kind for kind in allowed if kind]
    order = rng.permutation(len(kinds))
    chosen = (kinds[order[index % len(kinds)]] for index in range(num))
    return [prompt_of(kind[int(rng.integers(len(kind)))]) for kind in chosen]


def changes(spec: SceneSpec) -> list[list[SceneSpec]]:
    """All one-step changes that contradict `spec`, by what is changed: object, colour, ..."""
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
    """The item as every other object, except as what it keeps company with."""
    taken = {item.kind, company.kind if company else item.kind}
    return [replace(item, kind=kind) for kind in OBJECTS if kind not in taken]


def other_colours(item: Item) -> Sequence[Item]:
    """The item in every other colour; none where its colour is not said."""
    if item.colour is None:
        return []
    return [replace(item, colour=colour) for colour in COLOURS if colour != item.colour]


def distinct(indices: Indices, captions: tuple[str, ...]) -> Indices:
    """One index for each different caption among `indices`, sorted."""
    return np.sort(np.array(list({captions[i]: i for i in indices}.values())))


def given(pictures: Pictures, alternative: NDArray[np.uint8] | None, chosen: Indices) -> Tensor:
    """Pictures of the data folder as uint8 `b 3 h w`, some replaced by their alternative."""
    images = np.array(pictures.images[chosen])
    if alternative is not None:
        swap = (torch.rand(len(chosen)) < REDRAWN).numpy() & (chosen < len(alternative))
        images[swap] = alternative[chosen[swap]]
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def drawn(captions: Sequence[str], rng: Generator) -> Tensor:
    """A new picture of each caption, uint8 `b 3 h w`."""
    scenes = (sample_scene(parse_prompt(caption), rng) for caption in captions)
    return torch.from_numpy(np.stack([np.asarray(draw(scene)) for scene in scenes])).permute(
        0, 3, 1, 2
    )


def shown(*pictures: Tensor) -> Tensor:
    """Pictures, uint8 `b 3 h w`, one after the other as float in [-1, 1]; half are damaged."""
    clean = torch.cat(pictures).contiguous(memory_format=torch.channels_last).float() / 255
    damaged = torch.rand(len(clean), 1, 1, 1) < DAMAGED
    return torch.where(damaged, damage(clean), clean) * 2 - 1


def look(images: Tensor) -> Tensor:
    """Light and texture, `b LOOK`: a thumbnail, and how much each coarse field of it varies.

    Every number is standardised over the batch.
    """
    coarse = images.shape[-1] // TEXTURE
    mean, square = avg_pool2d(images, coarse), avg_pool2d(images.square(), coarse)
    texture = (square - mean.square()).clamp(min=0).sqrt()
    light = avg_pool2d(images, images.shape[-1] // THUMBNAIL)
    both = torch.cat([light.flatten(1), texture.flatten(1)], dim=1)
    return (both - both.mean(0)) / both.std(0).clamp(min=0.01)
