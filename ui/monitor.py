"""What the monitor of the Train page draws: all runs in short, and the chosen one in full.

Left out: how it is drawn (assets/monitor.js), and what a run came to in words (outcome.py). No
gradio here.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from imgalign.errors import InputError
from imgalign.runs.metric import Metric
from imgalign.runs.metric_table import CHARTS, Chart
from ui import outcome, stages
from ui.removal import holdings
from ui.runs import Run, Runs

MOST_POINTS = 300
LOG_LINES = 80
DRAWN = tuple(metric.key for chart in CHARTS for metric in chart.metrics)


def view(runs: Runs, chosen: str | None) -> dict[str, Any]:
    """Everything that the monitor draws: all runs in short, the chosen or newest one in full."""
    # By their beginning: a run keeps its place among the others, whatever it does.
    found = sorted(runs.all(), key=lambda run: (-_begun(runs, run), run.name))
    names = [run.name for run in found]
    short = [_short(run) for run in found]
    if not found:
        return {"runs": [], "detail": None}
    name = chosen if chosen in names else names[0]
    return {"runs": short, "detail": _detail(runs, found[names.index(name)])}


def _short(run: Run) -> dict[str, Any]:
    return {
        "name": run.name,
        "state": run.state,
        "step": run.step,
        "total": run.total,
        "eta_seconds": run.eta_seconds,
    }


def _begun(runs: Runs, run: Run) -> float:
    try:
        return runs.begun(run.name)
    except InputError:  # its name could not be one of a run
        return run.changed


def _detail(runs: Runs, run: Run) -> dict[str, Any]:
    if run.state == "damaged":  # nothing else of it can be relied upon
        nothing: dict[str, Any] = {"charts": [], "prompts": [], "verdict": None}
        texts = {"charts_failed": "", "log": "", "doing": "", "work": "what cannot be read"}
        return {**asdict(run), **nothing, **texts}
    keys = tuple({*DRAWN, *outcome.KEYS})
    series: dict[str, list[tuple[int, float]]] = {key: [] for key in keys}
    failed = ""
    folder = runs.path(run.name)
    try:
        series = runs.metrics(run.name, keys)
    except InputError as error:
        failed = str(error)
    measured = [chart for chart in CHARTS if any(series[each.key] for each in chart.metrics)]
    charts = [_chart(chart, series) for chart in measured or CHARTS[:1]]
    printed = runs.log(run.name)
    verdict = outcome.verdict(run, folder, series)
    return {
        **asdict(run),
        "message": outcome.message_for_page(run),
        "doing": stages.doing(run, printed),
        "verdict": verdict and asdict(verdict),
        "prompts": outcome.sample_prompts(run, folder),
        "work": holdings(folder),
        "charts": charts,
        "charts_failed": failed,
        "log": "\n".join(printed.splitlines()[-LOG_LINES:]),
    }


def _chart(chart: Chart, series: dict[str, list[tuple[int, float]]]) -> dict[str, Any]:
    lines = [
        {
            "name": metric.title,
            "about": _about(metric),
            "points": thinned(series[metric.key]),
        }
        for metric in chart.metrics
    ]
    measured = [metric for metric in chart.metrics if series[metric.key]] or chart.metrics
    return {"title": chart.title, "about": _about(measured[0]), "lines": lines}


def _about(metric: Metric) -> str:
    unit = f" Unit: {metric.unit}." if metric.unit else ""
    return f"{metric.caption.replace('`', '')}{unit}"


def thinned(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """At most MOST_POINTS of them, evenly, the first and the last included."""
    if len(points) <= MOST_POINTS:
        return list(points)
    last = len(points) - 1
    return [points[round(i * last / (MOST_POINTS - 1))] for i in range(MOST_POINTS)]
