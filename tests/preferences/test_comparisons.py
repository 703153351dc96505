"""Blind comparisons of two makers: the rate, and whether one may stop asking."""

import re
from collections.abc import Callable
from dataclasses import astuple, replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from submissions import judge, on_screen

from imgalign.preferences import outcomes
from imgalign.preferences.comparisons import compare_makers, never_preferred
from imgalign.preferences.exclusions import exclude, include
from imgalign.preferences.outcomes import Maker, Outcomes
from imgalign.preferences.prompt_sets import PromptSet, prompts_of_project
from imgalign.preferences.records import Provenance
from imgalign.preferences.store import Store
from imgalign.statistics import TwoWay, confidence_sequence, two_way_rate

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


def test_both_intervals_say_what_they_are_over(store: Store, queue: Any) -> None:
    for number in range(12):
        queue(f"prompt {number}", overlap=2)
        vote(store, ">")
        if number == 0:
            assert "annotators" not in compare_makers(store)[0].lines()[0]
        vote(store, "<" if number % 3 == 0 else ">", who="bob")
    (found,) = compare_makers(store)
    said, decided, *_ = found.lines()
    # With two annotators one degree of freedom is left, so that nothing of others is certain.
    assert re.search(r"interval \d+ to \d+ % over 2 annotators and their prompts", said)
    assert re.search(r"12 prompts judged completely \(\d+ to \d+ % over these, whenever", decided)
    assert found.rate.low is not None
    assert found.rate.low < found.whenever[1]


def bad(store: Store, *, who: str = "ann", project: str = "cats-compare") -> str:
    item = store.next_item(who, project=project)
    assert item is not None
    key = f"{who}-bad-{len(store.history(who, 100, include_undone=True))}"
    sent = judge(item, who, key=key, verdict="all_bad", ranking=None)
    store.submit(sent)
    return sent.key


def test_that_both_were_bad_is_no_vote_and_is_told(store: Store, queue: Any) -> None:
    for number in range(12):
        queue(f"prompt {number}", project="cats-compare")
    for _ in range(8):
        vote(store, ">", project="cats-compare")
    store.add_annotator("sim", simulated=True)
    assert [each.both_bad for each in compare_makers(store)] == [0]
    bad(store)
    key = bad(store)
    bad(store, who="sim")
    store.undo("ann", key)
    (found,) = compare_makers(store)
    assert (found.votes, found.prompts, found.counted, found.both_bad) == (8, 8, 8, 1)
    assert "Once more both were bad, which counts for neither" in found.lines()
    bad(store)
    (found,) = compare_makers(store, project="cats-compare")
    assert "2 times more both were bad, which counts for neither" in found.lines()
    assert never_preferred(store) == []
    exclude(store.database, "ann", project="cats-compare")
    assert [each.times for each in never_preferred(store)] == [1]


def test_two_of_which_both_were_always_bad_are_told_without_a_vote(
    store: Store, queue: Any
) -> None:
    queue("a", project="cats-compare")
    queue("b", (SECOND, FIRST), project="cats-compare")
    queue("c", (BASE, FIRST), project="cats-compare")
    queue("d")
    for _ in range(3):
        bad(store)
    bad(store, project="default")  # all candidates of a set, which compares no two makers
    assert compare_makers(store) == []
    first, second = never_preferred(store)
    assert first.line() == (
        "storybook + runs/a/step-10 and storybook: 2 times both were bad, which counts for neither"
    )
    assert second.line() == (
        "storybook + runs/a/step-10 and storybook + runs/b/step-20: once both were bad, which "
        "counts for neither"
    )
    assert never_preferred(store, project="default") == []
    assert [each.times for each in never_preferred(store, prompts=PromptSet.of(["a"]))] == [1]
    assert never_preferred(store, group="nobody") == []
    queue("e")
    vote(store, ">", project="default")
    assert [each.name for each in never_preferred(store)] == ["storybook + runs/a/step-10"]


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


def test_a_pair_that_is_judged_stays_decided_while_the_prompts_are_open_elsewhere(
    store: Store, queue: Any
) -> None:
    for number in range(10):
        queue(f"prompt {number}", project="default-compare")
        vote(store, ">", project="default-compare")
    (before,) = compare_makers(store)
    assert (before.counted, before.preferred) == (10, "one")
    for number in range(10):  # the same two makers, in a project without a vote
        queue(f"prompt {number}", seed=1)
    assert compare_makers(store) == [before]
    for number in range(10):  # another checkpoint, over the same prompts
        queue(f"prompt {number}", (SECOND, BASE), seed=2, project="default-compare")
    assert compare_makers(store) == [before]
    assert compare_makers(store, project="default-compare") == [before]


def test_an_item_of_both_makers_that_opens_later_makes_its_prompt_wait_again(
    store: Store, queue: Any
) -> None:
    for number in range(3):
        queue(f"prompt {number}")
        vote(store, ">")
    queue("prompt 1", seed=1)
    queue("prompt 7")  # without a vote: no prompt of this comparison
    (found,) = compare_makers(store)
    assert (found.prompts, found.counted) == (3, 2)


def test_an_open_item_whose_image_two_made_alike_is_of_neither(
    store: Store, queue: Any, png: Any, provenance: Any
) -> None:
    queue("a")
    vote(store, ">")
    alike, other = png(1000), png(1001)
    ids = [store.add_image(alike, provenance(**FIRST)), store.add_image(other, provenance(**BASE))]
    store.add_image(alike, provenance(**SECOND))
    store.add_item("a", ids, source="test")
    (found,) = compare_makers(store)
    assert found.counted == 1


def test_only_rankings_on_the_prompts_asked_for_are_compared(store: Store, queue: Any) -> None:
    for prompt, result in {"a  Cat": ">", "a dog": "<", "a fox": ">"}.items():
        queue(prompt)
        vote(store, result)
    queue("a dog", project="dogs")
    listed = PromptSet.of(["A cat", "a bird"])
    assert [each.wins for each in compare_makers(store, prompts=listed)] == [1]
    (others,) = compare_makers(store, prompts=PromptSet.of(listed.keys, others=True))
    assert (others.wins, others.losses) == (1, 1)
    (dogs,) = compare_makers(store, prompts=prompts_of_project(store, "dogs"))
    assert (dogs.wins, dogs.losses) == (0, 1)
    assert compare_makers(store, prompts=PromptSet.of(["a bird"])) == []


def plainly(found: Outcomes) -> dict[tuple[Maker, Maker], Any]:
    """By two makers: each vote, the rate, and the sequence, from one ranking after the other."""
    votes: dict[tuple[int, int], list[tuple[float, int, int]]] = {}
    columns = (found.prompt.tolist(), found.annotator.tolist(), found.order.tolist())
    for prompt, annotator, order in zip(*columns, strict=True):
        place = [(m, rank) for rank, group in enumerate(found.orders[order]) for m in group]
        for one, other in combinations(sorted({maker for maker, _ in place}), 2):
            won = [
                1.0 if mine < theirs else 0.5 if mine == theirs else 0.0
                for first, mine in place
                for second, theirs in place
                if (first, second) == (one, other)
            ]
            votes.setdefault((one, other), []).append((sum(won) / len(won), prompt, annotator))
    by_pair = {}
    for pair, own in votes.items():
        first, second = (found.makers[number] for number in pair)
        turned = second.weights is not None
        won = [1 - each[0] if turned else each[0] for each in own]
        prompts, annotators = [each[1] for each in own], [each[2] for each in own]
        last = sorted(set(prompts), key=lambda p: len(prompts) - prompts[::-1].index(p))
        means = []
        for prompt in last:
            own_votes = [w for w, p in zip(won, prompts, strict=True) if p == prompt]
            means.append(sum(own_votes) / len(own_votes))
        by_pair[(second, first) if turned else (first, second)] = (
            pytest.approx(astuple(two_way_rate(won, TwoWay.of(prompts, annotators))), rel=1e-12),
            confidence_sequence(means),
            len(set(prompts)),
            (sum(w > 0.5 for w in won), sum(w == 0.5 for w in won), sum(w < 0.5 for w in won)),
        )
    return by_pair


@pytest.mark.parametrize("seed", range(3))
def test_arrays_give_exactly_what_one_vote_after_the_other_gives(
    store: Store, queue: Any, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    queue("a")
    vote(store, ">")
    with store.database.read() as connection:
        real = outcomes.read(connection)
    rng = np.random.default_rng(seed)
    makers = {n: Maker("m", f"{n:02d}" if n > 1 else None) for n in range(1, 6)}
    orders: dict[int, Any] = {}
    for number in range(900, 1000):
        shown = rng.choice(5, 4) + 1  # some of them twice
        groups: list[tuple[int, ...]] = []
        for maker in shown.tolist():
            if groups and rng.random() < 0.3:
                groups[-1] = (*groups[-1], maker)
            else:
                groups.append((maker,))
        orders[number] = tuple(groups)
    made_up = replace(
        real,
        prompt=rng.integers(10, 70, 400),
        project=np.full(400, 10),
        annotator=rng.integers(10, 19, 400),
        order=rng.integers(900, 1000, 400),
        sequences=np.arange(400),
        excluded=np.zeros(400, dtype=bool),
        makers=makers,
        path_of={maker: maker.weights for maker in makers.values()},
        orders=orders,
        projects={"default": 10},
        annotators={n: next(iter(real.annotators.values())) for n in range(10, 19)},
    )
    monkeypatch.setattr(outcomes, "read", lambda connection: made_up)
    found = compare_makers(store, most=None)
    assert {
        (each.one, each.other): (
            *(astuple(each.rate), each.sequence, each.counted),
            (each.wins, each.ties, each.losses),
        )
        for each in found
    } == plainly(made_up)
