"""When somebody has changed a field of a form."""

from collections.abc import Callable
from typing import Any

import gradio as gr


def edited(field: Any) -> Callable[..., Any]:
    """The event of a field that is another than before.

    Gradio's `input` misses what is pasted into a text box, and a Dropdown has it twice for one
    choice and once whenever the focus leaves it. Their `change` is also what the app fills in.
    """
    chosen: Callable[..., Any] = (
        field.change if isinstance(field, gr.Textbox | gr.Dropdown) else field.input
    )
    return chosen
