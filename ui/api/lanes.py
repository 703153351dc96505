"""Who waits where all requests share one core of Python: a vote for as few others as possible.

A hundred annotators ask for more than votes: for sets and images, which their pages have ahead of
time. Of these only a few are at work at once. The others wait in the order in which they came,
without a thread, and votes pass them.
"""

from collections.abc import Callable, Coroutine
from functools import partial, wraps
from typing import ParamSpec, TypeVar

from anyio import CapacityLimiter, to_thread

P = ParamSpec("P")
T = TypeVar("T")


class Lane:
    """A decorator that makes coroutines of functions that wait for a disk or a database.

    Of all that are called on a lane, `width` are at work at once, each in a thread of its own.
    """

    def __init__(self, width: int) -> None:
        self._limiter = CapacityLimiter(width)

    def __call__(self, work: Callable[P, T]) -> Callable[P, Coroutine[object, object, T]]:
        """The coroutine function; what it raises is what the function raises."""

        @wraps(work)
        async def waits(*args: P.args, **kwargs: P.kwargs) -> T:
            return await to_thread.run_sync(partial(work, *args, **kwargs), limiter=self._limiter)

        return waits
