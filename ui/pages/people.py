"""The People page: how far a project is and how well its annotators judge, for those who lead it.

They are excluded, included and admitted here, sets are made gold items, attention items are added,
withdrawn and brought back, the guidelines and the qualification are set, what is ranked next is
chosen, rankings go out and come in as files (ui/ranking_files.py), and the project is opened to
those with accounts, who are invited here (pages/accounts.py).
"""

import json
from collections.abc import Callable
from functools import partial
from html import escape
from secrets import token_hex
from typing import Any

import gradio as gr

from imgalign.errors import ImgalignError, InputError, StoreError
from imgalign.preferences.accounts import Accounts
from imgalign.preferences.attention import add_attention, bring_back, withdraw
from imgalign.preferences.coverage import queued_projects
from imgalign.preferences.exclusions import exclude, include
from imgalign.preferences.gold import gold_items, mark_gold, read_order, unmark_gold
from imgalign.preferences.guidelines import guidelines_of, set_guidelines
from imgalign.preferences.openings import open_projects, set_open
from imgalign.preferences.people import people_of
from imgalign.preferences.progress import project_progress
from imgalign.preferences.qualification import admit, qualification_of, set_qualification
from imgalign.preferences.queue_order import queue_order_of, set_queue_order, valued_items
from imgalign.preferences.repeats import ask_again
from imgalign.preferences.store import Store
from imgalign.preferences.stored import item_samples, latest_items
from ui.api.small import small_text
from ui.authority import account
from ui.links import said
from ui.messages import EACH, LAST, PRIVATE, done, shown
from ui.pages import accounts, people_forms
from ui.pages.drawing import draw_by
from ui.people_table import (
    attention_table,
    candidates_shown,
    gold_table,
    people_table,
    progress_shown,
    valued_shown,
)
from ui.pulse import Pulse
from ui.ranking_files import choices

NOTHING_QUEUED = (
    '<div class="none-yet" role="status"><h3>Nothing to judge yet</h3><p>Nothing is queued for '
    'ranking. Make candidates on the <a href="candidates">Candidates</a> page.</p></div>'
)
MOST_SETS = 300
"""Sets that are offered as gold items: the newest."""
NEXT_SAID = {
    "oldest": "The oldest sets are ranked first now",
    "informative": "What tells most is ranked first: fit a reward on the Learn page to compute it; "
    "until then the oldest comes",
}
KEPT_SAID = "Annotators see them when they open the Rank page"
NONE_KEPT_SAID = "There are none now: annotators see no guidelines"
# The project stays over a reload of the tab; browsers may refuse storage. Forms of another project
# wait for it (drawn.js).
KEEP = """(name, drawn) => {
  if ((name ?? "") !== drawn) document.querySelector(".page > .later").inert = true;
  try { sessionStorage.setItem("imgalign.people", JSON.stringify(name)); } catch {}
  return [name, drawn];
}"""
FREE = """() => { document.querySelector(".page > .later").inert = false; }"""
KEPT = """() => {
  try { return [sessionStorage.getItem("imgalign.people") ?? ""]; } catch { return [""]; }
}"""


def tables(store: Store, project: str | None) -> tuple[str, str, str]:
    """Progress and annotators, gold items and attention items of a project as HTML; the reason in
    place of what cannot be.
    """
    if not project:
        return NOTHING_QUEUED, "", ""
    try:
        found = people_of(store, project)
    except ImgalignError as error:
        return (
            f'<div class="results people"><p role="alert">{escape(said(error))}</p></div>',
            "",
            "",
        )
    progress = progress_shown(project_progress(store, project))
    if queue_order_of(store.database, project) == "informative":
        progress += valued_shown(valued_items(store.database, project))
    people = progress + people_table(found)
    gold = f"<h2>Gold items</h2>{gold_table(found.gold)}"
    return people, gold, f"<h2>Attention items</h2>{attention_table(found.attention)}"


def candidates_of(store: Store, item_id: str | None) -> str:
    """The candidates of a set as HTML, each with its letter."""
    found = item_samples(store, [item_id]) if item_id else []
    if not found:
        return candidates_shown(None, [])
    texts = found[0].sample_ids if found[0].samples == "texts" else ()
    return candidates_shown(found[0], [small_text(store.text(each)) for each in texts])


def add_gold(store: Store, item_id: str | None, order: str | None, overlap: float | None) -> None:
    """Make a set a gold item, from the form."""
    found = item_samples(store, [item_id]) if item_id else []
    if not found:
        raise InputError("set: choose one first")
    if overlap is None or overlap != int(overlap):
        raise InputError(f"annotators: expected a whole number, got {overlap}")
    expected = read_order(order or "", num_candidates=len(found[0].sample_ids))
    mark_gold(store, found[0].item_id, expected, overlap=int(overlap))


def remove_gold(store: Store, item_id: str, *, project: str) -> None:
    """Let a set be as any other; StoreError for one of another project."""
    if item_id not in {each.item_id for each in gold_items(store, project)}:
        raise StoreError(f"set {item_id[:12]}: no gold item of {project!r}; reload the page")
    unmark_gold(store, item_id)


def ask_first(
    store: Store, project: str | None, num_items: float | None, percent: float | None
) -> str:
    """Set the qualification of a project, from the form; what to say of it."""
    if num_items is None or num_items != int(num_items):
        raise InputError(f"gold items that come first: expected a whole number, got {num_items}")
    if percent is None or not 0 < percent <= 100:
        raise InputError(f"percent as expected: expected above 0 and at most 100, got {percent}")
    set_qualification(store.database, project or "", num_items=int(num_items), share=percent / 100)
    return f"Gold items that come first now: {int(num_items)}"


def asked_first(store: Store, project: str | None) -> tuple[int, float]:
    """How many gold items come first, and the percent of them to answer as expected."""
    found = qualification_of(store.database, project) if project else None
    return (found.num_items, 100 * found.share) if found else (0, people_forms.USUAL_SHARE)


def repeat(store: Store, project: str | None, count: float | None) -> str:
    """Ask some judged sets again, from the form; what to say of it."""
    if count is None or count != int(count):
        raise InputError(f"sets: expected a whole number, got {count}")
    added = ask_again(store, project or "", count=int(count))
    return f"Queued again: {len(added)}"


def check_attention(
    store: Store, project: str | None, count: float | None, overlap: float | None
) -> str:
    """Add attention items, from the form; what to say of it."""
    for what, given in (("attention items", count), ("annotators", overlap)):
        if given is None or given != int(given):
            raise InputError(f"{what}: expected a whole number, got {given}")
    assert count is not None
    assert overlap is not None
    added = add_attention(store, project or "", count=int(count), overlap=int(overlap))
    return f"Attention items added: {len(added)}"


def build(
    page: gr.Blocks,
    store: Store,
    people: Accounts,
    pulse: Pulse,
    *,
    project: str,
    from_file: bool,
) -> None:
    """Draw the page inside the current Blocks; it begins with `project`.

    `from_file` says that the guidelines are a file's, which is for all projects.
    """
    # What is done is done to the project that is on the screen. The list may name another one
    # already, which still loads: then nothing is done.
    here, kept = gr.Textbox(visible=False), gr.Textbox(visible=False)
    with gr.Row(elem_classes="page", equal_height=False):
        with gr.Column(scale=0, min_width=320, elem_classes="side"):
            gr.HTML("<h2>Who judges, and how well</h2>", padding=False)
            chosen = gr.Dropdown(label="Project", choices=[], elem_id="people-project")
            opened, next_up = people_forms.opening(), people_forms.ranked_next()
        with gr.Column(scale=0, min_width=320, elem_classes="side later"):
            inviting = accounts.draw_form()
            text, save = people_forms.guidelines(from_file=from_file)
            which, letters, order, overlap, add = people_forms.gold_form()
            adding = people_forms.attention_form()
            first, percent, ask = people_forms.qualification()
            (count, more), (files, sending) = people_forms.repeats(), people_forms.files()
        with gr.Column(scale=1, min_width=320, elem_classes="watched"):
            table, gold, attention = people_forms.tables()
            rows = accounts.draw_table()
    figures = [opened, next_up, table, gold, attention, rows.table]
    forms = [text, which, letters, first, percent, files]

    def open_page(before: str) -> tuple[Any, str]:
        return offer(_project_in(before) or project)

    def offer(name: str | None) -> tuple[Any, str]:
        names = shown(lambda: queued_projects(store))
        begin = name if name in names else next(iter(names), None)
        return gr.Dropdown(choices=names, value=begin), ""

    def draw(name: str | None, drawn: str) -> tuple[Any, ...]:
        """Figures of the project; its forms only where they are another's, for what is typed."""

        def both() -> tuple[Any, ...]:
            found = _figures(store, people, name, first=project)
            same = found[1] == drawn != ""
            skipped = tuple(gr.skip() for _ in forms)
            return *found, *(skipped if same else _forms(store, found[1], from_file=from_file))

        made: list[tuple[Any, ...]] = []
        with pulse.drawing("people"):
            done(lambda: made.append(both()))
        return made[0] if made else tuple(gr.skip() for _ in everything)

    at = [chosen, here]
    everything = [chosen, here, *figures, *forms]
    again = draw_by(draw, at, everything, at=table, chosen=[chosen.input], js=KEEP, after=FREE)
    page.load(open_page, kept, at, js=KEPT, **PRIVATE).then(**again)
    sending.rankings_in(offer, chosen, at, **EACH).then(**again)
    opened.input(partial(_open, store), [*at, opened], None, **EACH).then(**again)
    next_up.input(partial(_rank_next, store), [*at, next_up], None, **EACH).then(**again)
    for event, do in (
        (table.person_exclude, partial(exclude, store.database)),
        (table.person_include, partial(include, store.database)),
        (table.person_admit, partial(admit, store.database)),
        (gold.gold_remove, partial(remove_gold, store)),
        (attention.attention_withdraw, partial(withdraw, store)),
        (attention.attention_back, partial(bring_back, store)),
    ):
        event(_to_one(do), at, None, **EACH).then(**again)
    ask.click(partial(_qualify, store), [*at, first, percent], None, **EACH).then(**again)
    more.click(partial(_once_more, store), [*at, count], None, **PRIVATE).then(**again)
    adding[-1].click(partial(_attention, store), [*at, *adding[:2]], None, **PRIVATE).then(**again)
    of_gold = [*at, which, order, overlap]
    add.click(partial(_make_gold, store), of_gold, order, **PRIVATE).then(**again)
    which.change(lambda item: shown(lambda: candidates_of(store, item)), which, letters, **LAST)
    save.click(partial(_keep, store), [*at, text], None, **EACH)
    accounts.connect(page, people, inviting, rows, again)


def _figures(store: Store, people: Accounts, name: str | None, *, first: str) -> tuple[Any, ...]:
    """What is drawn of a project each time: the list where it has its first project only now, the
    name, whether it is open, what is ranked next, and all tables.
    """
    names = [] if name else queued_projects(store)
    name = name or next(iter(names), None)
    texts = (*tables(store, name), accounts.table(people, account()))
    return (
        gr.Dropdown(choices=names, value=name) if names else gr.skip(),
        name or "",
        name in open_projects(store.database, first=first),
        queue_order_of(store.database, name or ""),
        *map(_drawn_anew, texts),
    )


def _forms(store: Store, name: str, *, from_file: bool) -> tuple[Any, ...]:
    """What the forms begin with in a project."""
    sets = latest_items(store, name, limit=MOST_SETS) if name else []
    return (
        guidelines_of(store.database, name) if name and not from_file else "",
        gr.Dropdown(choices=[(prompt, item_id) for item_id, prompt in sets], value=None),
        candidates_shown(None, []),
        *asked_first(store, name),
        choices(store, name),
    )


def _project_in(kept: str) -> str | None:
    """The project that a browser kept; anybody may have changed it since."""
    try:
        name = json.loads(kept)
    except ValueError:
        return None
    return name if isinstance(name, str) else None


def _drawn_anew(html: str) -> str:
    """Another text each time, so that a button that did nothing can be pressed again."""
    return f'<div data-drawn="{token_hex(4)}">{html}</div>'


def _on_screen(named: str | None, here: str | None) -> str:
    """The project that the page shows; InputError where the list names another already."""
    if (named or "") != (here or ""):
        raise InputError(
            f"project {named!r} is still loading and nothing was done; do it once it is shown"
        )
    return here or ""


def _to_one(do: Callable[..., None]) -> Callable[..., None]:
    """A handler that does it to what the button in a table is of, in the project on the screen."""

    def handler(named: str | None, here: str | None, event: gr.EventData) -> None:
        done(lambda: do(str(event.of), project=_on_screen(named, here)))

    return handler


def _open(store: Store, named: str | None, here: str | None, is_open: bool | None) -> None:
    """Open a project to annotators or close it."""
    if done(lambda: set_open(store.database, _on_screen(named, here), bool(is_open), by=account())):
        gr.Info("Annotators may rank it now" if is_open else "Annotators do not see it any more")


def _rank_next(store: Store, named: str | None, here: str | None, order: str | None) -> None:
    """Choose what is ranked next in a project."""
    if done(lambda: set_queue_order(store.database, _on_screen(named, here), order or "")):
        gr.Info(NEXT_SAID[queue_order_of(store.database, here or "")])


def _qualify(
    store: Store,
    named: str | None,
    here: str | None,
    num_items: float | None,
    share: float | None,
) -> None:
    gr.Info(shown(lambda: ask_first(store, _on_screen(named, here), num_items, share)))


def _once_more(store: Store, named: str | None, here: str | None, number: float | None) -> None:
    gr.Info(shown(lambda: repeat(store, _on_screen(named, here), number)))


def _attention(
    store: Store,
    named: str | None,
    here: str | None,
    number: float | None,
    overlap: float | None,
) -> None:
    gr.Info(shown(lambda: check_attention(store, _on_screen(named, here), number, overlap)))


def _make_gold(
    store: Store,
    named: str | None,
    here: str | None,
    item_id: str | None,
    expected: str | None,
    number: float | None,
) -> str:
    shown(lambda: _on_screen(named, here))
    shown(lambda: add_gold(store, item_id, expected, number))
    gr.Info("It is a gold item now")
    return ""


def _keep(store: Store, named: str | None, here: str | None, written: str | None) -> None:
    text = (written or "").strip()
    shown(lambda: set_guidelines(store.database, _on_screen(named, here), text))
    gr.Info(KEPT_SAID if text else NONE_KEPT_SAID)
