"""The accounts of the People page as HTML. What people typed is escaped here."""

from collections.abc import Iterator, Sequence
from html import escape

from imgalign.preferences.accounts import Account

NONE_YET = (
    '<div class="results people"><p role="status">There are no accounts: everybody who reaches the '
    "app on this machine may do everything. Whoever runs the machine makes the first; then others "
    "are invited here, and the app may listen on a network.</p><details><summary>On a terminal"
    "</summary><code>imgalign ui --accounts</code> prints a link by which the first is made in a "
    "browser; <code>imgalign accounts add NAME --role admin</code> makes it there.</details></div>"
)


def accounts_table(found: Sequence[Account], by: Account | None) -> str:
    """Accounts with what `by` may do to each, as buttons."""
    if not found:
        return NONE_YET
    governed = by.governed if by else ()
    head = "".join(
        f'<th scope="col">{name}</th>' for name in ("Name", "Role", "Group", "Since", "")
    )
    rows = "".join(_row(each, governed) for each in found)
    return (
        '<div class="results people"><div class="wide">'
        f'<table class="accounts"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        "<p>Who is disabled is out at once; what they judged stays and counts. Passwords are known "
        "to their owners alone: who forgot theirs is given a reset link.</p></div>"
    )


def _row(account: Account, governed: Sequence[str]) -> str:
    out = account.disabled_at is not None
    state = f"<small>disabled since {account.disabled_at:%Y-%m-%d}</small>" if out else ""
    cells = {
        "Role": account.role,
        "Group": escape(account.group),
        "Since": f"{account.created_at:%Y-%m-%d}",
        "": " ".join(_buttons(account, governed)),
    }
    return (
        f'<tr{" data-excluded" if out else ""}><th scope="row">{escape(account.name)}{state}</th>'
        + "".join(f'<td data-label="{label}">{cell}</td>' for label, cell in cells.items())
        + "</tr>"
    )


def _buttons(account: Account, governed: Sequence[str]) -> Iterator[str]:
    if account.role not in governed:
        return
    if account.disabled_at is None:
        for role in governed:
            if role != account.role:
                yield _button("account_role", f"Make {role}", account, f' data-role="{role}"')
        yield _button("account_reset", "Reset password", account)
        yield _button("account_disable", "Disable", account)
    else:
        yield _button("account_enable", "Enable", account)


def _button(do: str, word: str, account: Account, more: str = "") -> str:
    return (
        f'<button type="button" class="btn" data-do="{do}" '
        f'data-of="{escape(account.account_id)}"{more} '
        f'aria-label="{word}: {escape(account.name)}">{word}</button>'
    )
