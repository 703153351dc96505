"""Krippendorff's alpha and Fleiss' kappa against published values, brute force, and by hand."""

import math
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from written_rankings import ranking

from imgalign.preferences.reliability import (
    Metric,
    fleiss_kappa,
    krippendorff_alpha,
    ranking_alpha,
    ranking_kappa,
)

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


# Fleiss 1971, table 1: how many of six psychiatrists gave 30 patients each of five diagnoses.
DIAGNOSES = """
00060 03003 01401 00006 03030 20400 00402 20310 20040 00006 10050 11040 03300 10050 02031
00501 30012 51000 02040 10203 00006 01050 02013 20040 10041 05010 40002 02040 10500 00006
"""


def test_the_example_of_the_paper_of_kappa_has_its_published_value():
    counts = [[int(digit) for digit in row] for row in DIAGNOSES.split()]
    units = [[value for value, n in enumerate(row) for _ in range(n)] for row in counts]
    assert {len(unit) for unit in units} == {6}
    assert fleiss_kappa(units) == pytest.approx(0.430, abs=5e-4)


@pytest.mark.parametrize("units", [[], [[1]], [[1], [2]], [[3, 3], [3, 3, 3]]])
def test_kappa_is_undefined_where_agreement_is_certain(units: list[list[float]]):
    assert fleiss_kappa(units) is None


def test_kappa_of_rankings_equals_that_of_ordered_pairs_with_missing_annotators_and_ties():
    random = np.random.default_rng(2)
    written, units = [], []
    for number in range(15):
        of_prompt = random.integers(2, 5)  # annotators, of which the first are the same
        places = random.integers(0, 3, size=(of_prompt, 3))
        for who, own in enumerate(places):
            groups = ["".join(np.array(list("abc"))[own == at]) for at in range(3) if at in own]
            written.append(ranking(f"a{who}", ">".join(groups), prompt=f"p{number}", images="abc"))
        for i, j in permutations(range(3), 2):
            units.append([float(np.sign(own[j] - own[i])) for own in places])
    found = ranking_kappa(written)
    # By hand, from shares of values in each unit.
    agreed = np.mean([np.mean([a == b for a, b in permutations(unit, 2)]) for unit in units])
    shares = np.array([[np.mean(np.array(u) == v) for v in (-1, 0, 1)] for u in units]).mean(axis=0)
    chance = (shares**2).sum()
    assert_allclose(found.value, (agreed - chance) / (1 - chance), rtol=1e-12)
    assert_allclose(found.value, fleiss_kappa(units), rtol=1e-12)
    assert (found.num_pairs, found.num_prompts) == (15 * 3, 15)
    assert found.value is not None
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high
    assert ranking_kappa(written) == found  # of the same seed


def test_kappa_of_rankings_does_not_depend_on_the_names_of_the_images():
    random = np.random.default_rng(3)
    orders = [(who, f"p{n}", random.permutation(["a", "b"])) for n in range(9) for who in "xyz"]
    one = ranking_kappa([ranking(who, ">".join(own), prompt=p) for who, p, own in orders])
    renamed = {"a": "d", "b": "c"}
    other = ranking_kappa(
        [ranking(who, ">".join(renamed[i] for i in own), prompt=p) for who, p, own in orders]
    )
    assert one == other


def test_where_all_pairs_are_ties_neither_alpha_nor_kappa_is_known():
    tied = [ranking(who, "ab") for who in ("ann", "bob")]
    for found in (ranking_alpha(tied), ranking_kappa(tied)):
        assert (found.value, found.low, found.high, found.num_pairs) == (None, None, None, 1)
