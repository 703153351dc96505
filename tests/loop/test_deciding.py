"""When a round counts as better, where the next starts, and when the loop ends."""

import pytest

from imgalign.loop.config import StopConfig
from imgalign.loop.deciding import ending, improves, last_kept
from imgalign.statistics import Estimate


def test_a_round_improves_if_the_lower_bound_is_above_one_half():
    assert improves(Estimate(value=0.62, low=0.501, high=0.7))
    assert not improves(Estimate(value=0.62, low=0.5, high=0.7))
    assert not improves(Estimate(value=0.9, low=0.45, high=1.0))


def test_nothing_is_shown_without_an_interval_or_without_votes():
    assert not improves(Estimate(value=1.0))
    assert not improves(None)


@pytest.mark.parametrize(
    ("improved", "start"),
    [((), 0), ((True,), 1), ((True, False), 1), ((False, True, False), 2), ((False, False), 0)],
)
def test_the_next_round_starts_from_the_last_one_that_improved(improved, start):
    assert last_kept(improved) == start


def test_the_loop_goes_on_until_as_many_rounds_in_a_row_fail_as_it_is_patient():
    stop = StopConfig(max_rounds=9, patience=2)
    assert ending([True, False, True, False], stop) is None
    assert ending([True, False, False], stop) == "2 rounds in a row did not improve"
    assert ending([False, False], stop) == "2 rounds in a row did not improve"
    assert ending([True, False], StopConfig(patience=1)) == "the last round did not improve"


def test_the_loop_ends_after_the_last_round_even_if_that_improved():
    assert ending([True, True, True], StopConfig(max_rounds=3)) == "stop.max_rounds, 3, is reached"
    assert ending([True, True, True], StopConfig(max_rounds=4)) is None
