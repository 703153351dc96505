"""Writes and reads the metrics.jsonl of a run.

`metrics.jsonl` has one JSON object per iteration, appended and flushed as it happens, so that a
plot can follow it; its key `step` counts iterations. Every key is in metric_table.py. Left out:
logging services (train/trackers.py).
"""

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from imgalign.files import parse_json, write_atomically

log = logging.getLogger(__name__)

Value: TypeAlias = float | int | str | bool | None


class MetricsWriter:
    """Appends to a `metrics.jsonl`; with `resume_step`, first drops the lines of later iterations.

    Those iterations were lost with the process and will be run again.
    """

    def __init__(self, path: Path, *, resume_step: int | None = None) -> None:
        self.path = path
        if path.exists():
            keep = [
                record
                for record in read_metrics(path)
                if resume_step is None or int(record["step"] or 0) <= resume_step
            ]
            write_atomically(path, "".join(line(record) for record in keep))
        self._file = path.open("a", encoding="utf-8")

    def write(self, step: int, values: Mapping[str, Value]) -> None:
        """Append one line. Numbers that JSON cannot hold (NaN, infinity) become null."""
        self._file.write(line({"step": step, **values}))
        self._file.flush()

    def close(self) -> None:
        """Close the file; every line was flushed when it was written."""
        self._file.close()

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def line(values: Mapping[str, Value]) -> str:
    """One JSON object on one line."""
    finite = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in values.items()
    }
    return json.dumps(finite, allow_nan=False) + "\n"


def read_metrics(path: Path) -> list[dict[str, Value]]:
    """All complete lines of a metrics file; a missing file is an empty list.

    A last line without a newline is incomplete and left out. A damaged line is named in the log and
    left out, and the others are used.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    records: list[dict[str, Value]] = []
    for number, text in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            record = parse_json(text)
        except ValueError as error:
            log.warning("%s, line %d: damaged (%s); left out", path, number, error)
            continue
        step = record.get("step") if isinstance(record, dict) else None
        if isinstance(step, int) and not isinstance(step, bool) and step >= 0:
            records.append(record)
        else:
            log.warning("%s, line %d: no object with a 'step' from 0 on; left out", path, number)
    return records
