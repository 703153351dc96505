"""What the monitor of the Train page draws: all runs in short, and the chosen one in full.

Left out: how it is drawn (assets/monitor.js), and what a run came to in words (outcome.py). No
gradio here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from imgalign.errors import InputError
from imgalign.runs.metric import Metric
from imgalign.runs.metric_table import CHARTS, Chart
from ui import needs, outcome, stages
from ui.links import in_the_app, said
from ui.removal import holdings
from ui.run_queue import RunQueue, Waiting
from ui.runs import Run, Runs

MOST_POINTS = 300
LOG_LINES = 80
DRAWN = tuple(metric.key for chart in CHARTS for metric in chart.metrics)


def view(
    runs: Runs, chosen: str | None, queue: RunQueue | None = None, *, admin: bool = True
) -> dict[str, Any]:
    """Everything that the monitor draws: all runs in short, the chosen or newest one in full.

    Those that wait come first, the next one last of them, beside the run that it waits for. Who is
    no `admin` is not told to do what only admins may.
    """
    # By their beginning: a run keeps its place among the others, whatever it does.
    found = sorted(runs.all(), key=lambda run: (-_begun(runs, run), run.name))
    line, failed = _line(queue)
    places = {waiting.name: _place(queue, line, waiting) for waiting in line}
    by_name = {run.name: run for run in found}
    new = [waiting.name for waiting in reversed(line) if waiting.name not in by_name]
    short = [*map(_short_waiting, new), *map(_short, found)]
    for each in short:
        each["waits"] = places.get(each["name"])
    name = chosen if chosen in [*new, *by_name] else next(iter([*by_name, *new]), None)
    detail = None
    if name is not None:
        detail = (
            _detail(runs, by_name[name], admin=admin) if name in by_name else _waiting_detail(name)
        )
        detail["waits"] = places.get(name)
    lack = None if short else needs.missing_at_first(runs)
    missing = lack and lack._asdict()
    return {"runs": short, "detail": detail, "queue_failed": failed, "missing": missing}


def _line(queue: RunQueue | None) -> tuple[list[Waiting], str]:
    """What waits, and why it cannot be read."""
    try:
        return ([] if queue is None else queue.all()), ""
    except InputError as error:
        return [], said(error)


def _place(queue: RunQueue | None, line: Sequence[Waiting], waiting: Waiting) -> dict[str, Any]:
    """Where a run stands in the line, and with which settings."""
    assert queue is not None
    form, elsewhere = waiting.form, queue.elsewhere(waiting)
    changes = [] if form is None else form.changes
    what = "its last checkpoint" if form is None else form.recipe
    return {
        "place": line.index(waiting) + 1,
        "of": len(line),
        "held": in_the_app(waiting.held)
        or (elsewhere and f"only the app in {elsewhere} starts it"),
        "what": f"from {what}" + (f" with {', '.join(changes)}" if changes else ""),
    }


NOTHING: Mapping[str, Any] = {"charts": [], "prompts": [], "verdict": None} | dict.fromkeys(
    ("charts_failed", "log", "doing", "message", "work"), ""
)
"""Of a run of which nothing else can be shown."""


def _short_waiting(name: str) -> dict[str, Any]:
    return {"name": name, "state": "waiting", "step": 0, "total": 0, "eta_seconds": None}


def _waiting_detail(name: str) -> dict[str, Any]:
    no = dict.fromkeys(("ours", "stopping", "resumable"), False)
    return {**NOTHING, **_short_waiting(name), **no, "samples": [], "blank": True}


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


def _detail(runs: Runs, run: Run, *, admin: bool) -> dict[str, Any]:
    if run.state == "damaged":  # nothing else of it can be relied upon
        damage = {"message": in_the_app(run.message), "work": "what cannot be read", "blank": True}
        return {**NOTHING, **asdict(run), **damage}
    keys = tuple({*DRAWN, *outcome.KEYS})
    series: dict[str, list[tuple[int, float]]] = {key: [] for key in keys}
    failed = ""
    folder = runs.path(run.name)
    try:
        series = runs.metrics(run.name, keys)
    except InputError as error:
        failed = said(error)
    measured = [chart for chart in CHARTS if any(series[each.key] for each in chart.metrics)]
    charts = [_chart(chart, series) for chart in measured or CHARTS[:1]]
    printed = runs.log(run.name)
    verdict = outcome.verdict(run, folder, series)
    return {
        **asdict(run),
        "blank": False,
        "message": outcome.message_for_page(run, admin=admin),
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
