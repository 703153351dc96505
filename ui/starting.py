"""Starting a run from the form of the Train page. No gradio here."""

import json

from imgalign.errors import InputError
from ui import checks, forms, recipes
from ui.forms import Form
from ui.removal import holdings
from ui.runs import Runs


def changes_in(reward: str, overrides: str) -> list[str]:
    """The overrides of the form; empty lines and comments are left out.

    `reward` is the folder of a reward model, or empty for the one that the recipe names.
    """
    # Values of overrides are YAML, and any JSON text is.
    changes = [f"reward.path={json.dumps(reward)}"] if reward else []
    return changes + forms.lines_of(overrides)


def launch(runs: Runs, recipe: str | None, reward: str, name: str, overrides: str) -> str:
    """Start a run of a recipe with the form's changes, and return its name."""
    if not recipe:
        raise InputError("recipe: choose one first")
    chosen = name.strip() or runs.free_name(recipe)
    changes = changes_in(reward, overrides)
    runs.launch(recipes.read(recipe).path, name=chosen, overrides=changes)
    return chosen


def begin(runs: Runs, recipe: str | None, reward: str, name: str, overrides: str) -> str:
    """As `launch`, once all has been checked that can be before a process starts.

    A failed run of that name that holds no work gives way.
    """
    if not recipe:
        raise InputError("recipe: choose one first")
    checks.check(runs, recipes.read(recipe).path, changes_in(reward, overrides))
    chosen = name.strip() or runs.free_name(recipe)
    if _failed_empty(runs, chosen):
        runs.delete(chosen)
    begun = launch(runs, recipe, reward, chosen, overrides)
    forms.keep(runs, begun, Form(recipe=recipe, reward=reward, overrides=overrides))
    return begun


def _failed_empty(runs: Runs, name: str) -> bool:
    try:
        found = runs.run(name)
        return found.state == "failed" and not found.ours and not holdings(runs.path(name))
    except InputError:  # there is none; or it is damaged, and `launch` refuses its name
        return False
