"""Blind comparisons of two makers: the rate, and whether one may stop asking."""

from collections.abc import Callable
from typing import Any

import pytest
from submissions import judge, on_screen

from imgalign.preferences.comparisons import compare_makers
from imgalign.preferences.exclusions import exclude, include
from imgalign.preferences.records import Provenance
from imgalign.preferences.store import Store
from imgalign.statistics import confidence_sequence

BASE: dict[str, Any] = {"model": "storybook"}
FIRST = BASE | {"adapter": "runs/a/step-10", "adapter_hash": "a" * 64}
SECOND = BASE | {"adapter": "runs/b/step-20", "adapter_hash": "b" * 64}
RESULTS = {">": ((0,), (1,)), "<": ((1,), (0,)), "=": ((0, 1),)}


@pytest.fixture
def queue(
    store: Store, png: Callable[..., bytes], provenance: Callable[..., Provenance]
) -> Callable[..., None]:
    """Queue an item of two images; another of the same prompt with other seeds by `seed`."""

    def add(
        prompt: str,
        makers: tuple[dict[str, Any], dict[str, Any]] = (FIRST, BASE),
        *,
        seed: int = 0,
        overlap: int = 1,
        project: str = "default",
    ) -> None:
        images = [
            store.add_image(png([*map(ord, prompt), seed, k]), provenance(**maker))
            for k, maker in enumerate(makers)
        ]
        store.add_item(prompt, images, source="test", overlap=overlap, project=project)

    return add


def vote(store: Store, result: str, *, who: str = "ann", project: str = "default") -> None:
    item = store.next_item(who, project=project)
    assert item is not None
    store.submit(judge(item, who, ranking=on_screen(store, item, RESULTS[result], who)))


def test_the_checkpoint_is_told_about_whichever_image_came_first(store: Store, queue: Any) -> None:
    for number, (makers, result) in enumerate(
        [((FIRST, BASE), ">"), ((BASE, FIRST), "<"), ((BASE, FIRST), "="), ((FIRST, BASE), "<")]
    ):
        queue(f"prompt {number}", makers)
        vote(store, result)
    (found,) = compare_makers(store)
    assert (found.name, found.other_name) == ("storybook + runs/a/step-10", "storybook")
    assert (found.wins, found.ties, found.losses) == (2, 1, 1)
    assert found.rate.value == 0.625
    assert found.path == "runs/a/step-10"
    assert found.preferred is None
    assert "in 62 % of 4 blind votes" in found.lines()[0]
    assert found.lines()[1].startswith("Not decided by 4 prompts judged completely")


def test_eight_prompts_without_a_loss_decide_and_seven_do_not(store: Store, queue: Any) -> None:
    for number in range(8):
        queue(f"prompt {number}")
        vote(store, ">")
        (found,) = compare_makers(store)
        assert found.preferred == ("one" if number == 7 else None)
    assert found.decision().startswith("Decided: storybook + runs/a/step-10 is preferred")
    for number in range(8, 40):
        queue(f"prompt {number}", (SECOND, FIRST))
        vote(store, "<")
    latest, before = compare_makers(store)
    assert before == found
    assert (latest.name, latest.preferred) == ("storybook + runs/b/step-20", "other")
    assert "Decided: storybook + runs/a/step-10 is preferred" in latest.decision()


def test_a_prompt_is_one_observation_once_all_of_its_items_are_judged(
    store: Store, queue: Any
) -> None:
    queue("a", seed=1)
    queue("a", seed=2)
    queue("b", overlap=2)
    vote(store, ">")
    (found,) = compare_makers(store)
    assert (found.counted, found.sequence) == (0, None)
    assert (
        found.decision() == "No prompt is judged completely yet; 1 prompt still has items to judge"
    )
    vote(store, "<")
    vote(store, ">")
    (found,) = compare_makers(store)
    assert (found.prompts, found.counted, found.sequence) == (2, 1, confidence_sequence([0.5]))
    assert "1 prompt still has items to judge" in found.decision()
    vote(store, "<", who="bob")
    (found,) = compare_makers(store)
    assert (found.prompts, found.counted, found.annotators) == (2, 2, 2)
    assert found.sequence == confidence_sequence([0.5, 0.5])


def test_prompts_come_in_the_order_in_which_they_were_completed(store: Store, queue: Any) -> None:
    queue("late", overlap=2)
    queue("early")
    vote(store, ">")
    vote(store, "<")
    vote(store, ">", who="bob")
    (found,) = compare_makers(store)
    assert found.sequence == confidence_sequence([0.0, 1.0])
    # After a loss and then wins another interval holds than the other way round.
    assert confidence_sequence([0.0] * 4 + [1.0] * 9) != confidence_sequence([1.0] * 9 + [0.0] * 4)


def test_several_images_of_a_maker_are_pairs_of_one_vote(
    store: Store, png: Any, provenance: Any
) -> None:
    made = [FIRST, FIRST, BASE, SECOND]
    images = [store.add_image(png(k), provenance(**maker)) for k, maker in enumerate(made)]
    store.add_item("a", images, source="test")
    item = store.next_item("ann")
    assert item is not None
    order = ((0,), (2,), (1, 3))  # one image of FIRST above the base's, one below
    store.submit(judge(item, "ann", ranking=on_screen(store, item, order, "ann")))
    rates = {(found.one[1], found.other[1]): found.rate.value for found in compare_makers(store)}
    a, b = "a" * 64, "b" * 64
    assert rates == {(a, None): 0.5, (b, None): 0.0, (b, a): 0.25}


def test_projects_groups_and_simulated_annotators_are_told_apart(store: Store, queue: Any) -> None:
    store.add_annotator("ann", group="warm")
    store.add_annotator("sim", group="cold", simulated=True)
    queue("a", project="one")
    queue("b", project="two")
    vote(store, ">", project="one")
    vote(store, "<", who="sim", project="two")
    (people,) = compare_makers(store)
    assert (people.votes, people.rate.value, people.simulated) == (1, 1.0, False)
    (simulated,) = compare_makers(store, project="two")
    assert simulated.lines()[-1] == "All votes are by simulated annotators"
    assert compare_makers(store, project="one")[0].rate.value == 1.0
    assert compare_makers(store, project="two")[0].rate.value == 0.0
    assert compare_makers(store, group="cold")[0].rate.value == 0.0
    assert compare_makers(store, project="three") == []


def test_a_vote_that_is_taken_back_does_not_count(store: Store, queue: Any) -> None:
    queue("a")
    item = store.next_item("ann")
    assert item is not None
    order = on_screen(store, item, RESULTS[">"], "ann")
    given = judge(item, "ann", ranking=order)
    store.submit(given)
    assert len(compare_makers(store)) == 1
    store.undo("ann", given.key)
    assert compare_makers(store) == []


def test_votes_of_an_annotator_who_is_excluded_do_not_count(store: Store, queue: Any) -> None:
    queue("a", overlap=2)
    vote(store, ">")
    vote(store, "<", who="bob")
    assert compare_makers(store)[0].rate.value == 0.5
    exclude(store.database, "bob", project="default")
    (found,) = compare_makers(store)
    assert (found.rate.value, found.votes) == (1.0, 1)
    include(store.database, "bob", project="default")
    assert compare_makers(store)[0].rate.value == 0.5
