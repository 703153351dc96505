"""Accounts on the People page: who may log in, invitations, roles, and who may not any more.

A lead does it to annotators, an admin to everybody; the store asks whose request it is, each time.
A password is its owner's alone: nobody sees or sets one here. Who forgot theirs is given a link.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from imgalign.errors import InputError, StoreError
from imgalign.preferences.accounts import INVITATION, ROLES, Account, Accounts, Role
from imgalign.preferences.resets import Resets
from ui.accounts_table import accounts_table
from ui.authority import account
from ui.messages import EACH, PRIVATE, done, shown
from ui.roles import refusal
from ui.theme import asset

# A link is of the address under which this browser sees the app, and of its path behind a proxy.
AS_LINK = "(path) => path && new URL(path, document.baseURI).href"
TO_ALL: Role = "annotator"
"""The role that everybody who may invite may invite to."""


@dataclass(frozen=True, slots=True)
class Fields:
    """The form of an invitation."""

    role: gr.Dropdown
    group: gr.Textbox
    invite: gr.Button
    link: gr.Textbox


@dataclass(frozen=True, slots=True)
class Rows:
    """The table, and the link that its buttons made last."""

    table: gr.HTML
    reset_link: gr.Textbox


def invited(people: Accounts, by: Account | None, role: str | None, group: str | None) -> str:
    """The address, below that of the app, by which one person makes an account."""
    token = people.invite(role=_role(role), group=(group or "").strip(), by=_acting(people, by))
    return f"join#{token}"


def reset_link(people: Accounts, by: Account | None, of: str) -> str:
    """The address, below that of the app, by which the owner of an account changes its password."""
    return f"reset#{Resets(people.database).link(of, by=_acting(people, by))}"


def change(people: Accounts, by: Account | None, what: str, of: str, role: str | None) -> None:
    """Disable or enable an account, or give it a role; StoreError for whoever may not."""
    by = _acting(people, by)
    match what:
        case "disable":
            people.disable(of, by=by)
        case "enable":
            people.enable(of, by=by)
        case _:
            people.set_role(of, _role(role), by=by)


def table(people: Accounts, by: Account | None) -> str:
    """All accounts as HTML, with what `by` may do to each."""
    return accounts_table(people.all(), by)


def draw_form() -> Fields:
    """Draw the form of an invitation inside the current column."""
    with gr.Accordion("Invite somebody", open=False, elem_classes="fold"):
        role = gr.Dropdown(
            label="As",
            choices=[TO_ALL],
            value=TO_ALL,
            info="Annotators judge; leads run projects as well; admins do everything",
            elem_id="invite-role",
        )
        group = gr.Textbox(
            "default",
            label="Group",
            info="Shared taste that the judgements count to",
            max_lines=1,
            elem_id="invite-group",
        )
        invite = gr.Button("Make a link", elem_id="invite")
        link = gr.Textbox(
            label="Link",
            info=f"Shown once; for one person, within {INVITATION.days} days",
            interactive=False,
            max_lines=4,
            buttons=["copy"],
            elem_id="invite-link",
        )
    return Fields(role, group, invite, link)


def draw_table() -> Rows:
    """Draw the table inside the current column, and above it the place of a reset link."""
    gr.HTML("<h2>Accounts</h2>", padding=False)
    link = gr.Textbox(
        label="Reset link",
        info=f"Shown once; whoever has it chooses the password, within {INVITATION.days} days",
        interactive=False,
        max_lines=4,
        buttons=["copy"],
        visible=False,
        elem_id="reset-link",
    )
    return Rows(gr.HTML("", js_on_load=asset("people.js"), padding=False, elem_id="accounts"), link)


def connect(
    page: gr.Blocks, people: Accounts, fields: Fields, below: Rows, again: dict[str, Any]
) -> None:
    """Let the form and the table work; `again` is the event that has the table drawn anew."""
    rows = below.table

    def open_page() -> Any:
        by = account()
        return gr.Dropdown(choices=list(by.governed) if by else [TO_ALL], value=TO_ALL)

    def invite(role: str | None, group: str | None) -> str:
        return shown(lambda: invited(people, account(), role, group))

    def doing(what: str) -> Callable[[gr.EventData], None]:
        def handler(event: gr.EventData) -> None:
            role = str(event.role) if what == "role" else None
            done(lambda: change(people, account(), what, str(event.of), role))

        return handler

    def reset(event: gr.EventData) -> Any:
        of, by = str(event.of), account()
        made: list[str] = []
        done(lambda: made.append(reset_link(people, by, of)))
        link = [gr.Textbox(each, label=f"Reset link for {of}", visible=True) for each in made]
        return next(iter(link), gr.skip())

    page.load(open_page, outputs=fields.role, **PRIVATE)
    fields.invite.click(invite, [fields.role, fields.group], fields.link, **PRIVATE).success(
        None, fields.link, fields.link, js=AS_LINK, **PRIVATE
    )
    rows.account_disable(doing("disable"), None, None, **EACH).then(**again)
    rows.account_enable(doing("enable"), None, None, **EACH).then(**again)
    rows.account_role(doing("role"), None, None, **EACH).then(**again)
    made = rows.account_reset(reset, None, below.reset_link, **EACH)
    made.success(None, below.reset_link, below.reset_link, js=AS_LINK, **PRIVATE).then(**again)


def _acting(people: Accounts, by: Account | None) -> Account:
    """Whose request it is; StoreError without accounts, of which the first is made elsewhere."""
    people.require()
    if by is None:
        raise StoreError(refusal("lead"))
    return by


def _role(name: str | None) -> Role:
    for role in ROLES:
        if role == name:
            return role
    raise InputError(f"role: expected one of {', '.join(ROLES)}, got {name!r:.40}")
