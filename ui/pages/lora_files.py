"""The part of the Generate page that takes LoRAs that people were sent, and removes them."""

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr
from gradio.components import Component

from imgalign.errors import ImgalignError
from ui.image_request import BASE_ONLY, LORAS
from ui.links import said
from ui.loras import Loras
from ui.messages import EACH
from ui.theme import asset


def lora_files() -> gr.HTML:
    """What takes files and lists those that are there."""
    with gr.Accordion("LoRA files", open=False, elem_classes="fold", elem_id="lora-files"):
        return gr.HTML(
            value=None,
            html_template=asset("loras.html"),
            js_on_load=asset("loras.js"),
            apply_default_css=False,
            padding=False,
        )


def listed(loras: Loras, *, wrong: str = "") -> dict[str, Any]:
    """Those that are there, and why one could not be removed."""
    return {"names": loras.names(), "wrong": wrong}


def connect(
    files: gr.HTML,
    lists: Sequence[Component],
    nothing: gr.HTML,
    *,
    loras: Loras,
    missing: Callable[[], str],
) -> None:
    """Let the lists of checkpoints, of which the first has the base, offer what is sent, and no
    more what is removed; `nothing` says what is `missing`.
    """

    def drawn(chosen: Sequence[str | None], *, wrong: str = "") -> tuple[Any, ...]:
        base, *others = loras.offered()
        there = {value for _, value in others}
        choices = ([base, *others], *([("No other", BASE_ONLY), *others] for _ in chosen[1:]))
        return (
            listed(loras, wrong=wrong),
            missing(),
            *(
                gr.Dropdown(choices=each, value=value if value in there else BASE_ONLY)
                for each, value in zip(choices, chosen, strict=True)
            ),
        )

    def choose_sent(
        event: gr.EventData, _first: str | None, *others: str | None
    ) -> tuple[Any, ...]:
        return drawn([f"{LORAS}/{event.name}", *others])

    def remove(event: gr.EventData, *chosen: str | None) -> tuple[Any, ...]:
        try:
            loras.remove(str(event.name))
        except ImgalignError as error:
            return drawn(chosen, wrong=said(error))
        return drawn(chosen)

    outputs = [files, nothing, *lists]
    files.lora_sent(choose_sent, list(lists), outputs, **EACH)
    files.lora_removed(remove, list(lists), outputs, **EACH)
