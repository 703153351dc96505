"""Errors as messages on the page, and options of private events."""

from collections.abc import Callable
from html import escape
from typing import Any, TypeVar

import gradio as gr

from imgalign.errors import ImgalignError
from ui.links import said

T = TypeVar("T")

PRIVATE: dict[str, Any] = {
    "show_progress": "hidden",
    "concurrency_limit": None,
    "api_visibility": "private",
}
"""Options of every event: not in the public API, never queued behind one another."""


def shown(do: Callable[[], T]) -> T:
    """Call `do`; an ImgalignError becomes a message on the page, any other error is a bug."""
    try:
        return do()
    except ImgalignError as error:
        raise gr.Error(_text(error), duration=None, print_exception=False) from error


def done(do: Callable[[], object]) -> bool:
    """Call `do`; an ImgalignError becomes a warning, and the event goes on. Whether it was done."""
    try:
        do()
    except ImgalignError as error:
        gr.Warning(_text(error), duration=None)
        return False
    return True


def _text(error: ImgalignError) -> str:
    """A message, which gradio takes for HTML; it may repeat what somebody typed."""
    return escape(said(error), quote=False)
