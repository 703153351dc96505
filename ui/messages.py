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
"""Options of every event: not in the public API, never queued behind one another.

Gradio drops an event while the one before it is not answered. That is right for a button whose
second press is a slip; all else needs one of the two below.
"""
EACH: dict[str, Any] = PRIVATE | {"trigger_mode": "multiple", "concurrency_limit": 1}
"""Where each press counts, of what it is: one after the other, none is dropped."""
LAST: dict[str, Any] = PRIVATE | {"trigger_mode": "always_last"}
"""Where the last choice counts. Not with data of an event: Gradio repeats those of the first."""


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
