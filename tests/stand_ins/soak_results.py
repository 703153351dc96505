"""The file in which `make soak` counts the faults of all sittings, and what need not be done again.

Example: {"command": ..., "hardware": ..., "versions": ..., "injected": 40, "survived": 40,
"kinds": {"kill -9, random walk, grpo": {"injected": 40, "survived": 40}},
"done": {"test_killed_runs.test_a_run[grpo]": "0-17, 19", "test_damaged_images.test_any[]": 10},
"sittings": [{"command": ..., "hardware": ..., "versions": ..., "injected": 40, "survived": 40}]}:
the repetitions of a test whose repetitions are tests of their own, and of other tests how often
the short form's examples were tried. Origin is that of the last sitting; a sitting with the origin
of the one before adds to it.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from imgalign.evaluate.origin import command_line, hardware, library_versions
from imgalign.files import write_atomically

COUNTS = ("injected", "survived")


@dataclass(frozen=True, kw_only=True)
class Drill:
    """A test, or one repetition of it."""

    name: str
    number: int | None = None


@dataclass
class SoakResults:
    """The counts of all sittings, in memory; `add` writes them."""

    file: Path
    soak: int
    injected: Counter[str] = field(default_factory=Counter)
    survived: Counter[str] = field(default_factory=Counter)
    numbers: dict[str, set[int]] = field(default_factory=dict)
    times: dict[str, int] = field(default_factory=dict)
    sittings: list[dict[str, Any]] = field(default_factory=list)
    begun: bool = False

    @staticmethod
    def read(file: Path, *, soak: int) -> "SoakResults":
        """What a file has, or nothing where there is none."""
        found = SoakResults(file, soak)
        if not file.exists():
            return found
        known = json.loads(file.read_text(encoding="utf-8"))
        for kind, counts in known["kinds"].items():
            found.injected[kind], found.survived[kind] = (counts[what] for what in COUNTS)
        for name, done in known["done"].items():
            if isinstance(done, str):
                found.numbers[name] = numbers_of(done)
            else:
                found.times[name] = done
        found.sittings = known["sittings"]
        return found

    def is_done(self, drill: Drill) -> bool:
        """Whether it was survived in an earlier sitting, as often as this one asks for."""
        if drill.number is None:
            return self.times.get(drill.name, 0) >= self.soak
        return drill.number in self.numbers.get(drill.name, set())

    def add(self, drill: Drill, counts: Mapping[str, Mapping[str, int]], *, passed: bool) -> None:
        """Count what a test has injected; one that passed need not be done again."""
        if not self.begun:
            self._begin()
        for what in COUNTS:
            getattr(self, what).update(counts[what])
            self.sittings[-1][what] += sum(counts[what].values())
        if passed and drill.number is None:
            self.times[drill.name] = max(self.soak, self.times.get(drill.name, 0))
        elif passed and drill.number is not None:
            self.numbers.setdefault(drill.name, set()).add(drill.number)
        self._write()

    def _begin(self) -> None:
        """A sitting, or more of the last one."""
        command = f"IMGALIGN_SOAK={self.soak} {command_line()}"
        origin = {"command": command, "hardware": hardware(), "versions": library_versions()}
        last = self.sittings[-1] if self.sittings else {}
        if any(last.get(name) != value for name, value in origin.items()):
            self.sittings.append({**origin, **dict.fromkeys(COUNTS, 0)})
        self.begun = True

    def _write(self) -> None:
        origin = {name: value for name, value in self.sittings[-1].items() if name not in COUNTS}
        done = {name: ranges(numbers) for name, numbers in self.numbers.items()} | self.times
        found = {
            **origin,
            "injected": self.injected.total(),
            "survived": self.survived.total(),
            "kinds": {
                kind: {what: getattr(self, what)[kind] for what in COUNTS}
                for kind in sorted(self.injected)
            },
            "done": dict(sorted(done.items())),
            "sittings": self.sittings,
        }
        write_atomically(self.file, json.dumps(found, indent=1) + "\n")


def ranges(numbers: Iterable[int]) -> str:
    """Example: "0-17, 19"."""
    runs = groupby(enumerate(sorted(numbers)), key=lambda pair: pair[1] - pair[0])
    ends = [[number for _, number in run] for _, run in runs]
    return ", ".join(f"{each[0]}-{each[-1]}" if len(each) > 1 else f"{each[0]}" for each in ends)


def numbers_of(text: str) -> set[int]:
    """The numbers that `ranges` wrote."""
    found: set[int] = set()
    for part in text.split(", "):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def table(results: Mapping[str, Any]) -> str:
    """Markdown, one line a kind, for docs/quality.md."""
    lines = ["| fault | injected | survived |", "|---|---|---|"]
    for kind, counts in results["kinds"].items():
        lines.append(f"| {kind} | {counts['injected']:,} | {counts['survived']:,} |")
    return "\n".join(lines)
