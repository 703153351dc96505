"""The People page: how well the annotators of a project judge, for those who lead it.

They are excluded, included and admitted here, sets are made gold items, and the guidelines and the
qualification are set.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from html import escape
from typing import Any, TypeVar

import gradio as gr

from imgalign.errors import ImgalignError, InputError, StoreError
from imgalign.preferences.accounts import Accounts
from imgalign.preferences.coverage import queued_projects
from imgalign.preferences.exclusions import exclude, include
from imgalign.preferences.gold import gold_items, mark_gold, read_order, unmark_gold
from imgalign.preferences.guidelines import guidelines_of, set_guidelines
from imgalign.preferences.people import people_of
from imgalign.preferences.qualification import (
    MOST_ITEMS,
    admit,
    qualification_of,
    set_qualification,
)
from imgalign.preferences.repeats import MOST_REPEATS, ask_again
from imgalign.preferences.store import Store
from imgalign.preferences.stored import item_samples, latest_items
from ui.api.login import may_lead
from ui.api.small import small_text
from ui.messages import PRIVATE, shown
from ui.people_table import candidates_shown, gold_table, people_table
from ui.theme import asset

T = TypeVar("T")
NOTHING_QUEUED = (
    '<div class="results people"><p role="status">Nothing is queued for ranking yet. Make '
    'candidates on the <a href="candidates">Candidates</a> page.</p></div>'
)
MOST_SETS = 300
"""Sets that are offered as gold items: the newest."""
USUAL_OVERLAP = 20
USUAL_SHARE = 60
"""Percent of a qualification that must be answered as expected."""


@dataclass(frozen=True, slots=True)
class Led:
    """A store in the hands of whoever may lead: every call asks whether the request may."""

    store: Store
    accounts: Accounts

    def by(self, request: gr.Request, do: Callable[[], T]) -> T:
        """Do it; StoreError, as a message on the page, for whoever may not lead."""

        def asked() -> T:
            if not may_lead(self.accounts, request.request.scope if request.request else {}):
                raise StoreError("for leads; ask one of them")
            return do()

        return shown(asked)

    def shown(self, of: Callable[[str | None], str]) -> Callable[..., str]:
        """A handler that shows it of what is chosen."""

        def show(chosen: str | None, request: gr.Request) -> str:
            return self.by(request, lambda: of(chosen))

        return show

    def to_one(self, do: Callable[..., None]) -> Callable[..., None]:
        """A handler that does it to what the button in a table is of, in the chosen project."""

        def done(project: str | None, event: gr.EventData, request: gr.Request) -> None:
            self.by(request, lambda: do(str(event.of), project=project or ""))

        return done


def tables(store: Store, project: str | None) -> tuple[str, str]:
    """Annotators and gold items of a project as HTML; the reason in place of what cannot be."""
    if not project:
        return NOTHING_QUEUED, ""
    try:
        found = people_of(store, project)
    except ImgalignError as error:
        return f'<div class="results people"><p role="alert">{escape(str(error))}</p></div>', ""
    return people_table(found), gold_table(found.gold)


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


def build(
    page: gr.Blocks, store: Store, accounts: Accounts, *, project: str, from_file: bool
) -> None:
    """Draw the page inside the current Blocks; it begins with `project`.

    `from_file` says that the guidelines are a file's, which is for all projects.
    """
    led = Led(store, accounts)
    with gr.Row(elem_classes="page", equal_height=False):
        with gr.Column(scale=0, min_width=320, elem_classes="side"):
            gr.HTML("<h2>Who judges, and how well</h2>", padding=False)
            chosen = gr.Dropdown(label="Project", choices=[], elem_id="people-project")
            text, save = _guidelines(from_file=from_file)
            which, letters, order, overlap, add = _gold_form()
            first, percent, ask = _qualification()
            count, again_button = _repeats()
        with gr.Column(scale=1, min_width=320):
            people, gold = _tables()

    def open_page(request: gr.Request) -> tuple[Any, ...]:
        names = led.by(request, lambda: queued_projects(store))
        first = project if project in names else next(iter(names), None)
        return gr.Dropdown(choices=names, value=first), *look(first, request)

    def look(name: str | None, request: gr.Request) -> tuple[Any, ...]:
        def all_of_it() -> tuple[Any, ...]:
            sets = latest_items(store, name, limit=MOST_SETS) if name else []
            return (
                *tables(store, name),
                guidelines_of(store.database, name) if name and not from_file else "",
                gr.Dropdown(choices=[(prompt, item_id) for item_id, prompt in sets], value=None),
                candidates_shown(None, []),
                *asked_first(store, name),
            )

        return led.by(request, all_of_it)

    def redraw(name: str | None, request: gr.Request) -> tuple[str, str]:
        return led.by(request, lambda: tables(store, name))

    def qualify(
        name: str | None, num_items: float | None, share: float | None, request: gr.Request
    ) -> None:
        gr.Info(led.by(request, lambda: ask_first(store, name, num_items, share)))

    def once_more(name: str | None, number: float | None, request: gr.Request) -> None:
        gr.Info(led.by(request, lambda: repeat(store, name, number)))

    def make_gold(
        item_id: str | None, expected: str | None, number: float | None, request: gr.Request
    ) -> str:
        led.by(request, lambda: add_gold(store, item_id, expected, number))
        gr.Info("It is a gold item now")
        return ""

    def keep(name: str | None, written: str | None, request: gr.Request) -> None:
        led.by(request, lambda: set_guidelines(store.database, name or "", written or ""))
        gr.Info("Annotators see them when they open the Rank page")

    everything = [people, gold, text, which, letters, first, percent]
    again = {"fn": redraw, "inputs": chosen, "outputs": [people, gold], **PRIVATE}
    page.load(open_page, outputs=[chosen, *everything], **PRIVATE)
    chosen.input(look, chosen, everything, **PRIVATE)
    people.person_exclude(
        led.to_one(partial(exclude, store.database)), chosen, None, **PRIVATE
    ).then(**again)
    people.person_include(
        led.to_one(partial(include, store.database)), chosen, None, **PRIVATE
    ).then(**again)
    people.person_admit(led.to_one(partial(admit, store.database)), chosen, None, **PRIVATE).then(
        **again
    )
    ask.click(qualify, [chosen, first, percent], None, **PRIVATE).success(**again)
    again_button.click(once_more, [chosen, count], None, **PRIVATE)
    gold.gold_remove(led.to_one(partial(remove_gold, store)), chosen, None, **PRIVATE).then(**again)
    which.input(led.shown(partial(candidates_of, store)), which, letters, **PRIVATE)
    add.click(make_gold, [which, order, overlap], order, **PRIVATE).success(**again)
    save.click(keep, [chosen, text], None, **PRIVATE)


def _tables() -> tuple[gr.HTML, gr.HTML]:
    script = asset("people.js")
    people = gr.HTML("", js_on_load=script, padding=False, elem_id="people")
    gr.HTML("<h2>Gold items</h2>", padding=False)
    return people, gr.HTML("", js_on_load=script, padding=False, elem_id="gold")


def _guidelines(*, from_file: bool) -> tuple[gr.Textbox, gr.Button]:
    with gr.Accordion("Guidelines", open=False, elem_classes="fold"):
        if from_file:
            gr.HTML(
                '<div class="recipe"><p>They come from the file that the app was started with '
                "(<code>--guidelines</code>), for all projects: edit that.</p></div>",
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
        overlap = gr.Number(
            label="Annotators who shall judge it",
            value=USUAL_OVERLAP,
            precision=0,
            minimum=1,
            elem_id="gold-overlap",
        )
        add = gr.Button("Make it gold", elem_id="add-gold")
    return which, letters, order, overlap, add


def _qualification() -> tuple[gr.Number, gr.Number, gr.Button]:
    with gr.Accordion("Qualification", open=False, elem_classes="fold"):
        first = gr.Number(
            label="Gold items that come first",
            info="Everybody judges them before anything else; 0 asks for nothing",
            value=0,
            precision=0,
            minimum=0,
            maximum=MOST_ITEMS,
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
        count = gr.Number(
            label="Sets to ask again",
            info="Judged ones, chosen at random, for everybody who has judged: what they answer "
            "then is their consistency",
            value=5,
            precision=0,
            minimum=1,
            maximum=MOST_REPEATS,
            elem_id="repeat-count",
        )
        button = gr.Button("Queue them", elem_id="repeat-sets")
    return count, button
