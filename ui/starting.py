"""Starting a run from the form of the Train page, at once or in its turn. No gradio here."""

from imgalign.errors import InputError
from ui import checks, recipes
from ui.forms import Form
from ui.removal import holdings
from ui.run_queue import RunQueue
from ui.runs import Runs


def begin(queue: RunQueue, form: Form, name: str = "") -> str:
    """Start a run, or put it in line behind those that train or wait; returns its name.

    All is checked before that can be checked before a process starts. A failed run of that name
    that holds no work gives way.
    """
    if not form.recipe:
        raise InputError("recipe: choose one first")
    checks.check(queue.runs, recipes.read(form.recipe).path, form.changes)
    chosen = name.strip() or queue.free_name(form.recipe)
    queue.refuse_waiting(chosen)  # before it could give way
    if _failed_empty(queue.runs, chosen):
        queue.runs.delete(chosen)
    queue.add(chosen, form)
    queue.advance()
    return chosen


def _failed_empty(runs: Runs, name: str) -> bool:
    try:
        found = runs.run(name)
        return found.state == "failed" and not found.ours and not holdings(runs.path(name))
    except InputError:  # there is none; or it is damaged, and `add` refuses its name
        return False
