"""Direct methods side by side: the demo's rankings, equal cost, several seeds, and controls.

    python benchmarks/direct.py runs/demo-seeds/seed-* --out runs/direct

For each finished demo (`benchmarks/demo_seeds.py` makes them) and each variant it trains with the
demo's seed on the demo's rankings, and compares the result with the base as the demo does. A run
that is finished is not run again. Every variant costs about as much as the demo's GRPO run, counted
in forward passes of one image (a backward pass is two of them). Controls: `shuffled` permutes the
candidates of each ranking, so that nothing may improve; `flipped` turns 30 % of the rankings
around. Writes direct.json and prints a table.
"""

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from algorithms import measured, run, save

PAIRS = ("algorithm.compare=all_pairs",)
VARIANTS: Mapping[str, tuple[str, ...]] = {
    "grpo": ("storybook_grpo",),
    "sft": ("storybook_sft",),
    "dpo": ("storybook_dpo",),
    "dpo-pairs": ("storybook_dpo", *PAIRS),
    "dpo-best-worst": ("storybook_dpo", "algorithm.compare=best_worst"),
    "ipo": ("storybook_dpo", "algorithm.name=ipo"),
    "kto": ("storybook_dpo", "algorithm.name=kto"),
    "cardinal": ("storybook_dpo", "algorithm.name=cardinal", "reward.path={reward}"),
    "online-dpo": ("storybook_online_dpo",),
    "dpo-shuffled": ("storybook_dpo", "data.database={shuffled}"),
    "dpo-flipped": ("storybook_dpo", "data.database={flipped}"),
    "dpo-pairs-flipped": ("storybook_dpo", *PAIRS, "data.database={flipped}"),
    "smoothed-flipped": (
        *("storybook_dpo", *PAIRS, "algorithm.label_smoothing=0.3"),
        "data.database={flipped}",
    ),
    "ipo-flipped": ("storybook_dpo", "algorithm.name=ipo", "data.database={flipped}"),
}
"""A recipe and its overrides; {demo}, {reward}, {shuffled} and {flipped} are filled in."""

FLIPPED = 0.3


def shuffle(groups: list[list[int]], luck: random.Random) -> list[list[int]]:
    """The same tie groups of permuted candidates."""
    order = [candidate for group in groups for candidate in group]
    given = iter(luck.sample(order, len(order)))
    return [[next(given) for _ in group] for group in groups]


def flip(groups: list[list[int]], luck: random.Random) -> list[list[int]]:
    """Worst first, in a share of the cases."""
    return groups[::-1] if luck.random() < FLIPPED else groups


def changed_store(
    demo: Path, name: str, change: Callable[[list[list[int]], random.Random], list[list[int]]]
) -> Path:
    """A store with the demo's images and other rankings of them."""
    folder = demo / name
    database, program = folder / "imgalign.db", [sys.executable, "-m", "imgalign", "data"]
    if database.exists():
        return database
    folder.mkdir(exist_ok=True)
    before, after = folder / "before.jsonl", folder / "after.jsonl"
    where = ["--database", f"sqlite:///{(demo / 'imgalign.db').absolute()}"]
    subprocess.run([*program, "export", str(before), *where], check=True)
    luck = random.Random(f"{name}/{demo.name}")
    with before.open(encoding="utf-8") as source, after.open("w", encoding="utf-8") as target:
        for line in source:
            row: dict[str, Any] = json.loads(line)
            if row["kind"] == "ranking" and row["ranking"] is not None:
                groups = row["ranking"]
                groups = json.loads(groups) if isinstance(groups, str) else groups
                row["ranking"] = change(groups, luck)
            target.write(json.dumps(row, ensure_ascii=False) + "\n")
    unfinished = folder / "unfinished.db"
    unfinished.unlink(missing_ok=True)
    into = ["--database", f"sqlite:///{unfinished.absolute()}", "--create"]
    own = ["--images", str(folder / "images"), "--source-images", str(demo / "images")]
    subprocess.run([*program, "import", str(after), *into, *own], check=True)
    unfinished.rename(database)
    return database


def main() -> None:
    """Run what is missing, then collect."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demos", type=Path, nargs="+")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--out", type=Path, default=Path("runs/direct"))
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args()
    rows = []
    for demo in given.demos:
        places = {"demo": demo, "reward": demo / "reward"}
        for name in given.variants:
            recipe, *settings = VARIANTS[name]
            for control, change in (("shuffled", shuffle), ("flipped", flip)):
                if any(f"{{{control}}}" in setting for setting in settings):
                    places[control] = changed_store(demo, control, change)
            filled = [setting.format(**places) for setting in settings]
            folder = given.out / f"{name}-{demo.name}"
            seed = run(recipe, demo, folder, settings=filled)
            rows.append(measured(name, seed, folder))
    variants = {name: VARIANTS[name] for name in given.variants}
    save(given.results / "direct.json", rows, variants=variants)


if __name__ == "__main__":
    main()
