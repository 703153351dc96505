"""Pairs of texts from the store as JSON lines, in the columns of TRL's preference datasets.

    {"prompt": "a cat", "chosen": "a red cat in the snow", "rejected": "a cat, a cat"}

Two judgements that agree are two lines. `read_text_rankings` reads what is written here.
"""

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from imgalign.errors import InputError
from imgalign.files import UNFINISHED, lock_name, reporting_full_disk
from imgalign.preferences.foreign.pair_export import Choice, Exported, write_each
from imgalign.preferences.records import Ranking

COLUMNS = ("prompt", "chosen", "rejected")


def export_text_pairs(
    rankings: Iterable[Ranking],
    text: Callable[[str], str],
    file: Path,
    *,
    choice: Choice = "all",
) -> Exported:
    """Write a new file of pairs, whole or not at all.

    `text` gives the text of a name, as `Store.text` does; `choice` is as of `export_pairs`.
    InputError for a file that exists, since nothing tells an export from data of one's own, and
    where there is no pair.
    """
    if not file.parent.is_dir():
        raise InputError(f"{file.parent}: no such folder; create it or choose another file")
    if file.exists():
        raise InputError(f"{file}: exists and is not replaced; remove it or choose another name")
    made = file.with_name(f"{UNFINISHED}{file.name}")
    with (
        lock_name(file, doing="exporting pairs to"),
        reporting_full_disk(file, "exporting pairs"),
    ):
        try:
            with made.open("w", encoding="utf-8") as lines:

                def write_pair(ranking: Ranking, chosen: str, rejected: str) -> None:
                    values = (ranking.prompt, text(chosen), text(rejected))
                    row = dict(zip(COLUMNS, values, strict=True))
                    lines.write(json.dumps(row, ensure_ascii=False) + "\n")

                exported = write_each(rankings, write_pair, file, choice)
                lines.flush()
                os.fsync(lines.fileno())
            made.replace(file)
        finally:
            made.unlink(missing_ok=True)
    return exported
