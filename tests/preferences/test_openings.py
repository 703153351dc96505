"""Claims: annotators may rank the project that the app begins with and those that a lead opens."""

import pytest
from texts import add_texts

from imgalign.errors import InputError, StoreError
from imgalign.preferences.accounts import Accounts
from imgalign.preferences.openings import open_projects, set_open
from imgalign.preferences.store import Store


def queue(store: Store, project: str) -> None:
    add_texts(store, ["a fox", "a red fox"], project=project)


def test_only_the_first_project_is_open_until_a_lead_opens_others(store: Store):
    queue(store, "default")
    queue(store, "cats-compare")
    lea = Accounts(store.database).add("Lea", "four odd words", role="admin", group="warm")
    assert open_projects(store.database, first="default") == {"default"}
    assert open_projects(store.database, first="cats") == {"cats"}
    set_open(store.database, "cats-compare", True, by=lea)
    assert open_projects(store.database, first="default") == {"default", "cats-compare"}
    set_open(store.database, "cats-compare", True, by=None)  # again
    set_open(store.database, "default", False, by=lea)
    assert open_projects(store.database, first="default") == {"cats-compare"}
    set_open(store.database, "cats-compare", False, by=lea)
    assert open_projects(store.database, first="default") == frozenset()


def test_a_project_without_items_is_not_opened(store: Store):
    with pytest.raises(StoreError, match="'birds': nothing is queued there"):
        set_open(store.database, "birds", True, by=None)
    with pytest.raises(InputError, match="project"):
        set_open(store.database, "", True, by=None)
    assert open_projects(store.database, first="default") == {"default"}
