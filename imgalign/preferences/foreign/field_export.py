"""Rankings of images from the store in the formats of the field's public data sets.

    pick_a_pic        a parquet file: a pair or tie in each row, with both images as JPEG
    image_reward_db   a folder: train.json, a list of images with their ranks in each entry
    hpd_v2            a folder: test.json, the mean rank of each image, and all annotators' ranks
    hpd_v2_pairs      a folder: train.json, a pair in each entry
    hpd_v3            a folder: train.json, a pair in each entry, the better image first

In a folder the images are PNG files in images/. `read_table` reads what is written here as the same
rankings: the lists as they were, the pairs as pairs. What a format cannot hold is counted. Names of
annotators are not written: they are numbered, in the order of their first judgement. Of models and
adapters that are paths of this machine only the end is written.
"""

import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC
from functools import cache, lru_cache
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

from imgalign.errors import InputError
from imgalign.files import UNFINISHED, lock_name, reporting_full_disk
from imgalign.images import jpeg, read_image_file
from imgalign.preferences.foreign.export_folder import new_export
from imgalign.preferences.foreign.formats import FieldFormat
from imgalign.preferences.foreign.parquet import Kind, ParquetWriter
from imgalign.preferences.records import Ranking, compares, pairs, ranks
from imgalign.preferences.store import Store
from imgalign.preferences.wording import counted

RECORD = ".imgalign-export"
KIND = "imgalign-field-export"
Row = dict[str, Any]

PICK_A_PIC: dict[str, Kind] = {
    "are_different": "flag",
    "best_image_uid": "text",
    "caption": "text",
    "created_at": "time",
    "has_label": "flag",
    "image_0_uid": "text",
    "image_0_url": "text",
    "image_1_uid": "text",
    "image_1_url": "text",
    "jpg_0": "bytes",
    "jpg_1": "bytes",
    "label_0": "number",
    "label_1": "number",
    "model_0": "text",
    "model_1": "text",
    "num_example_per_prompt": "whole",
    "ranking_id": "whole",
    "user_id": "whole",
}
JPEGS = 32
"""Encoded images in memory: the pairs of one ranking share them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldExport:
    """What was written, and what the format has no place for."""

    place: Path
    num_rows: int
    num_rankings: int
    """Judgements of which something was written."""
    left_out: Mapping[str, int]
    """How many judgements, or ties, for each reason."""

    def lines(self) -> list[str]:
        """For a terminal. Example: "out: 12 rows of 4 rankings"."""
        rows = counted(self.num_rows, "row")
        found = f"{self.place}: {rows} of {counted(self.num_rankings, 'ranking')}"
        return [found, *(f"left out, {line}" for line in self._reasons())]

    def refuse_none(self) -> None:
        """InputError where nothing was written."""
        if not self.num_rows:
            why = "; ".join(self._reasons()) or "there are no rankings"
            raise InputError(f"{self.place}: no row to write: {why}; rank some candidates first")

    def _reasons(self) -> list[str]:
        return [f"{reason}: {number}" for reason, number in self.left_out.items() if number]


def export_field(
    rankings: Iterable[Ranking], store: Store, place: Path, *, layout: FieldFormat
) -> FieldExport:
    """Write rankings of images to a file (`pick_a_pic`) or a folder, whole or not at all.

    An earlier export is replaced where it is a folder. InputError for a place that holds anything
    else, and where there is nothing to write.
    """
    if layout == "pick_a_pic":
        return _export_table(rankings, store, place)
    name, rows_of, ties = LAYOUTS[layout]
    kept, left_out = _sorted_out(rankings, ties=ties)
    with new_export(place, record=RECORD, kind=KIND, what=layout) as made:
        (made / "images").mkdir()
        with (made / name).open("w", encoding="utf-8") as file:
            num_rows = 0
            for row in rows_of(kept, _copies(store, made), _models(store)):
                file.write(",\n" if num_rows else "[\n")
                file.write(json.dumps(row, ensure_ascii=False))
                num_rows += 1
            file.write("\n]\n")
        exported = _exported(place, num_rows, kept, left_out, ties=ties)
        record = {"kind": KIND, "version": 1, "format": layout, "num_rows": num_rows}
        (made / RECORD).write_text(json.dumps(record) + "\n", encoding="utf-8")
    return exported


def _exported(
    place: Path, num_rows: int, kept: list[Ranking], left_out: Counter[str], *, ties: bool
) -> FieldExport:
    num_rankings = len(kept) if ties else sum(bool(pairs(each)) for each in kept)
    exported = FieldExport(
        place=place, num_rows=num_rows, num_rankings=num_rankings, left_out=left_out
    )
    exported.refuse_none()
    return exported


def _sorted_out(rankings: Iterable[Ranking], *, ties: bool) -> tuple[list[Ranking], Counter[str]]:
    """Rankings of several images, and how much is left out of them or beside them."""
    kept: list[Ranking] = []
    left_out: Counter[str] = Counter()
    for ranking in rankings:
        if ranking.verdict == "skipped":
            left_out["skipped, nothing was judged"] += 1
        elif ranking.verdict == "all_bad":
            left_out["all bad, for which the format has no place"] += 1
        elif not compares(ranking):
            left_out["of a single image, which the format does not hold"] += 1
        else:
            kept.append(ranking)
            num_ties = 0 if ties else sum(label == 0.5 for *_, label in _labelled(ranking))
            left_out["ties of two images, the format wants a better one"] += num_ties
    return kept, left_out


def _labelled(ranking: Ranking) -> list[tuple[int, int, float]]:
    """Each two candidates in order: 1 where the first is better, 0 the second, 0.5 for a tie."""
    of = ranks(ranking)
    return [
        (one, other, (1 + (of[other] > of[one]) - (of[other] < of[one])) / 2)
        for one, other in combinations(range(len(of)), 2)
    ]


def _copies(store: Store, made: Path) -> Callable[[str], str]:
    """Paths of images in the folder; each is copied when it is first asked for."""

    @cache
    def path(image: str) -> str:
        shutil.copyfile(store.image_path(image), made / "images" / f"{image}.png")
        return f"images/{image}.png"

    return path


def _models(store: Store) -> Callable[[str], str]:
    """What generated an image; empty where that is not known, or several did."""

    @cache
    def model(image: str) -> str:
        found = {(each.model, each.adapter) for each in store.provenances(image)}
        if len(found) != 1:
            return ""
        return " + ".join(_end(name) for name in found.pop() if name)

    return model


def _end(name: str) -> str:
    """A name; of a path on this machine the last two parts."""
    path = Path(name).expanduser()
    return "/".join(path.parts[-2:]) if path.is_absolute() else name


def _annotators() -> Callable[[str], int]:
    numbers: dict[str, int] = {}
    return lambda annotator: numbers.setdefault(annotator, len(numbers))


# --- folders

Paths = Callable[[str], str]


def _image_reward_db(kept: list[Ranking], path: Paths, model: Paths) -> Iterator[Row]:
    for number, ranking in enumerate(kept):
        yield {
            "id": f"{number:06d}",
            "prompt": ranking.prompt,
            "generations": [path(image) for image in ranking.sample_ids],
            "ranking": [rank + 1 for rank in ranks(ranking)],
        }


def _hpd_v2(kept: list[Ranking], path: Paths, model: Paths) -> Iterator[Row]:
    annotator = _annotators()
    of_item: dict[str, list[tuple[Ranking, str]]] = defaultdict(list)
    for ranking in kept:
        of_item[ranking.item_id].append((ranking, str(annotator(ranking.annotator))))
    for judged in of_item.values():
        first = judged[0][0]
        given = [[rank + 1 for rank in ranks(ranking)] for ranking, _ in judged]
        yield {
            "prompt": first.prompt,
            "image_path": [path(image) for image in first.sample_ids],
            "rank": [fmean(of_image) for of_image in zip(*given, strict=True)],
            "raw_annotations": [
                {"rank": own, "user_hash": who} for own, (_, who) in zip(given, judged, strict=True)
            ],
        }


def _hpd_v2_pairs(kept: list[Ranking], path: Paths, model: Paths) -> Iterator[Row]:
    for ranking in kept:
        for one, other, label in _labelled(ranking):
            if label != 0.5:
                yield {
                    "prompt": ranking.prompt,
                    "file_path": [path(ranking.sample_ids[each]) for each in (one, other)],
                    "human_preference": [int(label), int(1 - label)],
                }


def _hpd_v3(kept: list[Ranking], path: Paths, model: Paths) -> Iterator[Row]:
    for ranking in kept:
        for pair in pairs(ranking):
            better, worse = (ranking.sample_ids[each] for each in pair)
            yield {
                "prompt": ranking.prompt,
                "path1": path(better),
                "path2": path(worse),
                "confidence": 1.0,
                "choice_dist": [1, 0],
                "model1": model(better),
                "model2": model(worse),
            }


LAYOUTS: dict[FieldFormat, tuple[str, Callable[[list[Ranking], Paths, Paths], Iterator[Row]], bool]]
LAYOUTS = {
    "image_reward_db": ("train.json", _image_reward_db, True),
    "hpd_v2": ("test.json", _hpd_v2, True),
    "hpd_v2_pairs": ("train.json", _hpd_v2_pairs, False),
    "hpd_v3": ("train.json", _hpd_v3, False),
}
"""The file of each, its entries, and whether they hold ties."""


# --- a table


def _export_table(rankings: Iterable[Ranking], store: Store, file: Path) -> FieldExport:
    if file.suffix != ".parquet":
        raise InputError(f"{file}: expected the name of a file in .parquet, such as pairs.parquet")
    if not file.parent.is_dir():
        raise InputError(f"{file.parent}: no such folder; create it or choose another file")
    if file.exists():
        raise InputError(f"{file}: exists and is not replaced; remove it or choose another name")
    kept, left_out = _sorted_out(rankings, ties=True)
    made = file.with_name(f"{UNFINISHED}{file.name}")
    num_rows = 0
    with (
        lock_name(file, doing="exporting pairs to"),
        reporting_full_disk(file, "exporting pairs"),
    ):
        try:
            with ParquetWriter(made, PICK_A_PIC) as table:
                for row in _pick_a_pic(kept, store):
                    table.add(row)
                    num_rows += 1
            exported = _exported(file, num_rows, kept, left_out, ties=True)
            made.replace(file)
        finally:
            made.unlink(missing_ok=True)
    return exported


def _pick_a_pic(kept: list[Ranking], store: Store) -> Iterator[Row]:
    annotator, model = _annotators(), _models(store)
    encoded = lru_cache(JPEGS)(lambda image: jpeg(read_image_file(store.image_path(image))))
    of_prompt: Counter[str] = Counter()
    for ranking in kept:
        of_prompt[ranking.prompt] += len(_labelled(ranking))
    for number, ranking in enumerate(kept):
        for *two, label in _labelled(ranking):
            images = [ranking.sample_ids[int(each)] for each in two]
            sides = [
                {
                    f"image_{side}_uid": image,
                    f"image_{side}_url": "",
                    f"jpg_{side}": encoded(image),
                    f"model_{side}": model(image),
                    f"label_{side}": abs(label - side),
                }
                for side, image in enumerate(images)
            ]
            yield {
                **sides[0],
                **sides[1],
                "are_different": True,
                "best_image_uid": "tie" if label == 0.5 else images[int(1 - label)],
                "caption": ranking.prompt,
                "created_at": ranking.created_at.astimezone(UTC).replace(tzinfo=None),
                "has_label": True,
                "num_example_per_prompt": of_prompt[ranking.prompt],
                "ranking_id": number,
                "user_id": annotator(ranking.annotator),
            }
