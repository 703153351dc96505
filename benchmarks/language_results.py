"""Plot and tabulate what aligning the storybook's language model came to.

    python benchmarks/language_results.py

Reads benchmarks/results/language.json, which `benchmarks/language.py` writes, draws language.png
beside it and prints the table of benchmarks/results/README.md.
"""

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from statistics import mean
from typing import Any, TypeAlias

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

RESULTS = Path(__file__).parent / "results"
START = {
    "start": "pretrained",
    "sft": "supervised, 1 epoch",
    "best-of-4": "best of 4 by the reward",
    "best-of-16": "best of 16 by the reward",
}
"""What is measured beside the variants."""
OTHER, KEPT, GAINED = "#555555", "#3a8a5a", "#b4532a"

Row: TypeAlias = Mapping[str, Any]
Rows: TypeAlias = Mapping[str, Sequence[Row]]
Variants: TypeAlias = Mapping[str, Mapping[str, Any]]
"""As benchmarks/language.yaml has them."""


def read(file: Path) -> tuple[Variants, Rows]:
    """The variants, and the runs of each, ordered by seed."""
    found = json.loads(file.read_text(encoding="utf-8"))
    variants = {name: {"label": label} for name, label in START.items()} | found["variants"]
    runs = found["runs"]
    runs.sort(key=lambda run: (list(variants).index(run["variant"]), run["seed"]))
    rows = {name: list(of) for name, of in groupby(runs, key=lambda run: str(run["variant"]))}
    return variants, rows


def gains(panel: Axes, variants: Variants, rows: Rows) -> None:
    """Oracle utility against the start, with intervals; a mark for each seed."""
    for place, (name, runs) in enumerate(rows.items()):
        for nth, run in enumerate(runs):
            change = run["change"]
            panel.errorbar(
                change["value"],
                place + 0.22 * (nth - (len(runs) - 1) / 2),
                xerr=[
                    [change["value"] - change["low"]],
                    [change["high"] - change["value"]],
                ],
                color=variants[name].get("curve", OTHER),
                fmt="o",
                ms=4,
                lw=1,
            )
    panel.axvline(0, color="#999999", lw=0.8, ls=":")
    panel.set_yticks(range(len(rows)), [variants[name]["label"] for name in rows])
    panel.set(xlabel="oracle utility against the start, of 7", ylim=(len(rows), -1))


def kept_likelihood(panel: Axes, variants: Variants, rows: Rows) -> None:
    """What is kept of the pretraining likelihood, over gamma; the start is dotted."""
    gammas = {each["gamma"]: name for name, each in variants.items() if "gamma" in each}
    places = range(len(gammas))
    for key, colour, axis in (
        ("pretraining_log_prob", KEPT, panel),
        ("utility", GAINED, panel.twinx()),
    ):
        means = []
        for place, name in zip(places, gammas.values(), strict=True):
            values = [value(run, key) for run in rows.get(name, ())]
            axis.scatter([place] * len(values), values, color=colour, s=14)
            means.append(mean(values) if values else float("nan"))
        axis.plot(places, means, color=colour, lw=2)
        axis.axhline(mean(value(run, key) for run in rows["sft"]), color=colour, lw=0.8, ls=":")
        axis.tick_params(axis="y", colors=colour)
    panel.set_xticks(places, [f"{gamma:g}" for gamma in gammas])
    panel.set(
        xlabel="gamma, the weight of pretraining texts",
        title="green: nats per pretraining token; red: oracle utility",
    )


def value(run: Row, key: str) -> float:
    """A number of a run, without its interval."""
    found = run[key]
    return float(found["value"] if isinstance(found, dict) else found)


def over_optimisation(panel: Axes, variants: Variants, rows: Rows) -> None:
    """Oracle utility by KL at each checkpoint of all seeds, and dashed what the reward says."""
    curves = {name: each["curve"] for name, each in variants.items() if "curve" in each}
    other = panel.twinx()
    for name, colour in curves.items():
        for nth, run in enumerate(rows.get(name, ())):
            start = (0.0, value(run, "utility") - value(run, "change"))
            points = [start, *((each["kl_nats"], value(each, "utility")) for each in run["curve"])]
            said = [(each["kl_nats"], each["reward"]) for each in run["curve"]]
            label = None if nth else variants[name]["label"]
            panel.plot(*zip(*points, strict=True), color=colour, lw=1, marker=".", label=label)
            other.plot(*zip(*said, strict=True), color=colour, lw=0.8, ls="--")
    panel.set(xscale="symlog", xlabel="KL, nats per text", ylabel="oracle utility")
    other.set_ylabel("the reward it was trained on (dashed)")
    panel.legend(frameon=False, fontsize=8, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))


def table(variants: Variants, rows: Rows) -> str:
    """Markdown, a line for each variant; what is several numbers goes by seed."""
    lines = [
        "| | oracle utility, of 7 | against the start | win rate, % | reward | KL, nats "
        "| pretraining texts, nats per token | demonstrations, likewise | processor minutes |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, runs in rows.items():
        cells = [
            variants[name]["label"],
            ", ".join(f"{value(run, 'utility'):.2f}" for run in runs),
            ", ".join(interval(run["change"]) for run in runs),
            ", ".join(f"{100 * value(run, 'win_rate'):.0f}" for run in runs),
            ", ".join(f"{value(run, 'reward'):+.2f}" for run in runs),
            ", ".join(f"{value(run, 'kl_nats'):.1f}" for run in runs),
            ", ".join(f"{run['pretraining_log_prob']:.2f}" for run in runs if "words" in run),
            ", ".join(f"{run['demonstrations_log_prob']:.3f}" for run in runs if "words" in run),
            ", ".join(f"{run['minutes']:.1f}" for run in runs),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def interval(change: Row) -> str:
    """Example: "+0.72 (0.55 to 0.89)"."""
    return f"{change['value']:+.2f} ({change['low']:.2f} to {change['high']:.2f})"


def main() -> None:
    """Draw and print."""
    variants, rows = read(RESULTS / "language.json")
    figure = plt.figure(figsize=(11, 7), layout="constrained")
    left, right = figure.subfigures(1, 2)
    gains(left.subplots(), variants, rows)
    upper, lower = right.subplots(2)
    kept_likelihood(upper, variants, rows)
    over_optimisation(lower, variants, rows)
    for panel in figure.axes:
        panel.spines["top"].set_visible(False)
    figure.savefig(RESULTS / "language.png", dpi=110)
    print(table(variants, rows))


if __name__ == "__main__":
    main()
