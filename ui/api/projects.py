"""Which project is ranked: the one that a request names, and what else there is to rank."""

from pydantic import BaseModel

from imgalign.errors import InputError
from imgalign.preferences.coverage import has_items, queued_projects
from imgalign.preferences.store import Store

FIRST = "default"
"""The project that the page begins with where none is named."""


class Project(BaseModel):
    """A project, and how many items of it this annotator has judged and could judge now."""

    name: str
    done: int
    left: int


class Projects(BaseModel):
    """Where an annotator can go on; one alone where the app was started for it."""

    projects: list[Project]


def chosen_project(store: Store, asked: str | None, *, only: str | None) -> str:
    """The project of a request; InputError for one that may not be ranked here.

    `only` is the one that the app was started for; None for any that has items. A request that
    names none gets that, or FIRST, or the first that has items where FIRST has none.
    """
    if only is not None:
        if asked not in (None, only):
            raise InputError(
                f"project {asked!r}: expected {only!r}, for which this app was started; reload the "
                "page"
            )
        return only
    if asked is None:
        return FIRST if has_items(store, FIRST) else next(iter(queued_projects(store)), FIRST)
    if asked != FIRST and not has_items(store, asked):
        raise InputError(f"project {asked!r}: nothing to rank of that name; choose another")
    return asked


def own_projects(store: Store, annotator: str, *, only: str | None) -> Projects:
    """The projects that have items, by name, with what this annotator has done and has left."""
    names = queued_projects(store) if only is None else [only]
    counted = [(name, store.counts(annotator, project=name)) for name in names]
    return Projects(
        projects=[
            Project(name=name, done=counts.done, left=counts.left) for name, counts in counted
        ]
    )


def has_any(store: Store, *, only: str | None) -> bool:
    """Whether anything was ever queued to rank here, judged or not."""
    return has_items(store, chosen_project(store, None, only=only))
