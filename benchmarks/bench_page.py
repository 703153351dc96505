"""The page of `make bench`: its tables, and each figure beside the one that is recorded.

A figure is a median with its range, or a rate with its interval. Two agree where these overlap, or
where they differ by no more than 10 %, exponents by no more than 0.1. Ratios, shares, exponents and
win rates are what the documents claim; seconds and memory are of one machine. Recorded exponents
are fitted again through the points that both have. Left out: what measures.
"""

import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import compare_peers
import cost_curves
import time_to_taste

Facts: TypeAlias = Any
NEAR, NEAR_EXPONENTS = 1.1, 0.1
"""Two figures whose ratio, or exponents whose difference, is no larger agree."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A median and its ends; a `claim` holds on other machines, too."""

    value: float
    low: float
    high: float
    claim: bool = False
    exponent: bool = False

    def __str__(self) -> str:
        """Example: "1.02 (1.01 to 1.10)"."""
        ends = f" ({self.low:.3g} to {self.high:.3g})" if self.low < self.high else ""
        return f"{self.value:.3g}{ends}"

    def agrees(self, other: "Figure") -> bool:
        """Whether the ranges overlap, or the values are near each other."""
        if self.low <= other.high and other.low <= self.high:
            return True
        if self.exponent:
            return abs(self.value - other.value) <= NEAR_EXPONENTS
        return self.value * other.value > 0 and 1 / NEAR <= self.value / other.value <= NEAR


Figures: TypeAlias = Iterator[tuple[str, Figure]]


def of_spread(found: Facts, *, claim: bool = False) -> Figure:
    """As the scripts write it."""
    return Figure(found["median"], found["low"], found["high"], claim)


def of_values(values: list[float]) -> Figure:
    """Of several turns."""
    return Figure(statistics.median(values), min(values), max(values))


def of_peers(found: Facts) -> Figures:
    """Each side's CPU seconds and memory, and how many times as fast it is as the peer."""
    for comparison in found.values():
        for number, side in enumerate(comparison["sides"]):
            name = f"{comparison['sides'][0]['side']} / {side['side']}" if number else side["side"]
            yield f"{name}: CPU seconds", of_spread(side["cpu_seconds"]["total"])
            yield f"{name}: peak memory, GB", of_spread(side["peak_memory_gb"])
            if number:
                yield f"{name}: times as fast", of_spread(side["faster"], claim=True)


def of_ceiling(found: Facts) -> Figures:
    """Each pass's time of a row, and its share of what the processor can do."""
    for each in found["passes"]:
        name = f"{each['pass']}, {each['rows']} rows"
        yield f"{name}: ms a row", Figure(*each["milliseconds_a_row"])
        yield f"{name}: share of a product's speed", Figure(*each["share_of_the_ceiling"], True)


def of_reward_cache(found: Facts) -> Figures:
    """Passes with and without the cache."""
    for name, each in found["cpu_seconds"].items():
        yield f"a pass of a reward fit, {name}: CPU seconds", of_spread(each)
    anew, cached = (found["cpu_seconds"][name] for name in ("anew", "cached"))
    ends = anew["low"] / cached["high"], anew["high"] / cached["low"]
    name = "a pass of a reward fit, cached: times as fast"
    yield name, Figure(found["times_as_fast"], *ends, True)


def of_cost_curves(found: Facts) -> Figures:
    """Each point of each curve, and the exponents."""
    for axis, known in found.items():
        label = cost_curves.AXES[axis].label
        for what, unit in (("cpu_seconds", "CPU seconds"), ("peak_memory_gb", "peak memory, GB")):
            for curve, points in cost_curves.series(known, what).items():
                for point, values in points.items():
                    yield f"{label} {point:,}, {curve}: {unit}", of_values(values)
        for curve, fit in known["fits"]["cpu_seconds"].items():
            ends = fit.get("interval", [fit["exponent"]] * 2)
            name = f"{label}, {curve}: exponent"
            yield name, Figure(fit["exponent"], *ends, claim=True, exponent=True)


def of_taste(found: Facts) -> Figures:
    """The win rate of each checkpoint, and the CPU minutes until it was there."""
    for each in found["checkpoints"]:
        name = f"{each['side']}, seed {each['seed']}, iteration {each['step']}"
        minutes = each["cpu_seconds"] / 60
        yield f"{name}: CPU minutes", Figure(minutes, minutes, minutes)
        yield f"{name}: oracle win rate", Figure(*each["win_rate"], True)


FILES: Mapping[str, Callable[[Facts], Figures]] = {
    "peers.json": of_peers,
    "time_to_taste.json": of_taste,
    "ceiling.json": of_ceiling,
    "reward_cache.json": of_reward_cache,
    "cost_curves.json": of_cost_curves,
}


def read(folder: Path, name: str) -> Facts:
    """What a file has; nothing where there is none."""
    file = folder / name
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def at_points_of(recorded: Facts, here: Facts) -> Facts:
    """Recorded cost curves at the points that are in others, too, fitted through these."""
    found = {}
    for axis, known in recorded.items():
        points = here.get(axis, {}).get("points", {})
        common = {point: runs for point, runs in known["points"].items() if point in points}
        found[axis] = {**known, "points": common}
        cost_curves.summarise(found[axis], cost_curves.AXES[axis])
    return found


def figures(folder: Path, *, beside_those_of: Path | None = None) -> dict[str, Figure]:
    """All that a folder has, as far as it can be compared with what another one has."""
    found: dict[str, Figure] = {}
    for name, figures_of in FILES.items():
        if facts := read(folder, name):
            if beside_those_of and figures_of is of_cost_curves:
                facts = at_points_of(facts, read(beside_those_of, name))
            found |= figures_of(facts)
    return found


def beside(here: Mapping[str, Figure], recorded: Mapping[str, Figure], *, claim: bool) -> str:
    """Markdown: the figures that both have."""
    lines = ["| | recorded | here | here / recorded | agrees |", "|---|---|---|---|---|"]
    for name, own in here.items():
        if name not in recorded or own.claim != claim:
            continue
        other = recorded[name]
        ratio = f"{own.value / other.value:.2f}" if other.value > 0 and own.value > 0 else ""
        cells = [name, str(other), str(own), "" if own.exponent else ratio]
        cells.append("yes" if own.agrees(other) else "no")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def tables(folder: Path) -> Iterator[str]:
    """Those of the scripts themselves, of what a folder has."""
    for name, found in read(folder, "peers.json").items():
        yield f"{name}, {found['repetitions']} turns:\n\n{compare_peers.table(found['sides'])}"
    if checkpoints := read(folder, "time_to_taste.json").get("checkpoints"):
        yield time_to_taste.table(checkpoints)
    if curves := read(folder, "cost_curves.json"):
        yield cost_curves.table(curves)


def hardware_of(folder: Path) -> str:
    """What the results of a folder were measured on, each named once."""
    found = {}
    for name in FILES:
        if facts := read(folder, name):
            for each in [facts] if "hardware" in facts else facts.values():
                found[", ".join(each["hardware"].values())] = True
    return "; ".join(found)


def page(folder: Path, recorded: Path, *, failed: Sequence[str] = ()) -> str:
    """All of it, in Markdown; `failed` are the parts that were not measured to their end."""
    here, known = figures(folder), figures(recorded, beside_those_of=folder)
    both = [name for name in here if name in known]
    agreeing = {
        claim: [here[name].agrees(known[name]) for name in both if here[name].claim == claim]
        for claim in (True, False)
    }
    claims, costs = (f"{sum(each)} of {len(each)}" for each in agreeing.values())
    missing = ", ".join(failed)
    left = f"Not measured to the end: {missing}; what is there of these is of fewer turns."
    return "\n\n".join(
        [
            *([left] if failed else []),
            f"Recorded on {hardware_of(recorded)}; here: {hardware_of(folder)}.",
            *tables(folder),
            f"What is claimed: {claims} agree.",
            beside(here, known, claim=True),
            f"What it takes, of one machine: {costs} agree.",
            beside(here, known, claim=False),
        ]
    )


def write_page(
    folder: Path, recorded: Path, *, failed: Sequence[str] = (), minutes: float = 0.0
) -> str:
    """Write it into the folder as bench.md, and return it; `minutes` are those of this sitting."""
    text = page(folder, recorded, failed=failed)
    text = f"{text}\n\nThe last sitting took {minutes:.0f} minutes."
    (folder / "bench.md").write_text(f"# Benchmarks, short forms\n\n{text}\n", encoding="utf-8")
    return text
