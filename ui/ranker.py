"""The ranking widget: one `gr.HTML` component that owns tiles, keys, drag, zoom and drafts.

Its template is static and holds no data; the script draws every item with DOM calls, so that a
prompt is always text and never markup. It speaks to the routes of `ui.routes`, not to Gradio's
event queue: their addresses stay the same when the server restarts or is upgraded, and an HTTP
status tells a refusal from an outage.
"""

import gradio as gr

from ui.session import SKIP_REASONS
from ui.theme import asset


def ranker() -> gr.HTML:
    """A full-width ranking widget. Fires `change` after each receipt of the store."""
    # Not a subclass: for those, gradio writes a .pyi file beside the source at every import.
    return gr.HTML(
        html_template=asset("ranker.html"),
        css_template=asset("ranker.css"),
        js_on_load=asset("session.js") + asset("ranker.js"),
        apply_default_css=False,
        elem_id="ranker",
        reasons=list(SKIP_REASONS),
    )
