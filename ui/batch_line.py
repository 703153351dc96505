"""Batches that wait for their turn: a file `<name>.waits` beside each, which outlives the app."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from imgalign.files import read_json, write_atomically
from ui.turns import alone_at

LINE = "line"


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """A batch that waits."""

    app: str
    """Which app is to start it (`Runs.app`)."""
    resume: bool
    """Whether it goes on from what it has made."""
    since: int
    """Its place in the line: nanoseconds of the clock as it came, unless the line was reordered."""
    begun: str | None = None
    """The process before the one that was about to be started, as the app ended."""


WAITS = TypeAdapter(Waits)


class BatchLine:
    """The line of one folder; `app` says which app this is."""

    def __init__(self, folder: Path, app: Callable[[], str]) -> None:
        self.folder = folder
        self.app = app

    def alone(self) -> AbstractContextManager[None]:
        """Inside, no other app changes it."""
        return alone_at(self.folder / LINE, doing="starting batches")

    def path(self, name: str) -> Path:
        """Where it stands that a batch waits."""
        return self.folder / f"{name}.waits"

    def waits(self, name: str) -> Waits | None:
        """How a batch waits; None for one that does not."""
        try:
            return WAITS.validate_python(read_json(self.path(name)))
        except (OSError, ValueError, ValidationError):
            return None

    def put(self, name: str, waits: Waits) -> None:
        """Let it wait, or change how."""
        write_atomically(self.path(name), json.dumps(asdict(waits)) + "\n")

    def order(self, names: list[str]) -> None:
        """Let these wait in this order; inside of `alone`."""
        waiting = {each: waits for each in names if (waits := self.waits(each)) is not None}
        first = min((each.since for each in waiting.values()), default=0)
        for number, (name, waits) in enumerate(waiting.items()):
            if waits.since != first + number:
                self.put(name, replace(waits, since=first + number))

    def leave(self, name: str) -> None:
        """It waits no more."""
        self.path(name).unlink()

    def mine(self) -> list[str]:
        """What waits for this app to start it, the next first."""
        found: list[tuple[int, int, str]] = []
        for path in self.folder.glob("*.waits"):
            waits = self.waits(path.stem)
            if waits is not None and waits.app == self.app():
                # Of two that came at once the shorter name is of the earlier batch.
                found.append((waits.since, len(path.stem), path.stem))
        return [name for *_, name in sorted(found)]
