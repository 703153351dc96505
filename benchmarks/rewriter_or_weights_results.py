"""Plot and tabulate what a rewriter and aligned weights are worth.

    python benchmarks/rewriter_or_weights_results.py --runs runs/rewriter-or-weights

Reads benchmarks/results/rewriter_or_weights.json, which `benchmarks/rewriter_or_weights.py` writes,
draws rewriter_or_weights.png beside it and prints the table of docs/rewriter.md. With --runs also
a sheet of the images of the first demo, rewriter_or_weights_images.png.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from statistics import mean
from typing import Any, TypeAlias

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

RESULTS = Path(__file__).parent / "results"
NAME = "rewriter_or_weights"
COLOURS = {
    "rewriter": "#b4532a",
    "weights, DPO": "#2a6fb4",
    "weights, GRPO": "#7aa6d6",
    "both": "#3a8a5a",
}
OTHER = "#777777"
SHOWN = ("plain", "untrained rewriter", "rewriter", "weights, DPO", "both", "best of 32")

Row: TypeAlias = Mapping[str, Any]


def of(rows: Sequence[Row], arm: str, ideas: str = "held out") -> list[Row]:
    """One row for each seed."""
    return [row for row in rows if (row["arm"], row["ideas"]) == (arm, ideas)]


def arms(rows: Sequence[Row]) -> list[str]:
    """In the order in which they were judged."""
    return list(dict.fromkeys(row["arm"] for row in rows))


def gains(panel: Axes, rows: Sequence[Row]) -> None:
    """Oracle utility against the plain idea, with intervals; a mark for each seed."""
    names = arms(rows)
    for place, name in enumerate(names):
        for nth, row in enumerate(own := of(rows, name)):
            value, low, high = row["oracle"]
            panel.errorbar(
                value,
                place + 0.2 * (nth - (len(own) - 1) / 2),
                xerr=[[value - low], [high - value]],
                color=COLOURS.get(name, OTHER),
                fmt="o",
                ms=4,
                lw=1,
            )
    panel.axvline(0, color="#999999", lw=0.8, ls=":")
    panel.set_yticks(range(len(names)), names)
    panel.set(xlabel="oracle utility against the idea as it is", ylim=(len(names), -1))


def images_needed(panel: Axes, rows: Sequence[Row]) -> None:
    """Best of n over n, beside what is trained once and then draws one image."""
    counts = [int(name.removeprefix("best of ")) for name in arms(rows) if is_best_of(name)]
    values = [mean(row["oracle"][0] for row in of(rows, f"best of {count}")) for count in counts]
    panel.plot([1, *counts], [0.0, *values], color=OTHER, marker=".", label="best of n")
    for name, colour in COLOURS.items():
        level = mean(row["oracle"][0] for row in of(rows, name))
        panel.axhline(level, color=colour, lw=1.5, label=name)
    panel.set_xscale("log", base=2)
    panel.set_xticks([1, *counts], [str(each) for each in (1, *counts)])
    panel.set(xlabel="images drawn for each that is wanted", ylabel="oracle utility gained")
    panel.legend(frameon=False, fontsize=8)


def is_best_of(name: str) -> bool:
    """Whether an arm takes the best of some images of the idea."""
    return name.startswith("best of ") and not name.endswith("rewrites")


def learned_by_heart(panel: Axes, rows: Sequence[Row]) -> None:
    """The same arms on the three sets of ideas."""
    sets = list(dict.fromkeys(row["ideas"] for row in rows))
    for name, colour in COLOURS.items():
        means = [mean(row["oracle"][0] for row in of(rows, name, ideas)) for ideas in sets]
        panel.plot(range(len(sets)), means, color=colour, marker="o", lw=1)
        for place, ideas in enumerate(sets):
            values = [row["oracle"][0] for row in of(rows, name, ideas)]
            panel.scatter([place] * len(values), values, color=colour, s=8)
    panel.set_xticks(range(len(sets)), sets)
    panel.set(ylabel="oracle utility gained", xlabel="ideas")


def table(rows: Sequence[Row]) -> str:
    """Markdown, a line for each arm on held-out ideas; what is several numbers goes by seed."""
    lines = [
        "| | oracle win rate, % | oracle utility gained | faithful by, points | diversity by "
        "| reward gained |",
        "|---|---|---|---|---|---|",
    ]
    for name in arms(rows):
        own = of(rows, name)
        cells = [
            name,
            ", ".join(interval(row["win_rate"], 100, ".0f") for row in own),
            ", ".join(interval(row["oracle"], 1, "+.2f") for row in own),
            ", ".join(f"{100 * row['faithful'][0]:+.0f}" for row in own),
            ", ".join(f"{row['diversity'][0]:+.2f}" for row in own),
            ", ".join(f"{row['reward'][0]:+.2f}" for row in own),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def table_of_sets(rows: Sequence[Row]) -> str:
    """Markdown: oracle utility gained on each set, by seed."""
    sets = list(dict.fromkeys(row["ideas"] for row in rows))
    lines = ["| | " + " | ".join(sets) + " |", "|---" * (len(sets) + 1) + "|"]
    for name, _ in groupby(row["arm"] for row in rows if row["ideas"] == sets[-1]):
        values = [
            ", ".join(f"{row['oracle'][0]:+.2f}" for row in of(rows, name, ideas)) for ideas in sets
        ]
        lines.append("| " + " | ".join([name, *values]) + " |")
    return "\n".join(dict.fromkeys(lines))


def interval(value: Sequence[float], factor: float, form: str) -> str:
    """Example: "+0.36 (+0.25 to +0.48)"."""
    middle, low, high = (format(factor * each, form) for each in value)
    return f"{middle} ({low} to {high})"


def images(folder: Path, ideas: Sequence[str], file: Path) -> None:
    """The same ideas and seeds, a row for each arm."""
    figure, panels = plt.subplots(
        len(SHOWN), len(ideas), figsize=(1.7 * len(ideas), 1.75 * len(SHOWN)), layout="constrained"
    )
    for row, name in zip(panels, SHOWN, strict=True):
        for number, panel in enumerate(row):
            panel.imshow(plt.imread(folder / name / f"{number}.png"))
            panel.set_xticks([])
            panel.set_yticks([])
        row[0].set_ylabel(name, fontsize=9)
    for panel, idea in zip(panels[0], ideas, strict=True):
        panel.set_title(idea, fontsize=8, wrap=True)
    figure.savefig(file, dpi=72)


def main() -> None:
    """Draw and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path)
    given = parser.parse_args()
    found = json.loads((RESULTS / f"{NAME}.json").read_text(encoding="utf-8"))
    rows = found["runs"]
    figure = plt.figure(figsize=(11, 7), layout="constrained")
    left, right = figure.subfigures(1, 2)
    gains(left.subplots(), rows)
    upper, lower = right.subplots(2)
    images_needed(upper, rows)
    learned_by_heart(lower, rows)
    for panel in figure.axes:
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(RESULTS / f"{NAME}.png", dpi=110)
    print(table(rows), table_of_sets(rows), sep="\n\n")
    if given.runs is not None:
        demo = min(each for each in given.runs.iterdir() if (each / "judged").is_dir())
        ideas = found["ideas"][str(rows[0]["seed"])]
        images(demo / "judged" / "held out", ideas, RESULTS / f"{NAME}_images.png")


if __name__ == "__main__":
    main()
