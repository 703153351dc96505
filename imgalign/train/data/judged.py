"""Rankings that were given, what loads their samples, and the record that a run keeps of them."""

import json
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from jaxtyping import Float
from torch import Tensor

from imgalign.algorithms.interface import RankingCounts
from imgalign.errors import CheckpointError, InputError
from imgalign.files import parse_json, write_atomically
from imgalign.images import as_tensor
from imgalign.preferences.foreign.records import GivenRanking, RankedFiles, Remark
from imgalign.preferences.originals import ImageFolder
from imgalign.preferences.records import Provenance, Ranking, compares, ranks

log = logging.getLogger(__name__)

RECORD = "rankings.jsonl"
LEFT_OUT = "left_out.txt"
NAMES_SHOWN = 3

SampleLoader: TypeAlias = Callable[[str], Any]
"""Loads a sample by its SHA-256, as a batch of one: pixels in [0, 1], or a text. An ImgalignError
where it cannot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """Rankings, and what loads their samples."""

    rankings: list[GivenRanking]
    load: SampleLoader
    where: str
    """For messages."""
    provenance: Mapping[str, Provenance] = field(default_factory=dict)
    """How their images were generated, by SHA-256, where the noise is taken from it."""
    left_out: Sequence[Remark] = ()
    """What of the files cannot be used."""


def from_store(
    rankings: Iterable[Ranking], *, seeds: Mapping[str, int] | None = None
) -> list[GivenRanking]:
    """Those that say something: ranked, all bad, or liked; with the `seeds` of their images, if
    given.
    """
    return [
        GivenRanking(
            prompt=ranking.prompt,
            images=ranking.sample_ids,
            ranks=ranks(ranking),
            all_bad=ranking.verdict == "all_bad",
            all_good=ranking.verdict == "ranked" and not compares(ranking),
            seeds=tuple(seeds[image] for image in ranking.sample_ids) if seeds else None,
        )
        for ranking in rankings
        if ranking.verdict != "skipped"
    ]


def present(judged: Sequence[GivenRanking], images: ImageFolder) -> list[GivenRanking]:
    """Those whose images are all in the store's folder; names what is missing.

    InputError where none is left.
    """
    missing = [
        image
        for image in dict.fromkeys(image for each in judged for image in each.images)
        if not images.has(image)
    ]
    if not missing:
        return list(judged)
    kept = [each for each in judged if set(missing).isdisjoint(each.images)]
    shown = [image[:12] for image in missing[:NAMES_SHOWN]]
    shown += ["..."] if len(missing) > NAMES_SHOWN else []
    what = f"{images.root}: ranked images that are missing: {len(missing)} ({', '.join(shown)})"
    if not kept:
        raise InputError(
            f"{what}, at least one of every ranking; restore the folder, or name it by "
            "data.originals"
        )
    log.warning("%s; %d of %d rankings are left out", what, len(judged) - len(kept), len(judged))
    return kept


def counts_of(judged: Iterable[GivenRanking]) -> RankingCounts:
    """How many rankings prefer a sample, tie all of them, are all bad, or all good."""
    kinds, weights = Counter[str](), defaultdict[str, float](float)
    for each in judged:
        kinds[kind_of(each)] += 1
        weights[kind_of(each)] += each.weight
    return RankingCounts(
        **{name: kinds[name] for name in ("ordered", "tied", "all_bad", "all_good")},
        weight_bad=weights["all_bad"] / kinds["all_bad"] if kinds["all_bad"] else 1.0,
        weight_good=weights["all_good"] / kinds["all_good"] if kinds["all_good"] else 1.0,
    )


def kind_of(judged: GivenRanking) -> str:
    """One of the counts of `RankingCounts`."""
    if judged.all_bad:
        return "all_bad"
    if judged.all_good:
        return "all_good"
    return "ordered" if max(judged.ranks) > 0 else "tied"


def of_files(found: RankedFiles) -> Given:
    """Those of a folder or a table; says what they are and what was left out."""
    for line in found.lines():
        log.info("%s", line)

    def load(key: str) -> Float[Tensor, "1 3 h w"]:
        if key not in found.images:
            raise InputError(f"{found.name}: the image {key[:8]} of this run is no longer there")
        return as_tensor(found.images[key].pixels())[None]

    return Given(
        rankings=list(found.rankings), load=load, where=found.name, left_out=found.left_out
    )


def write_left_out(path: Path, remarks: Sequence[Remark]) -> None:
    """A line for each file or row that is left out, where there are any."""
    lines = [
        f"{each.name}: {each.reason}{f' ({each.detail})' if each.detail else ''}\n"
        for each in remarks
    ]
    if lines:
        write_atomically(path, "".join(lines))


def add_left_out(run: Path, lines: Mapping[str, str]) -> None:
    """Name further samples that cannot be used, with the reason of each, in the run's folder."""
    path = run / LEFT_OUT
    before = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    after = list(dict.fromkeys([*before, *(f"{name}: {why}" for name, why in lines.items())]))
    if after != before:
        write_atomically(path, "".join(f"{line}\n" for line in after))


def write_record(path: Path, rankings: Sequence[GivenRanking]) -> None:
    """One JSON object for each ranking."""
    lines = [json.dumps(asdict(each), ensure_ascii=False) + "\n" for each in rankings]
    write_atomically(path, "".join(lines))


def read_record(path: Path) -> list[GivenRanking]:
    """What `write_record` wrote; CheckpointError where it is missing or damaged."""
    try:
        with path.open(encoding="utf-8") as file:
            return [as_judged(parse_json(line)) for line in file]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path}: missing or damaged ({error}), so nobody knows which rankings this run learns "
            "from; start a new run"
        ) from None


def as_judged(values: dict[str, object]) -> GivenRanking:
    """One line of the record."""
    images, order, seeds = values["images"], values["ranks"], values.get("seeds")
    if not isinstance(images, list) or not isinstance(order, list) or len(images) != len(order):
        raise ValueError("images and ranks differ in number")
    return GivenRanking(
        prompt=str(values["prompt"]),
        images=tuple(map(str, images)),
        ranks=tuple(map(int, order)),
        all_bad=bool(values["all_bad"]),
        all_good=bool(values.get("all_good", False)),  # older records have none
        weight=float(str(values["weight"])),
        seeds=tuple(map(int, seeds)) if isinstance(seeds, list) else None,
    )
