"""The Train page: start a run as its own process, watch it, stop it, go on with it."""

from typing import Any

import gradio as gr

from imgalign.errors import ImgalignError
from ui import settings_table
from ui.authority import is_admin, needs_role
from ui.form_notes import for_page
from ui.forms import Form
from ui.messages import EACH, PRIVATE, shown
from ui.monitor import view
from ui.pages.drawing import draw_by
from ui.pages.train_form import connect_form, draw_fields
from ui.run_queue import RunQueue
from ui.starting import begin
from ui.theme import asset

FOR_LEADS = (
    '<div class="recipe"><p>Admins start, stop and delete runs; here you see how they go.</p></div>'
)


def build(page: gr.Blocks, queue: RunQueue) -> None:
    """Draw the page inside the current Blocks."""
    runs = queue.runs
    chosen = gr.State(None)
    latest = gr.State("")
    with gr.Row(elem_classes="page", equal_height=False):
        with gr.Column(scale=0, min_width=320, elem_classes="side later for-admins"):
            fields = draw_fields()
        with gr.Column(scale=1, min_width=320, elem_classes="watched"):
            gr.HTML(FOR_LEADS, padding=False, elem_classes="for-leads")
            monitor = _monitor()
        with gr.Column(scale=1, min_width=320):
            folded, table = settings_table.draw()

    def refresh(which: str | None, before: str) -> tuple[Any, str]:
        value = shown(lambda: view(runs, which, queue, admin=is_admin()))
        now = repr(value)
        return (gr.skip() if now == before else value), now

    @needs_role("admin")
    def start_run(which: str | None, judge: str, called: str, changes: str) -> tuple[Any, ...]:
        try:
            form = Form(recipe=which or "", reward=judge, overrides=changes)
            begun = begin(queue, form, called)
        except ImgalignError as error:
            return gr.skip(), gr.skip(), f'<p role="alert">{for_page(error)}</p>'
        _say_begun(queue, begun)
        return begun, queue.free_name(which or "run"), ""

    def select(event: gr.EventData) -> str:
        return str(event.run)

    @needs_role("admin")
    def stop(event: gr.EventData) -> None:
        shown(lambda: runs.stop(str(event.run)))
        after = [each.name for each in shown(queue.all) if not each.held]
        then = f"; then {after[0]} starts" if after else ""
        gr.Info(f"Stopping; everything is saved first{then}")

    @needs_role("admin")
    def resume(event: gr.EventData) -> None:
        name = str(event.run)
        shown(lambda: queue.add(name, None))
        shown(queue.advance)
        _say_begun(queue, name)

    @needs_role("admin")
    def delete(event: gr.EventData) -> None:
        shown(lambda: runs.delete(str(event.run), typed=str(event.typed)))
        gr.Info(f"{event.run} is deleted")

    again = draw_by(refresh, [chosen, latest], [monitor, latest], at=monitor, when=[page.load])
    keep = connect_form(page, queue, fields, folded, table, monitor)
    outputs = [chosen, fields.name, fields.refusal]
    fields.start.click(start_run, fields.typed, outputs, **PRIVATE).then(**again).then(**keep)
    monitor.run_select(select, None, chosen, **EACH).then(**again)
    monitor.run_stop(stop, None, None, **EACH).then(**again)
    monitor.run_resume(resume, None, None, **EACH).then(**again)
    monitor.run_delete(delete, None, None, **EACH).then(**again)
    _connect_line(queue, monitor, again)


def _say_begun(queue: RunQueue, name: str) -> None:
    """Whether a run starts or waits."""
    line = [each.name for each in shown(queue.all)]
    if name in line:
        gr.Info(f"{name} waits, number {line.index(name) + 1} in line; it starts by itself")
    else:
        gr.Info(f"{name} is starting")


def _connect_line(queue: RunQueue, monitor: gr.HTML, again: dict[str, Any]) -> None:
    """What can be done with a run that waits."""

    @needs_role("admin")
    def move(event: gr.EventData) -> None:
        shown(lambda: queue.move(str(event.run), 1 if event.later else -1))

    @needs_role("admin")
    def remove(event: gr.EventData) -> None:
        shown(lambda: queue.remove(str(event.run)))
        gr.Info(f"{event.run} does not wait any more")

    @needs_role("admin")
    def start_now(event: gr.EventData) -> None:
        shown(lambda: queue.start_now(str(event.run)))
        gr.Info(f"{event.run} is starting")

    monitor.line_move(move, None, None, **EACH).then(**again)
    monitor.line_remove(remove, None, None, **EACH).then(**again)
    monitor.line_start(start_now, None, None, **EACH).then(**again)


def _monitor() -> gr.HTML:
    return gr.HTML(
        value=None,
        html_template=asset("monitor.html"),
        css_template=asset("monitor.css"),
        js_on_load=asset("monitor.js"),
        apply_default_css=False,
        elem_id="monitor",
    )
