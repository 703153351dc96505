"""What the Train page says of its form, as HTML: the recipe, its settings, what it lacks and costs.

No gradio here.
"""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from imgalign.errors import ImgalignError
from ui import checks, outlook, recipes, settings_table
from ui.forms import Form
from ui.links import linked, said
from ui.runs import Runs


def describe(name: str | None) -> str:
    """A recipe's header as HTML, folded below its name, or why it cannot be read."""
    if not name:
        return "<p>No recipe found: put one into <code>configs/</code>.</p>"
    try:
        recipe = recipes.read(name)
    except ImgalignError as error:
        return f'<p role="alert">{escape(said(error))}</p>'
    header = "<br>".join(escape(line) for line in recipe.header.splitlines())
    title = f"<summary>The recipe <b>{escape(name)}</b></summary>"
    return f'<details class="recipe">{title}<p>{header}</p></details>'


def judges(name: str | None, fitted: Sequence[Path]) -> dict[str, Any]:
    """What there is to choose as the reward model of a recipe; "" for that of the recipe itself.

    Only those are offered that score what the recipe samples. A recipe that samples needs one:
    there the newest of them is chosen.
    """
    try:
        recipe = None if name is None else recipes.read(name)
    except ImgalignError:  # `describe` says why
        recipe = None
    scored = None if recipe is None else recipe.scored
    named = [(path.name, str(path)) for path in fitted if scored in (None, checks.scores_of(path))]
    if recipe is None or recipe.needs_reward:
        value = named[0][1] if named else ""
        info = f"Judges the {scored or 'samples'} that the model makes."
        return {"choices": [("as the recipe says", ""), *named], "value": value, "info": info}
    info = f"Not needed: it learns from {scored} that are given. One would only measure."
    return {"choices": [("none", ""), *named], "value": "", "info": info}


def explain(name: str | None, reward: str, overrides: str) -> tuple[str, str, str]:
    """What a run would have: a title, the table of settings, and what there is to say of them."""
    if not name:
        return "Settings", "", ""
    try:
        found = recipes.explain(name, Form(recipe=name, reward=reward, overrides=overrides).changes)
    except ImgalignError as error:
        wait = "<p>They are shown here once they are right.</p>"
        return "Settings", wait, f'<p role="alert">{escape(said(error))}</p>'
    notes = "".join(f"<p>{escape(note)}</p>" for note in found.notes)
    return settings_table.title(found.settings), settings_table.table(found.settings), notes


def for_page(error: ImgalignError) -> str:
    """As HTML, with links to the pages on which to do what it says."""
    return linked(said(error))


def prospects(runs: Runs, recipe: str | None, reward: str, overrides: str) -> tuple[str, str]:
    """As HTML: what a run would still lack, and what it would cost; empty for wrong settings."""
    if not recipe:
        return "", ""
    try:
        found = recipes.read(recipe)
        changes = Form(recipe=recipe, reward=reward, overrides=overrides).changes
        settings = recipes.settings_with(found, changes)
    except ImgalignError:  # `explain` says why
        return "", ""
    lacks = ""
    try:
        checks.check(runs, found.path, changes)
    except ImgalignError as error:
        lacks = f'<p role="status"><b>Cannot be started yet.</b> {for_page(error)}</p>'
    return lacks, outlook.table(outlook.outlook(settings, found, runs))
