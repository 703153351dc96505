"""An annotator who is excluded counts nowhere, loses nothing, and counts again afterwards."""

import logging
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from judges import judge_next
from submissions import judge

from imgalign.errors import InputError, StoreError
from imgalign.preferences import recount
from imgalign.preferences.checking import check_store
from imgalign.preferences.coverage import coverage, judged_projects, project_standings
from imgalign.preferences.exchange import export_rankings, import_rankings
from imgalign.preferences.exclusions import all_exclusions, exclude, include, num_left_out
from imgalign.preferences.judges import chosen_rankings
from imgalign.preferences.makers import rate_makers
from imgalign.preferences.own_votes import own_votes
from imgalign.preferences.records import Provenance, utc_now
from imgalign.preferences.store import Store

Add = Callable[..., list[str]]


def differences(store: Store) -> list[str]:
    with store.database.read() as connection:
        return recount.differences(connection)


def readings(store: Store) -> dict[str, Any]:
    """What every reader of what counts makes of the store."""
    try:
        rated: Any = rate_makers(store, ridge=0.1).ratings
    except InputError as error:
        rated = str(error)
    return {
        "rankings": [each.ranking_id for each in store.rankings()],
        "chosen": [each.ranking_id for each in chosen_rankings(store, "images")],
        "ratings": rated,
        "projects": judged_projects(store),
        "standings": project_standings(store),
        "coverage": coverage(store, project="default", source="test", simulated=False),
    }


@pytest.fixture
def battles(store: Store, png: Callable[..., bytes], provenance: Callable[..., Provenance]) -> Add:
    """Queue pairs of images by two models, for two annotators each."""

    def add(num: int) -> list[str]:
        return [
            store.add_item(
                f"prompt {n}",
                [store.add_image(png(10 * n + k), provenance(model=f"m{k}")) for k in range(2)],
                source="test",
                overlap=2,
            )
            for n in range(num)
        ]

    return add


def rank_all(store: Store, who: str) -> None:
    while (item := store.next_item(who)) is not None:
        store.submit(judge(item, who))


def test_every_reader_leaves_them_out_and_takes_them_back(store: Store, battles: Add):
    battles(4)
    rank_all(store, "ann")
    alone = readings(store)
    rank_all(store, "bob")
    both = readings(store)
    assert all(both[name] != alone[name] for name in both if name != "standings")
    exclude(store.database, " BOB ", project="default")
    assert readings(store) == alone
    assert differences(store) == []
    assert num_left_out(store.database) == 4
    include(store.database, "bob", project="default")
    assert readings(store) == both
    assert differences(store) == []
    assert num_left_out(store.database) == 0


def test_rows_stay_and_what_is_their_own_does_not_change(store: Store, battles: Add):
    battles(3)
    rank_all(store, "ann")
    store.next_item("bob")
    store.submit(judge(store.next_item("bob"), "bob"))

    def own() -> tuple[Any, ...]:
        return (
            store.next_item("bob"),
            store.counts("bob"),
            store.history("bob"),
            own_votes(store, "bob", project="default", limit=5),
        )

    before = own()
    exclude(store.database, "bob", project="default")
    exclude(store.database, "bob", project="default")  # twice is once
    assert own() == before
    key = store.history("bob")[0].key
    assert store.judgement("bob", key).annotator == "bob"
    assert check_store(store).num_rankings == 4
    assert check_store(store).passed


def test_the_place_of_an_excluded_judgement_is_free_for_somebody_else(store: Store, add_items: Add):
    (item,) = add_items(1)
    store.submit(judge(store.next_item("ann")))
    assert store.next_item("bob") is None
    exclude(store.database, "ann", project="default")
    found = store.next_item("bob")
    assert found is not None
    assert found.item_id == item
    store.submit(judge(found, "bob"))
    include(store.database, "ann", project="default")
    assert differences(store) == []


def test_what_excluded_annotators_hold_is_held_from_nobody(store: Store, add_items: Add):
    add_items(1)
    assert store.next_item("ann") is not None
    assert store.next_item("bob") is None
    exclude(store.database, "ann", project="default")
    assert store.counts("bob").left == 1
    assert store.next_item("bob") is not None
    assert store.next_item("ann") is None  # bob holds it


def test_what_is_judged_while_excluded_counts_once_they_are_included(store: Store, add_items: Add):
    add_items(2)
    exclude(store.database, "ann", project="default")
    store.submit(judge(store.next_item("ann")))
    sent = judge(store.next_item("ann"))
    store.submit(sent)
    store.undo("ann", sent.key)
    assert (list(store.rankings()), differences(store)) == ([], [])
    include(store.database, "ann", project="default")
    assert len(list(store.rankings())) == 1
    assert differences(store) == []


def test_other_projects_and_annotators_are_as_before(store: Store, add_items: Add):
    add_items(1, overlap=2)
    store.submit(judge(store.next_item("ann")))
    shown = next(store.rankings()).sample_ids
    store.add_item("elsewhere", shown, source="test", project="cats")
    store.submit(judge(store.next_item("ann", project="cats")))
    exclude(store.database, "ann", project="cats")
    assert [each.project for each in store.rankings()] == ["default"]
    assert [each.annotator_id for each in all_exclusions(store.database, project="cats")] == ["ann"]
    assert all_exclusions(store.database, project="default") == []


def test_an_ai_judge_can_be_excluded_too(store: Store, add_items: Add):
    add_items(1)
    judge_next(store)
    (judged,) = store.rankings(judged_by="all")
    exclude(store.database, judged.annotator, project="default")
    assert list(store.rankings(judged_by="all")) == []
    assert differences(store) == []


def test_the_log_and_the_ratings_say_how_many_are_left_out(
    store: Store, battles: Add, caplog: pytest.LogCaptureFixture
):
    battles(3)
    rank_all(store, "ann")
    rank_all(store, "bob")
    exclude(store.database, "bob", project="default")
    with caplog.at_level(logging.WARNING):
        assert len(chosen_rankings(store, "images", project="default")) == 3
    assert "rankings of project 'default': 3 by excluded annotators are left out" in caplog.text
    said = rate_makers(store, ridge=0.1).lines()
    assert said[-1] == "3 rankings are of excluded annotators: left out"


def test_exclusions_travel_with_an_export(store: Store, battles: Add, tmp_path: Path):
    battles(3)
    rank_all(store, "ann")
    rank_all(store, "bob")
    exclude(store.database, "bob", project="default")
    file = tmp_path / "all.jsonl"
    assert export_rankings(store, file) == 6
    with Store.open(tmp_path / "other.db", images=tmp_path / "more") as other:
        for _ in range(2):
            import_rankings(other, file, images=store.images.root)
            assert readings(other) == readings(store)
            assert differences(other) == []
        include(other.database, "bob", project="default")
        assert len(list(other.rankings())) == 6


@pytest.mark.parametrize("do", [exclude, include])
def test_unknown_names_are_refused(store: Store, add_items: Add, do: Any):
    add_items(1)
    with pytest.raises(StoreError, match="annotator 'eve': not registered"):
        do(store.database, "eve", project="default")
    with pytest.raises(StoreError, match="project 'x': nothing is queued there; check its name"):
        do(store.database, "ann", project="x")


def test_an_item_that_opens_by_an_exclusion_is_found_by_those_who_had_passed_it(
    store: Store, add_items: Add, monkeypatch: pytest.MonkeyPatch
):
    first, second, _ = add_items(3)
    store.submit(judge(store.next_item("ann")))
    theirs = store.next_item("bob")
    assert theirs is not None
    assert theirs.item_id == second
    store.submit(judge(theirs, "bob"))
    exclude(store.database, "ann", project="default")
    later = utc_now() + timedelta(hours=1)
    monkeypatch.setattr("imgalign.preferences.store.utc_now", lambda: later)
    again = store.next_item("bob")
    assert again is not None
    assert again.item_id == first
