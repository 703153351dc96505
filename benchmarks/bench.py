"""Every table of docs/benchmarks.md once more, in short forms that take less than an hour together.

    python benchmarks/bench.py
    python benchmarks/bench.py --only ceiling cost-images --results runs/other

Runs the parts (bench_parts.py), two at once where each has one thread, and writes what they measure
into a folder below `--results`, never over what is recorded in benchmarks/results. The folder is
one of this hardware, these versions and this code: what is there already is not measured again, so
that it can be stopped and goes on, and nothing of another machine or commit is taken for it. At the
end a page, bench.md, has the tables, and each figure beside the recorded one. Before all is
measured nothing large is imported: see cost_points.py.
"""

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from bench_parts import RECORDED, Part, parts_of
from cost_curves import ORIGIN
from cost_points import ROOT, finished

Facts: TypeAlias = dict[str, Any]

DONE = "bench.json"
ONE = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
CORES = 2
"""That are kept busy."""
MEASURED = ("imgalign", "reward_models", "ui", "configs", "benchmarks")
STOPPED, PATIENCE = 130, 60
"""Exit code, and seconds that a part has to end by itself."""


def say(line: str) -> None:
    """A line that is seen at once, also in a log."""
    print(line, flush=True)


def code_hash() -> str:
    """SHA-256 of all that is measured, and of what measures it."""
    found = hashlib.sha256()
    for folder in MEASURED:
        for file in sorted((ROOT / folder).rglob("*")):
            if (
                file.suffix in {".py", ".yaml", ".json", ".safetensors"}
                and RECORDED not in file.parents
            ):
                found.update(file.relative_to(ROOT).as_posix().encode())
                found.update(hashlib.sha256(file.read_bytes()).digest())
    return found.hexdigest()


def folder_of(results: Path, origin: Facts) -> Path:
    """Where results of one origin are: those of another one are never among them."""
    return results / hashlib.sha256(json.dumps(origin, sort_keys=True).encode()).hexdigest()[:8]


class Done:
    """The parts that are in a folder, as its bench.json has them."""

    def __init__(self, folder: Path, origin: Facts) -> None:
        self.file, self.origin = folder / DONE, origin
        self.parts: dict[str, Facts] = {}
        if self.file.is_file():
            self.parts = json.loads(self.file.read_text(encoding="utf-8"))

    def has(self, part: Part) -> bool:
        """Whether it was measured by the same command, on the same hardware, by these versions."""
        known = self.parts.get(part.name, {})
        expected = {**self.origin, "command": list(part.command)}
        return all(known.get(name) == value for name, value in expected.items())

    def add(self, part: Part, seconds: float) -> None:
        """Remember that it is finished."""
        own = {"command": list(part.command), "seconds": round(seconds, 1)}
        self.parts[part.name] = {**self.origin, **own}
        text = json.dumps(self.parts, indent=1) + "\n"
        unfinished = self.file.with_suffix(".tmp")
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(self.file)


class Running:
    """A part at work; what it says goes into a file."""

    def __init__(self, part: Part, log: Path) -> None:
        self.part, self.log, self.began = part, log, time.monotonic()
        with log.open("ab") as said:
            self.process = subprocess.Popen(
                part.command,
                cwd=ROOT,
                env=os.environ | ONE,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that what it has started can be stopped with it
            )

    def sends(self, number: int) -> bool:
        """Send a signal to it and to what it has started; False where nobody is left."""
        self.process.poll()  # else it stays in the group as long as nobody asks how it ended
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            return False
        return True


def stop(parts: Sequence[Running]) -> None:
    """End parts and all that they have started, by force what takes long: a run may be saving."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        until = time.monotonic() + PATIENCE
        left = [each for each in parts if each.sends(number)]
        while left and time.monotonic() < until:
            time.sleep(0.1)
            left = [each for each in left if each.sends(0)]


def last_line(log: Path) -> str:
    """What a part that failed said last."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def about(minutes: float) -> str:
    """Example: "about 12 minutes"."""
    return f"about {minutes:.0f} minutes" if minutes > 1.5 else "about a minute"


class Turns:
    """Which of the parts that are missing is next, and how long all of them will take."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.waiting = list(parts)
        self.running: list[Running] = []
        self.failed: list[str] = []
        self._took = self._expected = 0.0

    def next_part(self) -> Part | None:
        """One that has its cores, its lane and what it needs; None while there is none."""
        own = [each.part for each in self.running]
        free = CORES - sum(part.cores for part in own)
        lanes = {part.lane for part in own if part.lane}
        missing = {part.name for part in [*own, *self.waiting]}
        for part in self.waiting:
            if part.cores <= free and part.lane not in lanes and part.needs not in missing:
                return part
        return None

    def minutes(self, parts: Sequence[Part]) -> float:
        """Of this machine, by those of the table and the parts that are through."""
        pace = self._took / self._expected if self._expected else 1.0
        return pace * sum(part.minutes * part.cores for part in parts) / CORES

    def left(self) -> float:
        """Minutes of all that waits or runs."""
        now = time.monotonic()
        at_work = [each.part for each in self.running]
        passed = [(now - each.began) / 60 * each.part.cores / CORES for each in self.running]
        return max(0.0, self.minutes([*self.waiting, *at_work]) - sum(passed))

    def ended(self, one: Running) -> None:
        """Learn how fast this machine is from a part that is through."""
        self._took += (time.monotonic() - one.began) / 60
        self._expected += one.part.minutes


def measure(parts: Sequence[Part], folder: Path, done: Done) -> list[str]:
    """Run the parts that are missing; the names of those that could not be measured."""
    turns = Turns([part for part in parts if not done.has(part)])
    if (count := len(turns.waiting)) < len(parts):
        say(f"{len(parts) - count} of {len(parts)} parts are in {folder} and stay as they are")
    try:
        while turns.waiting or turns.running:
            for one in turns.running[:]:
                if one.process.poll() is not None:
                    turns.running.remove(one)
                    finish(one, turns, done)
            while (part := turns.next_part()) is not None:
                turns.waiting.remove(part)
                begin(part, turns, folder, f"{count - len(turns.waiting)}/{count}")
            time.sleep(0.1)
    finally:
        stop(turns.running)
    return turns.failed


def begin(part: Part, turns: Turns, folder: Path, number: str) -> None:
    """Start a part, unless what it needs is missing."""
    say(f"[{number}] {part.name}: {part.measures}")
    if part.needs in turns.failed:
        say(f"  left out: {part.needs} is missing")
        turns.failed.append(part.name)
        return
    turns.running.append(Running(part, folder / f"{part.name}.log"))
    own = turns.minutes([part]) * CORES / part.cores
    say(f"  {about(own)}; {about(turns.left())} left in all")


def finish(one: Running, turns: Turns, done: Done) -> None:
    """Say how a part ended, and remember it."""
    name, code = one.part.name, one.process.returncode
    if code:
        say(f"  {name} failed with {code}: {last_line(one.log)} (all of it in {one.log})")
        turns.failed.append(name)
        return
    seconds = time.monotonic() - one.began
    turns.ended(one)
    done.add(one.part, seconds)
    say(f"  {name} took {seconds / 60:.1f} minutes")


def main() -> int:
    """Measure what is missing, then write and print the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, help="By default runs/bench.")
    parser.add_argument("--environments", type=Path, default=Path("runs/peers"))
    parser.add_argument("--only", nargs="+", metavar="PART", help="Parts, or the start of names.")
    parser.add_argument("--tiny", action="store_true", help="Only show that all of it works.")
    given = parser.parse_args()
    own = Path("runs/bench-tiny" if given.tiny else "runs/bench")
    results = (given.results or own).resolve()
    if results == RECORDED.resolve():
        parser.error(
            f"--results: {RECORDED} has the results of the long forms; name another folder"
        )
    origin = json.loads(finished([sys.executable, "-c", ORIGIN], ROOT).said.splitlines()[-1])
    origin["code"] = code_hash()
    folder = folder_of(results, origin)
    parts = parts_of(folder, given.environments.resolve(), tiny=given.tiny)
    if given.only:
        names = [part.name for part in parts]
        if unknown := [each for each in given.only if not any(n.startswith(each) for n in names)]:
            parser.error(f"--only: no part is called {', '.join(unknown)}; there are {names}")
        parts = [part for part in parts if part.name.startswith(tuple(given.only))]
    folder.mkdir(parents=True, exist_ok=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    began = time.monotonic()
    try:
        failed = measure(parts, folder, Done(folder, origin))
    except KeyboardInterrupt:
        say(f"\nstopped; what is finished is in {folder}, and the same command goes on from there")
        return STOPPED
    from bench_page import write_page  # loads torch

    minutes = (time.monotonic() - began) / 60
    say(f"\n{write_page(folder, RECORDED, failed=failed, minutes=minutes)}")
    say(f"\nthe page is {folder / 'bench.md'}")
    if failed:
        say(f"not measured: {', '.join(failed)}; the same command tries again")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
