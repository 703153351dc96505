"""What the forms of Learn and Train draw alike: the settings that matter most, as controls."""

import gradio as gr

from ui.theme import asset


def controls_field() -> gr.HTML:
    """Where the controls of `ui.controls` are drawn, inside the current column."""
    return gr.HTML(
        value=None,
        html_template=asset("controls.html"),
        css_template=asset("controls.css"),
        js_on_load=asset("controls.js"),
        apply_default_css=False,
        elem_id="controls",
    )
