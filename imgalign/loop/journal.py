"""What a loop has done, one entry for each finished stage, so that it can be continued.

A stage is looked up before it is done, and written down when it is finished. Stages themselves can
be repeated: one that was killed in the middle goes on or starts again, and nothing is there twice.
`journal.json` is replaced as a whole. Left out: what stages do.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import TypeAdapter, ValidationError

from imgalign.errors import CheckpointError, ConfigError, InputError
from imgalign.files import LOCK, UNFINISHED, read_json, reporting_full_disk, write_atomically

FILE = "journal.json"
Stage: TypeAlias = Literal["generate", "rank", "fit", "align", "compare", "vote"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A finished stage of a round.

    Example: round 2, stage "align", inputs {"start": "9f1c...", "rankings": "77ab..."}, outputs
    {"weights": "round-02/run/step-000080", "weights_hash": "c02e...", ...}.
    """

    round: int
    stage: Stage
    inputs: Mapping[str, str]
    """What it was made from, by hash."""
    outputs: Mapping[str, Any]
    seconds: float
    """Of the last attempt."""


@dataclass(slots=True)
class Journal:
    """The entries of a loop in its folder, in the order in which stages were finished."""

    folder: Path
    settings: Mapping[str, Any]
    """All settings, flat: of the loop, and below `train.` of the recipe."""
    entries: list[Entry]

    @staticmethod
    def begin(
        folder: Path, settings: Mapping[str, Any], *, free: tuple[str, ...] = ()
    ) -> "Journal":
        """That of a new folder, or of one that holds the same loop; else an error of one line.

        Settings whose paths begin with one of `free` may have changed. Nothing is written yet.
        """
        file = folder / FILE
        if not file.is_file():
            refuse_strange(folder)
            return Journal(folder, settings, [])
        try:
            kept = read_json(file)
            before = dict(kept["settings"])
            entries = TypeAdapter(list[Entry]).validate_python(kept["entries"])
        except (ValueError, KeyError, TypeError) as error:
            where = "its entries" if isinstance(error, ValidationError) else "not JSON"
            raise CheckpointError(
                f"{file}: damaged ({where}); start again in another folder, or put it back"
            ) from None
        for key in sorted(before.keys() | settings.keys()):
            known = is_known(key, before) and is_known(key, settings)
            if known and not key.startswith(free) and before.get(key) != settings.get(key):
                raise ConfigError(
                    f"{key}: the loop in {folder} began with {before.get(key)!r}, got "
                    f"{settings.get(key)!r}; continue with the old value, or choose another --out"
                )
        return Journal(folder, settings, entries)

    def save(self) -> None:
        """Write the file."""
        content = {
            "settings": dict(self.settings),
            "entries": [asdict(entry) for entry in self.entries],
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        with reporting_full_disk(self.folder, "writing the journal"):
            write_atomically(self.folder / FILE, json.dumps(content, indent=1) + "\n")

    def find(self, round: int, stage: Stage) -> Entry | None:
        """The entry of a stage; None before it is finished."""
        return next((e for e in self.entries if (e.round, e.stage) == (round, stage)), None)

    def perform(
        self,
        round: int,
        stage: Stage,
        inputs: Mapping[str, str],
        work: Callable[[], Mapping[str, Any]],
    ) -> Mapping[str, Any]:
        """The outputs of a stage: as they are written down, or of doing it now.

        CheckpointError where it was made from other inputs than there are now.
        """
        found = self.find(round, stage)
        if found is not None:
            for name in sorted(found.inputs.keys() | inputs.keys()):
                if found.inputs.get(name) != inputs.get(name):
                    raise CheckpointError(
                        f"{self.folder}: stage {stage} of round {round} was made from other "
                        f"{name} than there are now; put these back, or start another loop"
                    )
            return found.outputs
        started = time.monotonic()
        outputs = work()
        seconds = time.monotonic() - started
        self.entries.append(
            Entry(round=round, stage=stage, inputs=inputs, outputs=outputs, seconds=seconds)
        )
        self.save()
        return outputs


def is_known(key: str, settings: Mapping[str, Any]) -> bool:
    """Whether settings have a key, or null in the place of its section; another version may not."""
    parts = key.split(".")
    return any(".".join(parts[:depth]) in settings for depth in range(1, len(parts) + 1))


def refuse_strange(folder: Path) -> None:
    """InputError for a folder that holds something, and no loop."""
    if not folder.exists():
        return
    names = sorted(path.name for path in folder.iterdir())
    strange = [name for name in names if name != LOCK and not name.startswith(UNFINISHED)]
    if strange:
        raise InputError(
            f"{folder}: expected a new or empty folder, or one with a loop, found {strange[0]!r}; "
            "choose another --out"
        )


def digest(values: Sequence[str]) -> str:
    """SHA-256 of texts, in this order."""
    return hashlib.sha256(json.dumps(list(values)).encode()).hexdigest()
