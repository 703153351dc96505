"""Plot and tabulate what the direct methods came to.

    python benchmarks/direct_results.py

Reads benchmarks/results/direct.json, which `benchmarks/direct.py` writes, draws direct.png beside
it and prints the table of benchmarks/results/README.md.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from imgalign.statistics import Estimate, clustered_mean

RESULTS = Path(__file__).parent / "results"
LABELS: Mapping[str, str] = {
    "dpo": "DPO, whole rankings",
    "dpo-pairs": "DPO, all pairs",
    "dpo-best-worst": "DPO, best and worst",
    "ipo": "IPO",
    "kto": "KTO",
    "cardinal": "cardinal, fitted reward",
    "online-dpo": "online DPO, fitted reward",
    "grpo": "GRPO, fitted reward",
    "sft": "supervised, best of each",
    "dpo-auto": "DPO, beta set by itself",
    "dpo-safeguard": "DPO, keep_chosen 0.5",
    "dpo-sft": "DPO and 0.1 supervised",
    "dpo-refresh": "DPO, refreshed reference",
    "dpo-own-noise": "DPO, noise of the provenance",
    "dpo-all-levels": "DPO, all noise levels",
    "single-pairs": "DPO, a random pair of each",
    "single-pairs-480": "DPO, 480 random pairs",
    "dpo-240": "DPO, 240 rankings",
    "grpo-240": "GRPO, 240 rankings",
    "dpo-60": "DPO, 60 rankings",
    "grpo-60": "GRPO, 60 rankings",
    "dpo-flipped": "DPO, 30 % flipped",
    "dpo-pairs-flipped": "all pairs, 30 % flipped",
    "smoothed-flipped": "smoothed 0.3, 30 % flipped",
    "ipo-flipped": "IPO, 30 % flipped",
    "dpo-shuffled": "control: shuffled",
}
BUDGETS = {60: "-60", 240: "-240", 960: ""}
"""Rankings, and how the names of their variants end."""
AGAINST = (
    ("dpo", "dpo-pairs"),
    ("dpo", "dpo-best-worst"),
    ("dpo", "single-pairs"),
    ("dpo-240", "single-pairs-480"),
    ("dpo", "grpo"),
    ("dpo-240", "grpo-240"),
    ("dpo-60", "grpo-60"),
)
"""Whose win rates are subtracted, pair by pair: `outcomes` of direct.json."""
COLOURS = {"dpo": "#b4532a", "grpo": "#2a6fb4"}
KL_TICKS = (2, 3, 5, 10, 20)
OTHER, GUIDED = "#555555", "#b0a090"

Row: TypeAlias = Mapping[str, Any]
Rows: TypeAlias = Mapping[str, Sequence[Row]]


def read(file: Path) -> Rows:
    """The runs of each variant, ordered by seed."""
    runs = json.loads(file.read_text(encoding="utf-8"))["runs"]
    runs.sort(key=lambda run: run["seed"])
    return {
        name: [run for run in runs if run["recipe"] == name]
        for name in LABELS
        if any(run["recipe"] == name for run in runs)
    }


def error_bars(panel: Axes, place: float, rate: Sequence[float], colour: str, **more: Any) -> None:
    """One win rate with its interval, in percent, at a height."""
    value, low, high = (100 * each for each in rate)
    panel.errorbar(
        value,
        place,
        xerr=[[value - low], [high - value]],
        color=colour,
        fmt="o",
        ms=4,
        lw=1,
        **more,
    )


def all_methods(panel: Axes, rows: Rows) -> None:
    """Win rates with intervals, a line for each variant and a mark for each seed."""
    for place, (name, runs) in enumerate(rows.items()):
        colour = COLOURS.get(name.split("-")[0], OTHER)
        for nth, run in enumerate(runs):
            height = place + 0.22 * (nth - (len(runs) - 1) / 2)
            guided = run.get("win_rate_against_guided_base")
            if guided:
                error_bars(panel, height, guided, GUIDED, mfc="white", zorder=1)
            error_bars(panel, height, run["win_rate"], colour, zorder=2)
    panel.axvline(50, color="#999999", lw=0.8, ls=":")
    panel.set_yticks(range(len(rows)), [LABELS[name] for name in rows])
    label = "win rate against the base, % (pale: against the base at its best guidance)"
    panel.set(xlabel=label, ylim=(len(rows), -1))


def by_rankings(panel: Axes, rows: Rows) -> None:
    """DPO and GRPO on few rankings."""
    for name, shift in (("dpo", 0.96), ("grpo", 1.04)):
        budgets = {count: rows[name + end] for count, end in BUDGETS.items() if name + end in rows}
        for count, runs in budgets.items():
            for nth, run in enumerate(runs):
                value, low, high = (100 * each for each in run["win_rate"])
                panel.errorbar(
                    count * shift * (1 + 0.05 * (nth - 1)),
                    value,
                    yerr=[[value - low], [high - value]],
                    color=COLOURS[name],
                    fmt="o",
                    ms=4,
                    lw=1,
                    alpha=0.7,
                )
        means = means_by_rankings(rows, name)
        panel.plot(list(means), list(means.values()), color=COLOURS[name], lw=2, label=name.upper())
    panel.set(xscale="log", xlabel="rankings of four images", ylabel="win rate, %")
    panel.set_xticks(list(BUDGETS), [str(count) for count in BUDGETS])
    panel.minorticks_off()
    panel.legend(frameon=False, loc="lower right")


def means_by_rankings(rows: Rows, name: str) -> dict[int, float]:
    """In percent, over seeds."""
    found = {count: rows.get(name + end, ()) for count, end in BUDGETS.items()}
    return {
        count: round(100 * sum(run["win_rate"][0] for run in runs) / len(runs), 1)
        for count, runs in found.items()
        if runs
    }


def by_kl(panel: Axes, rows: Rows) -> None:
    """What a win costs in KL."""
    for name, runs in rows.items():
        if "flipped" in name or "shuffled" in name or name[-2:] in ("60", "40"):
            continue
        colour = COLOURS.get(name.split("-")[0], OTHER)
        kl = [run["kl_nats"] for run in runs]
        wins = [100 * run["win_rate"][0] for run in runs]
        panel.scatter(kl, wins, s=14, color=colour)
        if name in ("dpo", "kto", "ipo", "grpo", "sft", "online-dpo", "cardinal"):
            middle = sorted(range(len(kl)), key=kl.__getitem__)[len(kl) // 2]
            panel.annotate(
                name, (kl[middle], wins[middle]), (3, 3), textcoords="offset points", fontsize=8
            )
    panel.set(xscale="log", xlabel="KL, nats per image", ylabel="win rate, %")
    panel.set_xticks(KL_TICKS, [str(nats) for nats in KL_TICKS])
    panel.minorticks_off()


def percent(rate: Sequence[float]) -> str:
    """Example: "90 (84 to 95)"."""
    value, low, high = (f"{100 * each:.0f}" for each in rate)
    return f"{value} ({low} to {high})"


def table(rows: Rows) -> str:
    """Markdown, a line for each variant; what is several numbers goes by seed."""
    lines = [
        "| | win rate, % | against the base at its best guidance | oracle reward by "
        "| faithful by, points | diversity by | KL, nats | ties of 144 "
        "| thousand passes, chosen at | processor minutes |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, runs in rows.items():
        guided = [run.get("win_rate_against_guided_base") for run in runs]
        cells = [
            LABELS[name],
            ", ".join(percent(run["win_rate"]) for run in runs),
            ", ".join(percent(each) for each in guided if each),
            ", ".join(f"{run['oracle'][0]:+.2f}" for run in runs),
            ", ".join(f"{100 * run['faithful'][0]:+.1f}" for run in runs),
            ", ".join(f"{run['diversity'][0]:+.3f}" for run in runs),
            ", ".join(f"{run['kl_nats']:.1f}" for run in runs),
            ", ".join(str(run["ties"]) for run in runs),
            ", ".join(passes(run) for run in runs),
            ", ".join(f"{run['processor_minutes']:.1f}" for run in runs),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def points(run: Row) -> list[list[float]]:
    """Of each pair of each prompt: 1 won, 1/2 a tie, 0 lost."""
    return [["LTW".index(sign) / 2 for sign in word] for word in run["outcomes"].split()]


def difference(ones: Sequence[Row], others: Sequence[Row]) -> Estimate:
    """Win rate of the one minus that of the other; the interval is by prompt and seed, paired."""
    found: list[tuple[float, tuple[int, int]]] = []
    for one, other in zip(ones, others, strict=True):
        assert one["seed"] == other["seed"]
        for prompt, (mine, theirs) in enumerate(zip(points(one), points(other), strict=True)):
            cluster = (one["seed"], prompt)
            found += [(a - b, cluster) for a, b in zip(mine, theirs, strict=True)]
    values, clusters = zip(*found, strict=True)
    return clustered_mean(values, clusters, seed=0)


def differences(rows: Rows) -> str:
    """Markdown, a line for each pair of variants that have the same seeds."""
    lines = ["| | by seed, points | all seeds |", "|---|---|---|"]
    for one, other in AGAINST:
        mine, theirs = rows.get(one, ()), rows.get(other, ())
        if not mine or [run["seed"] for run in mine] != [run["seed"] for run in theirs]:
            continue
        by_seed = [difference([a], [b]) for a, b in zip(mine, theirs, strict=True)]
        cells = (", ".join(map(in_points, by_seed)), in_points(difference(mine, theirs)))
        lines.append(f"| {LABELS[one]}, minus {LABELS[other]} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


def in_points(estimate: Estimate) -> str:
    """Example: "+4 (-1 to +9)"."""
    bounds = (estimate.value, estimate.low, estimate.high)
    value, low, high = (f"{100 * (each or 0.0):+.0f}" for each in bounds)
    return f"{value} ({low} to {high})"


def passes(run: Row) -> str:
    """Of the whole run, and until the chosen weights; a star where the KL budget ended it."""
    whole, chosen = (f"{run[key] / 1000:.0f}" for key in ("passes", "passes_until_chosen"))
    return f"{whole}{'*' if 'budget' in run['ended'] else ''} ({chosen})"


def main() -> None:
    """Draw and print."""
    rows = read(RESULTS / "direct.json")
    figure = plt.figure(figsize=(11, 7), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(3, 2))
    all_methods(left.subplots(), rows)
    upper, lower = right.subplots(2)
    by_rankings(upper, rows)
    by_kl(lower, rows)
    for panel in figure.axes:
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(RESULTS / "direct.png", dpi=110)
    print(table(rows))
    print(differences(rows))
    for name in COLOURS:
        print(f"{name}, mean win rate by rankings: {means_by_rankings(rows, name)}")


if __name__ == "__main__":
    main()
