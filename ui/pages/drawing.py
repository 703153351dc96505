"""How pages are drawn: by one event alone, which Gradio repeats when it was asked meanwhile.

So what was asked for earlier never replaces what was asked for later, whoever asks: somebody who
chooses, an action that is done, or alive.js.
"""

from collections.abc import Callable, Sequence
from types import MethodType
from typing import Any

import gradio as gr

from ui.messages import LAST, PRIVATE

ANEW = """() => {
  const drawn = document.querySelector("[data-pulse], [data-draws]");
  drawn?.dispatchEvent(new CustomEvent("pulse", { detail: "asked" }));
}"""
"""Asks for it as alive.js does."""


def draw_by(
    do: Callable[..., Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    *,
    at: gr.HTML,
    when: Sequence[Any] = (),
    chosen: Sequence[Any] = (),
    js: str | None = None,
    after: str | None = None,
) -> dict[str, Any]:
    """Have `do` draw the page whenever the script of `at` triggers "moved", and `when` else.

    `chosen` are events of fields, which may come twice at once: they ask as alive.js does. Returns
    the event that asks, to come after what changes something. `js` gets the inputs first; `after`
    runs when it is drawn, or could not be.
    """
    moved = at.moved  # of a component's own events gradio makes no triggers of several
    triggers = [*when, MethodType(moved.func, at)]
    drawn = gr.on(triggers, do, list(inputs), list(outputs), js=js, **LAST)
    if after is not None:
        drawn.then(None, js=after, **PRIVATE)
    asks: dict[str, Any] = {"fn": None, "js": ANEW, **PRIVATE}
    for event in chosen:
        event(**asks)
    return asks
