"""What long work tells, and how it is asked to stop."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from imgalign.runs.world import World


class Interrupted(Exception):  # noqa: N818  not an error: someone asked to stop
    """A stop was requested while a batch was sampled; nothing has been learned from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watcher:
    """Callbacks of long work: progress, and whether a stop was requested."""

    stop_requested: Callable[[], bool] = lambda: False
    on_progress: Callable[[int, int], None] = lambda done, total: None
    """Called with how many samples are done, of how many."""


SILENT = Watcher()


def cut(count: int, size: int, *, world: World, watcher: Watcher) -> Iterator[slice]:
    """The `count` samples of this process in parts of at most `size`.

    Before each part all processes agree whether any of them was asked to stop, and then all raise
    `Interrupted`. A process with fewer parts than another stays for its rounds.
    """
    parts = range(0, count, size)
    for number in range(int(world.largest(len(parts)))):
        if world.agree(watcher.stop_requested()):
            raise Interrupted
        if number < len(parts):
            watcher.on_progress(parts[number], count)
            yield slice(parts[number], parts[number] + size)
    watcher.on_progress(count, count)
