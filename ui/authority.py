"""Who may do what on the pages: every event asks, before anything of it runs.

Events are for leads unless their function says that it `needs_role` another role; `guard` puts the
question before all of them, so that none can be forgotten. Without accounts everybody may do
everything (`ui.roles.may`). Who asks is told by the session that a request comes with, never by
what it says.
"""

import inspect
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, TypeVar, no_type_check

import gradio as gr
from gradio.context import LocalContext
from starlette.types import Scope

from imgalign.errors import StoreError
from imgalign.preferences.accounts import Account, Accounts, Role
from ui.messages import shown
from ui.roles import ACCOUNT, may, refusal

Handler = TypeVar("Handler", bound=Callable[..., Any])
ROLE, QUIET = "needed_role", "refused_quietly"
FOR_ALL: Role = "lead"
"""Whom the pages are for; nobody else reaches their events."""


def needs_role(role: Role, *, quiet: bool = False) -> Callable[[Handler], Handler]:
    """Marks a function of an event as one for a role.

    With `quiet` nothing happens for others, instead of a message: for what a page does by itself.
    """

    def marked(do: Handler) -> Handler:
        vars(do).update({ROLE: role, QUIET: quiet})
        return do

    return marked


def needed(do: Callable[..., Any]) -> Role:
    """The role that a function of an event needs."""
    role: Role = vars(do).get(ROLE, FOR_ALL)
    return role


def guard(pages: gr.Blocks, people: Accounts) -> None:
    """Let each event of the pages ask for its role, whenever it happens."""
    for event in pages.fns.values():
        if event.fn is not None:
            event.fn = _asking(event.fn, people, num_outputs=len(event.outputs))


def account() -> Account | None:
    """Whose event is being handled; None without accounts."""
    found: Account | None = _scope().get(ACCOUNT)
    return found


def is_admin() -> bool:
    """Whether the event that is being handled is an admin's, or that of an app without accounts."""
    found = account()
    return found is None or found.may("admin")


def may_now(people: Accounts, role: Role) -> bool:
    """Whether the event that is being handled has the rights of a role."""
    return may(people, _scope(), role)


def _asking(do: Callable[..., Any], people: Accounts, *, num_outputs: int) -> Callable[..., Any]:
    role = needed(do)

    def allowed() -> bool:
        if may_now(people, role):
            return True
        if not vars(do).get(QUIET, False):
            shown(lambda: _refuse(role))
        return False

    if inspect.isgeneratorfunction(do):

        @no_type_check  # a checker's wrapper would hide from gradio that this is a generator
        @wraps(do)
        def each(*values: Any) -> Iterator[Any]:
            yield from do(*values) if allowed() else iter([_nothing(num_outputs)])

        going: Callable[..., Any] = each
        return going

    @wraps(do)
    def once(*values: Any) -> Any:
        return do(*values) if allowed() else _nothing(num_outputs)

    return once


def _refuse(role: Role) -> None:
    raise StoreError(refusal(role))


def _nothing(num_outputs: int) -> Any:
    """What leaves the page as it is."""
    skipped = tuple(gr.skip() for _ in range(num_outputs))
    return skipped if num_outputs > 1 else next(iter(skipped), None)


def _scope() -> Scope:
    """Of the request that the event came with; empty outside of one."""
    request = LocalContext.request.get(None)
    sent = None if request is None else request.request
    return {} if sent is None else sent.scope
