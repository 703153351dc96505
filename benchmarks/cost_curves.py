"""Cost curves: CPU seconds and peak memory by the size of what is done, and how steep they are.

    python benchmarks/cost_curves.py
    python benchmarks/cost_curves.py --axes rankings --points 1000000 --repetitions 1
    python benchmarks/cost_curves.py --axes images steps --repetitions 5 --beside nothing

Each point is a process of its own with one thread on the shipped models (cost_points.py);
iterations are measured by the run itself. What was measured with the same hardware, versions and
settings stays and is not measured again. The exponent is that of a power law through the medians of
the points, or of two points through all that was measured, with its interval at 95 % by Student's
t: 1 is linear, 0 is constant. A fixed cost makes it smaller, so the exponent between the two
largest points stands beside it. Writes results/cost_curves.json and cost_curves.png, or what
`--results` names, and prints a table. `--folder` keeps filled stores.
Nothing large is imported before all is measured: see cost_points.py.
"""

import argparse
import json
import shlex
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from cost_points import AXES, ITERATIONS, ROOT, Axis, Facts, finished

RESULTS = Path(__file__).parent / "results" / "cost_curves.json"
ORIGIN = """
import json
from imgalign.evaluate.origin import hardware, library_versions
print(json.dumps({"hardware": hardware(), "versions": library_versions()}))
"""
STEEPER = 0.1
"""An exponent whose interval lies more than this above what is expected is steeper."""


def measured(known: Facts, axis: Axis, points: Sequence[int], times: int, folder: Path) -> int:
    """Measure one repetition that is missing; how many were measured, 0 where none is missing."""
    for turn in range(times):
        for point in points:
            runs = known["points"].setdefault(str(point), [])
            if len(runs) <= turn:
                runs.append(axis.measure(point, folder))
                print(f"{axis.label} {point}: {json.dumps(runs[-1])}", file=sys.stderr, flush=True)
                return 1
    return 0


def series(known: Facts, what: str) -> dict[str, dict[int, list[float]]]:
    """Values of each curve by point."""
    found: dict[str, dict[int, list[float]]] = {}
    for point in sorted(map(int, known["points"])):
        for run in known["points"][str(point)]:
            for curve, costs in run.items():
                if what in costs:
                    found.setdefault(curve, {}).setdefault(point, []).append(costs[what])
    return found


def floored(values: Mapping[int, Sequence[float]]) -> list[float]:
    """All of them in one list, none so small that it has no logarithm."""
    return [max(value, 1e-6) for each in values.values() for value in each]


def fitted(values: Mapping[int, Sequence[float]]) -> Facts:
    """The power law through the medians: exponent, its interval, factor, exponent at the end.

    Two points have no interval by their medians, so that they are fitted through all values: the
    interval then is that of repetitions, and says nothing about whether it is a power law.
    """
    import numpy as np
    from scipy import stats

    medians = {point: [statistics.median(values[point])] for point in sorted(values)}
    last_x, last_y = (np.log(each[-2:]) for each in (list(medians), floored(medians)))
    fitted_to = values if len(values) == 2 else medians
    x, y = np.log([point for point, each in fitted_to.items() for _ in each]), floored(fitted_to)
    line = stats.linregress(x, np.log(y))
    last = float((last_y[1] - last_y[0]) / (last_x[1] - last_x[0]))
    found: Facts = {"exponent": round(float(line.slope), 3), "at_the_end": round(last, 3)}
    if len(x) > 2:
        margin = float(stats.t.ppf(0.975, len(x) - 2) * line.stderr)
        found["interval"] = [round(float(line.slope) + side * margin, 3) for side in (-1, 1)]
    return {**found, "factor": float(np.exp(line.intercept))}


def summarise(known: Facts, axis: Axis) -> None:
    """Put the fits of an axis beside its points."""
    known["fits"] = {}
    for what in ("cpu_seconds", "peak_memory_gb"):
        fits = {
            curve: fitted(values)
            for curve, values in series(known, what).items()
            if len(values) > 1
        }
        if what == "cpu_seconds":
            for curve, fit in fits.items():
                if curve in axis.expected and "interval" in fit:
                    most = axis.expected[curve]
                    fit["expected_at_most"] = most
                    fit["steeper"] = fit["interval"][0] > most + STEEPER
        known["fits"][what] = fits


def table(axes: Facts) -> str:
    """Markdown, one line a curve."""
    head = ["axis", "points", "curve", "CPU seconds, first to last point", "exponent", "at the end"]
    head += ["expected at most", "peak memory, GB", "exponent"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, known in axes.items():
        memory, fits = series(known, "peak_memory_gb"), known["fits"]
        for curve, values in series(known, "cpu_seconds").items():
            cells = [AXES[name].label, ", ".join(f"{point:,}" for point in values), curve]
            cells += [ends(values), *exponents(fits["cpu_seconds"].get(curve))]
            most = AXES[name].expected.get(curve)
            cells += ["" if most is None else f"{most:g}", ends(memory.get(curve, {}))]
            cells.append(exponents(fits["peak_memory_gb"].get(curve))[0])
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def ends(values: Mapping[int, Sequence[float]]) -> str:
    """Example: "0.51 to 4.02"."""
    medians = [statistics.median(each) for each in values.values()]
    shown = [
        f"{value:.3g}" for value in (medians[:1] + medians[-1:] if len(medians) > 1 else medians)
    ]
    return " to ".join(shown)


def exponents(fit: Facts | None) -> list[str]:
    """The exponent with its interval, and that between the two largest points."""
    if fit is None:
        return ["", ""]
    interval = fit.get("interval")
    within = f" ({interval[0]:.2f} to {interval[1]:.2f})" if interval else ""
    return [f"{fit['exponent']:.2f}{within}", f"{fit['at_the_end']:.2f}"]


def draw(axes: Facts, file: Path) -> None:
    """Small multiples: CPU seconds above, memory below, one column an axis."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = [name for name in axes if AXES[name].expected]
    if not shown:
        return
    figure, rows = plt.subplots(
        2, len(shown), figsize=(3.5 * len(shown), 7), layout="constrained", squeeze=False
    )
    for column, name in enumerate(shown):
        for what, panel in zip(("cpu_seconds", "peak_memory_gb"), rows[:, column], strict=True):
            for curve, values in series(axes[name], what).items():
                if curve not in AXES[name].expected:
                    continue
                fit = axes[name]["fits"][what].get(curve)
                label = curve + (f": {exponents(fit)[0]}" if fit else "")
                dots = [(point, each) for point, found in values.items() for each in found]
                marks = panel.plot(*zip(*dots, strict=True), "o", markersize=4, label=label)
                if fit:
                    line = [fit["factor"] * point ** fit["exponent"] for point in values]
                    panel.plot(list(values), line, color=marks[0].get_color(), linewidth=1)
            panel.set(xscale="log", xlabel=AXES[name].label)
            points = list(next(iter(series(axes[name], what).values())))
            panel.set_xticks(points, [f"{point:,}" for point in points], fontsize=7)
            panel.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
            panel.legend(fontsize=6, loc="upper left", title="exponent", title_fontsize=6)
            many = len(AXES[name].expected) > 1  # whose legend is tall
            if what == "cpu_seconds":
                panel.set_yscale("log")
                low, high = panel.get_ylim()
                panel.set_ylim(low / 1.3, high * (60 if many else 2))
            else:
                panel.set_ylim(0, panel.get_ylim()[1] * (2 if many else 1.3))
    rows[0, 0].set_ylabel("CPU seconds")
    rows[1, 0].set_ylabel("peak memory, GB")
    figure.savefig(file, dpi=110)


def command() -> str:
    """The command that was given, without the folder, which is one of this machine."""
    words = sys.argv[1:]
    if "--folder" in words:
        place = words.index("--folder")
        words = words[:place] + words[place + 2 :]
    return shlex.join(["python", "benchmarks/cost_curves.py", *words])


def main() -> None:
    """Measure what is missing, write, draw, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES))
    parser.add_argument("--points", nargs="+", type=int, help="Others than those of the axis.")
    parser.add_argument("--repetitions", type=int, help="Of each point; else as the axis says.")
    parser.add_argument("--folder", type=Path, help="Keeps filled stores.")
    parser.add_argument("--beside", default="", help="What else the machine was doing.")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    file: Path = given.results
    axes: Facts = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    origin = json.loads(finished([sys.executable, "-c", ORIGIN], ROOT).said.splitlines()[-1])
    same = {**origin, "threads": 1, "iterations": ITERATIONS, "beside": given.beside or "unknown"}
    with tempfile.TemporaryDirectory() as temporary:
        folder = (given.folder or Path(temporary)).resolve()
        for name in given.axes:
            axis, known = AXES[name], axes.get(name, {})
            if {key: known.get(key) for key in same} != same:
                known = {"points": {}}
            known = {"command": command(), **same} | known
            times = given.repetitions or axis.repetitions
            while measured(known, axis, given.points or axis.points, times, folder):
                axes[name] = known
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(json.dumps(axes, indent=1) + "\n", encoding="utf-8")
    for name, known in axes.items():
        summarise(known, AXES[name])
    file.write_text(json.dumps(axes, indent=1) + "\n", encoding="utf-8")
    draw(axes, file.with_suffix(".png"))
    print(table(axes))


if __name__ == "__main__":
    main()
