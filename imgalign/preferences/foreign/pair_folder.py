"""Folders of pairs, as trainers of LoRAs take them.

    chosen/a.png  chosen/a.txt  rejected/a.jpg      paired by name, at any depth below; also w/, l/
    a.png  a.txt  a-rejected.png                    beside each other

The caption is that of the chosen image, the first line of its text file; files with more lines are
noted. Everything that cannot be used is named with its reason, and the rest is kept.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from imgalign.errors import InputError
from imgalign.files import describe_folder
from imgalign.images import MAX_BYTES, read_plain_file
from imgalign.preferences.foreign.image_files import image_files, normal, read_caption
from imgalign.preferences.foreign.records import (
    FIRST_LINE_ONLY,
    Collector,
    GivenRanking,
    RankedFiles,
    Reason,
    Remark,
)

Side = Literal["chosen", "rejected"]
SIDES: dict[str, tuple[str, Side]] = {
    "chosen": ("chosen, rejected", "chosen"),
    "rejected": ("chosen, rejected", "rejected"),
    "w": ("w, l", "chosen"),
    "l": ("w, l", "rejected"),
}
"""Names of folders, with the two names that belong together."""
REJECTED = "-rejected"
BESIDE = "beside"


class Place(NamedTuple):
    """Where an image belongs: the images of one `key` are a pair."""

    key: tuple[str, ...]
    side: Side


@dataclass(slots=True)
class Pair:
    """The files of one key; a whole pair has one on each side."""

    chosen: list[Path] = field(default_factory=list)
    rejected: list[Path] = field(default_factory=list)

    def files(self) -> list[Path]:
        """Of both sides."""
        return [*self.chosen, *self.rejected]


def read_pair_folder(
    folder: Path, *, on_progress: Callable[[float], None] = lambda _: None
) -> RankedFiles:
    """The pairs in a folder, in order of names; every image is decoded once to see that it can be.

    `on_progress` gets the share that is done. InputError for a folder of another layout, and where
    no pair can be used.
    """
    pairs = pairs_in(folder)
    collector = Collector(str(folder))
    spellings: dict[tuple[str, ...], list[Pair]] = defaultdict(list)
    for key, pair in pairs.items():
        spellings[tuple(part.casefold() for part in key)].append(pair)
    for number, (key, pair) in enumerate(pairs.items()):
        on_progress(number / len(pairs))
        faults = _faults(folder, pair, spellings[tuple(part.casefold() for part in key)])
        collector.left_out += faults
        if not faults:
            _read_pair(collector, folder, pair)
    on_progress(1.0)
    return collector.finished()


def pairs_in(folder: Path) -> dict[tuple[str, ...], Pair]:
    """The image files of a folder by key; InputError where it has neither layout."""
    pairs: dict[tuple[str, ...], Pair] = {}
    for path in image_files(folder):
        place = place_of(path.relative_to(folder))
        getattr(pairs.setdefault(place.key, Pair()), place.side).append(path)
    if all(key[0] == BESIDE and not pair.rejected for key, pair in pairs.items()):
        raise InputError(
            f"{folder}: expected images of equal names in chosen/ and rejected/ (or w/ and l/), or "
            f"x.png with x{REJECTED}.png beside it; {describe_folder(folder)}"
        )
    return dict(sorted(pairs.items()))


def place_of(path: Path) -> Place:
    """The place of an image by its path in the folder; the outermost folder with a name decides.

    Example: cats/chosen/a.png and cats/rejected/a.jpg are a pair.
    """
    parts = [normal(part) for part in path.parts[:-1]]
    for depth, part in enumerate(parts):
        if part.casefold() in SIDES:
            names, side = SIDES[part.casefold()]
            rest = [*parts[:depth], "", *parts[depth + 1 :]]
            return Place((names, *rest, normal(path.stem)), side)
    stem = normal(path.stem)
    if stem.casefold().endswith(REJECTED):
        return Place((BESIDE, *parts, stem[: -len(REJECTED)]), "rejected")
    return Place((BESIDE, *parts, stem), "chosen")


def _faults(folder: Path, pair: Pair, spellings: Iterable[Pair]) -> list[Remark]:
    """Why these files are no pair; none if they are. `spellings` are equal to it but for case."""
    if pair.chosen and pair.rejected:
        if len(pair.files()) == 2:
            return []
        return [
            _remark("name used twice", folder, path, _others("as", folder, path, own))
            for own in (pair.chosen, pair.rejected)
            for path in own
            if len(own) > 1
        ]
    others = [
        path
        for other in spellings
        if other is not pair
        for path in (other.rejected if pair.chosen else other.chosen)
    ]
    reason: Reason = "name differs in case" if others else "unpaired"
    return [
        _remark(reason, folder, path, _others("beside", folder, path, others))
        for path in pair.files()
    ]


def _read_pair(collector: Collector, folder: Path, pair: Pair) -> None:
    chosen, rejected = pair.chosen[0], pair.rejected[0]
    try:
        caption = read_caption(chosen)
    except InputError as error:
        collector.left_out.append(_remark("no caption", folder, chosen, str(error)))
        return
    examined = [
        collector.examined(_name(folder, path), partial(read_plain_file, path, limit=MAX_BYTES))
        for path in (chosen, rejected)
    ]
    faults = [each for each in examined if isinstance(each, Remark)]
    images = [each for each in examined if not isinstance(each, Remark)]
    if not faults and images[0] == images[1]:
        faults = [_remark("equal images", folder, chosen, f"as {_name(folder, rejected)}")]
    collector.left_out += faults
    if faults:
        return
    if caption.has_more:
        collector.notes.append(_remark(FIRST_LINE_ONLY, folder, chosen))
    keys = tuple(image.sha256 for image in images)
    ranking = GivenRanking(prompt=caption.text, images=keys, ranks=(0, 1))
    collector.add(_name(folder, chosen), ranking, images)


def _remark(reason: Reason, folder: Path, path: Path, detail: str = "") -> Remark:
    return Remark(reason=reason, name=_name(folder, path), detail=detail)


def _name(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()


def _others(word: str, folder: Path, path: Path, paths: Iterable[Path]) -> str:
    """Example: "as chosen/a.jpg"; empty without others."""
    others = ", ".join(_name(folder, other) for other in paths if other != path)
    return f"{word} {others}" if others else ""
