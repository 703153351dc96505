"""Samples that were given as examples, each with its prompt."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from imgalign.algorithms.batches import Demonstrations
from imgalign.algorithms.interface import World
from imgalign.errors import InputError
from imgalign.policy import Data, LikelihoodPolicy, join_data
from imgalign.prompts import epoch_positions
from imgalign.train.watcher import SILENT, Watcher, cut

log = logging.getLogger(__name__)

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
        if policy.encoding is None:  # it costs nothing, so what cannot be used is known at once
            self._leave_out_unusable()

    def _leave_out_unusable(self) -> None:
        """Encode every sample, and keep those that can be; InputError where too few are left."""
        kept: list[Example] = []
        reasons: list[str] = []
        for example in self.examples:
            try:
                data = self.policy.encode([example.prompt], example.load())
            except InputError as error:
                reasons.append(f"{error}")
            else:
                self._encoded[len(kept)] = data
                kept.append(example)
        if reasons:
            log.warning("examples that are left out: %d (%s)", len(reasons), reasons[0])
        if len(kept) < self.count:
            raise InputError(
                f"data: expected at least {self.count} examples that can be used, got {len(kept)}"
                f"{f' ({reasons[0]})' if reasons else ''}"
            )
        self.examples = kept

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
