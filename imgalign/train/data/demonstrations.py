"""Samples that were given as examples, each with its prompt."""

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from imgalign.algorithms.batches import Demonstrations
from imgalign.errors import InputError
from imgalign.policy import Data, LikelihoodPolicy, join_data
from imgalign.prompts import epoch_positions
from imgalign.runs.world import World, writes_files
from imgalign.train.data.judged import LEFT_OUT, add_left_out
from imgalign.train.watcher import SILENT, Watcher, cut

log = logging.getLogger(__name__)

USUAL_SAMPLES = 64
SHOWN = 40
"""Characters of a prompt in a message."""


class Example(NamedTuple):
    """One sample. Example: ("a fox", a function that reads fox.png)."""

    prompt: str
    load: Callable[[], Any]
    """Gives it as a batch of one: pixels in [0, 1], or a text."""


class GivenSamples:
    """Given samples, `count` of them in each iteration; each is encoded when first needed.

    `count` is what is `asked` for, else as many as are `usual`, or all of them where there are
    fewer. What cannot be used is named in the folder of the `run`.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        *,
        asked: int | None,
        usual: int,
        policy: LikelihoodPolicy,
        run: Path,
        seed: int,
        world: World,
    ) -> None:
        self.examples = examples
        self.policy = policy
        self.seed = seed
        self.world = world
        self._encoded: dict[int, Data] = {}
        if policy.encoding is None:  # it costs nothing, so what cannot be used is known at once
            self._leave_out_unusable(run, at_least=asked or 1)
        self.count = asked or min(usual, len(self.examples))

    def _leave_out_unusable(self, run: Path, *, at_least: int) -> None:
        """Encode every sample, and keep those that can be; InputError where too few are left."""
        kept: list[Example] = []
        reasons: dict[str, str] = {}
        for number, example in enumerate(self.examples, start=1):
            try:
                data = self.policy.encode([example.prompt], example.load())
            except InputError as error:
                reasons[f"example {number}, of prompt {example.prompt[:SHOWN]!r}"] = f"{error}"
            else:
                self._encoded[len(kept)] = data
                kept.append(example)
        first = next(iter(reasons.values()), "")
        if reasons:
            many, where = f"{len(reasons)} of {len(self.examples)}", run / LEFT_OUT
            log.warning("examples that are left out: %s (%s), see %s", many, first, where)
            if writes_files(self.world):
                add_left_out(run, reasons)
        if len(kept) < at_least:
            raise InputError(
                f"data: expected at least {at_least} examples that can be used, got {len(kept)}"
                f"{f' ({first})' if first else ''}"
            )
        self.examples = kept

    def passes(self, iterations: int) -> float:
        """How often each sample is learned from in so many iterations, on average."""
        return iterations * self.count / len(self.examples)

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
        if not parts:  # fewer examples than processes: none, of the same kind and shape
            parts = [self._data(places[0]).select([])]
        return Demonstrations(batch=parts, seconds_loading=time.perf_counter() - start)

    def held_out(self, *, watcher: Watcher = SILENT) -> None:
        """Nothing: held-out prompts are measured on new samples."""

    def _data(self, place: int) -> Data:
        if place not in self._encoded:
            prompt, load = self.examples[place]
            self._encoded[place] = self.policy.encode([prompt], load())
        return self._encoded[place]
