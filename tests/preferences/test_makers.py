"""Models and checkpoints are rated by who made the images that people ranked."""

from collections.abc import Callable
from typing import Any

import pytest
from numpy.testing import assert_allclose
from submissions import judge, on_screen

from imgalign.errors import InputError
from imgalign.preferences.exclusions import exclude
from imgalign.preferences.makers import NothingToRateError, rate_makers, read_makers
from imgalign.preferences.prompt_sets import PromptSet
from imgalign.preferences.records import Provenance
from imgalign.preferences.store import Store

Png = Callable[..., bytes]

BASE: dict[str, Any] = {"model": "storybook"}
FIRST = BASE | {"adapter": "runs/a/step-10", "adapter_hash": "a" * 64}
SECOND = BASE | {"adapter": "runs/b/step-20", "adapter_hash": "b" * 64}


@pytest.fixture
def battle(
    store: Store, png: Png, provenance: Callable[..., Provenance]
) -> Callable[[dict[str, Any], dict[str, Any], str], None]:
    """One item of two images; "ann" and "bob" prefer the first, the second, or neither."""
    num = 0

    def add(one: dict[str, Any], other: dict[str, Any], result: str) -> None:
        nonlocal num
        num += 2
        made = (one, other)
        images = [store.add_image(png(num + k), provenance(**made[k])) for k in range(2)]
        store.add_item(f"prompt {num}", images, source="test", overlap=2)
        ranking = {">": ((0,), (1,)), "<": ((1,), (0,)), "=": ((0, 1),)}[result]
        for who in ("ann", "bob"):
            item = store.next_item(who)
            store.submit(judge(item, who, ranking=on_screen(store, item, ranking, who)))

    return add


def test_models_are_rated_by_the_log_odds_of_their_images(store: Store, battle: Any):
    for result in ">>>>>><<":
        battle(FIRST, BASE, result)
    found = rate_makers(store).ratings
    assert found.items == ("storybook", "storybook + runs/a/step-10")
    assert_allclose(found.score[1] - found.score[0], 1.0986122886681098, rtol=1e-6)  # log 3
    assert found.num_comparisons == (16, 16)
    assert (found.num_clusters, found.num_annotators) == (8, 2)


@pytest.mark.parametrize("method", ["bradley-terry", "plackett-luce", "elo"])
def test_the_better_model_is_first_in_the_table(store: Store, battle: Any, method: Any):
    for result in ">>=><":
        battle(FIRST, BASE, result)
        battle(SECOND, FIRST, result)
    lines = rate_makers(store, method=method).lines()
    assert [line.split()[-1] for line in lines[1:4]] == [
        "runs/b/step-20",
        "runs/a/step-10",
        "storybook",
    ]
    assert method in lines[4]


def test_images_of_one_model_say_nothing_about_it(store: Store, battle: Any):
    battle(BASE, BASE, ">")
    with pytest.raises(InputError, match="2 rankings of images by storybook; rank images of two"):
        rate_makers(store)
    battle(FIRST, BASE, ">")
    battle(FIRST, BASE, "<")
    assert rate_makers(store).ratings.num_comparisons == (4, 4)


def test_a_model_that_never_lost_needs_a_ridge(store: Store, battle: Any):
    battle(FIRST, BASE, ">")
    with pytest.raises(InputError, match=r"ridge of 0\.1"):
        rate_makers(store)
    found = rate_makers(store, ridge=0.1).ratings
    assert found.score[1] > found.score[0]


def test_an_image_that_two_made_alike_counts_for_neither(
    store: Store, battle: Any, png: Png, provenance: Callable[..., Provenance]
):
    for result in "><":
        battle(FIRST, BASE, result)
    before = rate_makers(store)
    image, other = png(1000), png(1001)
    ids = [store.add_image(image, provenance(**BASE)), store.add_image(other, provenance(**BASE))]
    assert store.add_image(image, provenance(**FIRST)) == ids[0]
    store.add_item("a prompt", ids, source="test")
    store.submit(judge(store.next_item("ann")))
    after = rate_makers(store)
    assert (before.num_shared, after.num_shared) == (0, 1)
    assert after.ratings.num_comparisons == before.ratings.num_comparisons
    assert "1 image is identical" in after.lines()[-1]


def test_adapters_are_known_by_their_weights(
    store: Store, png: Png, provenance: Callable[..., Provenance]
):
    moved = FIRST | {"adapter": "elsewhere"}
    retrained = FIRST | {"adapter_hash": "c" * 64}
    made = [BASE, FIRST, moved, retrained, BASE | {"adapter": "unhashed"}]
    ids = [store.add_image(png(k), provenance(**of)) for k, of in enumerate(made)]
    found = read_makers(store)
    assert [found.names[found.of_image[i]] for i in ids] == [
        "storybook",
        "storybook + runs/a/step-10 (aaaaaaaa)",
        "storybook + runs/a/step-10 (aaaaaaaa)",
        "storybook + runs/a/step-10 (cccccccc)",
        "storybook + unhashed",
    ]
    assert found.shared == frozenset()


def test_ratings_can_be_of_one_group_or_project(store: Store, battle: Any):
    battle(FIRST, BASE, ">")
    battle(FIRST, BASE, "<")
    assert rate_makers(store, group="warm").ratings.num_annotators == 1
    with pytest.raises(InputError, match="got none; there are: project default"):
        rate_makers(store, project="other")


def test_a_store_without_rankings_has_no_ratings(store: Store):
    with pytest.raises(InputError, match="got none; queue some on the Generate page"):
        rate_makers(store)


def test_makers_that_were_never_compared_are_rated_apart_each_as_if_alone(
    store: Store, battle: Any
):
    for result in ">>><":
        battle(FIRST, BASE, result)
    alone = rate_makers(store).ratings
    other, better = {"model": "other"}, {"model": "better"}
    for result in "><":
        battle(better, other, result)
    found = rate_makers(store)
    assert found.parts[0] == found.ratings == alone
    assert found.parts[1].items == ("better", "other")
    assert_allclose(found.parts[1].score, 0, atol=1e-9)
    assert found.wins.items == ("better", "other", *alone.items)
    said = "\n".join(found.lines())
    assert "these 2 groups were never ranked together" in said
    battle(better, BASE, ">")
    battle(better, BASE, "<")
    (joined,) = rate_makers(store).parts
    assert len(joined.items) == 4


def test_the_last_point_in_time_is_what_the_table_says(store: Store, battle: Any):
    for result in ">>=><>":
        battle(FIRST, BASE, result)
        battle(SECOND, FIRST, result)
    found = rate_makers(store, ridge=0.1, points=4)
    (history,) = found.history
    base, first, second = found.ratings.score
    assert history.reference == "storybook + runs/a/step-10"  # it is in every pair
    assert history.num_rankings == (6, 12, 18, 24)
    assert list(history.at) == sorted(history.at)
    last = {name: heights[-1] for name, heights in history.above.items()}
    assert_allclose(
        [last[name] for name in found.ratings.items], [base - first, 0, second - first], atol=1e-6
    )
    # Half of the votes, rated alone, say what was said then.
    assert history.above["storybook"][1] != pytest.approx(base - first)


def test_a_maker_has_no_point_before_it_was_compared(store: Store, battle: Any):
    for result in "><>":
        battle(FIRST, BASE, result)
    battle(SECOND, BASE, "<")
    (history,) = rate_makers(store, ridge=0.1, points=4).history
    assert [each is None for each in history.above["storybook + runs/b/step-20"]] == [
        *(True, True, True),
        False,
    ]
    assert rate_makers(store, ridge=0.1).history == ()


def test_why_there_is_nothing_to_rate_is_told_apart(store: Store, battle: Any):
    def lack(**asked: Any) -> tuple[str, int]:
        with pytest.raises(NothingToRateError) as caught:
            rate_makers(store, **asked)
        return caught.value.because, caught.value.num_rankings

    assert lack() == ("no rankings", 0)
    battle(BASE, BASE, ">")
    assert lack() == ("one maker", 2)
    battle(FIRST, BASE, ">")
    assert lack(group="nobody") == ("other filters", 4)
    assert lack(prompts=PromptSet.of(["a bird"])) == ("other filters", 4)
    assert lack(judged_by="ai") == ("other judges", 4)
    for who in ("ann", "bob"):
        exclude(store.database, who, project="default")
    assert lack() == ("excluded", 4)


def test_ratings_are_of_the_prompts_asked_for(store: Store, battle: Any):
    for result in "><>>":
        battle(FIRST, BASE, result)
    found = rate_makers(store, prompts=PromptSet.of(["prompt 2", "Prompt  4"]), ridge=0.1)
    assert found.ratings.num_comparisons == (4, 4)
    assert_allclose(found.ratings.score, 0, atol=1e-9)
