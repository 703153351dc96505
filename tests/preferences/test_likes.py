"""Likes and dislikes: rankings of one candidate, kept as all are, that prefer nothing."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from submissions import judge
from texts import add_texts

from imgalign.algorithms.objectives import DPOConfig, KTOConfig
from imgalign.errors import InputError
from imgalign.preferences.agreement import pair_agreement
from imgalign.preferences.checking import check_store
from imgalign.preferences.comparisons import compare_makers
from imgalign.preferences.exchange import export_rankings, import_rankings
from imgalign.preferences.foreign.image_queue import group_images, queue_groups
from imgalign.preferences.foreign.pair_export import export_pairs
from imgalign.preferences.foreign.text_queue import group_texts, queue_texts
from imgalign.preferences.makers import rate_makers
from imgalign.preferences.people import people_of
from imgalign.preferences.records import Verdict, compares, pairs, tied_pairs
from imgalign.preferences.store import Store
from imgalign.train.data.judged import counts_of, from_store
from reward_models.evaluate import judged

Add = Callable[..., list[str]]
LIKE: dict[str, Any] = {}
DISLIKE: dict[str, Any] = {"verdict": "all_bad", "ranking": None}
SKIP: dict[str, Any] = {"verdict": "skipped", "ranking": None, "reason": "cannot judge"}


def say(store: Store, *said: dict[str, Any], who: str = "ann") -> None:
    for fields in said:
        store.submit(judge(store.next_item(who), who, **fields))


@pytest.fixture
def liked(store: Store, add_items: Add) -> Store:
    """Three single images, liked, disliked and skipped, and one ranking of three."""
    add_items(3, num_images=1)
    say(store, LIKE, DISLIKE, SKIP)
    ids = [next(iter(each.sample_ids)) for each in store.rankings()]
    store.add_item("all", ids, source="test")
    say(store, LIKE)
    return store


def test_a_like_is_counted_taken_back_and_carried_as_any_ranking(liked: Store, tmp_path: Path):
    assert [(len(each.sample_ids), each.verdict, each.ranking) for each in liked.rankings()][
        :3
    ] == [
        (1, "ranked", ((0,),)),
        (1, "all_bad", None),
        (1, "skipped", None),
    ]
    assert (liked.counts("ann").done, liked.counts("ann").left) == (4, 0)
    assert check_store(liked).passed
    path = tmp_path / "all.jsonl"
    export_rankings(liked, path)
    with Store.open(f"sqlite:///{tmp_path / 'other.db'}", images=tmp_path / "more") as other:
        assert import_rankings(other, path, images=liked.images.root) == 4
        assert check_store(other).passed
    liked.undo("ann", next(iter(liked.rankings())).key)
    assert liked.counts("ann").done == 3
    assert check_store(liked).passed


def test_nothing_is_preferred_in_a_like_whoever_reads_it(
    liked: Store, caplog: pytest.LogCaptureFixture, tmp_path: Path
):
    found = list(liked.rankings())
    assert [compares(each) for each in found] == [False, False, False, True]
    assert [len(pairs(each)) + len(tied_pairs(each)) for each in found] == [0, 0, 0, 3]
    assert compare_makers(liked) == []
    with pytest.raises(InputError, match="expected rankings of images by different models"):
        rate_makers(liked)
    (person,) = people_of(liked, "default").people
    assert (person.quality.num_votes, person.quality.num_skipped) == (3, 1)
    assert person.quality.first_place.count == 1
    assert pair_agreement(found).count == 0
    exported = export_pairs(found, liked.image_path, tmp_path / "pairs")
    assert (exported.num_rankings, exported.num_ties, exported.num_unranked) == (1, 0, 3)
    with caplog.at_level(logging.WARNING):
        ranked, counts = judged(found)
    assert (len(ranked), counts.ranked, counts.all_bad, counts.skipped) == (1, 1, 0, 0)
    assert "3 judgements of single samples are left out" in caplog.text


def test_likes_are_what_kto_learns_from_and_others_say_so(
    liked: Store, caplog: pytest.LogCaptureFixture
):
    given = from_store(liked.rankings())
    assert [(each.all_good, each.all_bad, each.ranks) for each in given[:2]] == [
        (True, False, (0,)),
        (False, True, (-1,)),
    ]
    both, alone = counts_of(given), counts_of(given[:2])
    assert (both.ordered, both.tied, both.all_good, both.all_bad) == (1, 0, 1, 1)
    KTOConfig().refuse_rankings(alone)
    with pytest.raises(ValueError, match=r"1 that are all bad and 1 that are likes; .*name=kto"):
        DPOConfig().refuse_rankings(alone)
    with caplog.at_level(logging.WARNING):
        DPOConfig().refuse_rankings(both)
    assert "1 likes of single samples teach nothing here" in caplog.text


@pytest.mark.parametrize("verdict", ["ranked", "all_bad"])
def test_texts_are_liked_too(store: Store, verdict: Verdict):
    add_texts(store, ["a red cat"], prompt="a cat")
    say(store, LIKE if verdict == "ranked" else DISLIKE)
    (given,) = from_store(store.rankings())
    assert (given.all_good, given.all_bad) == (verdict == "ranked", verdict == "all_bad")


def test_one_of_a_prompt_makes_items_of_one_of_all_that_is_brought_in(
    store: Store, png: Callable[..., bytes], tmp_path: Path
):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.png").write_bytes(png(number))
        (folder / f"{number}.txt").write_text("a fox" if number else "a cat")
    assert len(queue_groups(store, group_images(folder, per_prompt=1)).item_ids) == 3
    (tmp_path / "t.jsonl").write_text(
        '{"prompt": "a", "completions": ["b", "c"]}\n{"prompt": "d", "completions": ["e", "f"]}\n'
    )
    assert len(queue_texts(store, group_texts(tmp_path / "t.jsonl", per_prompt=1)).item_ids) == 4
    assert store.counts("ann").left == 7
    (tmp_path / "untold").mkdir()
    (tmp_path / "untold" / "a.png").write_bytes(png(9))
    with pytest.raises(InputError, match="expected images with a prompt; left out, no prompt: 1"):
        group_images(tmp_path / "untold", per_prompt=1)
    with pytest.raises(InputError, match="expected at least 1 image, got 0"):
        group_images(folder, per_prompt=0)


def test_an_item_needs_a_candidate(store: Store):
    with pytest.raises(InputError, match="expected at least one candidate, got none"):
        store.add_item("a fox", [], source="test")
