"""Commands on accounts: who may use the app on a network, and as what."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from getpass import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from imgalign.cli.options import Create, Database, Images

if TYPE_CHECKING:
    from imgalign.preferences.accounts import Accounts

Name = Annotated[str, typer.Argument(help="Name to log in with; upper and lower case are one.")]
Role = Annotated[
    Literal["annotator", "lead", "admin"],
    typer.Option(help="Judges; runs projects as well; or everything, training and accounts too."),
]
Group = Annotated[str, typer.Option(help="Shared taste that the judgements count to.")]
NAMED = {
    "annotator": "judges",
    "lead": "judges, runs projects, and invites annotators",
    "admin": "as a lead, starts training, and changes all accounts",
}


def add(
    name: Name,
    role: Role = "annotator",
    group: Group = "default",
    database: Database = None,
    images: Images = None,
    create: Create = False,
) -> None:
    """Make an account; its password is asked for, or read from the first line of standard input."""
    from imgalign.preferences.accounts import Accounts
    from imgalign.preferences.opening import open_or_make
    from imgalign.preferences.passwords import refuse_password

    password = asked_password(name)
    refuse_password(password, name)
    with open_or_make(database, images=images, create=create, on_made=typer.echo) as store:
        made = Accounts(store.database).add(name, password, role=role, group=group)
        typer.echo(f"{made.name} may log in: {made.role}: {NAMED[made.role]}")


def invite(
    role: Role = "annotator",
    group: Group = "default",
    days: Annotated[float, typer.Option(min=0.01, max=365, help="Until it ends.")] = 7,
    address: Annotated[
        str, typer.Option(help="Where the app is reached, for the link.")
    ] = "http://127.0.0.1:7860",
    database: Database = None,
    images: Images = None,
) -> None:
    """Print a link by which one person makes an account of their own."""
    from imgalign.errors import InputError

    if not address.startswith(("http://", "https://")):
        raise InputError(f"--address: expected one like https://studio.example, got {address!r}")
    with _people(database, images) as people:
        token = people.invite(role=role, group=group, by=None, lasts=timedelta(days=days))
    typer.echo(f"{address.rstrip('/')}/join#{token}")


def list_(database: Database = None, images: Images = None) -> None:
    """Print all accounts."""
    with _people(database, images) as people:
        for each in people.all():
            ended = f", disabled since {each.disabled_at:%Y-%m-%d}" if each.disabled_at else ""
            since = f"{each.created_at:%Y-%m-%d}"
            typer.echo(f"{each.name}: {each.role}, group {each.group}, since {since}{ended}")


def disable(name: Name, database: Database = None, images: Images = None) -> None:
    """End all sessions of an account and let it log in no more; what it judged stays."""
    with _people(database, images) as people:
        typer.echo(f"{people.disable(name).name} is disabled")


def enable(name: Name, database: Database = None, images: Images = None) -> None:
    """Let a disabled account log in again."""
    with _people(database, images) as people:
        typer.echo(f"{people.enable(name).name} may log in again")


def role(
    name: Name,
    role: Annotated[Literal["annotator", "lead", "admin"], typer.Argument(help="The new role.")],
    database: Database = None,
    images: Images = None,
) -> None:
    """Give an account another role."""
    with _people(database, images) as people:
        found = people.set_role(name, role)
        typer.echo(f"{found.name} is {found.role}: {NAMED[found.role]}")


def password(name: Name, database: Database = None, images: Images = None) -> None:
    """Give an account another password, asked for as by add, and end its sessions."""
    with _people(database, images) as people:
        found = people.set_password(name, asked_password(name))
        typer.echo(f"{found.name} has another password; its sessions ended")


@contextmanager
def _people(database: str | None, images: Path | None) -> Iterator["Accounts"]:
    from imgalign.preferences.accounts import Accounts
    from imgalign.preferences.store import Store

    with Store.open(database, images=images, create=False) as store:
        people = Accounts(store.database)
        people.require()
        yield people


def asked_password(name: str) -> str:
    """Typed twice at a terminal, unseen; else the first line of standard input.

    InputError where the two differ.
    """
    from imgalign.errors import InputError

    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    first = getpass(f"password for {name}: ")
    if getpass("once more: ") != first:
        raise InputError("password: the two differ; nothing was changed")
    return first
