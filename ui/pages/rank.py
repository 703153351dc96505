"""The Rank page: one `gr.HTML` component that owns tiles, keys, drag, zoom and drafts.

Its template is static and holds no data; the script draws every item with DOM calls, so that a
prompt or a candidate is always text and never markup. It calls the routes of `ui.api.rank`, not
Gradio's event queue.
"""

import gradio as gr

from ui.api.rank import SKIP_REASONS
from ui.theme import asset

SCRIPTS = (
    *("session", "candidates", "drafts", "ranker", "votes"),
    *("rest", "projects", "zoom", "hands"),
)
"""In the order in which they need each other."""


def build(*, making: bool, learning: bool, demo: bool = False) -> None:
    """Draw the page inside the current Blocks.

    `making` and `learning` say whether there are pages that make candidates and fit rewards, `demo`
    whether the former offers a finished demo.
    """
    with gr.Column(elem_classes="page"):
        # Not a subclass: for those, gradio writes a .pyi file beside the source at every import.
        gr.HTML(
            html_template=asset("ranker.html"),
            css_template=asset("ranker.css"),
            js_on_load="".join(asset(f"{name}.js") for name in SCRIPTS),
            apply_default_css=False,
            elem_id="ranker",
            reasons={samples: list(offered) for samples, offered in SKIP_REASONS.items()},
            making=making,
            learning=learning,
            demo=demo,
        )
