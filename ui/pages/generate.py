"""The Generate page: a checkpoint beside its base, prompts beside their rewrites, and sending."""

from collections.abc import Iterator
from typing import Any, no_type_check

import gradio as gr
from gradio.components import Component

from imgalign.errors import ImgalignError
from imgalign.preferences.store import Store
from ui.generation import (
    BASE_ONLY,
    MOST_ANNOTATORS,
    MOST_GUIDANCE,
    MOST_STEPS,
    NO_REWRITER,
    PAIRS,
    REWRITES,
    TOGETHER,
    LoadedModels,
    checkpoints,
    generate,
    requested,
    restore,
    rewriters,
    send,
)
from ui.messages import PRIVATE, shown
from ui.runs import Runs
from ui.shelf import Shelf
from ui.theme import asset

EXAMPLES = (
    "a brown rabbit beside a red mushroom in the snow",
    "a pink butterfly above a yellow flower by day",
    "three orange fish by the sea",
    "a blue rocket at night",
    "a purple cat on a green car",
)


def _form() -> list[Component]:
    """The form, in the order of the parameters of `requested`."""
    adapter = gr.Dropdown(label="Compare with", choices=[], elem_id="checkpoint")
    prompts = gr.Textbox(
        label="Prompts",
        info="One per line",
        lines=4,
        max_lines=12,
        value=EXAMPLES[0],
        elem_id="prompts",
    )
    with gr.Row(elem_classes="numbers"):
        count = _number("Images each", 4, 1, 12, "count")
        first_seed = _number("First seed", 1, 0, None, "first-seed")
    with gr.Row(elem_classes="numbers"):
        steps = _number("Steps", 20, 1, MOST_STEPS, "steps")
        guidance = gr.Number(
            1.0, label="Guidance", minimum=1, maximum=MOST_GUIDANCE, step=0.5, min_width=80
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
    rewriter.change(_ask_for_words, rewriter, lock, **PRIVATE)
    return [adapter, prompts, first_seed, count, steps, guidance, rewriter, lock]


def _ask_for_words(rewriter: str) -> gr.Textbox:
    return gr.Textbox(visible=rewriter != NO_REWRITER)


def _sending() -> tuple[gr.Radio, gr.Number, gr.Button]:
    """How items are built from the images, annotators per item, and the button."""
    how = gr.Radio(
        [(name[0].upper() + name[1:], name) for name in (PAIRS, REWRITES, TOGETHER)],
        value=TOGETHER,
        label="What to rank",
        scale=3,
        elem_id="how",
    )
    overlap = gr.Number(
        value=1,
        precision=0,
        minimum=1,
        maximum=MOST_ANNOTATORS,
        label="Annotators each",
        scale=1,
    )
    return how, overlap, gr.Button("Send to ranking", elem_id="send-button", scale=1)


def build(
    page: gr.Blocks, store: Store, runs: Runs, shelf: Shelf, *, model: str, project: str
) -> None:
    """Draw the page inside the current Blocks."""
    loaded = LoadedModels()
    with gr.Row(elem_classes="page", equal_height=False):
        with gr.Column(scale=0, min_width=320, elem_classes="side"):
            form = _form()
            start = gr.Button("Generate", variant="primary", elem_id="generate-button")
            cancel = gr.Button("Stop", visible=False)
        with gr.Column(scale=1, min_width=320):
            compare = gr.HTML(
                value=None,
                html_template=asset("compare.html"),
                css_template=asset("compare.css"),
                js_on_load=asset("compare.js"),
                apply_default_css=False,
                elem_id="compare",
                ideas=list(EXAMPLES),
            )
            with gr.Row(visible=False, elem_classes="sending", equal_height=True) as sending:
                how, overlap, go = _sending()
    adapter, prompts, *_, rewriter, _ = form

    def open_page() -> tuple[Any, Any]:
        choices = checkpoints(runs, model)
        newest = choices[1][1] if len(choices) > 1 else BASE_ONLY
        return (
            gr.Dropdown(choices=choices, value=newest),
            gr.Dropdown(choices=rewriters(runs), value=NO_REWRITER),
        )

    @no_type_check  # a checker's wrapper would hide from gradio that this is a generator
    def begin(*form: Any) -> Iterator[tuple[Any, ...]]:
        request = shown(lambda: requested(*form))
        views = generate(request, model=model, runs=runs, shelf=shelf, loaded=loaded)
        for value in _until_error(views):
            busy = value["done"] < value["total"] and not value["failed"]
            yield (
                value,
                gr.Button(visible=not busy),
                gr.Button(visible=busy),
                gr.Row(visible=not busy),
            )

    def rest() -> tuple[Any, Any]:
        return gr.Button(visible=True), gr.Button(visible=False)

    def halt(value: Any) -> tuple[Any, ...]:
        said = f"Stopped at {value['done']} of {value['total']} images" if value else ""
        stopped = {**value, "stopped": said} if value else None
        return stopped, gr.Button(visible=True), gr.Button(visible=False)

    def send_all(value: Any, how: str, times: float | None) -> None:
        count = shown(lambda: send(store, shelf, value, how=how, overlap=times, project=project))
        gr.Info(f"{count} item{'s' * (count != 1)} queued on the Rank page")

    def add_idea(written: str, event: gr.EventData) -> str:
        lines = [line for line in written.split("\n") if line.strip()]
        return "\n".join(dict.fromkeys([*lines, str(event.prompt)]))

    def reload(event: gr.EventData) -> tuple[Any, Any]:
        value = restore(shelf, str(event.last))
        return (value, gr.Row(visible=True)) if value else (gr.skip(), gr.skip())

    page.load(open_page, outputs=[adapter, rewriter], **PRIVATE)
    # One at a time: two may not fit into the memory of one device.
    serial = PRIVATE | {"concurrency_limit": 1}
    running = start.click(begin, form, [compare, start, cancel, sending], **serial)
    running.then(rest, None, [start, cancel], **PRIVATE)
    cancel.click(halt, compare, [compare, start, cancel], cancels=[running], **PRIVATE)
    go.click(send_all, [compare, how, overlap], None, **PRIVATE)
    compare.idea(add_idea, prompts, prompts, **PRIVATE)
    compare.restore(reload, None, [compare, sending], **PRIVATE)


def _until_error(views: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The same views; an error of the project ends them with one that says why."""
    value: dict[str, Any] = {"groups": [], "has_aligned": False, "done": 0, "total": 0, "share": 0}
    try:
        for value in views:
            yield value
    except ImgalignError as error:
        yield {**value, "failed": str(error)}


def _number(label: str, value: int, least: int, most: int | None, elem_id: str) -> gr.Number:
    return gr.Number(
        value, label=label, precision=0, minimum=least, maximum=most, min_width=80, elem_id=elem_id
    )
