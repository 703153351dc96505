"""The Train page: start a run as its own process, watch it, stop it, go on with it."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from imgalign.errors import ImgalignError, InputError
from imgalign.runs.metric import Metric
from imgalign.runs.metric_table import CHARTS, Chart
from ui import checks, forms, needs, outcome, outlook, recipes, settings_table, stages
from ui.forms import Form
from ui.messages import PRIVATE, shown
from ui.removal import holdings
from ui.runs import Run, Runs
from ui.theme import asset

REFRESH_SECONDS = 2.0
MOST_POINTS = 300
LOG_LINES = 80
DRAWN = tuple(metric.key for chart in CHARTS for metric in chart.metrics)
# Browsers may refuse storage: then the form is as it was before anybody typed.
KEEP = """(...form) => {
  try { localStorage.setItem("imgalign.train.form", JSON.stringify(form)); } catch {}
}"""
KEPT = """() => {
  try { return [localStorage.getItem("imgalign.train.form") ?? ""]; } catch { return [""]; }
}"""


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
    # Values of overrides are YAML, and any JSON text is.
    changes = [f"reward.path={json.dumps(reward)}"] if reward else []
    return changes + forms.lines_of(overrides)


def launch(runs: Runs, recipe: str | None, reward: str, name: str, overrides: str) -> str:
    """Start a run of a recipe with the form's changes, and return its name."""
    if not recipe:
        raise InputError("recipe: choose one first")
    chosen = name.strip() or runs.free_name(recipe)
    changes = changes_in(reward, overrides)
    runs.launch(recipes.read(recipe).path, name=chosen, overrides=changes)
    return chosen


def begin(runs: Runs, recipe: str | None, reward: str, name: str, overrides: str) -> str:
    """As `launch`, once all has been checked that can be before a process starts.

    A failed run of that name that holds no work gives way.
    """
    if not recipe:
        raise InputError("recipe: choose one first")
    checks.check(runs, recipes.read(recipe).path, changes_in(reward, overrides))
    chosen = name.strip() or runs.free_name(recipe)
    if _failed_empty(runs, chosen):
        runs.delete(chosen)
    begun = launch(runs, recipe, reward, chosen, overrides)
    forms.keep(runs, begun, Form(recipe=recipe, reward=reward, overrides=overrides))
    return begun


def _failed_empty(runs: Runs, name: str) -> bool:
    try:
        found = runs.run(name)
        return found.state == "failed" and not found.ours and not holdings(runs.path(name))
    except InputError:  # there is none; or it is damaged, and `launch` refuses its name
        return False


def _for_page(error: ImgalignError) -> str:
    """As HTML, with a link to the page that a message for a terminal names by its command."""
    rank = '<a href="./">on Rank</a>'
    return escape(str(error)).replace("with imgalign ui first", f"{rank} first")


def prospects(runs: Runs, recipe: str | None, reward: str, overrides: str) -> tuple[str, str]:
    """As HTML: what a run would still lack, and what it would cost; empty for wrong settings."""
    if not recipe:
        return "", ""
    try:
        found = recipes.read(recipe)
        changes = changes_in(reward, overrides)
        settings = recipes.settings_with(found, changes)
    except ImgalignError:  # `explain` says why
        return "", ""
    lacks = ""
    try:
        checks.check(runs, found.path, changes)
    except ImgalignError as error:
        lacks = f'<p role="status"><b>Cannot be started yet.</b> {_for_page(error)}</p>'
    return lacks, outlook.table(outlook.outlook(settings, found, runs))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """The form on the page."""

    recipe: gr.Dropdown
    about: gr.HTML
    reward: gr.Dropdown
    name: gr.Textbox
    overrides: gr.Textbox
    notes: gr.HTML
    refusal: gr.HTML
    """Why it was not started; of its own, so that no explanation on its way takes its place."""
    fix: gr.Button
    cost: gr.HTML
    start: gr.Button
    fixed: gr.State
    kept: gr.Textbox
    """What the browser kept of the form, as JSON; only ever read when the page opens."""

    @property
    def typed(self) -> list[Any]:
        """What a person chooses and types, in the order of storage."""
        return [self.recipe, self.reward, self.name, self.overrides]

    @property
    def filled(self) -> list[Any]:
        """What changes when the form is filled."""
        return [self.recipe, self.about, self.reward, self.name, self.overrides]


def build(page: gr.Blocks, runs: Runs) -> None:
    """Draw the page inside the current Blocks."""
    chosen = gr.State(None)
    latest = gr.State("")
    with gr.Row(elem_classes="page", equal_height=False):
        with gr.Column(scale=0, min_width=320, elem_classes="side"):
            fields = _fields()
        with gr.Column(scale=1, min_width=320):
            with gr.Accordion("Settings", open=False, elem_id="settings") as folded:
                table = gr.HTML("<p>Reading the settings …</p>", padding=False)
            monitor = _monitor()

    def refresh(which: str | None, before: str) -> tuple[Any, str]:
        value = shown(lambda: view(runs, which))
        now = repr(value)
        return (gr.skip() if now == before else value), now

    def start_run(which: str | None, judge: str, called: str, changes: str) -> tuple[Any, ...]:
        try:
            begun = begin(runs, which, judge, called, changes)
        except ImgalignError as error:
            return gr.skip(), gr.skip(), f'<p role="alert">{_for_page(error)}</p>'
        gr.Info(f"{begun} is starting")
        return begun, runs.free_name(which or "run"), ""

    def select(event: gr.EventData) -> str:
        return str(event.run)

    def stop(event: gr.EventData) -> None:
        shown(lambda: runs.stop(str(event.run)))
        gr.Info("Stopping; everything is saved first")

    def resume(event: gr.EventData) -> None:
        shown(lambda: runs.resume(str(event.run)))

    def delete(event: gr.EventData) -> None:
        shown(lambda: runs.delete(str(event.run), typed=str(event.typed)))
        gr.Info(f"{event.run} is deleted")

    again = {"fn": refresh, "inputs": [chosen, latest], "outputs": [monitor, latest], **PRIVATE}
    page.load(**again)
    gr.Timer(REFRESH_SECONDS).tick(**again)
    keep = _connect_form(page, runs, fields, folded, table, monitor)
    outputs = [chosen, fields.name, fields.refusal]
    fields.start.click(start_run, fields.typed, outputs, **PRIVATE).then(**again).then(**keep)
    monitor.run_select(select, None, chosen, **PRIVATE).then(**again)
    monitor.run_stop(stop, None, None, **PRIVATE).then(**again)
    monitor.run_resume(resume, None, None, **PRIVATE).then(**again)
    monitor.run_delete(delete, None, None, **PRIVATE).then(**again)


def _fields() -> Fields:
    gr.HTML("<h2>New run</h2>", padding=False)
    return Fields(
        recipe=gr.Dropdown(label="Recipe", choices=[], elem_id="recipe"),
        about=gr.HTML(padding=False),
        reward=gr.Dropdown(label="Reward model", choices=[], elem_id="reward"),
        name=gr.Textbox(label="Name", max_lines=1, elem_id="run-name"),
        overrides=gr.Textbox(
            label="Overrides",
            info="One section.key=value per line",
            placeholder="run.iterations=20\npolicy.lora_rank=4",
            lines=3,
            elem_id="overrides",
        ),
        notes=gr.HTML(padding=False, elem_id="notes"),
        fix=gr.Button(visible=False, size="sm", elem_id="fix"),
        cost=gr.HTML(padding=False, elem_id="cost"),
        refusal=gr.HTML(padding=False, elem_id="refusal"),
        start=gr.Button("Start training", variant="primary", elem_id="start-training"),
        fixed=gr.State(""),
        kept=gr.Textbox(visible=False),
    )


def _connect_form(
    page: gr.Blocks,
    runs: Runs,
    fields: Fields,
    folded: gr.Accordion,
    table: gr.HTML,
    monitor: gr.HTML,
) -> dict[str, Any]:
    """Let the form explain itself and keep itself; returns the event that keeps it."""

    def fill(form: Form | None, called: str = "") -> tuple[Any, ...]:
        offers = needs.offered(runs)
        names = [each.name for each in offers]
        which = form.recipe if form and form.recipe in names else needs.first_choice(offers)
        box = gr.Dropdown(choices=[(each.title, each.name) for each in offers], value=which)
        judge = judges(which, runs.rewards())
        if form and (form.reward in [value for _, value in judge["choices"]]):
            judge["value"] = form.reward
        name = _name_to_offer(runs, called or which or "run")
        return box, describe(which), gr.Dropdown(**judge), name, form.overrides if form else ""

    def open_page(kept: str) -> tuple[Any, ...]:
        return fill(*_form_in(kept))

    def choose(which: str | None) -> tuple[str, gr.Dropdown, str]:
        judge = gr.Dropdown(**judges(which, runs.rewards()))
        return describe(which), judge, runs.free_name(which or "run")

    def copy(event: gr.EventData) -> tuple[Any, ...]:
        name = str(event.run)
        form = shown(lambda: forms.form_of(runs, name))
        gr.Info(f"The form is that of {name}: change it and start")
        return fill(form, form.recipe)

    def explain_now(which: str | None, judge: str, changes: str) -> tuple[Any, ...]:
        return _explain_form(runs, which, judge, changes)

    explain_form: dict[str, Any] = {
        "fn": explain_now,
        "inputs": [fields.recipe, fields.reward, fields.overrides],
        "outputs": [folded, table, fields.notes, fields.cost, fields.fix, fields.fixed],
        # One after another: what is said of an earlier form never replaces that of a later one.
        **PRIVATE | {"concurrency_limit": 1, "concurrency_id": "explain"},
    }
    keep: dict[str, Any] = {"fn": None, "inputs": fields.typed, "js": KEEP, **PRIVATE}
    page.load(open_page, fields.kept, fields.filled, js=KEPT, **PRIVATE).then(**explain_form)
    filled = [fields.about, fields.reward, fields.name]
    fields.recipe.input(choose, fields.recipe, filled, **PRIVATE).then(**explain_form).then(**keep)
    fields.reward.input(**explain_form).then(**keep)
    fields.overrides.blur(**explain_form, trigger_mode="always_last")
    fields.overrides.input(**keep)
    fields.name.input(**keep)
    for field in fields.typed:
        field.input(None, None, fields.refusal, js="() => ''", **PRIVATE)
    fields.fix.click(lambda text: text, fields.fixed, fields.overrides, **PRIVATE).then(
        **explain_form
    ).then(**keep)
    monitor.run_copy(copy, None, fields.filled, **PRIVATE).success(**explain_form).then(**keep)
    return keep


def _name_to_offer(runs: Runs, called: str) -> str:
    """A name as somebody typed it; another one like it where it is taken."""
    try:
        taken = called in runs.names() or runs.path(called).exists()
    except InputError:  # no name of a run, as is said when it is used
        taken = False
    return runs.free_name(called) if taken else called


def _form_in(kept: str) -> tuple[Form | None, str]:
    """The form that a browser kept, and the name in it; anybody may have changed it since."""
    try:
        recipe, reward, name, overrides = json.loads(kept)
    except (ValueError, TypeError):
        return None, ""
    if not all(isinstance(each, str) for each in (recipe, reward, name, overrides)):
        return None, ""
    return Form(recipe=recipe, reward=reward, overrides=overrides), name


def _explain_form(runs: Runs, recipe: str | None, reward: str, overrides: str) -> tuple[Any, ...]:
    title, rows, notes = explain(recipe, reward, overrides)
    lacks, cost = prospects(runs, recipe, reward, overrides)
    fix = None
    if recipe:
        try:
            fix = forms.fix_of(recipe, overrides)
        except ImgalignError:  # the recipe itself is wrong, which `explain` says
            fix = None
    button = gr.Button(f"Use {fix.meant}" if fix else "", visible=fix is not None)
    return gr.Accordion(label=title), rows, notes + lacks, cost, button, fix.text if fix else ""


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
