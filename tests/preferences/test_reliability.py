"""Krippendorff's alpha against published values, its definition by brute force, and by hand."""

import math
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from written_rankings import ranking

from imgalign.preferences.reliability import Metric, krippendorff_alpha, ranking_alpha

NONE = math.nan
# Krippendorff 2011, section C: four observers, twelve units, missing values.
PUBLISHED = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, NONE, NONE, NONE],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NONE, 3],
    [NONE, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NONE],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NONE],
]
UNITS = [
    [value for value in unit if not math.isnan(value)] for unit in zip(*PUBLISHED, strict=True)
]


@pytest.mark.parametrize(
    ("metric", "published"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)]
)
def test_the_example_of_the_paper_has_its_published_values(metric: Metric, published: float):
    assert krippendorff_alpha(UNITS, metric=metric) == pytest.approx(published, abs=5e-4)


def test_binary_data_of_two_observers_has_its_published_value():
    # Krippendorff 2011, section A: ten units, alpha 0.095.
    one, other = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    units = list(zip(one, other, strict=True))
    assert krippendorff_alpha(units, metric="nominal") == pytest.approx(0.095, abs=5e-4)


def brute_force(units: list[list[float]], metric: Metric) -> float:
    """1 - D_o / D_e, from all ordered pairs of values one by one, as the definition has it."""
    units = [unit for unit in units if len(unit) > 1]
    values = [value for unit in units for value in unit]
    scale = sorted(set(values))

    def difference(c: float, k: float) -> float:
        if metric == "nominal":
            return float(c != k)
        if metric == "interval":
            return (c - k) ** 2
        low, high = sorted((c, k))
        between = sum(values.count(g) for g in scale if low <= g <= high)
        return (between - (values.count(c) + values.count(k)) / 2) ** 2

    observed = sum(
        difference(*pair) / (len(unit) - 1) for unit in units for pair in permutations(unit, 2)
    ) / len(values)
    expected = sum(difference(*pair) for pair in permutations(values, 2)) / (
        len(values) * (len(values) - 1)
    )
    return 1 - observed / expected


@pytest.mark.parametrize("metric", ["nominal", "ordinal", "interval"])
@pytest.mark.parametrize("seed", range(5))
def test_alpha_equals_its_definition_on_random_data(metric: Metric, seed: int):
    random = np.random.default_rng(seed)
    units = [
        random.integers(0, 5, size=random.integers(0, 5)).astype(float).tolist() for _ in range(20)
    ]
    found = krippendorff_alpha(units, metric=metric)
    assert_allclose(found, brute_force(units, metric), rtol=1e-12)


@pytest.mark.parametrize("units", [[], [[1]], [[1], [2]], [[3, 3], [3, 3, 3]]])
def test_alpha_is_undefined_where_no_disagreement_is_expected(units: list[list[float]]):
    assert krippendorff_alpha(units) is None


def test_alpha_of_rankings_is_one_where_all_agree_and_by_hand_where_they_do_not():
    agreed = [ranking(who, "a>b>c", prompt=p) for who in ("ann", "bob") for p in ("p", "q")]
    found = ranking_alpha(agreed)
    assert (found.value, found.num_pairs, found.num_prompts) == (1.0, 6, 2)
    assert (found.low, found.high) == (None, None)
    # One pair of four differs, no ties: n = 16 values of ordered pairs, half of them "better".
    # D_o = 1/4, D_e = 2 * 8 * 8 / (16 * 15), both in units of the difference of the two values.
    some = [ranking(who, "a>b", prompt=p) for who in ("ann", "bob") for p in "pqr"]
    some += [ranking("ann", "a>b", prompt="s"), ranking("bob", "b>a", prompt="s")]
    assert_allclose(ranking_alpha(some).value, 1 - (1 / 4) / (2 * 8 * 8 / (16 * 15)))


def test_alpha_of_rankings_equals_the_definition_on_ordered_pairs():
    random = np.random.default_rng(1)
    written, units = [], []
    for number in range(12):
        places = random.integers(0, 3, size=(3, 4))  # three annotators, four candidates, ties
        for who, own in zip(("ann", "bob", "eve"), places, strict=True):
            groups = [
                "".join(np.array(list("abcd"))[own == place]) for place in range(3) if place in own
            ]
            written.append(ranking(who, ">".join(groups), prompt=f"p{number}", images="abcd"))
        for i, j in permutations(range(4), 2):
            units.append([float(np.sign(own[j] - own[i])) for own in places])
    found = ranking_alpha(written)
    assert_allclose(found.value, krippendorff_alpha(units), rtol=1e-12)
    assert_allclose(found.value, brute_force(units, "ordinal"), rtol=1e-12)
    assert (found.num_pairs, found.num_prompts) == (12 * 6, 12)
    assert found.low is not None
    assert found.high is not None
    assert found.value is not None
    assert found.low < found.value < found.high
    assert ranking_alpha(written) == found  # of the same seed
    assert ranking_alpha(written, seed=1).low != found.low


def test_alpha_of_rankings_by_chance_is_near_zero_whatever_the_number_of_candidates():
    random = np.random.default_rng(0)
    written: list[Any] = []
    for number in range(400):
        names = "ab" if number % 2 else "abcdef"
        for who in ("ann", "bob"):
            order = ">".join(random.permutation(list(names)))
            written.append(ranking(who, order, prompt=f"p{number}"))
    found = ranking_alpha(written)
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0 < found.high
    assert found.high - found.low < 0.25


def test_alpha_without_two_who_judged_the_same_is_nothing():
    found = ranking_alpha([ranking("ann", "a>b"), ranking("bob", "a>b", prompt="q")])
    assert (found.value, found.low, found.high, found.num_pairs) == (None, None, None, 0)
