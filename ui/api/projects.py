"""Which projects whoever sends a request may rank, and which one a request is about.

Without accounts that is the one that the app was started for, or any; with accounts an annotator
may rank those that leads have opened (`openings`), and a lead any. No gradio here.
"""

from collections.abc import Collection
from dataclasses import dataclass

import fastapi
from pydantic import BaseModel

from imgalign.errors import InputError
from imgalign.preferences.accounts import Account
from imgalign.preferences.coverage import has_items, queued_projects
from imgalign.preferences.openings import open_projects
from imgalign.preferences.store import Store
from ui.roles import ACCOUNT

FIRST = "default"
"""The project that the app begins with where none is named."""


class Project(BaseModel):
    """A project, and how many items of it this annotator has judged and could judge now."""

    name: str
    done: int
    left: int


class Projects(BaseModel):
    """Where an annotator can go on."""

    projects: list[Project]


@dataclass(frozen=True, slots=True)
class Rankable:
    """What may be ranked in an app that was started for `project`, or with None for any."""

    store: Store
    project: str | None

    def among(self, sender: fastapi.Request) -> Collection[str] | None:
        """The projects that the sender may rank; None for any that has items."""
        account: Account | None = sender.scope.get(ACCOUNT)
        if account is None:
            return None if self.project is None else {self.project}
        if account.may("lead"):
            return None
        return open_projects(self.store.database, first=self.project or FIRST)

    def chosen(self, asked: str | None, sender: fastapi.Request) -> str:
        """The project of a request; InputError for one that the sender may not rank."""
        first = self.project or FIRST
        return chosen_project(self.store, asked, first=first, among=self.among(sender))

    def holds_any(self, sender: fastapi.Request) -> bool:
        """Whether anything that the sender may rank was ever queued, judged or not."""
        among = self.among(sender)
        if among is None:
            among = {self.chosen(None, sender)}
        return any(has_items(self.store, name) for name in among)


def chosen_project(
    store: Store, asked: str | None, *, first: str = FIRST, among: Collection[str] | None = None
) -> str:
    """The project of a request; InputError for one that is not `among` those that may be ranked.

    None of these stands for all that have items. A request that names none gets `first`, or where
    that has no items the first by name that has some.
    """

    def may_be(name: str) -> bool:
        return name in among if among is not None else name == first or has_items(store, name)

    if asked is not None:
        if may_be(asked):
            return asked
        raise InputError(
            f"project {asked!r}: nothing to rank of that name; reload the page and choose another"
        )
    if among is not None and not among:
        raise InputError("no project is open to annotators; a lead opens one on the People page")
    queued = _queued(store, among)
    if first in queued:
        return first
    return next(iter(queued), first if among is None or first in among else min(among))


def own_projects(store: Store, annotator: str, *, among: Collection[str] | None = None) -> Projects:
    """The projects that have items, by name, with what this annotator has done and has left."""
    counted = [(name, store.counts(annotator, project=name)) for name in _queued(store, among)]
    return Projects(
        projects=[
            Project(name=name, done=counts.done, left=counts.left) for name, counts in counted
        ]
    )


def _queued(store: Store, among: Collection[str] | None) -> list[str]:
    return [name for name in queued_projects(store) if among is None or name in among]
