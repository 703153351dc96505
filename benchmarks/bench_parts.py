"""The parts of `make bench`: each table of docs/benchmarks.md in a short form.

Minutes are those of cores of an AMD EPYC without AVX-512, two parts at once; with it all of them
take about half of that. `tiny` is the same command at a size that
only shows that it starts and ends. Left out: the order of what happens (bench.py).
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
RECORDED = HERE / "results"
SEEDS = (0,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One command, which writes its results into the folder."""

    name: str
    measures: str
    minutes: float
    command: Sequence[str]
    needs: str = ""
    """The part without whose results this one has nothing to begin with."""
    cores: int = 1
    """That it keeps busy, or that it has to itself because it measures by the clock."""
    lane: str = ""
    """Parts of one lane write into one file, and never at once."""


def parts_of(folder: Path, environments: Path, *, tiny: bool = False) -> list[Part]:
    """All parts, in the order in which they run."""
    return [
        *limits(folder, tiny=tiny),
        *costs(folder, tiny=tiny),
        *peers(folder, environments, tiny=tiny),
        *taste(folder, environments, tiny=tiny),
    ]


def script(name: str, *arguments: object) -> list[str]:
    """A command line of one of the benchmarks."""
    return [sys.executable, str(HERE / f"{name}.py"), *map(str, arguments)]


def limits(folder: Path, *, tiny: bool) -> list[Part]:
    """What limits training on a processor, and what cached features save a fit."""
    rows = ["--turns", 1, "--rows", 8] if tiny else []
    few = ["--turns", 1, "--rankings", 4] if tiny else []
    return [
        Part(
            name="ceiling",
            measures="how near passes of the UNet come to what this processor can do",
            minutes=1.1,
            command=script("ceiling", *rows, "--results", folder / "ceiling.json"),
        ),
        Part(
            name="reward-cache",
            measures="a pass of a reward fit on cached features",
            minutes=1.0,
            command=script("reward_cache", *few, "--results", folder / "reward_cache.json"),
        ),
    ]


COSTS = (
    ("start", (1,), 1.1, 2, "what starting takes"),
    ("images", (8, 16), 6.6, 1, "an iteration by its images"),
    ("steps", (5, 10), 5.3, 1, "an iteration by its denoising steps"),
    ("k", (2, 9), 6.0, 1, "an iteration by images of a ranking"),
    ("rankings", (1_000, 30_000), 3.0, 1, "the store by its rankings"),
    ("annotators", (1, 100), 3.4, 2, "the server by its annotators"),
    ("processes", (1, 2), 9.0, 2, "an iteration by processes that share it"),
)
"""Axis, two of its recorded points, minutes of two turns, cores, and what is measured."""
COST_TURNS = 2


def costs(folder: Path, *, tiny: bool) -> list[Part]:
    """Cost curves at two points."""
    parts = []
    for axis, points, minutes, cores, measures in COSTS:
        own = ["--axes", axis, "--points", *(points[:1] if tiny else points)]
        beside = "nothing" if cores > 1 else "another part on the other core"
        own += ["--repetitions", 1 if tiny else COST_TURNS, "--beside", f"{beside}, in make bench"]
        kept = ["--folder", folder / "stores", "--results", folder / "cost_curves.json"]
        parts.append(
            Part(
                name=f"cost-{axis}",
                measures=f"cost curves: {measures}",
                minutes=minutes,
                command=script("cost_curves", *own, *kept),
                cores=cores,
                lane="cost curves",
            )
        )
    return parts


LONG_PEER_MINUTES, IMAGE_PEER_MINUTES, PEER_MINUTES = 30.0, 3.5, 3.0


def peers(folder: Path, environments: Path, *, tiny: bool) -> list[Part]:
    """The comparisons that were recorded, in three turns, those of images in two."""
    known = json.loads((RECORDED / "peers.json").read_text(encoding="utf-8"))
    small = ["--repetitions", 1, "--batches", 1, "--batch", 2, "--steps", 3]
    small += ["--language-steps", 2, "--language-iterations", 2, "--image-steps", 2]
    parts = []
    for name in known:
        images = not name.startswith("language")
        usual = LONG_PEER_MINUTES if name == "ddpo" else IMAGE_PEER_MINUTES
        sizes = ["--epochs", 2, "--image-steps", 9, *(["--repetitions", 2] if images else [])]
        sizes += small if tiny else []
        where = ["--environments", environments, "--results", folder / "peers.json"]
        parts.append(
            Part(
                name=f"peer-{name}",
                measures=f"the same work by another trainer and by imgalign: {name}",
                minutes=usual if images else PEER_MINUTES,
                command=script("compare_peers", name, *sizes, *where),
            )
        )
    return parts


def taste(folder: Path, environments: Path, *, tiny: bool) -> list[Part]:
    """The time to a win rate beside TRL's, to the first checkpoint of each side."""
    demos = [folder / "demos" / f"seed-{seed}" for seed in SEEDS]
    sizes = [1, 1, 1] if tiny else [6, 15, 15]
    short = [
        word
        for name, size in zip(("--iterations", "--epochs", "--every"), sizes, strict=True)
        for word in (name, size)
    ]
    where = ["--environments", environments, "--out", folder / "taste", "--results", folder]
    return [
        Part(
            name="rewards",
            measures="the reward of a demo, for the next part; nothing is measured",
            minutes=1.5,
            command=script(
                "demo_rewards",
                *(folder / "demos", "--jobs", 2, "--seeds", *SEEDS),
                *("--prompts", 24 if tiny else 96),
            ),
            cores=2,
        ),
        Part(
            name="taste",
            measures="the time to an oracle win rate on one reward, beside TRL's",
            minutes=8.0,
            needs="rewards",
            command=script("time_to_taste", *demos, *short, "--jobs", 2, *where),
            cores=2,
        ),
    ]
