"""Samples that were given as examples, each with its prompt."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from imgalign.algorithms.batches import Demonstrations
from imgalign.algorithms.interface import World
from imgalign.policy import Data, LikelihoodPolicy, join_data
from imgalign.prompts import epoch_positions
from imgalign.train.watcher import SILENT, Watcher, cut

USUAL_SAMPLES = 64


class Example(NamedTuple):
    """One sample. Example: ("a fox", a function that reads fox.png)."""

    prompt: str
    load: Callable[[], Any]
    """Gives it as a batch of one: pixels in [0, 1], or a text."""


class GivenSamples:
    """Given samples, `count` of them in each iteration; each is encoded when first needed."""

    def __init__(
        self,
        examples: Sequence[Example],
        *,
        count: int,
        policy: LikelihoodPolicy,
        seed: int,
        world: World,
    ) -> None:
        self.examples = examples
        self.count = count
        self.policy = policy
        self.seed = seed
        self.world = world
        self._encoded: dict[int, Data] = {}

    def batch(self, iteration: int, *, watcher: Watcher = SILENT) -> Demonstrations:
        """The next samples, in an order that is new each time all have come once."""
        start = time.perf_counter()
        places = epoch_positions(len(self.examples), iteration, count=self.count, seed=self.seed)
        chosen = [places[place] for place in self.world.deal(self.count)]
        size = self.policy.batch_size
        parts = [
            join_data([self._data(place) for place in chosen[part]])
            for part in cut(len(chosen), size, world=self.world, watcher=watcher)
        ]
        return Demonstrations(batch=parts, seconds_loading=time.perf_counter() - start)

    def held_out(self, *, watcher: Watcher = SILENT) -> None:
        """Nothing: held-out prompts are measured on new samples."""

    def _data(self, place: int) -> Data:
        if place not in self._encoded:
            prompt, load = self.examples[place]
            self._encoded[place] = self.policy.encode([prompt], load())
        return self._encoded[place]
