"""The Train page: start a run as its own process, watch it, stop it, go on with it."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from imgalign.errors import ImgalignError, InputError
from imgalign.runs.metric import Metric
from imgalign.runs.metric_table import CHARTS, Chart
from ui import recipes, settings_table
from ui.messages import PRIVATE, shown
from ui.runs import Run, Runs
from ui.theme import asset

REFRESH_SECONDS = 2.0
MOST_POINTS = 300
LOG_LINES = 80
DRAWN = tuple(metric.key for chart in CHARTS for metric in chart.metrics)


def view(runs: Runs, chosen: str | None) -> dict[str, Any]:
    """Everything that the monitor draws: all runs in short, the chosen or newest one in full."""
    found = runs.all()
    names = [run.name for run in found]
    short = [_short(run) for run in found]
    if not found:
        return {"runs": [], "detail": None}
    name = chosen if chosen in names else names[0]
    return {"runs": short, "detail": _detail(runs, found[names.index(name)])}


def describe(name: str | None) -> str:
    """A recipe's header as HTML, or why it cannot be read."""
    if not name:
        return "<p>No recipe found: put one into <code>configs/</code>.</p>"
    try:
        recipe = recipes.read(name)
    except ImgalignError as error:
        return f'<p role="alert">{escape(str(error))}</p>'
    header = "<br>".join(escape(line) for line in recipe.header.splitlines())
    return f'<div class="recipe"><p>{header}</p></div>'


def judges(name: str | None, fitted: Sequence[Path]) -> dict[str, Any]:
    """What there is to choose as the reward model of a recipe; "" for that of the recipe itself.

    Only a recipe that samples images needs one: there the newest of those that were fitted is
    chosen.
    """
    named = [(path.name, str(path)) for path in fitted]
    try:
        needed = name is None or recipes.read(name).needs_reward
    except ImgalignError:  # `describe` says why
        needed = True
    if needed:
        value = named[0][1] if named else ""
        info = "Judges the images that the model makes."
        return {"choices": [("as the recipe says", ""), *named], "value": value, "info": info}
    info = "Not needed: it learns from images that are given. One would only measure."
    return {"choices": [("none", ""), *named], "value": "", "info": info}


def explain(name: str | None, reward: str, overrides: str) -> tuple[str, str, str]:
    """What a run would have: a title, the table of settings, and what there is to say of them."""
    if not name:
        return "Settings", "", ""
    try:
        found = recipes.explain(name, changes_in(reward, overrides))
    except ImgalignError as error:
        wait = "<p>They are shown here once they are right.</p>"
        return "Settings", wait, f'<p role="alert">{escape(str(error))}</p>'
    notes = "".join(f"<p>{escape(note)}</p>" for note in found.notes)
    return settings_table.title(found.settings), settings_table.table(found.settings), notes


def changes_in(reward: str, overrides: str) -> list[str]:
    """The overrides of the form; empty lines and comments are left out.

    `reward` is the folder of a reward model, or empty for the one that the recipe names.
    """
    lines = [line.strip() for line in overrides.splitlines()]
    # Values of overrides are YAML, and any JSON text is.
    changes = [f"reward.path={json.dumps(reward)}"] if reward else []
    return changes + [line for line in lines if line and not line.startswith("#")]


def launch(runs: Runs, recipe: str | None, reward: str, name: str, overrides: str) -> str:
    """Start a run of a recipe with the form's changes, and return its name."""
    if not recipe:
        raise InputError("recipe: choose one first")
    chosen = name.strip() or runs.free_name(recipe)
    changes = changes_in(reward, overrides)
    runs.launch(recipes.read(recipe).path, name=chosen, overrides=changes)
    return chosen


def build(page: gr.Blocks, runs: Runs) -> None:
    """Draw the page inside the current Blocks."""
    chosen = gr.State(None)
    latest = gr.State("")
    with gr.Row(elem_classes="page", equal_height=False):
        with gr.Column(scale=0, min_width=320, elem_classes="side"):
            gr.HTML("<h2>New run</h2>", padding=False)
            recipe = gr.Dropdown(label="Recipe", choices=[], elem_id="recipe")
            about = gr.HTML(padding=False)
            reward = gr.Dropdown(label="Reward model", choices=[], elem_id="reward")
            name = gr.Textbox(label="Name", max_lines=1, elem_id="run-name")
            overrides = gr.Textbox(
                label="Overrides",
                info="One section.key=value per line",
                placeholder="run.iterations=20\npolicy.lora_rank=4",
                lines=3,
                elem_id="overrides",
            )
            notes = gr.HTML(padding=False, elem_id="notes")
            start = gr.Button("Start training", variant="primary", elem_id="start-training")
        with gr.Column(scale=1, min_width=320):
            with gr.Accordion("Settings", open=False, elem_id="settings") as folded:
                table = gr.HTML("<p>Reading the settings …</p>", padding=False)
            monitor = _monitor()
    timer = gr.Timer(REFRESH_SECONDS)

    def refresh(which: str | None, before: str) -> tuple[Any, str]:
        value = shown(lambda: view(runs, which))
        now = repr(value)
        return (gr.skip() if now == before else value), now

    def open_page() -> tuple[Any, ...]:
        names = recipes.names()
        first = names[0] if names else None
        box = gr.Dropdown(choices=names, value=first)
        return box, *choose(first)

    def choose(which: str | None) -> tuple[str, gr.Dropdown, str]:
        judge = gr.Dropdown(**judges(which, runs.rewards()))
        return describe(which), judge, runs.free_name(which or "run")

    def start_run(which: str | None, judge: str, called: str, changes: str) -> tuple[str, str]:
        begun = shown(lambda: launch(runs, which, judge, called, changes))
        gr.Info(f"{begun} is starting")
        return begun, runs.free_name(which or "run")

    def select(event: gr.EventData) -> str:
        return str(event.run)

    def stop(event: gr.EventData) -> None:
        shown(lambda: runs.stop(str(event.run)))
        gr.Info("Stopping; everything is saved first")

    def resume(event: gr.EventData) -> None:
        shown(lambda: runs.resume(str(event.run)))

    again = {"fn": refresh, "inputs": [chosen, latest], "outputs": [monitor, latest], **PRIVATE}
    form = {
        "fn": _explain_form,
        "inputs": [recipe, reward, overrides],
        "outputs": [folded, table, notes],
        **PRIVATE,
    }
    page.load(open_page, outputs=[recipe, about, reward, name], **PRIVATE).then(**form)
    page.load(**again)
    timer.tick(**again)
    recipe.input(choose, recipe, [about, reward, name], **PRIVATE).then(**form)
    reward.input(**form)
    overrides.blur(**form)
    start.click(start_run, [recipe, reward, name, overrides], [chosen, name], **PRIVATE).success(
        **again
    )
    monitor.run_select(select, None, chosen, **PRIVATE).then(**again)
    monitor.run_stop(stop, None, None, **PRIVATE).then(**again)
    monitor.run_resume(resume, None, None, **PRIVATE).then(**again)


def _explain_form(recipe: str | None, reward: str, overrides: str) -> tuple[Any, str, str]:
    title, rows, notes = explain(recipe, reward, overrides)
    return gr.Accordion(label=title), rows, notes


def _monitor() -> gr.HTML:
    return gr.HTML(
        value=None,
        html_template=asset("monitor.html"),
        css_template=asset("monitor.css"),
        js_on_load=asset("monitor.js"),
        apply_default_css=False,
        elem_id="monitor",
    )


def _short(run: Run) -> dict[str, Any]:
    return {
        "name": run.name,
        "state": run.state,
        "step": run.step,
        "total": run.total,
        "eta_seconds": run.eta_seconds,
    }


def _detail(runs: Runs, run: Run) -> dict[str, Any]:
    if run.state == "damaged":  # nothing else of it can be relied upon
        return {**asdict(run), "charts": [], "charts_failed": "", "log": ""}
    series: dict[str, list[tuple[int, float]]] = {key: [] for key in DRAWN}
    failed = ""
    try:
        series = runs.metrics(run.name, DRAWN)
    except InputError as error:
        failed = str(error)
    measured = [chart for chart in CHARTS if any(series[each.key] for each in chart.metrics)]
    charts = [_chart(chart, series) for chart in measured or CHARTS[:1]]
    log = "\n".join(runs.log(run.name).splitlines()[-LOG_LINES:])
    return {**asdict(run), "charts": charts, "charts_failed": failed, "log": log}


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
