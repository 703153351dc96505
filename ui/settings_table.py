"""The settings of a recipe as HTML: those that differ from their defaults first.

Left out: where they come from (recipes.py), the search (assets/controls.js), and the look.
"""

import re
from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby

import gradio as gr

from imgalign.config import REQUIRED, Setting, plain

SEARCH = (
    '<div class="find"><label for="find-setting">Find a setting</label>'
    '<input type="search" id="find-setting" autocomplete="off" spellcheck="false" '
    'placeholder="a word of its name or meaning"><span id="found-settings" role="status"></span>'
    "<small>A click on a name adds it to the overrides.</small></div>"
)
"""Above the table; assets/controls.js searches."""
HEADINGS = ("Setting", "Value", "Default", "Meaning")


def draw() -> tuple[gr.Accordion, gr.HTML]:
    """Draw where the settings stand, folded, inside the current column."""
    with gr.Accordion(
        "Settings", open=False, elem_id="settings", elem_classes="for-admins"
    ) as folded:
        gr.HTML(SEARCH, padding=False)
        table = gr.HTML("<p>Reading the settings …</p>", padding=False)
    return folded, table


def title(settings: Sequence[Setting]) -> str:
    """Example: "Settings: 17 of 53 differ from their default"."""
    changed = sum(not each.is_default for each in settings)
    differ = "differs" if changed == 1 else "differ"
    return f"Settings: {changed} of {len(settings)} {differ} from their default"


def table(settings: Sequence[Setting]) -> str:
    """What the recipe and its overrides change, and below it, folded, all that is as by default."""
    changed = [each for each in settings if not each.is_default]
    usual = [each for each in settings if each.is_default]
    shown = _table(changed) if changed else "<p>Every setting has its default.</p>"
    rest = (
        f"<details><summary>{len(usual)} settings with their default</summary>"
        f"{_table(usual)}</details>"
    )
    return f'<div class="settings">{shown}{rest if usual else ""}</div>'


def _table(settings: Iterable[Setting]) -> str:
    head = "".join(f'<th scope="col">{heading}</th>' for heading in HEADINGS)
    groups = groupby(settings, key=lambda each: each.path.partition(".")[0])
    body = "".join(_group(name, members) for name, members in groups)
    return f"<table><thead><tr>{head}</tr></thead>{body}</table>"


def _group(name: str, members: Iterable[Setting]) -> str:
    rows = "".join(_row(each) for each in members)
    heading = f'<tr><th colspan="{len(HEADINGS)}" scope="rowgroup">{escape(name)}</th></tr>'
    return f"<tbody>{heading}{rows}</tbody>"


def _row(each: Setting) -> str:
    name = each.path.partition(".")[2] or each.path
    default = each.default if each.default == REQUIRED else plain(each.default)
    # The back-ticks of docstrings are code.
    meaning = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(each.meaning))
    add = 'type="button" data-add title="Add it to the overrides"'
    return (
        f'<tr data-setting="{escape(each.path)}" data-value="{escape(plain(each.value))}">'
        f'<th scope="row"><button {add}>{escape(name)}</button></th>'
        f'<td class="value">{escape(plain(each.value))}</td>'
        f'<td class="default"><span>default </span>{escape(default)}</td>'
        f'<td class="meaning">{meaning}</td></tr>'
    )
