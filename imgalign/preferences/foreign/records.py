"""Rankings of images and of texts that do not lie in the store, whatever file they came from.

Images are named by the SHA-256 of their bytes, so an image that several rankings share is one
image, and what is made of it can be kept under that name. Nothing here holds pixels or bytes: an
image is read again when it is needed. Texts stand in the rankings themselves.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from PIL import Image

from imgalign.errors import InputError
from imgalign.images import decode_image
from imgalign.preferences.records import TextProvenance
from imgalign.preferences.wording import counted

NAMES_SHOWN = 3

Reason = Literal[
    "unpaired",
    "name differs in case",
    "name used twice",
    "no caption",
    "unreadable",
    "too large",
    "equal images",
    "no label",
    "unusable row",
    "no prompt",
    "no text",
    "equal texts",
    "several turns",
    "cut",
    "only image of its prompt",
    "only text of its prompt",
    "only the first line of the caption is used",
    "images of different sizes, each scaled and cut for itself",
    "converted to PNG",
]
FIRST_LINE_ONLY: Reason = "only the first line of the caption is used"
OTHER_SIZES: Reason = "images of different sizes, each scaled and cut for itself"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """What is to be said of one file or row. Example: reason "unpaired", name "chosen/a.png"."""

    reason: Reason
    name: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenImage:
    """An image of a file or of a cell in a table; equal to every image with the same bytes."""

    sha256: str
    name: str = field(compare=False)
    """For messages. Example: "pairs: chosen/a.png" or "train.parquet: row 7, jpg_0"."""
    load: Callable[[], bytes] = field(repr=False, compare=False)
    size: tuple[int, int] = field(compare=False)
    """Width and height in pixels, upright."""

    def read(self) -> bytes:
        """The bytes; InputError where they cannot be read or have changed since the first time."""
        try:
            content = self.load()
        except InputError as error:
            raise InputError(f"{self.name}: {error}") from None
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise InputError(f"{self.name}: has changed since it was first read; start again")
        return content

    def pixels(self) -> Image.Image:
        """8-bit RGB, upright, by the rules of `imgalign.images`."""
        return decode_image(self.read())


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenRanking:
    """One ranking of given samples. Example: ranks (1, 0, 1) puts the second sample first."""

    prompt: str
    images: tuple[str, ...]
    """The SHA-256 of each image or text, all different."""
    ranks: tuple[int, ...]
    """0 is best, equal is a tie, -1 where nothing was ranked."""
    all_bad: bool = False
    """None of the samples is acceptable; the ranks are then all -1."""
    all_good: bool = False
    """Each of the samples is liked, without an order; the ranks are then all -1."""
    weight: float = 1.0
    seeds: tuple[int, ...] | None = None
    """Of the noise from which each image was generated, where it is known and wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedFiles:
    """What a folder or a table holds: rankings, their images by SHA-256, and what was left out."""

    name: str
    rankings: tuple[GivenRanking, ...]
    images: Mapping[str, GivenImage]
    left_out: tuple[Remark, ...] = ()
    notes: tuple[Remark, ...] = ()
    """On files that are used all the same."""

    def lines(self) -> list[str]:
        """For a terminal. Example: "pairs: 120 rankings of 240 images", "left out, unpaired: 2"."""
        count = f"{counted(len(self.rankings), 'ranking')} of {counted(len(self.images), 'image')}"
        return [*found_lines(self.name, count, self.left_out), *summarised(self.notes)]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRanking:
    """One ranking of given texts. Example: ranks (1, 0, 1) puts the second text first."""

    prompt: str
    texts: tuple[str, ...]
    """All different."""
    ranks: tuple[int, ...]
    """0 is best, equal is a tie, -1 where nothing was ranked."""
    all_bad: bool = False
    """None of the texts is acceptable; the ranks are then all -1."""
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedTexts:
    """What a table holds: rankings of texts, and what was left out."""

    name: str
    rankings: tuple[TextRanking, ...]
    left_out: tuple[Remark, ...] = ()

    def lines(self) -> list[str]:
        """For a terminal. Example: "pairs.jsonl: 120 rankings of texts"."""
        count = f"{counted(len(self.rankings), 'ranking')} of texts"
        return found_lines(self.name, count, self.left_out)


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One answer to a prompt, and whether somebody liked it, where that is known."""

    prompt: str
    text: str
    liked: bool | None = None
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenTexts:
    """Answers to a prompt that wait to be ranked, and how they were made."""

    prompt: str
    texts: tuple[str, ...]
    provenance: TextProvenance


@dataclass(frozen=True, slots=True, kw_only=True)
class Completions:
    """What a table holds: answers to prompts, and what was left out."""

    name: str
    rows: tuple[Completion, ...]
    left_out: tuple[Remark, ...] = ()

    def lines(self) -> list[str]:
        """For a terminal. Example: "train.jsonl: 120 completions, 60 of them liked"."""
        labels = [row.liked for row in self.rows if row.liked is not None]
        liked = f", {sum(labels)} of them liked" if labels else ""
        return found_lines(self.name, f"{len(self.rows)} completions{liked}", self.left_out)


def found_lines(name: str, count: str, left_out: Iterable[Remark]) -> list[str]:
    """How much a file holds, and a line for each reason for which something was left out."""
    return [f"{name}: {count}", *(f"left out, {line}" for line in summarised(left_out))]


def summarised(remarks: Iterable[Remark]) -> list[str]:
    """A line for each reason, with the number of files and the first few names.

    Example: "unpaired: 12 (chosen/a.png, chosen/b.png, chosen/c.png, ...)".
    """
    by_reason: dict[str, list[Remark]] = defaultdict(list)
    for remark in remarks:
        by_reason[remark.reason].append(remark)
    return [f"{reason}: {len(own)} ({_named(own)})" for reason, own in by_reason.items()]


def _named(remarks: list[Remark]) -> str:
    shown = [
        f"{remark.name}: {remark.detail}" if remark.detail else remark.name
        for remark in remarks[:NAMES_SHOWN]
    ]
    return ", ".join([*shown, *(["..."] if len(remarks) > NAMES_SHOWN else [])])


class Collector:
    """Rankings as a reader finds them, with their images; `finished` is the result."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.images: dict[str, GivenImage] = {}
        self.rankings: list[GivenRanking] = []
        self.left_out: list[Remark] = []
        self.notes: list[Remark] = []

    def examined(
        self, name: str, load: Callable[[], bytes], *, content: bytes | None = None
    ) -> GivenImage | Remark:
        """The image, decoded once to see that it can be, or why it is left out.

        `content` are its bytes if they are at hand.
        """
        try:
            content = load() if content is None else content
            digest = hashlib.sha256(content).hexdigest()
            if digest in self.images:
                return self.images[digest]
            size = decode_image(content).size
        except InputError as error:
            return Remark(reason=reason_of(error), name=name, detail=str(error))
        return GivenImage(name=f"{self.name}: {name}", sha256=digest, load=load, size=size)

    def add(self, name: str, ranking: GivenRanking, images: Sequence[GivenImage]) -> None:
        """Keep the ranking of a file or row, and its images where they are new.

        Noted are images of different sizes: each is scaled and cut to a model's size for itself, so
        a model would learn that one is cut or sharper, and not only which is better.
        """
        self.rankings.append(ranking)
        sizes = list(dict.fromkeys(image.size for image in images))
        if len(sizes) > 1:
            shown = " and ".join(f"{width}x{height}" for width, height in sizes)
            self.notes.append(Remark(reason=OTHER_SIZES, name=name, detail=shown))
        for image in images:
            self.images.setdefault(image.sha256, image)

    def finished(self) -> RankedFiles:
        """What was found; InputError, with the reasons, where no ranking is left."""
        refuse_none(self.name, "ranking", self.rankings, self.left_out)
        return RankedFiles(
            name=self.name,
            rankings=tuple(self.rankings),
            images=self.images,
            left_out=tuple(self.left_out),
            notes=tuple(self.notes),
        )


def refuse_none(name: str, what: str, found: Sequence[object], left_out: Sequence[Remark]) -> None:
    """InputError, with the reasons, where nothing of a file can be used."""
    if not found:
        why = "; ".join(summarised(left_out)) or "it is empty"
        raise InputError(f"{name}: no {what} can be used; {why}")


def reason_of(error: InputError) -> Reason:
    """Which limit of `imgalign.images` a file broke; "unreadable" for every other fault."""
    large = str(error).startswith(("expected at most", "image too large"))
    return "too large" if large else "unreadable"
