"""What was skipped by those who saw it is told apart from what still waits, and for whom."""

from collections.abc import Callable
from typing import Any

import pytest
from submissions import judge

from imgalign.preferences.accounts import Accounts
from imgalign.preferences.coverage import judged_forms, project_mark, project_standings
from imgalign.preferences.exclusions import exclude, include
from imgalign.preferences.openings import set_open
from imgalign.preferences.records import Provenance
from imgalign.preferences.store import Store

PASSWORD = "four odd green words"


@pytest.fixture
def add(
    store: Store, png: Callable[..., bytes], provenance: Callable[..., Provenance]
) -> Callable[..., None]:
    """Queue sets of so many images."""

    def queue(
        num: int, *, project: str = "default", images: int = 2, overlap: int = 1, first: int = 0
    ) -> None:
        for n in range(first, first + num):
            ids = [store.add_image(png(10 * n + k), provenance()) for k in range(images)]
            store.add_item(f"prompt {n}", ids, source="test", project=project, overlap=overlap)

    return queue


def skip(store: Store, who: str, *, project: str = "default") -> str:
    item = store.next_item(who, project=project)
    assert item is not None
    store.submit(judge(item, who, verdict="skipped", ranking=None, reason="broken image"))
    return item.item_id


def rank(store: Store, who: str, *, project: str = "default") -> None:
    store.submit(judge(store.next_item(who, project=project), who))


def seen(store: Store, project: str = "default") -> tuple[int, int, int, int]:
    """Judged, skipped, of these left for others, and waiting."""
    (found,) = project_standings(store, project)
    assert found in project_standings(store)
    return found.judged, found.skipped.items, found.skipped.for_others, found.waiting


def test_what_who_is_alone_has_skipped_waits_for_nobody(store: Store, add: Any) -> None:
    add(3)
    assert seen(store) == (0, 0, 0, 3)
    item_id = skip(store, "ann")
    assert seen(store) == (0, 1, 0, 2)
    rank(store, "ann")
    rank(store, "ann")
    assert store.next_item("ann") is None
    assert seen(store) == (2, 1, 0, 0)
    store.undo("ann", f"ann-{item_id}")
    assert seen(store) == (2, 0, 0, 1)


def test_what_another_who_ranks_there_has_not_skipped_is_left_for_them(
    store: Store, add: Any
) -> None:
    add(4)
    store.add_annotator("eve")
    skip(store, "ann")
    skip(store, "ann")
    assert seen(store) == (0, 2, 0, 2)  # bob has done nothing there yet
    skip(store, "bob")
    assert seen(store) == (0, 2, 1, 2)
    rank(store, "bob")
    assert seen(store) == (1, 1, 0, 2)
    rank(store, "ann")
    rank(store, "ann")
    assert seen(store) == (3, 1, 0, 0)
    # In another project somebody else ranks: that says nothing of this one.
    add(1, project="dogs", first=10)
    skip(store, "eve", project="dogs")
    assert seen(store) == (3, 1, 0, 0)
    assert seen(store, "dogs") == (0, 1, 0, 0)


def test_a_skip_beside_a_ranking_or_of_who_is_excluded_is_none(store: Store, add: Any) -> None:
    add(1, overlap=2)
    skip(store, "ann")
    rank(store, "bob")
    assert seen(store) == (1, 0, 0, 0)
    add(1, first=5)
    skip(store, "ann")
    assert seen(store) == (1, 1, 1, 0)
    exclude(store.database, "ann", project="default")
    assert seen(store) == (1, 0, 0, 1)
    include(store.database, "ann", project="default")
    exclude(store.database, "bob", project="default")
    assert seen(store) == (0, 2, 0, 0)  # nobody else who may rank is left


def test_with_accounts_others_are_those_who_may_rank_there(store: Store, add: Any) -> None:
    add(1)
    people = Accounts(store.database)
    ada = people.add("Ada", PASSWORD, role="admin", group="warm")
    skip(store, "ada")
    assert seen(store) == (0, 1, 0, 0)
    marks = {project_mark(store, "default")}
    people.add("Max", PASSWORD, role="annotator", group="warm")
    assert seen(store) == (0, 1, 0, 0)  # nobody has let him in
    marks.add(project_mark(store, "default"))
    set_open(store.database, "default", True, by=ada)
    assert seen(store) == (0, 1, 1, 0)
    marks.add(project_mark(store, "default"))
    people.disable("Max")
    assert seen(store) == (0, 1, 0, 0)
    marks.add(project_mark(store, "default"))
    people.add("Lea", PASSWORD, role="lead", group="warm")
    assert seen(store) == (0, 1, 1, 0)
    marks.add(project_mark(store, "default"))
    assert len(marks) == 5  # and pages see each of it


def test_how_a_project_was_judged_is_seen_from_its_judged_sets(store: Store, add: Any) -> None:
    add(2, project="likes", images=1)
    assert judged_forms(store, "likes") == (False, False)
    rank(store, "ann", project="likes")
    assert judged_forms(store, "likes") == (False, True)
    add(1, project="likes", images=2, first=5)
    assert judged_forms(store, "likes") == (False, True)
    rank(store, "ann", project="likes")
    rank(store, "ann", project="likes")
    assert judged_forms(store, "likes") == (True, True)
    assert judged_forms(store, "likes", "texts") == (False, False)
