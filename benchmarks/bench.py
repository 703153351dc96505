"""Every table of docs/benchmarks.md once more, in short forms that take less than an hour together.

    python benchmarks/bench.py
    python benchmarks/bench.py --only ceiling cost-images --results runs/other

Runs one part after the other (bench_parts.py) and writes what each measures into `--results`, never
over what is recorded in benchmarks/results. What is there already, of the same command, hardware
and versions, is not measured again, so that it can be stopped and goes on. At the end a page,
bench.md, has the tables, and each figure beside the recorded one. Before all is measured nothing
large is imported: see cost_points.py.
"""

import argparse
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
STOPPED, PATIENCE = 130, 60
"""Exit code, and seconds that a part has to end by itself."""


def say(line: str) -> None:
    """A line that is seen at once, also in a log."""
    print(line, flush=True)


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


def run(part: Part, log: Path) -> int:
    """The exit code of a part; what it says goes into a file."""
    with log.open("ab") as said:
        process = subprocess.Popen(
            part.command,
            cwd=ROOT,
            env=os.environ | ONE,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that what it has started itself can be stopped with it
        )
        try:
            return process.wait()
        except KeyboardInterrupt:
            stop(process)
            raise


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a part and all that it has started, by force what takes long: a run may be saving."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            until = time.monotonic() + PATIENCE
            while time.monotonic() < until:
                process.poll()  # else it stays in the group as long as nobody asks how it ended
                os.killpg(process.pid, 0)
                time.sleep(0.1)
        except ProcessLookupError:  # nobody is left
            return


def last_line(log: Path) -> str:
    """What a part that failed said last."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def about(minutes: float) -> str:
    """Example: "about 12 minutes"."""
    return f"about {minutes:.0f} minutes" if minutes > 1.5 else "about a minute"


def measure(parts: Sequence[Part], folder: Path, done: Done) -> list[str]:
    """Run the parts that are missing; the names of those that could not be measured."""
    left = [part for part in parts if not done.has(part)]
    if len(left) < len(parts):
        say(f"{len(parts) - len(left)} of {len(parts)} parts are in {folder} and stay as they are")
    failed: list[str] = []
    took, expected = 0.0, 0.0
    for number, part in enumerate(left, start=1):
        pace = took / expected if expected else 1.0  # minutes of this machine for one of the table
        own, rest = (
            pace * sum(each.minutes for each in some) for some in ([part], left[number - 1 :])
        )
        say(f"[{number}/{len(left)}] {part.name}: {part.measures}")
        if part.needs in failed:
            say(f"  left out: {part.needs} is missing")
            failed.append(part.name)
            continue
        say(f"  {about(own)}; {about(rest)} left in all")
        log, began = folder / f"{part.name}.log", time.monotonic()
        if code := run(part, log):
            say(f"  failed with {code}: {last_line(log)} (all of it in {log})")
            failed.append(part.name)
            continue
        seconds = time.monotonic() - began
        took, expected = took + seconds / 60, expected + part.minutes
        done.add(part, seconds)
        say(f"  took {seconds / 60:.1f} minutes")
    return failed


def main() -> int:
    """Measure what is missing, then write and print the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, help="By default runs/bench.")
    parser.add_argument("--environments", type=Path, default=Path("runs/peers"))
    parser.add_argument("--only", nargs="+", metavar="PART", help="Parts, or the start of names.")
    parser.add_argument("--tiny", action="store_true", help="Only show that all of it works.")
    given = parser.parse_args()
    own = Path("runs/bench-tiny" if given.tiny else "runs/bench")
    folder = (given.results or own).resolve()
    if folder == RECORDED.resolve():
        parser.error(
            f"--results: {RECORDED} has the results of the long forms; name another folder"
        )
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
        origin = json.loads(finished([sys.executable, "-c", ORIGIN], ROOT).said.splitlines()[-1])
        failed = measure(parts, folder, Done(folder, origin))
    except KeyboardInterrupt:
        say(f"\nstopped; what is finished is in {folder}, and the same command goes on from there")
        return STOPPED
    from bench_page import write_page  # loads torch

    say(f"\n{write_page(folder, RECORDED)}")
    minutes = (time.monotonic() - began) / 60
    say(f"\nthis took {minutes:.0f} minutes; the page is {folder / 'bench.md'}")
    if failed:
        say(f"not measured: {', '.join(failed)}; the same command tries again")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
