"""From answers to a ranking: only consistent verdicts count, and no order without a reason."""

from itertools import combinations, permutations, product

import pytest

from imgalign.feedback.verdicts import Tally, Verdict, order, preferences, tally, verdicts
from imgalign.preferences.records import Answer


def both_orders(better: int, worse: int, principle: int = 0) -> list[Answer]:
    return [Answer(principle, better, worse, "first"), Answer(principle, worse, better, "second")]


def always_first(one: int, other: int, principle: int = 0) -> list[Answer]:
    return [Answer(principle, one, other, "first"), Answer(principle, other, one, "first")]


def test_a_verdict_is_what_both_orders_say():
    answers = [*both_orders(2, 0), *always_first(0, 1), *both_orders(1, 2, principle=1)]
    assert verdicts(answers) == [
        Verdict(0, (0, 2), 2),
        Verdict(0, (0, 1), None),
        Verdict(1, (1, 2), 1),
    ]


@pytest.mark.parametrize(
    "answers",
    [
        [Answer(0, 0, 1, "first"), Answer(0, 1, 0, None)],
        [Answer(0, 0, 1, None), Answer(0, 1, 0, None)],
        [Answer(0, 0, 1, "first")],
        [Answer(0, 0, 1, "first"), Answer(0, 0, 1, "first")],
        always_first(0, 1),
        [Answer(0, 0, 1, "second"), Answer(0, 1, 0, "second")],
    ],
)
def test_without_the_same_answer_in_both_orders_there_is_no_winner(answers: list[Answer]):
    assert [verdict.winner for verdict in verdicts(answers)] == [None]
    assert preferences(verdicts(answers), [1.0]) == set()


def test_the_order_of_the_answers_does_not_matter():
    answers = [*both_orders(0, 1), *always_first(1, 2), *both_orders(2, 0, principle=1)]
    expected = preferences(verdicts(answers), [1.0, 2.0])
    for mixed in (answers[::-1], answers[1::2] + answers[::2]):
        assert preferences(verdicts(mixed), [1.0, 2.0]) == expected


@pytest.mark.parametrize(
    ("weights", "expected"),
    [([2.0, 1.0, 0.5], {(0, 1)}), ([1.0, 2.0, 0.5], {(1, 0)}), ([0.3, 0.1, 0.2], set())],
)
def test_principles_that_disagree_are_weighed(weights: list[float], expected: set[tuple[int, int]]):
    answers = [*both_orders(0, 1, 0), *both_orders(1, 0, 1)]
    answers += both_orders(1, 0, 2) if weights[2] == 0.2 else always_first(0, 1, 2)
    assert preferences(verdicts(answers), weights) == expected


@pytest.mark.parametrize(
    ("preferred", "num", "expected"),
    [
        ({(0, 1)}, 2, ((0,), (1,))),
        (set(), 2, None),
        ({(2, 0), (2, 1), (0, 1)}, 3, ((2,), (0,), (1,))),
        ({(2, 0), (2, 1)}, 3, ((2,), (0, 1))),
        ({(0, 1), (1, 2)}, 3, ((0,), (1,), (2,))),  # 0 leads to 2 by way of 1
        ({(0, 1), (1, 2), (2, 0)}, 3, None),  # a cycle
        ({(0, 1)}, 3, None),  # nothing is known of 2
        ({(0, 1), (1, 2), (2, 0), (3, 0), (3, 1), (3, 2)}, 4, ((3,), (0, 1, 2))),
        ({(3, 1), (1, 0), (3, 0), (3, 2), (2, 0)}, 4, ((3,), (1, 2), (0,))),
    ],
)
def test_the_ranking_that_preferences_give(
    preferred: set[tuple[int, int]], num: int, expected: object
):
    assert order(preferred, num=num) == expected


def weak_orders(num: int) -> set[tuple[tuple[int, ...], ...]]:
    """All rankings with ties."""
    found = set()
    for line in permutations(range(num)):
        for cuts in product([False, True], repeat=num - 1):
            groups = [[line[0]]]
            for cut, each in zip(cuts, line[1:], strict=True):
                groups.append([each]) if cut else groups[-1].append(each)
            found.add(tuple(tuple(sorted(group)) for group in groups))
    return found


def leads(preferred: set[tuple[int, int]], start: int) -> set[int]:
    found: set[int] = set()
    waiting = [start]
    while waiting:
        one = waiting.pop()
        new = {b for a, b in preferred if a == one} - found
        found |= new
        waiting += new
    return found


@pytest.mark.parametrize("num", [2, 3, 4])
def test_it_is_the_finest_ranking_in_which_each_order_has_a_reason_and_no_opposite(num: int):
    """Every set of preferences, against a search through every ranking with ties."""
    rankings = weak_orders(num)
    pairs = list(combinations(range(num), 2))
    for state in product([None, False, True], repeat=len(pairs)):
        preferred = {
            pair[::-1] if swapped else pair
            for pair, swapped in zip(pairs, state, strict=True)
            if swapped is not None
        }
        reach = [leads(preferred, one) for one in range(num)]
        sound = [
            ranking
            for ranking in rankings
            if all(
                worse in reach[better] and better not in reach[worse]
                for higher, lower in combinations(ranking, 2)
                for better in higher
                for worse in lower
            )
        ]
        most = max(map(len, sound))
        (finest,) = [ranking for ranking in sound if len(ranking) == most]
        assert order(preferred, num=num) == (finest if most > 1 else None), preferred
        if order(preferred, num=num) is not None:
            assert len(preferred) >= num - 1


def test_consistency_and_position_bias_are_counted():
    item = [
        *both_orders(0, 1),
        *always_first(0, 2),
        Answer(0, 1, 2, None),
        Answer(0, 2, 1, "second"),
    ]
    assert tally([item, both_orders(1, 0)]) == Tally(
        num_verdicts=4, num_consistent=2, num_answers=8, num_read=7, num_first=4
    )
    assert tally([]) == Tally(
        num_verdicts=0, num_consistent=0, num_answers=0, num_read=0, num_first=0
    )
