"""What the session of a request may do; no gradio here.

`ui.api.login` writes the account of the session into the scope of each request; routes and events
ask here, and never what a request says of itself.
"""

from starlette.types import Scope

from imgalign.preferences.accounts import Account, Accounts, Role

ACCOUNT = "imgalign.account"
"""Key of a request's scope. Where accounts are needed `Login` writes it, None without a session."""
NO_ACCOUNTS = "imgalign.no_accounts"
"""Key of a request's scope: `Login` has asked, and there were no accounts when the request came."""


def is_known(scope: Scope) -> bool:
    """Whether `may` tells by the scope alone, without asking the database."""
    return ACCOUNT in scope or NO_ACCOUNTS in scope


def may(people: Accounts, scope: Scope, role: Role) -> bool:
    """Whether a request has the rights of a role: anybody's without accounts, else by its session.

    `Login` lets no annotator reach what is for leads; whatever handles a request asks again.
    """
    account: Account | None = scope.get(ACCOUNT)
    if account is None:
        return ACCOUNT not in scope and (NO_ACCOUNTS in scope or not people.exist())
    return account.may(role)


def refusal(role: Role) -> str:
    """What is said to whoever has not the rights of a role."""
    return f"for {role}s; ask one of them"
