"""When a round improves, where the next one starts, and when the loop ends: pure functions."""

from collections.abc import Sequence

from imgalign.loop.config import StopConfig
from imgalign.statistics import Estimate

EVEN = 0.5


def improves(rate: Estimate | None) -> bool:
    """Whether the lower bound of a win rate, ties as halves, is above an even one.

    Without an interval, as of a single prompt, or without a vote, nothing has been shown.
    """
    return rate is not None and rate.low is not None and rate.low > EVEN


def last_kept(improved: Sequence[bool]) -> int:
    """The last round that improved, counted from 1; 0 is the model that the loop started with."""
    return max((number for number, better in enumerate(improved, start=1) if better), default=0)


def ending(improved: Sequence[bool], stop: StopConfig) -> str | None:
    """Why the loop ends after these rounds, in words; None where another one follows."""
    since = len(improved) - last_kept(improved)
    if since >= stop.patience:
        rounds = "the last round" if since == 1 else f"{since} rounds in a row"
        return f"{rounds} did not improve"
    if len(improved) >= stop.max_rounds:
        return f"stop.max_rounds, {stop.max_rounds}, is reached"
    return None
