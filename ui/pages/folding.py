"""Forms that fold on a narrow screen, where what they make would stand far below them.

By the look alone (assets/app.css), so that nothing jumps as the page loads: a heading with a
checkbox, which opens what stands below it in its column.
"""

from html import escape

import gradio as gr

FOLD = """() => setTimeout(() => {
  const box = document.querySelector(".unfold input");
  if (box && !document.querySelector(".side [role=alert]")) box.checked = false;
}, 100)"""
"""Fold the form again, for an event that has begun what it asks for; not where it says an error."""


def form_heading(title: str, *, only_narrow: bool = False) -> gr.HTML:
    """The heading of the column of a form, which opens it on a narrow screen."""
    return gr.HTML(
        f'<h2 class="unfold"><label><input type="checkbox">{escape(title)}</label></h2>',
        padding=False,
        elem_classes="only-narrow" if only_narrow else None,
    )
