"""The form of the Train page: what a run is started from, and what is said of it meanwhile."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import gradio as gr

from imgalign.errors import ImgalignError, InputError
from ui import forms, needs
from ui.authority import needs_role
from ui.controls import controls
from ui.form_notes import describe, explain, judges, prospects
from ui.forms import Form
from ui.messages import EACH, LAST, PRIVATE, shown
from ui.pages.edited import edited
from ui.pages.setting_fields import controls_field
from ui.run_queue import RunQueue
from ui.runs import Runs

# Browsers may refuse storage: then the form is as it was before anybody typed.
KEEP = """(...form) => {
  try { localStorage.setItem("imgalign.train.form", JSON.stringify(form)); } catch {}
}"""
# Until the server has filled it in, nobody writes into the form what that would take away again.
KEPT = """() => {
  document.querySelector(".side").inert = true;
  try { return [localStorage.getItem("imgalign.train.form") ?? ""]; } catch { return [""]; }
}"""

READY = """() => { document.querySelector(".side").inert = false; }"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """The form on the page."""

    recipe: gr.Radio
    about: gr.HTML
    reward: gr.Dropdown
    controls: gr.HTML
    """The settings that matter; they write lines of the overrides."""
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
    def explained(self) -> list[Any]:
        """What follows from what a person typed."""
        return [self.controls, self.notes, self.cost, self.fix, self.fixed]

    @property
    def filled(self) -> list[Any]:
        """What changes when the form is filled."""
        return [self.recipe, self.about, self.reward, self.name, self.overrides]


def draw_fields() -> Fields:
    """Draw the form inside the current column."""
    gr.HTML("<h2>New run</h2>", padding=False)
    return Fields(
        recipe=gr.Radio(label="What do you want?", choices=[], elem_id="recipe"),
        about=gr.HTML(padding=False),
        reward=gr.Dropdown(label="Reward model", choices=[], elem_id="reward"),
        controls=controls_field(),
        name=gr.Textbox(label="Name", max_lines=1, elem_id="run-name"),
        overrides=gr.Textbox(
            label="Overrides",
            info="One section.key=value per line; all are listed under Settings",
            placeholder="run.iterations=20\npolicy.lora_rank=4",
            lines=4,
            max_lines=4,
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


def connect_form(
    page: gr.Blocks,
    queue: RunQueue,
    fields: Fields,
    folded: gr.Accordion,
    table: gr.HTML,
    monitor: gr.HTML,
) -> dict[str, Any]:
    """Let the form explain itself and keep itself; returns the event that keeps it."""
    runs = queue.runs

    def fill(form: Form | None, called: str = "") -> tuple[Any, ...]:
        offers = needs.offered(runs)
        names = [each.name for each in offers]
        which = form.recipe if form and form.recipe in names else needs.first_choice(offers)
        box = gr.Radio([(f"{each.goal}\n{each.line}", each.name) for each in offers], value=which)
        judge, changes = judges(which, runs.rewards()), ""
        if form is not None:
            judge["value"], changes = forms.fitted_into(form, dict(judge["choices"]).values())
        name = _name_to_offer(queue, called or which or "run")
        return box, describe(which), gr.Dropdown(**judge), name, changes

    @needs_role("admin", quiet=True)
    def open_page(kept: str) -> tuple[Any, ...]:
        return fill(*form_in(kept))

    @needs_role("admin")
    def choose(which: str | None, changes: str) -> tuple[Any, ...]:
        judge = judges(which, runs.rewards())
        folded_now, rows, matter, *said = _explain_form(runs, which, judge["value"], changes)
        # The form waits for it (assets/controls.js): what is typed meanwhile would be replaced.
        matter["chosen"] = which
        name = queue.free_name(which or "run")
        return describe(which), gr.Dropdown(**judge), name, folded_now, rows, matter, *said

    @needs_role("admin")
    def copy(event: gr.EventData) -> tuple[Any, ...]:
        name = str(event.run)
        form = shown(lambda: queue.form_of(name))
        gr.Info(f"The form is that of {name}: change it and start")
        return fill(form, form.recipe)

    # One after another: what is said of an earlier form never replaces that of a later one.
    in_turn = LAST | {"concurrency_limit": 1, "concurrency_id": "explain"}
    explained = [folded, table, *fields.explained]
    explain_form: dict[str, Any] = {
        "fn": _explaining(runs),
        "inputs": [fields.recipe, fields.reward, fields.overrides],
        "outputs": explained,
        **in_turn,
    }
    keep: dict[str, Any] = {"fn": None, "inputs": fields.typed, "js": KEEP, **PRIVATE}
    opened = page.load(open_page, fields.kept, fields.filled, js=KEPT, **PRIVATE)
    opened.then(None, js=READY, **PRIVATE)
    opened.then(**explain_form)
    fields.recipe.input(
        choose,
        [fields.recipe, fields.overrides],
        [fields.about, fields.reward, fields.name, *explained],
        **in_turn,
    ).then(**keep)
    fields.reward.input(**explain_form).then(**keep)
    fields.controls.setting_written(lambda: "", None, fields.refusal, **EACH).then(
        **explain_form
    ).then(**keep)
    fields.overrides.blur(**explain_form)
    fields.overrides.change(**keep)
    fields.name.change(**keep)
    for field in fields.typed:
        edited(field)(None, None, fields.refusal, js="() => ''", **PRIVATE)
    fields.fix.click(lambda text: text, fields.fixed, fields.overrides, **PRIVATE).then(
        **explain_form
    ).then(**keep)
    monitor.run_copy(copy, None, fields.filled, **EACH).success(**explain_form).then(**keep)
    return keep


def _explaining(runs: Runs) -> Callable[[str | None, str, str], tuple[Any, ...]]:
    # What is said of an override tells what lies at the path that it names.
    @needs_role("admin", quiet=True)
    def explain_now(which: str | None, judge: str, changes: str) -> tuple[Any, ...]:
        return _explain_form(runs, which, judge, changes)

    return explain_now


def _name_to_offer(queue: RunQueue, called: str) -> str:
    """A name as somebody typed it; another one like it where it is taken."""
    try:
        names = {*queue.runs.names(), *(each.name for each in queue.all())}
        taken = called in names or queue.runs.path(called).exists()
    except InputError:  # no name of a run, as is said when it is used
        taken = False
    return queue.free_name(called) if taken else called


def form_in(kept: str) -> tuple[Form | None, str]:
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
    judged = needs.learnable(runs.database)
    matter = {"controls": [asdict(each) for each in controls(recipe, reward, overrides, judged)]}
    lacks, cost = prospects(runs, recipe, reward, overrides)
    fix = None
    if recipe:
        try:
            fix = forms.fix_of(recipe, overrides)
        except ImgalignError:  # the recipe itself is wrong, which `explain` says
            fix = None
    button = gr.Button(f"Use {fix.meant}" if fix else "", visible=fix is not None)
    said = (notes + lacks, cost, button, fix.text if fix else "")
    return gr.Accordion(label=title), rows, matter, *said
