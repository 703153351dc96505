"""Pairs of images from the store as folders, for trainers that read those.

    chosen/<name>.png  chosen/<name>.txt  rejected/<name>.png  rejected/<name>.txt  pairs.json

The caption stands on both sides, because some trainers look for it there. A name is a part of the
prompt and a hash of the judgement and its two images, so two judgements that agree are two pairs.
`read_pair_folder` reads what is written here.
"""

import hashlib
import json
import re
import shutil
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from imgalign.errors import InputError
from imgalign.preferences.foreign.export_folder import new_export
from imgalign.preferences.foreign.image_files import one_line
from imgalign.preferences.records import Ranking, compares, pairs

RECORD = "pairs.json"
KIND = "imgalign-pairs"
SLUG = 40
"""Characters of the prompt in a name."""

Choice = Literal["all", "best_worst"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was written, and which judgements gave no pair."""

    place: Path
    """A folder, or a file."""
    num_pairs: int
    num_rankings: int
    """Judgements that gave at least one pair."""
    num_ties: int
    """Rankings in which all candidates tie."""
    num_unranked: int
    """Judgements without a ranking: all bad, or skipped."""

    def lines(self) -> list[str]:
        """For a terminal. Example: "out: 12 pairs of 4 rankings"."""
        found = [f"{self.place}: {self.num_pairs} pairs of {self.num_rankings} rankings"]
        if self.num_ties or self.num_unranked:
            found.append(f"without a pair: {self.without()}")
        return found

    def without(self) -> str:
        """Which judgements gave no pair."""
        return (
            f"{self.num_ties} rankings in which all tie, {self.num_unranked} judgements all bad or "
            "skipped"
        )

    def refuse_none(self) -> None:
        """InputError where there is no pair."""
        if not self.num_pairs:
            raise InputError(
                f"{self.place}: no pair to write: {self.without()}; rank some candidates first"
            )


def export_pairs(
    rankings: Iterable[Ranking],
    image_path: Callable[[str], Path],
    folder: Path,
    *,
    choice: Choice = "all",
) -> Exported:
    """Write a folder of pairs, whole or not at all; an earlier export there is replaced.

    `image_path` gives the verified file of an image, as `Store.image_path` does. `choice` is every
    strict preference of a ranking, or the best image with the worst; of several that tie for best
    or worst it is the first candidate. InputError for a folder that holds anything else, and where
    there is no pair.
    """
    with new_export(folder, record=RECORD, kind=KIND, what="pairs") as made:
        for side in ("chosen", "rejected"):
            (made / side).mkdir()
        return _write(rankings, image_path, made, folder, choice)


def chosen_pairs(ranking: Ranking, choice: Choice) -> list[tuple[int, int]]:
    """(better, worse) candidates of a ranking. Example: ((2,), (0, 1)) has best_worst [(2, 0)]."""
    groups = ranking.ranking or ()
    if choice == "all":
        return pairs(ranking)
    return [(groups[0][0], groups[-1][0])] if len(groups) > 1 else []


def pair_name(ranking: Ranking, chosen: str, rejected: str) -> str:
    """Of the files of a pair. Example: "a-red-fox-in-the-snow-3f2a91c07b54"."""
    plain = unicodedata.normalize("NFKD", ranking.prompt).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^a-z0-9]+", "-", plain.lower())[:SLUG].strip("-") or "pair"
    identity = json.dumps([ranking.ranking_id, ranking.prompt, chosen, rejected])
    return f"{slug}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"


def _write(
    rankings: Iterable[Ranking],
    image_path: Callable[[str], Path],
    made: Path,
    folder: Path,
    choice: Choice,
) -> Exported:
    def write_pair(ranking: Ranking, chosen: str, rejected: str) -> None:
        name = pair_name(ranking, chosen, rejected)
        for side, image in (("chosen", chosen), ("rejected", rejected)):
            shutil.copyfile(image_path(image), made / side / f"{name}.png")
            caption = one_line(ranking.prompt)
            (made / side / f"{name}.txt").write_text(f"{caption}\n", encoding="utf-8")

    exported = write_each(rankings, write_pair, folder, choice)
    facts = {"kind": KIND, "version": 1, "pairs": choice, "num_pairs": exported.num_pairs}
    (made / RECORD).write_text(json.dumps(facts) + "\n", encoding="utf-8")
    return exported


def write_each(
    rankings: Iterable[Ranking],
    write_pair: Callable[[Ranking, str, str], None],
    place: Path,
    choice: Choice,
) -> Exported:
    """Call `write_pair` with each pair, the SHA-256 of the better sample and of the worse.

    InputError where there is none; `place` is where they go.
    """
    num_pairs = num_rankings = num_ties = num_unranked = 0
    for ranking in rankings:
        found = chosen_pairs(ranking, choice)
        num_pairs += len(found)
        num_rankings += bool(found)
        num_unranked += not compares(ranking)
        num_ties += compares(ranking) and not found
        for better, worse in found:
            write_pair(ranking, ranking.sample_ids[better], ranking.sample_ids[worse])
    exported = Exported(
        place=place,
        num_pairs=num_pairs,
        num_rankings=num_rankings,
        num_ties=num_ties,
        num_unranked=num_unranked,
    )
    exported.refuse_none()
    return exported
