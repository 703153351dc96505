"""The People page: how far a project is and how well its annotators judge, for those who lead it.

They are excluded, included and admitted here, sets are made gold items, attention items are added,
withdrawn and brought back, the guidelines and the qualification are set, what is ranked next is
chosen, rankings go out and come in as files (ui/ranking_files.py), and the project is opened to
those with accounts, who are invited here (pages/accounts.py).
"""

from collections.abc import Callable
from functools import partial
from html import escape
from typing import Any

import gradio as gr

from imgalign.errors import ImgalignError, InputError, StoreError
from imgalign.preferences.accounts import Accounts
from imgalign.preferences.attention import MOST_ITEMS as MOST_ATTENTION
from imgalign.preferences.attention import add_attention, bring_back, withdraw
from imgalign.preferences.coverage import queued_projects
from imgalign.preferences.exclusions import exclude, include
from imgalign.preferences.gold import gold_items, mark_gold, read_order, unmark_gold
from imgalign.preferences.guidelines import guidelines_of, set_guidelines
from imgalign.preferences.openings import open_projects, set_open
from imgalign.preferences.people import people_of
from imgalign.preferences.progress import project_progress
from imgalign.preferences.qualification import (
    MOST_ITEMS,
    admit,
    qualification_of,
    set_qualification,
)
from imgalign.preferences.queue_order import queue_order_of, set_queue_order, valued_items
from imgalign.preferences.repeats import MOST_REPEATS, ask_again
from imgalign.preferences.store import Store
from imgalign.preferences.stored import item_samples, latest_items
from ui.api.small import small_text
from ui.authority import account
from ui.links import said
from ui.messages import PRIVATE, done, shown
from ui.pages import accounts
from ui.people_table import (
    attention_table,
    candidates_shown,
    gold_table,
    people_table,
    progress_shown,
    valued_shown,
)
from ui.ranking_files import choices
from ui.theme import asset

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
USUAL_OVERLAP = 20
USUAL_SHARE = 60
"""Percent of a qualification that must be answered as expected."""


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
    return (found.num_items, 100 * found.share) if found else (0, USUAL_SHARE)


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
    page: gr.Blocks, store: Store, people: Accounts, *, project: str, from_file: bool
) -> None:
    """Draw the page inside the current Blocks; it begins with `project`.

    `from_file` says that the guidelines are a file's, which is for all projects.
    """
    with gr.Row(elem_classes="page", equal_height=False):
        with gr.Column(scale=0, min_width=320, elem_classes="side"):
            gr.HTML("<h2>Who judges, and how well</h2>", padding=False)
            chosen = gr.Dropdown(label="Project", choices=[], elem_id="people-project")
            opened, next_up = _opening(), _ranked_next()
        with gr.Column(scale=0, min_width=320, elem_classes="side later"):
            inviting = accounts.draw_form()
            text, save = _guidelines(from_file=from_file)
            which, letters, order, overlap, add = _gold_form()
            adding = _attention_form()
            first, percent, ask = _qualification()
            (count, more), (files, sending) = _repeats(), _files()
        with gr.Column(scale=1, min_width=320, elem_classes="watched"):
            table, gold, attention = _tables()
            rows = accounts.draw_table()

    def open_at(name: str | None) -> tuple[Any, ...]:
        names = shown(lambda: queued_projects(store))
        begin = name if name in names else next(iter(names), None)
        return gr.Dropdown(choices=names, value=begin), *look(begin)

    def look(name: str | None) -> tuple[Any, ...]:
        def all_of_it() -> tuple[Any, ...]:
            sets = latest_items(store, name, limit=MOST_SETS) if name else []
            return (
                name in open_projects(store.database, first=project),
                queue_order_of(store.database, name or ""),
                *tables(store, name),
                guidelines_of(store.database, name) if name and not from_file else "",
                gr.Dropdown(choices=[(prompt, item_id) for item_id, prompt in sets], value=None),
                candidates_shown(None, []),
                *asked_first(store, name),
                choices(store, name),
            )

        return shown(all_of_it)

    decided = [opened, next_up]
    everything = [*decided, table, gold, attention, text, which, letters, first, percent, files]
    again = {
        "fn": lambda name: shown(lambda: tables(store, name)),
        "inputs": chosen,
        "outputs": [table, gold, attention],
        **PRIVATE,
    }

    def changing(event: Callable[..., Any], do: Callable[..., Any], inputs: Any, out: Any) -> None:
        event(do, inputs, out, **PRIVATE).success(**again)

    page.load(partial(open_at, project), outputs=[chosen, *everything], **PRIVATE)
    chosen.input(look, chosen, everything, **PRIVATE)
    sending.rankings_in(open_at, chosen, [chosen, *everything], **PRIVATE)
    opened.input(partial(_open, store, project), [chosen, opened], opened, **PRIVATE)
    changing(next_up.input, partial(_rank_next, store), [chosen, next_up], next_up)
    for event, do in (
        (table.person_exclude, partial(exclude, store.database)),
        (table.person_include, partial(include, store.database)),
        (table.person_admit, partial(admit, store.database)),
        (gold.gold_remove, partial(remove_gold, store)),
        (attention.attention_withdraw, partial(withdraw, store)),
        (attention.attention_back, partial(bring_back, store)),
    ):
        event(_to_one(do), chosen, None, **PRIVATE).then(**again)
    changing(ask.click, partial(_qualify, store), [chosen, first, percent], None)
    changing(more.click, partial(_once_more, store), [chosen, count], None)
    changing(adding[-1].click, partial(_attention, store), [chosen, *adding[:2]], None)
    changing(add.click, partial(_make_gold, store), [which, order, overlap], order)
    which.input(lambda item: shown(lambda: candidates_of(store, item)), which, letters, **PRIVATE)
    save.click(partial(_keep, store), [chosen, text], None, **PRIVATE)
    accounts.connect(page, people, inviting, rows)


def _to_one(do: Callable[..., None]) -> Callable[..., None]:
    """A handler that does it to what the button in a table is of, in the chosen project."""

    def handler(project: str | None, event: gr.EventData) -> None:
        shown(lambda: do(str(event.of), project=project or ""))

    return handler


def _open(store: Store, first: str, name: str | None, is_open: bool | None) -> bool:
    """Open a project to annotators or close it; whether it is open, which the box then says."""
    if done(lambda: set_open(store.database, name or "", bool(is_open), by=account())):
        gr.Info("Annotators may rank it now" if is_open else "Annotators do not see it any more")
    return name in open_projects(store.database, first=first)


def _rank_next(store: Store, name: str | None, order: str | None) -> str:
    """Choose what is ranked next in a project; what it is, which the form then says."""
    if done(lambda: set_queue_order(store.database, name or "", order or "")):
        gr.Info(NEXT_SAID[queue_order_of(store.database, name or "")])
    return queue_order_of(store.database, name or "")


def _qualify(store: Store, name: str | None, num_items: float | None, share: float | None) -> None:
    gr.Info(shown(lambda: ask_first(store, name, num_items, share)))


def _once_more(store: Store, name: str | None, number: float | None) -> None:
    gr.Info(shown(lambda: repeat(store, name, number)))


def _attention(store: Store, name: str | None, number: float | None, overlap: float | None) -> None:
    gr.Info(shown(lambda: check_attention(store, name, number, overlap)))


def _make_gold(
    store: Store, item_id: str | None, expected: str | None, number: float | None
) -> str:
    shown(lambda: add_gold(store, item_id, expected, number))
    gr.Info("It is a gold item now")
    return ""


def _keep(store: Store, name: str | None, written: str | None) -> None:
    shown(lambda: set_guidelines(store.database, name or "", written or ""))
    gr.Info("Annotators see them when they open the Rank page")


def _opening() -> gr.Checkbox:
    return gr.Checkbox(
        label="Open to annotators",
        info="Those with accounts may rank this project; leads rank all",
        elem_id="project-open",
    )


def _ranked_next() -> gr.Radio:
    return gr.Radio(
        label="Ranked next",
        info="What tells a reward most is computed each time one is fitted; a fifth of the sets "
        "stays random",
        choices=[("Oldest first", "oldest"), ("What tells most first", "informative")],
        value="oldest",
        elem_id="queue-order",
    )


def _tables() -> tuple[gr.HTML, gr.HTML, gr.HTML]:
    script = asset("people.js")
    people = gr.HTML("", js_on_load=script, padding=False, elem_id="people")
    gold = gr.HTML("", js_on_load=script, padding=False, elem_id="gold")
    return people, gold, gr.HTML("", js_on_load=script, padding=False, elem_id="attention")


def _guidelines(*, from_file: bool) -> tuple[gr.Textbox, gr.Button]:
    with gr.Accordion("Guidelines", open=False, elem_classes="fold"):
        if from_file:
            gr.HTML(
                '<div class="recipe"><p>They come from a file that the app was started with, for '
                "all projects: whoever started it can change that file.</p></div>",
                padding=False,
            )
        text = gr.Textbox(
            label="What you ask of the annotators of this project",
            info="Plain text; the Rank page shows it before the first set, and by the key g",
            lines=8,
            max_lines=16,
            visible=not from_file,
            elem_id="people-guidelines",
        )
        save = gr.Button("Save", visible=not from_file, elem_id="save-guidelines")
    return text, save


def _count(
    label: str,
    value: int,
    *,
    elem_id: str,
    info: str | None = None,
    least: int = 1,
    most: int | None = None,
) -> gr.Number:
    """A field for a whole number of things."""
    return gr.Number(
        label=label,
        info=info,
        value=value,
        precision=0,
        minimum=least,
        maximum=most,
        elem_id=elem_id,
    )


def _gold_form() -> tuple[gr.Dropdown, gr.HTML, gr.Textbox, gr.Number, gr.Button]:
    with gr.Accordion("Add a gold item", open=False, elem_classes="fold"):
        which = gr.Dropdown(label="Set", choices=[], elem_id="gold-set")
        letters = gr.HTML(candidates_shown(None, []), padding=False)
        order = gr.Textbox(
            label="Expected order",
            info="Letters, best first: B > A = C. Those left out are behind, in any order",
            placeholder="B > A = C",
            max_lines=1,
            elem_id="gold-order",
        )
        overlap = _count("Annotators who shall judge it", USUAL_OVERLAP, elem_id="gold-overlap")
        add = gr.Button("Make it gold", elem_id="add-gold")
    return which, letters, order, overlap, add


def _attention_form() -> tuple[gr.Number, gr.Number, gr.Button]:
    with gr.Accordion("Add attention items", open=False, elem_classes="fold"):
        count = _count(
            "Attention items to add",
            5,
            info="Sets in which one image belongs to the prompt and the others were made for quite "
            "different ones; nothing is learned from them",
            most=MOST_ATTENTION,
            elem_id="attention-count",
        )
        overlap = _count(
            "Annotators who shall judge each", USUAL_OVERLAP, elem_id="attention-overlap"
        )
        button = gr.Button("Add them", elem_id="add-attention")
    return count, overlap, button


def _qualification() -> tuple[gr.Number, gr.Number, gr.Button]:
    with gr.Accordion("Qualification", open=False, elem_classes="fold"):
        first = _count(
            "Gold items that come first",
            0,
            info="Everybody judges them before anything else; 0 asks for nothing",
            least=0,
            most=MOST_ITEMS,
            elem_id="qualify-items",
        )
        percent = gr.Number(
            label="Percent to answer as expected",
            info="Who answers fewer gets nothing more to judge; you may admit them",
            value=USUAL_SHARE,
            minimum=1,
            maximum=100,
            elem_id="qualify-percent",
        )
        ask = gr.Button("Save", elem_id="save-qualification")
    return first, percent, ask


def _repeats() -> tuple[gr.Number, gr.Button]:
    with gr.Accordion("Ask sets again", open=False, elem_classes="fold"):
        count = _count(
            "Sets to ask again",
            5,
            info="Judged ones, chosen at random, for everybody who has judged: what they answer "
            "then is their consistency",
            most=MOST_REPEATS,
            elem_id="repeat-count",
        )
        button = gr.Button("Queue them", elem_id="repeat-sets")
    return count, button


def _files() -> tuple[gr.HTML, gr.HTML]:
    with gr.Accordion("Rankings as files", open=False, elem_classes="fold"):
        taking = gr.HTML("", js_on_load=asset("taking.js"), padding=False, elem_id="take-rankings")
        sending = gr.HTML(
            asset("rankings.html"),
            js_on_load=asset("rankings.js"),
            padding=False,
            elem_id="bring-rankings",
        )
    return taking, sending
