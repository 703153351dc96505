"""How many faults are injected, and the counts of those that were, by kind."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, Phase, settings

SOAK = int(os.environ.get("IMGALIGN_SOAK", "1"))
"""How many times as long as in the short form, whose 1 it is."""

NUMBER = "number"
"""The parameter of a test whose repetitions are tests of their own."""

LONGEST_LINE = 1000
"""Characters of a message, the path in front of it included."""
LONG = [pytest.mark.slow, pytest.mark.timeout(300 * SOAK)]
"""Marks of the test modules."""


def repetitions(short: float) -> range:
    """So many times in the short form; of a fraction none there, and its part in the long one."""
    return range(int(short * SOAK))


def repeated(short: float) -> pytest.MarkDecorator:
    """A mark: each repetition is a test, so that a long form can be stopped between them."""
    return pytest.mark.parametrize(NUMBER, repetitions(short))


def examples(short: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Settings of hypothesis; the short form tries the same examples each time."""
    return settings(
        max_examples=short * SOAK,
        deadline=None,
        derandomize=SOAK == 1,
        # Without telling what in an example matters, which traces every line and takes minutes.
        phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
        # A test's folder and store are the same in all of its examples, each of which names its own
        # files; and building one may be slow on a busy machine.
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


class Faults:
    """The counts of one test. A fault that is not survived fails it."""

    def __init__(self) -> None:
        self.injected: Counter[str] = Counter()
        self.survived: Counter[str] = Counter()

    @contextmanager
    def inject(self, kind: str) -> Iterator[None]:
        """A fault, survived when the block ends without an exception."""
        self.injected[kind] += 1
        yield
        self.survived[kind] += 1

    def as_json(self) -> Mapping[str, Mapping[str, int]]:
        """Both counts by kind, of kinds that were met."""
        return {"injected": dict(+self.injected), "survived": dict(+self.survived)}


def check_line(error: Exception, *, begin: str = "") -> None:
    """What an error says is one line that can be printed, and not too long to be read."""
    said = str(error)
    assert said.startswith(begin), said
    assert said.isprintable(), said
    assert 0 < len(said) < LONGEST_LINE, said
