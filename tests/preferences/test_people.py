"""The annotators of a project from the store: who, how well, and who is excluded."""

from collections.abc import Callable

import pytest
from judges import judge_next
from submissions import judge, on_screen

from imgalign.errors import StoreError
from imgalign.preferences.exclusions import exclude
from imgalign.preferences.gold import mark_gold
from imgalign.preferences.people import people_of
from imgalign.preferences.store import Store

Add = Callable[..., list[str]]
BEST_LAST = ((2,), (1,), (0,))


def rank_all(store: Store, who: str, order: tuple[tuple[int, ...], ...]) -> None:
    number = 0
    while (item := store.next_item(who)) is not None:
        number += 1
        sent = judge(item, who, ranking=on_screen(store, item, order, who), client_ms=1000 * number)
        store.submit(sent)


def test_each_annotator_of_the_project_is_there_with_their_quality(store: Store, add_items: Add):
    first, _, _ = add_items(3, overlap=3)
    mark_gold(store, first, ((2,), (0, 1)))
    rank_all(store, "ann", BEST_LAST)
    rank_all(store, "bob", BEST_LAST)
    store.add_annotator("Eve")
    store.submit(judge(store.next_item("eve"), "eve", verdict="all_bad", ranking=None))
    judge_next(store)  # an AI judge is nobody of them
    found = people_of(store, "default")
    rows = {each.annotator.name: each for each in found.people}
    assert list(rows) == ["ann", "bob", "Eve"]
    ann = rows["ann"].quality
    assert (ann.num_votes, ann.median_seconds, ann.gold.value) == (3, 2.0, 1.0)
    assert (ann.agreement.value, ann.agreement.count) == (1.0, 9)
    assert (rows["Eve"].quality.gold.value, rows["Eve"].quality.num_votes) == (0.0, 1)
    assert (found.alpha.value, found.alpha.num_pairs, found.num_older) == (1.0, 9, 0)
    assert [each.item_id for each in found.gold] == [first]


def test_who_is_excluded_is_still_there_and_alpha_is_without_them(store: Store, add_items: Add):
    add_items(3, overlap=3)
    store.add_annotator("Eve")
    rank_all(store, "ann", BEST_LAST)
    rank_all(store, "bob", BEST_LAST)
    rank_all(store, "eve", BEST_LAST[::-1])
    mixed = people_of(store, "default").alpha.value
    assert mixed is not None
    assert mixed < 0
    exclude(store.database, "eve", project="default")
    exclude(store.database, "ann", project="default")
    found = people_of(store, "default")
    eve = next(each for each in found.people if each.annotator.name == "Eve")
    assert eve.excluded_since is not None
    assert (eve.quality.num_votes, eve.quality.agreement.value) == (3, 0.0)
    assert (found.alpha.value, found.kappa.value) == (None, None)  # bob alone counts
    assert "Eve, excluded" in "\n".join(found.lines())


def test_of_many_judgements_the_latest_are_looked_at(store: Store, add_items: Add):
    add_items(4)
    rank_all(store, "ann", BEST_LAST)
    found = people_of(store, "default", latest=3)
    assert (found.num_read, found.num_older) == (3, 1)
    assert found.people[0].quality.median_seconds == 3.0  # of 2, 3 and 4
    assert "of the latest 3 judgements; 1 are older" in found.lines()[-1]


def test_the_table_of_a_terminal_has_shares_with_intervals(store: Store, add_items: Add):
    add_items(2, overlap=2)
    assert people_of(store, "default").lines() == [
        "project 'default': nobody has judged anything yet"
    ]
    rank_all(store, "ann", BEST_LAST)
    alone = people_of(store, "default").lines()
    assert alone[-1].endswith("unknown, no two annotators judged the same pair")
    rank_all(store, "bob", BEST_LAST)
    lines = people_of(store, "default").lines()
    assert lines[0].split() == [
        *("votes", "skips", "s/vote", "gold", "attention", "consistency", "first", "place"),
        *("agreement", "annotator"),
    ]
    assert "100 % [61, 100] of 6  ann" in lines[1]  # Wilson's interval of 6 of 6
    assert lines[3].startswith("Krippendorff's alpha (ordinal): 1.00, 6 pairs of 2 prompts")
    assert lines[4] == "Fleiss' kappa (better, worse, tie): 1.00, 6 pairs of 2 prompts"


def test_an_unknown_project_is_refused(store: Store):
    with pytest.raises(StoreError, match="project 'x': nothing is queued there; check its name"):
        people_of(store, "x")
