"""Who is asked: simulated annotators at once, or people in the app, for whom the loop waits.

An asker returns when a queue of items has been answered as far as its settings want. To add one,
write its settings in config.py and its class here, and name both in `asker_of`.
"""

import time
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from imgalign.loop.config import AskConfig, PeopleConfig, SimulatedConfig
from imgalign.preferences.coverage import coverage
from imgalign.preferences.queue import ranking_command
from imgalign.preferences.store import Store
from imgalign.runs.progress import progress
from imgalign.storybook.simulate import annotators_of, rank_queue

LOOK_EVERY = 2.0
"""Seconds between two looks for new answers."""
SAY_EVERY = 10.0
"""Seconds between two lines that say how many there are, at least."""

Say = Callable[[str], object]


@runtime_checkable
class Asker(Protocol):
    """Gets items judged."""

    @property
    def overlap(self) -> int:
        """How many judge each item."""
        ...

    def ask(self, store: Store, *, project: str, source: str) -> None:
        """Return when the items of a source in a project are judged. Can be repeated."""
        ...


class Simulated:
    """Simulated annotators of one group of the storybook."""

    def __init__(self, config: SimulatedConfig, *, seed: int) -> None:
        self.annotators = annotators_of(config.group, config.annotators, seed=seed)
        self.seed = seed

    @property
    def overlap(self) -> int:
        """All of them judge each item."""
        return len(self.annotators)

    def ask(self, store: Store, *, project: str, source: str) -> None:
        """Rank what is left in the project."""
        with progress("ranking") as on_progress:
            rank_queue(
                store, self.annotators, project=project, seed=self.seed, on_progress=on_progress
            )


class People:
    """People who rank in the app, whenever they like."""

    def __init__(
        self,
        config: PeopleConfig,
        *,
        database: str,
        say: Say,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self.database = database
        self.say = say
        self.sleep = sleep
        self.clock = clock

    @property
    def overlap(self) -> int:
        """As the settings say."""
        return self.config.annotators

    def ask(self, store: Store, *, project: str, source: str) -> None:
        """Say where to rank, and wait for enough answers."""
        told, said = -1, 0.0
        while True:
            found = coverage(store, project=project, source=source, simulated=False)
            enough = found.given >= self.config.wait_for * found.wanted
            if told < 0 and not enough:
                where = ranking_command(project, self.database)
                self.say(f"rank them with `{where}`; Ctrl-C stops waiting, nothing is lost")
            now = self.clock()
            if found.given != told and (enough or told < 0 or now - said >= SAY_EVERY):
                self.say(f"{found.given} of {found.wanted} answers")
                told, said = found.given, now
            if enough:
                return
            self.sleep(LOOK_EVERY)


def asker_of(config: AskConfig, *, database: str, seed: int, say: Say) -> Asker:
    """The asker of these settings."""
    match config:
        case SimulatedConfig():
            return Simulated(config, seed=seed)
        case PeopleConfig():
            return People(config, database=database, say=say)
