"""Rows of JSON lines, which the benchmarks of texts hand from stage to stage."""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any


def permuted(rows: Sequence[Mapping[str, Any]], *, seed: int) -> Iterator[dict[str, Any]]:
    """The same ranks, each of another text: nothing can be learned from them."""
    luck = random.Random(f"shuffled/{seed}")
    for row in rows:
        yield {**row, "ranks": luck.sample(row["ranks"], len(row["ranks"]))}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """JSON lines."""
    return [json.loads(each) for each in path.read_text(encoding="utf-8").splitlines()]


def write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
