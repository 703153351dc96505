"""How handlers talk to the page: one line for what the user can mend, and private endpoints."""

from collections.abc import Callable
from typing import Any, TypeVar

import gradio as gr

from imgalign.errors import ImgalignError

T = TypeVar("T")

PRIVATE: dict[str, Any] = {
    "show_progress": "hidden",
    "concurrency_limit": None,
    "api_visibility": "private",
}
"""Options of every event: not in the public API, never waiting for one another."""


def shown(do: Callable[[], T]) -> T:
    """Run it; an error of the project becomes a message on the page, any other is a bug."""
    try:
        return do()
    except ImgalignError as error:
        raise gr.Error(str(error), duration=None, print_exception=False) from error
