import json
import math

import pytest

from imgalign.algorithms.kl import AdaptiveKL, FixedKL, KLCoefficient
from imgalign.errors import CheckpointError


def test_both_kinds_speak_the_same_protocol():
    assert isinstance(FixedKL(0.1), KLCoefficient)
    assert isinstance(AdaptiveKL(0.1, target_nats=1.0), KLCoefficient)


def test_a_fixed_coefficient_stays():
    kl = FixedKL(0.25)
    kl.update(1000.0)
    assert kl.coefficient == 0.25


def test_an_adaptive_coefficient_stays_at_its_target():
    kl = AdaptiveKL(0.25, target_nats=6.0)
    kl.update(6.0)
    assert kl.coefficient == 0.25


@pytest.mark.parametrize(
    ("measured", "factor"),
    [(6.6, 1.01), (5.4, 0.99), (600.0, 1.02), (0.0, 0.98), (-1.0, 0.98)],
)
def test_an_adaptive_coefficient_moves_by_a_tenth_of_the_clipped_relative_error(measured, factor):
    kl = AdaptiveKL(0.25, target_nats=6.0)
    kl.update(measured)
    assert math.isclose(kl.coefficient, 0.25 * factor, rel_tol=1e-12)


def test_an_adaptive_coefficient_brings_a_policy_that_yields_to_it_to_the_target():
    # A policy whose KL is inversely proportional to the coefficient: the target 2 needs 0.5.
    kl = AdaptiveKL(0.05, target_nats=2.0)
    for _ in range(500):
        kl.update(1.0 / kl.coefficient)
    assert math.isclose(kl.coefficient, 0.5, rel_tol=1e-6)


def test_an_adaptive_coefficient_goes_on_exactly_after_a_round_trip_through_json():
    kl, resumed = AdaptiveKL(0.25, target_nats=6.0), AdaptiveKL(0.25, target_nats=6.0)
    kl.update(7.0)
    resumed.load_state_dict(json.loads(json.dumps(kl.state_dict())))
    assert resumed.coefficient == kl.coefficient


def test_the_state_of_the_other_kind_is_refused():
    adaptive, fixed = AdaptiveKL(0.1, target_nats=1.0), FixedKL(0.1)
    with pytest.raises(CheckpointError, match=r"expected state \[\], got \['coefficient'\]"):
        fixed.load_state_dict(adaptive.state_dict())
    with pytest.raises(CheckpointError, match=r"expected state \['coefficient'\], got \[\]"):
        adaptive.load_state_dict(fixed.state_dict())


@pytest.mark.parametrize(
    ("coefficient", "target", "rate"), [(0, 1, 0.1), (0.1, 0, 0.1), (0.1, 1, 0), (0.1, 1, 5)]
)
def test_settings_that_could_turn_the_pull_around_are_refused(coefficient, target, rate):
    with pytest.raises(ValueError, match="expected coefficient > 0"):
        AdaptiveKL(coefficient, target_nats=target, rate=rate)
