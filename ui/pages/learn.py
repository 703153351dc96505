"""The Learn page: fit a reward model to rankings, watch it, and see how good it is."""

from dataclasses import asdict, dataclass
from typing import Any

import gradio as gr

from imgalign.errors import ImgalignError, InputError
from imgalign.preferences.accuracy import Accuracy
from imgalign.preferences.coverage import ProjectRankings, judged_projects
from imgalign.preferences.fit_report import Evaluation, FitReport, Judged
from imgalign.preferences.records import Samples, holds_comparisons
from imgalign.preferences.store import Store
from imgalign.preferences.wording import counted
from ui import fit_form, settings_table
from ui.authority import needs_role
from ui.fits import Fit, Fits, check_fit
from ui.forms import lines_of
from ui.links import in_the_app
from ui.messages import EACH, LAST, PRIVATE, shown
from ui.pages.drawing import draw_by
from ui.pages.edited import edited
from ui.pages.folding import FOLD, form_heading
from ui.pages.setting_fields import controls_field
from ui.pulse import Pulse
from ui.theme import asset

FOR_LEADS = (
    '<div class="recipe"><p>Admins fit reward models; here you see what they are worth.</p></div>'
)
EVERYBODY = ""
ONE_BY_ONE = (
    "learn from: expected rankings of several samples of a prompt, got likes and dislikes of "
    "single ones, which prefer none to another; align a model with them on Train, without a reward"
)
LOG_LINES = 80
PER_CENT = 100


def view(fits: Fits, store: Store, chosen: str | None) -> dict[str, Any]:
    """Everything that the page draws: all reward models in short, the chosen or first in full."""
    found = fits.all()
    if not found:
        return {
            "fits": [],
            "detail": None,
            "judged": sum(p.rankings for p in judged_projects(store)),
        }
    names = [fit.name for fit in found]
    fit = found[names.index(chosen)] if chosen in names else found[0]
    return {"fits": [_short(each) for each in found], "detail": _detail(fits, store, fit)}


def projects_of(store: Store) -> list[tuple[str, str]]:
    """(label, value) of what can be learned from; see `chosen_project`."""
    found = sorted(judged_projects(store), key=lambda each: holds_comparisons(each.project))
    return [(_label(each), _value(each)) for each in found]


def chosen_project(store: Store, value: str | None) -> ProjectRankings:
    """What a value of `projects_of` names; InputError for nothing, or what is gone."""
    found = {_value(each): each for each in judged_projects(store)}
    if not found:
        raise InputError("rankings: there are none yet; rank some images or texts first")
    if value not in found:
        raise InputError("learn from: choose a project")
    return found[value]


def groups_of(learned_from: ProjectRankings | None) -> list[tuple[str, str]]:
    """(label, value) of whose rankings can be learned from."""
    named = [] if learned_from is None else [(name, name) for name in learned_from.groups if name]
    return [("everybody", EVERYBODY), *named]


def launch(
    fits: Fits,
    store: Store,
    project: str | None,
    group: str | None,
    name: str | None,
    overrides: str | None,
) -> str:
    """Start a fit with the form's choices, unless it could not work, and return its name.

    A folded field gives None.
    """
    learned_from = chosen_project(store, project)
    changes = lines_of(overrides or "")
    chosen = (name or "").strip() or fits.free_name(learned_from)
    try:
        check_fit(store, learned_from, group=group or EVERYBODY, overrides=changes)
    except InputError as error:
        raise error if learned_from.compared else InputError(ONE_BY_ONE) from error
    fits.launch(learned_from, group=group or EVERYBODY, name=chosen, overrides=changes)
    return chosen


def build(page: gr.Blocks, fits: Fits, store: Store, pulse: Pulse) -> None:
    """Draw the page inside the current Blocks."""
    chosen = gr.State(None)
    latest = gr.State("")
    made_for = gr.State(None)
    with gr.Row(elem_classes="page", equal_height=False):
        with gr.Column(scale=0, min_width=320, elem_classes="side for-admins"):
            form_heading("New reward model")
            gr.HTML(
                '<div class="recipe"><p>It learns from rankings which images or texts people like, '
                "and then judges what a model makes while it trains. Recipes that learn from "
                "rankings directly, such as storybook_dpo, need none.</p></div>",
                padding=False,
            )
            project = gr.Dropdown(label="Learn from", choices=[], elem_id="learn-from")
            group = gr.Dropdown(
                label="Rankings of",
                info="A group of annotators, to learn their taste alone",
                choices=groups_of(None),
                value=EVERYBODY,
                elem_id="learn-group",
            )
            name = gr.Textbox(label="Name", max_lines=1, elem_id="reward-name")
            settings = _settings()
            start = gr.Button("Fit", variant="primary", elem_id="start-fit")
        with gr.Column(scale=1, min_width=320):
            gr.HTML(FOR_LEADS, padding=False, elem_classes="for-leads")
            shelf = _shelf()
            folded, table = settings_table.draw()
    explain_form = _connect_settings(settings, project, folded, table)

    def refresh(which: str | None, before: str) -> tuple[Any, str]:
        with pulse.drawing("learn"):
            value = shown(lambda: view(fits, store, which))
        now = repr(value)
        return (gr.skip() if now == before else value), now

    def open_page() -> tuple[Any, ...]:
        choices = projects_of(store)
        first = choices[0][1] if choices else None
        return gr.Dropdown(choices=choices, value=first), *choose(first, None)

    def choose(which: str | None, before: str | None) -> tuple[Any, Any, str | None]:
        """Its groups and a free name, unless the form is of this project: those may be others."""
        if before is not None and which == before:
            return gr.skip(), gr.skip(), which
        known = {_value(each): each for each in judged_projects(store)}
        learned_from = known.get(which or "")
        groups = gr.Dropdown(choices=groups_of(learned_from), value=EVERYBODY)
        return groups, fits.free_name(learned_from), which

    @needs_role("admin")
    def start_fit(
        which: str | None, who: str | None, called: str | None, changes: str | None
    ) -> tuple[Any, Any, str]:
        try:
            begun = launch(fits, store, which, who, called, changes)
        except ImgalignError as error:
            return gr.skip(), gr.skip(), fit_form.problems(error, changes or "")
        gr.Info(f"{begun} is being fitted")
        return begun, choose(which, None)[1], ""

    again = draw_by(refresh, [chosen, latest], [shelf, latest], at=shelf, when=[page.load])
    form = [group, name, made_for]
    page.load(open_page, outputs=[project, *form], **PRIVATE).then(**explain_form)
    project.change(choose, [project, made_for], form, **LAST).then(**explain_form)
    inputs, outputs = [project, group, name, settings.overrides], [chosen, name, settings.refusal]
    begun = start.click(start_fit, inputs, outputs, **PRIVATE).then(None, js=FOLD, **PRIVATE)
    begun.then(**again)
    for field in (project, group, name, settings.overrides):
        edited(field)(None, None, settings.refusal, js="() => ''", **PRIVATE)
    _connect_shelf(fits, shelf, chosen, again)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings on the page."""

    controls: gr.HTML
    """Those that matter; they write lines of the overrides."""
    overrides: gr.Textbox
    notes: gr.HTML
    refusal: gr.HTML
    """Why a fit was not started."""


def _settings() -> Settings:
    """Draw them inside the current column."""
    return Settings(
        controls=controls_field(),
        overrides=gr.Textbox(
            label="Overrides",
            info="One key=value per line; all are listed under Settings",
            placeholder="seeds=[0,1,2]\nunfreeze_image_blocks=1",
            lines=3,
            max_lines=4,
            elem_id="overrides",
        ),
        notes=gr.HTML(padding=False, elem_id="notes"),
        refusal=gr.HTML(padding=False, elem_id="refusal"),
    )


def _connect_settings(
    settings: Settings, project: gr.Dropdown, folded: gr.Accordion, table: gr.HTML
) -> dict[str, Any]:
    """Let the settings explain themselves; returns the event that does it."""

    @needs_role("admin", quiet=True)
    def explain_now(which: str | None, changes: str | None) -> tuple[Any, ...]:
        samples: Samples = "texts" if (which or "").startswith("texts/") else "images"
        found = fit_form.explain(samples, changes or "")
        matter = {"controls": [asdict(each) for each in found.controls]}
        return gr.Accordion(label=found.title), found.table, matter, found.notes

    explain_form: dict[str, Any] = {
        "fn": explain_now,
        "inputs": [project, settings.overrides],
        "outputs": [folded, table, settings.controls, settings.notes],
        # One after another: what is said of an earlier form never replaces that of a later one.
        **LAST | {"concurrency_limit": 1, "concurrency_id": "explain fit"},
    }
    settings.controls.setting_written(lambda: "", None, settings.refusal, **EACH).then(
        **explain_form
    )
    settings.overrides.blur(**explain_form)
    return explain_form


def _connect_shelf(fits: Fits, shelf: gr.HTML, chosen: gr.State, again: dict[str, Any]) -> None:
    """Let the buttons of a reward model work."""

    def select(event: gr.EventData) -> str:
        return str(event.fit)

    @needs_role("admin")
    def stop(event: gr.EventData) -> None:
        shown(lambda: fits.stop(str(event.fit)))

    @needs_role("admin")
    def forget(event: gr.EventData) -> None:
        shown(lambda: fits.forget(str(event.fit)))

    shelf.fit_select(select, None, chosen, **EACH).then(**again)
    shelf.fit_stop(stop, None, None, **EACH).then(**again)
    shelf.fit_forget(forget, None, None, **EACH).then(**again)


def _shelf() -> gr.HTML:
    return gr.HTML(
        value=None,
        html_template=asset("learn.html"),
        css_template=asset("learn.css"),
        js_on_load=asset("learn.js"),
        apply_default_css=False,
        elem_id="learn",
    )


def _short(fit: Fit) -> dict[str, Any]:
    accuracy = None if fit.report is None else fit.report.test.accuracy.micro
    return {
        "name": fit.name,
        "state": fit.state,
        "accuracy": accuracy,
        "message": in_the_app(fit.message),
    }


def _detail(fits: Fits, store: Store, fit: Fit) -> dict[str, Any]:
    log = "\n".join(fits.processes.log(fit.name).splitlines()[-LOG_LINES:])
    detail = _short(fit) | {
        "share": fit.share,
        "learned_from": str(fit.learned_from or ""),
        "stoppable": fit.stoppable,
        "folder": str(fit.folder),
        "log": log,
        "bars": [],
        "verdict": "",
        "facts": [],
        "samples": "images",
        "disagreements": [],
        "agreements": [],
    }
    if fit.report is None:
        return detail
    report = fit.report
    texts = report.samples == "texts"
    return detail | {
        "bars": bars(report.test),
        "verdict": verdict(report),
        "facts": facts(report),
        "samples": report.samples,
        "disagreements": [_pair(each, store if texts else None) for each in report.disagreements],
        "agreements": [_pair(each, store if texts else None) for each in report.agreements],
    }


def _pair(judged: Judged, store: Store | None) -> dict[str, Any]:
    """A pair as the page shows it; of texts, from the store, their content."""
    read = (lambda sample: sample) if store is None else store.text
    return {
        "prompt": judged.prompt,
        "better": read(judged.better),
        "worse": read(judged.worse),
        "probability": judged.probability,
    }


def bars(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Pair accuracy beside what bounds it, from the lowest on."""
    own = evaluation.accuracy
    found = [_bar("chance", evaluation.chance)]
    if evaluation.baseline:
        found.append(_bar(evaluation.baseline_name, evaluation.baseline.micro, evaluation.baseline))
    found.append(_bar("this reward", own.micro, own, own=True))
    if evaluation.ceiling:
        found.append(_bar("annotators with each other", evaluation.ceiling.value))
    if evaluation.truth:
        found.append(_bar("best possible (Bayes-optimal)", evaluation.truth.value))
    return found


def _bar(
    name: str, value: float, accuracy: Accuracy | None = None, *, own: bool = False
) -> dict[str, Any]:
    interval = None if accuracy is None else accuracy.by_prompt
    return {"name": name, "value": value, "interval": interval, "own": own}


def verdict(report: FitReport) -> str:
    """What the numbers mean for somebody who has never seen any.

    Better than chance, or than its start, is only said where the interval says so.
    """
    test = report.test
    own, interval = test.accuracy, test.accuracy.by_prompt
    share = f"{PER_CENT * own.micro:.0f} of {PER_CENT}"
    said = f"It agrees with people on {share} pairs of prompts that it has never seen"
    if interval is None:
        return f"{said}; there are too few of them for an interval. Rank more prompts."
    low, high = (round(PER_CENT * bound) for bound in interval)
    said += f" ({low} to {high} with 95 % confidence)."
    if interval[0] <= test.chance:
        return f"{said} That is not surely better than chance: rank more prompts, then fit again."
    if test.gain and test.gain.by_prompt and test.gain.by_prompt[0] <= 0:
        return f"{said} It is not surely better than {test.baseline_name}: more rankings will tell."
    return f"{said} It is good enough to align with."


def facts(report: FitReport) -> list[str]:
    """Where the numbers are from."""
    counts, sizes = report.counts, report.num_rankings
    left_out = [
        f"{count} {what}"
        for count, what in (
            (counts.all_bad, "all bad"),
            (counts.skipped, "skipped"),
            (counts.unreadable, "with a sample that cannot be read"),
        )
        if count
    ]
    lines = [
        f"{counted(sizes['train'], 'ranking')} to learn from, {sizes['validation']} to choose by, "
        f"{sizes['test']} of {report.num_prompts['test']} other prompts to measure with"
        + (f"; left out: {', '.join(left_out)}" if left_out else ""),
        f"On what it learned from it agrees with {PER_CENT * report.train_accuracy:.0f} of "
        f"{PER_CENT} pairs; the further that is above the number on other prompts, the more "
        "rankings it lacks",
    ]
    if report.test.calibration:
        lines.append(
            f"Calibration error {PER_CENT * report.test.calibration.ece:.1f} points: how far its "
            "probabilities are from what people do"
        )
    return [*lines, f"Fitted in {report.seconds / 60:.1f} minutes"]


def _label(each: ProjectRankings) -> str:
    if holds_comparisons(each.project):
        compared = counted(each.rankings, "blind comparison")
        return f"{each.project}: {compared}, to test what was learned"
    ranked = counted(each.rankings, "ranking")
    liked = "1 like or dislike" if each.rankings == 1 else f"{each.rankings:,} likes and dislikes"
    judged = ranked if each.compared else liked
    return f"{each.project}: {judged} of {each.samples}"


def _value(each: ProjectRankings) -> str:
    return f"{each.samples}/{each.project}"
