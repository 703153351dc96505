"""Images made elsewhere, queued for ranking: those of one prompt are candidates of one item.

The prompt of an image is the caption in the text file beside it, or what its generator wrote into
it or, as imgalign does, beside it. Files are stored as they are where every program shows them
alike (`imgalign.images.decode_plain_image`), and else converted to PNG.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Literal, TypeVar

from PIL import Image

from imgalign.errors import InputError
from imgalign.files import describe_folder, read_json
from imgalign.images import (
    MAX_BYTES,
    PNG_SIGNATURE,
    decode_image,
    decode_plain_image,
    png,
    read_plain_file,
)
from imgalign.preferences import validation
from imgalign.preferences.foreign.generation_facts import GenerationFacts
from imgalign.preferences.foreign.image_files import find_caption, image_files
from imgalign.preferences.foreign.image_metadata import generation_of
from imgalign.preferences.foreign.records import (
    FIRST_LINE_ONLY,
    Reason,
    Remark,
    reason_of,
    summarised,
)
from imgalign.preferences.records import ELSEWHERE, UNKNOWN, UNKNOWN_NUMBER, Provenance
from imgalign.preferences.schema import provenances
from imgalign.preferences.splits import prompt_key
from imgalign.preferences.store import Store
from imgalign.preferences.wording import counted, there_are

SOURCE = "made elsewhere"
LARGEST_RECORD = 2**20
"""Bytes of a JSON file beside an image."""

T = TypeVar("T")
COLUMNS = {field.name: provenances.c[field.name] for field in fields(Provenance)}
REQUIRED = frozenset(
    field.name
    for field in fields(Provenance)
    if field.default is MISSING and field.default_factory is MISSING
)
"""What every version of imgalign writes beside an image."""
PromptSource = Literal["any", "captions", "metadata"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundImage:
    """An image file with its prompt, and a hash of its pixels."""

    path: Path
    prompt: str
    first_line_only: bool
    """The prompt is the first of several lines of a caption."""
    provenance: Provenance
    pixels: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupedImages:
    """The images of a folder, those of one prompt together."""

    folder: Path
    groups: list[Sequence[FoundImage]]
    left_out: list[Remark]


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedImages:
    """What was queued, and what was left out or converted."""

    item_ids: list[str]
    num_images: int
    left_out: list[Remark]
    notes: list[Remark]

    def lines(self) -> list[str]:
        """For a terminal. Example: "3 items are queued, of 11 images"."""
        images = counted(self.num_images, "image")
        return [
            f"{there_are(len(self.item_ids), 'item')} queued, of {images}",
            *(f"left out, {line}" for line in summarised(self.left_out)),
            *summarised(self.notes),
        ]


def group_images(
    folder: Path,
    *,
    per_prompt: int,
    prompts_from: PromptSource = "any",
    model: str | None = None,
    on_progress: Callable[[float], None] = lambda _: None,
) -> GroupedImages:
    """Read the images below a folder, in groups of up to `per_prompt` of each prompt.

    A prompt with more images has several groups, as equal in size as can be, of images in the order
    of their names. With `per_prompt` 1 each image is a group. `model` is the name of what made the
    images that do not name it. InputError where there is no group.
    """
    if per_prompt < 1:
        raise InputError(f"per_prompt: expected at least 1 image, got {per_prompt}")
    validation.text("model", model)
    paths = folder_images(folder)
    images: list[FoundImage] = []
    left_out: list[Remark] = []
    for number, path in enumerate(paths):
        on_progress(number / len(paths))
        found = find_image(path, folder, prompts_from=prompts_from, model=model)
        if isinstance(found, Remark):
            left_out.append(found)
        else:
            images.append(found)
    groups = grouped(images, folder, per_prompt, left_out)
    if not groups:
        why = "; ".join(summarised(left_out))
        what = "images with a prompt" if per_prompt == 1 else "several images of one prompt"
        raise InputError(f"{folder}: expected {what}; left out, {why}")
    on_progress(1.0)
    return GroupedImages(folder=folder, groups=groups, left_out=left_out)


def queue_groups(
    store: Store,
    found: GroupedImages,
    *,
    project: str = "default",
    overlap: int = 1,
    on_progress: Callable[[float], None] = lambda _: None,
    on_item: Callable[[str], None] = lambda _: None,
) -> QueuedImages:
    """Store images and queue an item of each group.

    What is stored is kept when the call is interrupted; the same call again adds nothing twice.
    `on_item` gets the id of each item once it is queued.
    """
    groups, folder = found.groups, found.folder
    item_ids: list[str] = []
    notes: list[Remark] = []
    for number, group in enumerate(groups):
        on_progress(number / len(groups))
        ids = [_store(store, image, folder, notes) for image in group]
        item = store.add_item(group[0].prompt, ids, source=SOURCE, project=project, overlap=overlap)
        item_ids.append(item)
        on_item(item)
    on_progress(1.0)
    return QueuedImages(
        item_ids=item_ids,
        num_images=sum(len(group) for group in groups),
        left_out=found.left_out,
        notes=notes,
    )


def folder_images(folder: Path) -> list[Path]:
    """The image files below a folder; InputError where there are none."""
    paths = image_files(folder)
    if not paths:
        raise InputError(f"{folder}: expected images, {describe_folder(folder)}")
    return paths


def find_image(
    path: Path, folder: Path, *, prompts_from: PromptSource, model: str | None
) -> FoundImage | Remark:
    """An image with its prompt and provenance, or why it is left out."""
    reason: Reason = "unreadable"
    try:
        content = read_plain_file(path, limit=MAX_BYTES)
        pixels = decode_image(content)
        reason = "no prompt"
        caption = None if prompts_from == "metadata" else find_caption(path)
        facts = generation_of(content)
        recorded = read_provenance(path.with_suffix(".json"))
    except InputError as error:
        reason = reason_of(error) if reason == "unreadable" else reason
        return Remark(reason=reason, name=_name(folder, path), detail=str(error))
    told = caption.text if caption else ""
    if recorded is None:
        recorded = provenance_of(facts, prompt=told, size=pixels.size, model=model)
    asked = recorded.original_prompt or recorded.prompt
    prompt = told or (asked if prompts_from != "captions" else "")
    if not prompt:
        return Remark(reason="no prompt", name=_name(folder, path))
    return FoundImage(
        path=path,
        prompt=prompt,
        first_line_only=caption is not None and caption.has_more,
        provenance=recorded,
        pixels=pixel_hash(pixels),
    )


def provenance_of(
    facts: GenerationFacts, *, prompt: str, size: tuple[int, int], model: str | None
) -> Provenance:
    """Provenance of an image made elsewhere: what is not known is UNKNOWN or UNKNOWN_NUMBER.

    `prompt` and `model` stand in where the facts tell none.
    """

    def number(value: float | None) -> float:
        return UNKNOWN_NUMBER if value is None else value

    return Provenance(
        model=facts.model or model or UNKNOWN,
        prompt=facts.prompt or prompt,
        negative_prompt=facts.negative_prompt or "",
        seed=int(number(facts.seed)),
        steps=int(number(facts.steps)),
        guidance_scale=float(number(facts.guidance_scale)),
        scheduler=facts.sampler or UNKNOWN,
        eta=float(UNKNOWN_NUMBER),
        width=size[0],
        height=size[1],
        adapter=facts.adapter,
        dtype=UNKNOWN,
        imgalign_version=ELSEWHERE,
    )


def read_provenance(path: Path) -> Provenance | None:
    """The provenance that imgalign wrote beside an image; None for another file or none."""
    try:
        values = read_json(path, largest=LARGEST_RECORD)
        if not isinstance(values, dict) or not REQUIRED <= values.keys() <= COLUMNS.keys():
            return None
        checked = {name: validation.column(COLUMNS[name], each) for name, each in values.items()}
    except (OSError, ValueError):  # an InputError is a ValueError
        return None
    return Provenance(**checked)


def grouped(
    images: Iterable[FoundImage], folder: Path, per_prompt: int, left_out: list[Remark]
) -> list[Sequence[FoundImage]]:
    """Groups of up to `per_prompt` images of one prompt, in order; what is in none is named."""
    by_prompt: dict[str, dict[str, FoundImage]] = defaultdict(dict)
    for image in images:
        others = by_prompt[prompt_key(image.prompt)]
        same = others.setdefault(image.pixels, image)
        if same is not image:
            detail = f"as {_name(folder, same.path)}"
            name = _name(folder, image.path)
            left_out.append(Remark(reason="equal images", name=name, detail=detail))
    groups: list[Sequence[FoundImage]] = []
    for own in by_prompt.values():
        for group in evenly(list(own.values()), per_prompt):
            if len(group) >= min(per_prompt, 2):
                groups.append(group)
                continue
            name = _name(folder, group[0].path)
            left_out.append(Remark(reason="only image of its prompt", name=name))
    return groups


def evenly(images: Sequence[T], most: int) -> list[Sequence[T]]:
    """As few lists as possible of at most `most`, whose sizes differ by one at most."""
    count = -(-len(images) // most)
    bounds = [len(images) * number // count for number in range(count + 1)]
    return [images[start:end] for start, end in pairwise(bounds)]


def pixel_hash(image: Image.Image) -> str:
    """SHA-256 of the size and the pixels."""
    return hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()


def _store(store: Store, image: FoundImage, folder: Path, notes: list[Remark]) -> str:
    content, name = read_plain_file(image.path, limit=MAX_BYTES), _name(folder, image.path)
    if image.first_line_only:
        notes.append(Remark(reason=FIRST_LINE_ONLY, name=name))
    if not _is_plain_png(content):
        content = png(decode_image(content))
        notes.append(Remark(reason="converted to PNG", name=name))
    return store.add_image(content, image.provenance)


def _is_plain_png(content: bytes) -> bool:
    try:
        decode_plain_image(content)
    except InputError:
        return False
    return content.startswith(PNG_SIGNATURE)


def _name(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()
