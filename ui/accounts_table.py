"""The accounts of the People page as HTML. What people typed is escaped here."""

from collections.abc import Sequence
from html import escape
from secrets import token_hex

from imgalign.preferences.accounts import Account

NONE_YET = (
    '<div class="results people"><p role="status">There are no accounts: everybody who reaches the '
    "app on this machine may do everything. The first is made by <code>imgalign accounts add NAME "
    "--role admin</code>; then others are invited here, and the app may listen on a network."
    "</p></div>"
)


def accounts_table(found: Sequence[Account], by: Account | None) -> str:
    """Accounts with what `by` may do to each, as buttons and lists of roles."""
    if not found:
        return NONE_YET
    governed = by.governed if by else ()
    head = "".join(
        f'<th scope="col">{name}</th>' for name in ("Name", "Role", "Group", "Since", "")
    )
    rows = "".join(_row(each, governed) for each in found)
    # Another text each time, so that it is drawn anew also where nothing was changed.
    return (
        f'<div class="results people" data-drawn="{token_hex(4)}"><div class="wide">'
        f'<table class="accounts"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        "<p>Who is disabled is out at once; what they judged stays and counts. Passwords are known "
        "to their owners alone.</p></div>"
    )


def _row(account: Account, governed: Sequence[str]) -> str:
    name, of = escape(account.name), escape(account.account_id)
    out = account.disabled_at is not None
    state = f"<small>disabled since {account.disabled_at:%Y-%m-%d}</small>" if out else ""
    do, word = ("account_enable", "Enable") if out else ("account_disable", "Disable")
    button = (
        f'<button type="button" class="btn" data-do="{do}" data-of="{of}" '
        f'aria-label="{word} {name}">{word}</button>'
        if account.role in governed
        else ""
    )
    cells = {
        "Role": _role(account, governed),
        "Group": escape(account.group),
        "Since": f"{account.created_at:%Y-%m-%d}",
        "": button,
    }
    return (
        f'<tr{" data-excluded" if out else ""}><th scope="row">{name}{state}</th>'
        + "".join(f'<td data-label="{label}">{cell}</td>' for label, cell in cells.items())
        + "</tr>"
    )


def _role(account: Account, governed: Sequence[str]) -> str:
    """The role, or a list to choose another where there is a choice."""
    if account.role not in governed or len(governed) < 2:
        return account.role
    options = "".join(
        f"<option{' selected' if role == account.role else ''}>{role}</option>" for role in governed
    )
    return (
        f'<select data-do="account_role" data-of="{escape(account.account_id)}" '
        f'aria-label="Role of {escape(account.name)}">{options}</select>'
    )
