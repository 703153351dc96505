"""The Candidates page: make images of prompts, or bring some, and queue them for ranking."""

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Any, no_type_check

import gradio as gr

from imgalign.errors import ImgalignError
from ui.authority import needs_role
from ui.batch_asked import Asked
from ui.batch_request import (
    IMAGES,
    PROMPTS,
    TEXTS,
    Form,
    asked,
    makers,
    outlook,
    projects,
    refuse_what_is_not_offered,
    remarks,
)
from ui.image_request import SHIPPED
from ui.links import said
from ui.messages import EACH, LAST, PRIVATE, shown
from ui.outlook import table
from ui.pages.candidates_view import OF_PROJECT, Work, view
from ui.pages.drawing import draw_by
from ui.pages.edited import edited
from ui.pages.folding import FOLD, form_heading
from ui.theme import asset

SOURCES = (
    ("Prompts", PROMPTS),
    ("Images", IMAGES),
    ("Texts", TEXTS),
)
# What was typed stays over a reload; browsers may refuse storage.
KEEP = """(prompts) => {
  try { localStorage.setItem("imgalign.candidates.prompts", prompts ?? ""); } catch {}
}"""
KEPT = """() => {
  try { return localStorage.getItem("imgalign.candidates.prompts") ?? ""; } catch { return ""; }
}"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """The form on the page."""

    source: gr.Radio
    prompts: gr.Textbox
    place: gr.Textbox
    model: gr.Dropdown
    per_prompt: gr.Number
    project: gr.Dropdown
    first_seed: gr.Textbox
    steps: gr.Number
    guidance: gr.Number
    overlap: gr.Number
    upload: gr.State
    """Name of an upload; empty where a folder is named."""

    @property
    def all(self) -> list[Any]:
        """Everything, in the order of `_form`."""
        return [
            *(self.source, self.prompts, self.place, self.upload, self.model, self.per_prompt),
            *(self.project, self.first_seed, self.steps, self.guidance, self.overlap),
        ]


NAMES = (
    *("source", "prompts", "place", "upload", "model", "per_prompt"),
    *("project", "first_seed", "steps", "guidance", "overlap"),
)


def form_of(values: tuple[Any, ...]) -> Form:
    """The values of `Fields.all` as a form."""
    return Form(**dict(zip(NAMES, values, strict=True)))


def explain(work: Work, form: Form, *, at_once: bool = False) -> tuple[str, str]:
    """As HTML: what there is to say of the form as it is, and what it would cost.

    `at_once` leaves out what waits for libraries.
    """
    if form.source == PROMPTS and not (form.prompts or "").strip():
        return "", ""
    if form.source != PROMPTS and not ((form.place or "").strip() or form.upload):
        return "", ""
    try:
        wanted = _asked(work, form)
        noted = [] if at_once else remarks(wanted)
        lines = outlook(wanted, work.store, work.batches, at_once=at_once)
    except ImgalignError as error:
        return (
            f'<p role="status" data-cannot><b>Cannot be made yet.</b> {escape(said(error))}</p>',
            "",
        )
    return "".join(f'<p role="status">{escape(each)}</p>' for each in noted), table(lines, note="")


def launch(work: Work, form: Form) -> str:
    """Start a batch with the form's choices, unless it could not work, and return its name."""
    wanted = _asked(work, form)
    if wanted.model != SHIPPED:
        remarks(wanted)  # or InputError: a model that cannot be used
    return work.batches.launch(wanted, alone=not work.freely)


def _asked(work: Work, form: Form) -> Asked:
    if not work.freely:
        refuse_what_is_not_offered(form, runs=work.runs, model=work.model)
    return asked(form, store=work.store, runs=work.runs, batches=work.batches)


def build(
    page: gr.Blocks,
    work: Work,
    *,
    examples: tuple[str, ...] = (),
    demos: tuple[tuple[str, str], ...] = (),
) -> None:
    """Draw the page inside the current Blocks; `demos` are folders, and how each is opened."""
    chosen, latest = gr.State(None), gr.State("")
    with gr.Row(elem_classes="page", equal_height=False):
        with gr.Column(scale=0, min_width=320, elem_classes="side"):
            fields, tools, sending, folds = _fields(work, examples)
            notes = gr.HTML(padding=False, elem_id="notes")
            cost = gr.HTML(padding=False, elem_id="cost")
            # Of its own, so that no explanation on its way takes its place.
            refusal = gr.HTML(padding=False, elem_id="refusal")
            start = gr.Button("Make them", variant="primary", elem_id="make-candidates")
        with gr.Column(scale=1, min_width=320):
            shelf = _shelf(demos)

    def refresh(which: str | None, before: str) -> tuple[Any, str]:
        with work.pulse.drawing("candidates"):
            value = shown(lambda: view(work, which))
        now = repr(value)
        return (gr.skip() if now == before else value), now

    def open_page() -> tuple[Any, ...]:
        # Without values: what somebody has chosen meanwhile stays.
        return (
            gr.Dropdown(choices=makers(work.runs, work.model)),
            gr.Dropdown(choices=projects(work.store, work.project)),
        )

    @no_type_check  # a checker's wrapper would hide from gradio that this is a generator
    def explain_now(*values: Any) -> Iterator[tuple[str, str]]:
        form = form_of(values)
        yield explain(work, form, at_once=True)
        yield explain(work, form)

    def begin(*values: Any) -> tuple[Any, ...]:
        form = form_of(values)
        try:
            name = launch(work, form)
        except ImgalignError as error:
            alert = f'<p role="alert">{escape(said(error))}</p>'
            return gr.skip(), alert, gr.skip(), gr.skip(), gr.skip(), gr.skip()
        made = work.batches.batch(name).asked
        places = projects(work.store, work.project)
        places = list(dict.fromkeys([*places, made.project]))
        return (
            name,
            "",
            # So that the same prompts again give other images.
            str(made.first_seed + made.num_images),
            gr.Dropdown(choices=places, value=made.project),
            "",
            {"used": form.upload},
        )

    again = draw_by(refresh, [chosen, latest], [shelf, latest], at=shelf, when=[page.load])
    explain_form: dict[str, Any] = {
        "fn": explain_now,
        "inputs": fields.all,
        "outputs": [notes, cost],
        # One after another: what is said of an earlier form never replaces that of a later one.
        **LAST | {"concurrency_limit": 1, "concurrency_id": "explain candidates"},
    }
    # In the browser, at once: an answer of the server would come after what was typed meanwhile.
    page.load(None, None, fields.prompts, js=KEPT, **PRIVATE)
    page.load(open_page, None, [fields.model, fields.project], **PRIVATE).then(**explain_form)
    _connect_form(fields, tools, sending, folds, refusal, explain_form)
    outputs = [chosen, refusal, fields.first_seed, fields.project, fields.upload, sending]
    begun = start.click(begin, fields.all, outputs, **PRIVATE).then(None, js=FOLD, **PRIVATE)
    begun.then(**again).then(**explain_form)
    _connect_shelf(work, shelf, chosen, again)


def _fields(
    work: Work, examples: tuple[str, ...]
) -> tuple[Fields, gr.HTML, gr.HTML, dict[str, gr.Column]]:
    """The form, its buttons for prompts and for files, and what is shown for each source."""
    form_heading("New candidates")
    source = gr.Radio(
        [*SOURCES], value=PROMPTS, show_label=False, container=False, elem_id="source"
    )
    with gr.Column(elem_classes="fold") as typed:
        prompts = gr.Textbox(
            label="Prompts",
            info="One per line",
            placeholder="a red fox in the snow\ntwo boats at night",
            lines=5,
            max_lines=9,
            elem_id="candidate-prompts",
        )
        tools = gr.HTML(
            html_template=asset("prompt_tools.html"),
            js_on_load=asset("prompt_tools.js"),
            apply_default_css=False,
            padding=False,
            examples=list(examples),
        )
        model = gr.Dropdown(
            label="Made by",
            choices=[work.model],
            value=work.model,
            allow_custom_value=True,
            elem_id="maker",
        )
    with gr.Column(visible=False, elem_classes="fold") as found:
        place = gr.Textbox(
            label="Folder of images on this machine",
            info="Prompts are read from text files beside the images, or from inside of them",
            max_lines=1,
            elem_id="place",
            elem_classes="for-admins",
        )
        sending = gr.HTML(
            value=None,
            html_template=asset("upload.html"),
            js_on_load=asset("upload.js"),
            apply_default_css=False,
            padding=False,
        )
    with gr.Row(elem_classes="numbers"):
        per_prompt = gr.Number(4, label="Of each prompt", min_width=80, elem_id="per-prompt")
        project = gr.Dropdown(
            label="Project",
            choices=[work.project],
            value=work.project,
            allow_custom_value=True,
            min_width=80,
            elem_id="candidate-project",
        )
    with gr.Accordion("More", open=False) as more:
        with gr.Row(elem_classes="numbers"):
            # As text, because a browser rounds large numbers.
            first_seed = gr.Textbox(
                "0", label="First seed", max_lines=1, min_width=80, elem_id="candidate-seed"
            )
            steps = gr.Number(20, label="Steps", min_width=80, elem_id="candidate-steps")
        with gr.Row(elem_classes="numbers"):
            guidance = gr.Number(1.0, label="Guidance", step=0.5, min_width=80)
            overlap = gr.Number(1, label="Annotators", min_width=80, elem_id="overlap")
    fields = Fields(
        source=source,
        prompts=prompts,
        place=place,
        model=model,
        per_prompt=per_prompt,
        project=project,
        first_seed=first_seed,
        steps=steps,
        guidance=guidance,
        overlap=overlap,
        upload=gr.State(""),
    )
    return fields, tools, sending, {"typed": typed, "found": found, "more": more}


def _connect_form(
    fields: Fields,
    tools: gr.HTML,
    sending: gr.HTML,
    folds: dict[str, Any],
    refusal: gr.HTML,
    explain_form: dict[str, Any],
) -> None:
    """Let the form explain itself, keep its prompts, and take those of files."""

    def choose(source: str) -> tuple[Any, ...]:
        texts = source == TEXTS
        label = "Table of texts on this machine" if texts else "Folder of images on this machine"
        info = (
            "JSON lines or parquet, with the columns prompt and completion"
            if texts
            else "Prompts are read from text files beside the images, or from inside of them"
        )
        return (
            gr.Column(visible=source == PROMPTS),
            gr.Column(visible=source != PROMPTS),
            gr.Textbox(label=label, info=info),
            gr.HTML(visible=not texts),
        )

    def add_prompts(written: str | None, event: gr.EventData) -> str:
        lines = [line for line in (written or "").split("\n") if line.strip()]
        read = [line.strip() for line in str(event.text).replace("\r\n", "\n").split("\n")]
        return "\n".join(dict.fromkeys([*lines, *filter(None, read)]))

    def send(event: gr.EventData) -> str:
        return str(event.upload)

    keep: dict[str, Any] = {"fn": None, "inputs": fields.prompts, "js": KEEP, **PRIVATE}
    shown_for = [folds["typed"], folds["found"], fields.place, sending]
    fields.source.input(choose, fields.source, shown_for, **LAST).then(**explain_form)
    for edit in (fields.prompts.change, fields.place.blur, fields.first_seed.blur):
        edit(**explain_form)
    numbers = (fields.per_prompt, fields.steps, fields.guidance, fields.overlap)
    for field in (fields.model, fields.project, *numbers):
        edited(field)(**explain_form)
    fields.prompts.change(**keep)
    tools.prompts_opened(add_prompts, fields.prompts, fields.prompts, **EACH).then(
        **explain_form
    ).then(**keep)
    sending.files_sent(send, None, fields.upload, **EACH).then(**explain_form)
    for field in fields.all[:-1]:
        if isinstance(field, gr.State):
            continue
        edited(field)(None, None, refusal, js="() => ''", **PRIVATE)


def _connect_shelf(work: Work, shelf: gr.HTML, chosen: gr.State, again: dict[str, Any]) -> None:
    """Let the buttons of projects and of a batch work."""

    def select(event: gr.EventData) -> str:
        return str(event.batch)

    def select_project(event: gr.EventData) -> str:
        return f"{OF_PROJECT}{event.project}"

    def stop(event: gr.EventData) -> None:
        shown(lambda: work.batches.stop(str(event.batch)))

    def resume(event: gr.EventData) -> None:
        shown(lambda: work.batches.resume(str(event.batch), alone=not work.freely))

    def make_now(event: gr.EventData) -> None:
        shown(lambda: work.batches.make_now(str(event.batch), alone=not work.freely))

    @needs_role("admin")
    def move(event: gr.EventData) -> None:
        shown(lambda: work.batches.move(str(event.batch), 1 if event.later else -1))

    def forget(event: gr.EventData) -> None:
        shown(lambda: work.batches.forget(str(event.batch)))

    shelf.batch_select(select, None, chosen, **EACH).then(**again)
    shelf.project_select(select_project, None, chosen, **EACH).then(**again)
    shelf.batch_stop(stop, None, None, **EACH).then(**again)
    shelf.batch_resume(resume, None, None, **EACH).then(**again)
    shelf.batch_now(make_now, None, None, **EACH).then(**again)
    shelf.batch_move(move, None, None, **EACH).then(**again)
    shelf.batch_forget(forget, None, None, **EACH).then(**again)


def _shelf(demos: tuple[tuple[str, str], ...]) -> gr.HTML:
    return gr.HTML(
        value=None,
        html_template=asset("batches.html"),
        css_template=asset("batches.css"),
        js_on_load=asset("batches.js"),
        apply_default_css=False,
        elem_id="batches",
        demos=[{"folder": folder, "command": command} for folder, command in demos],
    )
