"""What is kept is made again only when its mark differs, and by one thread at a time."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from ui.kept import Kept


def test_it_is_made_again_only_when_its_mark_differs():
    kept: Kept[str] = Kept(2)
    marks = iter("aab")
    made: list[str] = []

    def make() -> str:
        made.append("x")
        return "x" * len(made)

    assert [kept.get("key", lambda: next(marks), make) for _ in range(3)] == ["x", "x", "xx"]


def test_the_keys_that_were_asked_for_last_are_kept():
    kept: Kept[int] = Kept(2)
    made: list[str] = []
    for key in ("a", "b", "a", "c", "a", "b"):
        kept.get(key, lambda: 0, partial(lambda key: made.append(key) or len(made), key))
    assert made == ["a", "b", "c", "b"]


def test_many_who_ask_at_once_cost_two_even_if_it_changes_all_the_time():
    times: list[int] = []

    def clock() -> float:
        times.append(1)
        return float(len(times))

    kept: Kept[int] = Kept(2, clock=clock)
    begun, go = threading.Event(), threading.Event()
    made: list[int] = []
    marks = iter(range(100))

    def make() -> int:
        made.append(1)
        begun.set()
        go.wait(30)
        return len(made)

    with ThreadPoolExecutor(9) as pool:
        first = pool.submit(kept.get, "key", lambda: next(marks), make)
        assert begun.wait(30)
        others = [pool.submit(kept.get, "key", lambda: next(marks), make) for _ in range(8)]
        while len(times) < 10:  # until all of them have asked
            time.sleep(0.01)
        go.set()
        assert first.result() == 1
        # What was begun before they asked might lack what they have just sent.
        assert {each.result() for each in others} == {2}
    assert len(made) == 2


def test_an_error_is_kept_by_nobody():
    kept: Kept[int] = Kept(2)

    def fail() -> int:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        kept.get("key", lambda: 0, fail)
    assert kept.get("key", lambda: 0, lambda: 7) == 7
