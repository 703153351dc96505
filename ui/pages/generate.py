"""The Generate page: checkpoints beside their base, prompts beside their rewrites, and sending."""

from collections.abc import Iterator, Mapping
from functools import partial
from html import escape
from typing import Any, no_type_check

import gradio as gr
from gradio.components import Component

from imgalign.errors import ImgalignError
from imgalign.preferences.store import Store
from imgalign.runs.trained import STRONGEST
from ui.generation import NOTHING, LoadedModels, generate, restore, until_error
from ui.image_request import (
    BASE_ONLY,
    MOST_COMPARED,
    NO_REWRITER,
    Request,
    recommended,
    requested,
    rewriters,
)
from ui.links import CHECKPOINT, STRENGTH, rank_link, said
from ui.loras import Loras
from ui.messages import EACH, LAST, PRIVATE
from ui.pages.folding import form_heading
from ui.pages.lora_files import connect, listed, lora_files
from ui.run_queue import TRAINS
from ui.runs import Runs
from ui.sending import (
    CHECKPOINTS,
    COMPARISONS,
    PAIRS,
    REWRITES,
    TOGETHER,
    Sent,
    projects,
    proposed_project,
    send,
    way_for,
)
from ui.shelf import Shelf
from ui.theme import asset

SCRIPTS = ("compare", "large")
"""In the order in which they need each other."""
EXAMPLES = (
    "a brown rabbit beside a red mushroom in the snow",
    "a pink butterfly above a yellow flower by day",
    "three orange fish by the sea",
    "a blue rocket at night",
    "a purple cat on a green car",
)


def _compared() -> tuple[list[gr.Dropdown], list[gr.Slider]]:
    """Lists of checkpoints, and how strongly each is applied.

    Each list but the first is shown once the one before it is chosen, a strength once its own is.
    """
    lists, strengths = [], []
    for number in range(1, MOST_COMPARED + 1):
        first = number == 1
        lists.append(
            gr.Dropdown(
                label="Compare with" if first else f"and with ({number} of {MOST_COMPARED})",
                choices=[] if first else [("No other", BASE_ONLY)],
                value=None if first else BASE_ONLY,
                visible=first,
                elem_id="checkpoint" if first else f"checkpoint-{number}",
            )
        )
        strengths.append(
            gr.Slider(
                minimum=0.0,
                maximum=STRONGEST,
                value=1.0,
                step=0.05,
                label="at strength",
                visible=False,
                elem_id=f"strength-{number}",
            )
        )
    return lists, strengths


def _form() -> dict[str, Component]:
    """The form by the parameters of `requested`; `more-N` are checkpoints beside the first, and
    `strengths-N` those of all.
    """
    lists, strengths = _compared()
    first, *more = lists
    prompts = gr.Textbox(
        label="Prompts",
        info="One per line",
        lines=4,
        max_lines=12,
        value=EXAMPLES[0],
        elem_id="prompts",
    )
    with gr.Row(elem_classes="numbers"):
        count = _number("Images each", 4, "count")
        # As text, because a browser rounds large numbers.
        first_seed = gr.Textbox(
            "1", label="First seed", max_lines=1, min_width=80, elem_id="first-seed"
        )
    with gr.Row(elem_classes="numbers"):
        steps = _number("Steps", 20, "steps")
        guidance = gr.Number(1.0, label="Guidance", step=0.5, min_width=80)
    negative = gr.Textbox(
        label="Negative prompt",
        info="What the images are led away from",
        max_lines=3,
        elem_id="negative",
    )
    rewriter = gr.Dropdown(
        label="Rewrite the prompt",
        info="Both are drawn, from the same seeds",
        choices=[("No", NO_REWRITER)],
        value=NO_REWRITER,
        elem_id="rewriter",
    )
    lock = gr.Textbox(
        label="Words to keep",
        info="Separated by commas; empty keeps every word that says something",
        visible=False,
        elem_id="lock",
    )
    rewriter.change(_ask_for_words, rewriter, lock, **LAST)
    for each in lists:
        each.change(_ask_for_more, lists, [*more, *strengths], **LAST)
    return {
        "adapter": first,
        "prompts": prompts,
        "first_seed": first_seed,
        "count": count,
        "steps": steps,
        "guidance": guidance,
        "negative": negative,
        "rewriter": rewriter,
        "lock": lock,
        **{f"more-{number}": each for number, each in enumerate(more)},
        **{f"strengths-{number}": each for number, each in enumerate(strengths)},
    }


def _ask_for_words(rewriter: str) -> gr.Textbox:
    return gr.Textbox(visible=rewriter != NO_REWRITER)


def _ask_for_more(*chosen: str | None) -> tuple[Any, ...]:
    """Show each list whose predecessors are all chosen, and the strengths of what is chosen.

    What is hidden is chosen no more, and a strength is 1 again.
    """
    last = next((n for n, value in enumerate(chosen) if not value), len(chosen))
    lists = (
        gr.Dropdown(visible=True) if n <= last else gr.Dropdown(visible=False, value=BASE_ONLY)
        for n in range(1, len(chosen))
    )
    strengths = (
        gr.Slider(visible=True) if n < last else gr.Slider(visible=False, value=1.0)
        for n in range(len(chosen))
    )
    return *lists, *strengths


def _request(values: Mapping[str, Any]) -> Request:
    def several(kind: str) -> list[Any]:
        return [value for name, value in values.items() if name.startswith(f"{kind}-")]

    return requested(
        **{name: value for name, value in values.items() if "-" not in name},
        more=several("more"),
        strengths=several("strengths"),
    )


def _sending(project: str) -> tuple[gr.Radio, gr.Number, gr.Dropdown, gr.Button, gr.HTML]:
    """How items are built, annotators per item, the project, the button, and what was said."""
    with gr.Row(elem_classes="sending", equal_height=True):
        how = gr.Radio(
            [(name[0].upper() + name[1:], name) for name in HOW],
            value=TOGETHER,
            label="What to rank",
            scale=3,
            elem_id="how",
        )
    with gr.Row(elem_classes="sending", equal_height=True):
        place = gr.Dropdown(
            choices=[project],
            value=project,
            allow_custom_value=True,
            label="Project",
            scale=2,
            min_width=200,
            elem_id="project",
        )
        overlap = gr.Number(1, label="Annotators each", scale=1, min_width=120)
        go = gr.Button("Send to ranking", elem_id="send-button", scale=1, min_width=160)
    return how, overlap, place, go, gr.HTML(_why(TOGETHER, project), padding=False, elem_id="sent")


HOW = (PAIRS, CHECKPOINTS, REWRITES, TOGETHER)


def _why(how: str, project: str) -> str:
    """Why a project is proposed, as HTML."""
    if how not in COMPARISONS:
        return "<p>Choose a project of the list, or write the name of a new one.</p>"
    place = escape(proposed_project(how, project))
    return (
        f"<p>Comparisons go to a project of their own, {place}: a reward must not learn from its"
        " own test.</p>"
    )


def _stored(sent: Sent, only: str | None) -> str:
    """What was sent, and how it is ranked, as HTML."""
    link = rank_link(sent.project, only=only)
    how = f'<a href="{escape(link)}">Rank them</a>'
    if not link:
        how = (
            f"This app ranks the project {escape(only or '')} alone: whoever started it can open "
            "it to all projects, and these are ranked here too. "
            '<a href="results">Results</a> says what came of them.'
        )
    there = sent.new or sent.known
    return f'<p role="status">{escape(sent.line())}.{f" {how}" if there else ""}</p>'


def _said(message: str) -> gr.HTML:
    """What is wrong in the form, as one line below it."""
    return gr.HTML(f'<p role="alert">{escape(message)}</p>', visible=True)


def build(
    page: gr.Blocks,
    store: Store,
    runs: Runs,
    shelf: Shelf,
    *,
    model: str,
    project: str,
    only: str | None = None,
) -> None:
    """Draw the page inside the current Blocks; `only` is what alone can be ranked in this app."""
    loaded = LoadedModels()
    with gr.Row(elem_classes="page", equal_height=False):
        form, wrong, start, cancel, files = _side()
        with gr.Column(scale=1, min_width=320):
            compare = _compare()
            nothing = gr.HTML("", padding=False, elem_id="nothing-to-compare")
            with gr.Column(visible=False) as sending:
                how, overlap, place, go, sent = _sending(project)
    proposed = gr.State(proposed_project(TOGETHER, project))
    lists = [form["adapter"], form["rewriter"], *_more(form), form["strengths-0"], place]
    loras = Loras(runs, model)
    missing = partial(nothing_to_compare, runs, model)

    def open_page(request: gr.Request) -> tuple[Any, ...]:
        there = gr.Dropdown(choices=projects(store, project))
        asked = request.query_params
        chosen = _choices(runs, model, len(_more(form)), asked=asked.get(CHECKPOINT))
        strength = gr.Slider(value=strength_of(asked.get(STRENGTH)))
        return *chosen, strength, there, missing(), listed(loras)

    @no_type_check  # a checker's wrapper would hide from gradio that this is a generator
    def begin(*values: Any) -> Iterator[tuple[Any, ...]]:
        try:
            request = _request(dict(zip(form, values, strict=True)))
        except ImgalignError as error:
            yield *(gr.skip() for _ in range(4)), _said(said(error))
            return
        views = generate(request, model=model, runs=runs, shelf=shelf, loaded=loaded)
        for value in until_error(views):
            busy = value["done"] < value["total"] and not value["failed"]
            yield (
                value,
                gr.Button(visible=not busy),
                gr.Button(visible=busy),
                gr.Column(visible=not busy and value["done"] > 0),
                gr.HTML("", visible=False),
            )

    def reload(event: gr.EventData) -> tuple[Any, Any]:
        return _drawn_before(shelf, event)

    page.load(open_page, outputs=[*lists, nothing, files], **PRIVATE)
    # Not queued by gradio: requests take turns themselves, and those that wait say so.
    answers = [compare, start, cancel, sending, wrong]
    running = start.click(begin, list(form.values()), answers, **PRIVATE)
    running.then(_rest, None, [start, cancel], **LAST)
    fits = partial(_fitting, project)
    running.success(fits, [compare, how, proposed], [how, place, sent, proposed], **LAST)
    # One after the other: a view that was on its way would take the place of the last word.
    stopped = cancel.click(None, None, None, cancels=[running], **PRIVATE)
    stopped.then(_halt, compare, [compare, start, cancel], **LAST)
    how.input(partial(_proposal, project), [how, proposed], [place, sent, proposed], **LAST)
    sends = partial(_sent, store, shelf, project, only)
    go.click(sends, [compare, how, overlap, place], [sent, place], **PRIVATE)
    connect(files, [form["adapter"], *_more(form)], nothing, loras=loras, missing=missing)
    compare.idea(_add_idea, form["prompts"], form["prompts"], **EACH)
    compare.restore(reload, None, [compare, sending], **EACH)


def _sent(
    store: Store,
    shelf: Shelf,
    project: str,
    only: str | None,
    value: Any,
    how: str,
    times: float | None,
    place: str | None,
) -> tuple[Any, Any]:
    """Send what was made to be ranked: what is said of it, and the projects that there are then."""
    try:
        stored = send(store, shelf, value, how=how, overlap=times, project=place)
    except ImgalignError as error:
        return _said(said(error)), gr.skip()
    return gr.HTML(_stored(stored, only)), gr.Dropdown(
        choices=projects(store, project), value=stored.project
    )


def _side() -> tuple[dict[str, Component], gr.HTML, gr.Button, gr.Button, gr.HTML]:
    """The form, what is wrong in it, its two buttons, and the LoRA files."""
    with gr.Column(scale=0, min_width=320, elem_classes="side"):
        form_heading("Draw images", only_narrow=True)
        form = _form()
        wrong = gr.HTML(visible=False, padding=False, elem_id="notes")
        start = gr.Button("Generate", variant="primary", elem_id="generate-button")
        return form, wrong, start, gr.Button("Stop", visible=False), lora_files()


def _compare() -> gr.HTML:
    return gr.HTML(
        value=None,
        html_template=asset("compare.html"),
        css_template=asset("compare.css"),
        js_on_load="".join(asset(f"{name}.js") for name in SCRIPTS),
        apply_default_css=False,
        elem_id="compare",
        ideas=list(EXAMPLES),
    )


def nothing_to_compare(runs: Runs, model: str) -> str:
    """Where no run can be shown beside its base, as HTML what is missing and where it comes from.

    Else empty.
    """
    if len(Loras(runs, model).offered()) > 1:  # the first is the base alone
        return ""
    found = runs.all()
    going = any(run.state in TRAINS for run in found)
    what = "No run has a checkpoint to show yet" if found else "There is no run yet"
    link = '<a href="train">Watch it on Train</a>.' if going else NO_RUN
    return (
        f'<div class="none-yet" role="status"><h3>{what}</h3><p>Here a checkpoint of a run stands '
        f"beside its base, seed by seed, and is sent to be compared. {link} A LoRA that you were "
        'sent is taken under "LoRA files". Until then images are drawn by the base model alone.'
        "</p></div>"
    )


NO_RUN = (
    '<span class="for-admins"><a href="train">Start one on Train</a>.</span>'
    '<span class="for-leads">An admin starts one on <a href="train">Train</a>.</span>'
)


def _choices(
    runs: Runs, model: str, others: int, *, asked: str | None = None
) -> tuple[gr.Dropdown, ...]:
    """The lists of checkpoints and rewriters; `others` beside the first checkpoint.

    That is the one `asked` for, where it is there, or else what the newest run is best used at.
    """
    base, *steps = Loras(runs, model).offered()
    more = [("No other", BASE_ONLY), *steps]
    there = any(value == asked for _, value in steps)
    return (
        gr.Dropdown(choices=[base, *steps], value=asked if there else recommended(runs)),
        gr.Dropdown(choices=rewriters(runs), value=NO_REWRITER),
        *(gr.Dropdown(choices=more, value=BASE_ONLY) for _ in range(others)),
    )


def strength_of(told: str | None) -> float:
    """The strength that a link asks for; 1 where it asks for none that the form has."""
    try:
        strength = float(told or "")
    except ValueError:
        return 1.0
    return strength if 0 <= strength <= STRONGEST else 1.0


def _proposal(project: str, how: str, before: str | None) -> tuple[Any, str, str]:
    """The project that is proposed, and why; what was typed since stays where it is the same."""
    place = proposed_project(how, project)
    return gr.skip() if place == before else place, _why(how, project), place


def _fitting(
    project: str, value: Any, how: str, before: str | None
) -> tuple[Any, Any, Any, str | None]:
    """How what was just drawn is proposed to be ranked, where that is another way than before."""
    fitting = way_for(value["rows"], how) if value else how
    if fitting == how:
        return gr.skip(), gr.skip(), gr.skip(), before
    return fitting, *_proposal(project, fitting, before)


def _drawn_before(shelf: Shelf, event: gr.EventData) -> tuple[Any, Any]:
    value = restore(shelf, str(event.last))
    if value is None and event.asked:
        gr.Warning("These images are not kept any more; the same form draws them again")
    if value:
        return value, gr.Column(visible=True)
    return (gr.skip() if event.asked else NOTHING), gr.skip()


def _rest() -> tuple[Any, Any]:
    return gr.Button(visible=True), gr.Button(visible=False)


def _halt(value: Any) -> tuple[Any, ...]:
    said = f"Stopped at {value['done']} of {value['total']} images" if value else ""
    stopped = {**value, "stopped": said} if value else None
    return stopped, gr.Button(visible=True), gr.Button(visible=False)


def _add_idea(written: str, event: gr.EventData) -> str:
    lines = [line for line in written.split("\n") if line.strip()]
    return "\n".join(dict.fromkeys([*lines, str(event.prompt)]))


def _more(form: Mapping[str, Component]) -> list[Component]:
    return [each for name, each in form.items() if name.startswith("more-")]


def _number(label: str, value: int, elem_id: str) -> gr.Number:
    """Without limits of its own: what is out of them is said at the form, all in one way."""
    return gr.Number(value, label=label, min_width=80, elem_id=elem_id)
