"""The forms of the People page and the places of its tables: drawn here, connected in people.py."""

import gradio as gr

from imgalign.preferences.attention import MOST_ITEMS as MOST_ATTENTION
from imgalign.preferences.qualification import MOST_ITEMS
from imgalign.preferences.repeats import MOST_REPEATS
from ui.people_table import candidates_shown
from ui.theme import asset

USUAL_OVERLAP = 20
USUAL_SHARE = 60
"""Percent of a qualification that must be answered as expected."""


def opening() -> gr.Checkbox:
    """Draw whether annotators may rank the project."""
    return gr.Checkbox(
        label="Open to annotators",
        info="Those with accounts may rank this project; leads rank all",
        elem_id="project-open",
    )


def ranked_next() -> gr.Radio:
    """Draw what is ranked next."""
    return gr.Radio(
        label="Ranked next",
        info="What tells a reward most is computed each time one is fitted; a fifth of the sets "
        "stays random",
        choices=[("Oldest first", "oldest"), ("What tells most first", "informative")],
        value="oldest",
        elem_id="queue-order",
    )


def tables() -> tuple[gr.HTML, gr.HTML, gr.HTML]:
    """Draw the places of progress and annotators, of gold items and of attention items."""
    script = asset("people.js")
    people = gr.HTML(
        "",
        js_on_load=asset("drawn.js") + script,
        padding=False,
        elem_id="people",
        draws="people",
    )
    gold = gr.HTML("", js_on_load=script, padding=False, elem_id="gold")
    return people, gold, gr.HTML("", js_on_load=script, padding=False, elem_id="attention")


def guidelines(*, from_file: bool) -> tuple[gr.Textbox, gr.Button]:
    """Draw the guidelines, and what saves them."""
    with gr.Accordion("Guidelines", open=False, elem_classes="fold"):
        if from_file:
            gr.HTML(
                '<div class="recipe"><p>They come from a file that the app was started with, for '
                "all projects: whoever started it can change that file.</p></div>",
                padding=False,
            )
        text = gr.Textbox(
            label="What you ask of the annotators of this project",
            info="Plain text; the Rank page shows it before the first set, and by the key g",
            lines=8,
            max_lines=16,
            visible=not from_file,
            elem_id="people-guidelines",
        )
        save = gr.Button("Save", visible=not from_file, elem_id="save-guidelines")
    return text, save


def _count(
    label: str,
    value: int,
    *,
    elem_id: str,
    info: str | None = None,
    least: int = 1,
    most: int | None = None,
) -> gr.Number:
    """A field for a whole number of things."""
    return gr.Number(
        label=label,
        info=info,
        value=value,
        precision=0,
        minimum=least,
        maximum=most,
        elem_id=elem_id,
    )


def gold_form() -> tuple[gr.Dropdown, gr.HTML, gr.Textbox, gr.Number, gr.Button]:
    """Draw the set, its candidates, the expected order, the annotators, and the button."""
    with gr.Accordion("Add a gold item", open=False, elem_classes="fold"):
        which = gr.Dropdown(label="Set", choices=[], elem_id="gold-set")
        letters = gr.HTML(candidates_shown(None, []), padding=False)
        order = gr.Textbox(
            label="Expected order",
            info="Letters, best first: B > A = C. Those left out are behind, in any order",
            placeholder="B > A = C",
            max_lines=1,
            elem_id="gold-order",
        )
        overlap = _count("Annotators who shall judge it", USUAL_OVERLAP, elem_id="gold-overlap")
        add = gr.Button("Make it gold", elem_id="add-gold")
    return which, letters, order, overlap, add


def attention_form() -> tuple[gr.Number, gr.Number, gr.Button]:
    """Draw how many to add, the annotators of each, and the button."""
    with gr.Accordion("Add attention items", open=False, elem_classes="fold"):
        count = _count(
            "Attention items to add",
            5,
            info="Sets in which one image belongs to the prompt and the others were made for quite "
            "different ones; nothing is learned from them",
            most=MOST_ATTENTION,
            elem_id="attention-count",
        )
        overlap = _count(
            "Annotators who shall judge each", USUAL_OVERLAP, elem_id="attention-overlap"
        )
        button = gr.Button("Add them", elem_id="add-attention")
    return count, overlap, button


def qualification() -> tuple[gr.Number, gr.Number, gr.Button]:
    """Draw how many gold items come first, the percent to answer as expected, and the button."""
    with gr.Accordion("Qualification", open=False, elem_classes="fold"):
        first = _count(
            "Gold items that come first",
            0,
            info="Everybody judges them before anything else; 0 asks for nothing",
            least=0,
            most=MOST_ITEMS,
            elem_id="qualify-items",
        )
        percent = gr.Number(
            label="Percent to answer as expected",
            info="Who answers fewer gets nothing more to judge; you may admit them",
            value=USUAL_SHARE,
            minimum=1,
            maximum=100,
            elem_id="qualify-percent",
        )
        ask = gr.Button("Save", elem_id="save-qualification")
    return first, percent, ask


def repeats() -> tuple[gr.Number, gr.Button]:
    """Draw how many sets to ask again, and the button."""
    with gr.Accordion("Ask sets again", open=False, elem_classes="fold"):
        count = _count(
            "Sets to ask again",
            5,
            info="Judged ones, chosen at random, for everybody who has judged: what they answer "
            "then is their consistency",
            most=MOST_REPEATS,
            elem_id="repeat-count",
        )
        button = gr.Button("Queue them", elem_id="repeat-sets")
    return count, button


def files() -> tuple[gr.HTML, gr.HTML]:
    """Draw what takes rankings home, and what brings them in."""
    with gr.Accordion("Rankings as files", open=False, elem_classes="fold"):
        taking = gr.HTML("", js_on_load=asset("taking.js"), padding=False, elem_id="take-rankings")
        sending = gr.HTML(
            asset("rankings.html"),
            js_on_load=asset("rankings.js"),
            padding=False,
            elem_id="bring-rankings",
        )
    return taking, sending
