"""Blind comparisons test what was learned: nothing learns from them, unless they are named."""

import logging
from collections.abc import Callable

import pytest
from submissions import judge

from imgalign.errors import InputError
from imgalign.preferences.judges import chosen_rankings
from imgalign.preferences.records import comparisons_of, holds_comparisons
from imgalign.preferences.store import Store
from imgalign.train.data.rankings import RankingsConfig

Add = Callable[..., list[str]]


def judged(store: Store, add_items: Add, *projects: str) -> None:
    """An item of each project, with the prompts "prompt 0", "prompt 1", ..."""
    for number, project in enumerate(projects):
        add_items(1, project=project, first=number)
        store.submit(judge(store.next_item("ann", project=project)))


def test_comparisons_of_a_project_and_of_a_comparison_are_one():
    assert comparisons_of("cats") == comparisons_of("cats-compare") == "cats-compare"
    assert holds_comparisons("cats-compare")
    assert not holds_comparisons("cats")


def test_what_reads_all_projects_leaves_comparisons_out_and_says_so(
    store: Store, add_items: Add, caplog
):
    judged(store, add_items, "default", "default-compare", "dogs")
    with caplog.at_level(logging.WARNING):
        found = chosen_rankings(store, "images")
    assert {each.project for each in found} == {"default", "dogs"}
    assert "1 of blind comparisons left out, which test what was learned (default-compare)" in (
        caplog.text
    )
    (named,) = chosen_rankings(store, "images", project="default-compare")
    assert named.project == "default-compare"


def test_comparisons_alone_are_refused_with_their_name(store: Store, add_items: Add):
    judged(store, add_items, "default-compare")
    with pytest.raises(InputError, match=r"got 1 of blind comparisons alone.*\(default-compare\)"):
        chosen_rankings(store, "images")


def test_a_direct_run_never_learns_from_the_blind_votes_on_an_earlier_one(
    store: Store, add_items: Add, url: str, monkeypatch
):
    judged(store, add_items, "default", "default-compare")
    monkeypatch.setenv("IMGALIGN_DATABASE", url)
    (given,) = RankingsConfig(originals=store.images.root).read().rankings
    assert given.prompt == "prompt 0"
