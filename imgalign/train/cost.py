"""What an iteration costs: time, passes of the network, and images that a reward draws."""

import time
from typing import Protocol, runtime_checkable

from imgalign.policy import Policy
from imgalign.runs.passes import CountsPasses, Passes
from imgalign.runs.world import World


@runtime_checkable
class DrawsImages(Protocol):
    """A reward that draws what it scores, which is most of what a run costs then."""

    num_drawn: int
    """Images drawn since it was built."""


class Cost:
    """Of what a policy and its reward do from now on; a process has one for each iteration."""

    def __init__(self, policy: Policy, reward: object = None) -> None:
        self._policy = policy
        self._reward = reward
        self._passes = self._so_far()
        self._drawn = self._drawn_so_far()
        self._seconds = time.perf_counter()
        self._cpu_seconds = time.process_time()

    def _so_far(self) -> Passes | None:
        return self._policy.passes if isinstance(self._policy, CountsPasses) else None

    def _drawn_so_far(self) -> int | None:
        return self._reward.num_drawn if isinstance(self._reward, DrawsImages) else None

    def of_learning(self, world: World) -> dict[str, float]:
        """Passes and drawn images of all processes until now; only what is counted."""
        values = {}
        before, now = self._passes, self._so_far()
        if before is not None and now is not None:
            spent = now - before
            values["forward_passes"] = world.total(float(spent.forward))
            values["backward_passes"] = world.total(float(spent.backward))
        drawn_before, drawn = self._drawn, self._drawn_so_far()
        if drawn_before is not None and drawn is not None:
            values["images_drawn"] = world.total(float(drawn - drawn_before))
        return values

    def in_time(self, samples: int, world: World) -> dict[str, float]:
        """Seconds until now, and samples of all processes for each of them."""
        seconds = time.perf_counter() - self._seconds
        return {
            "seconds": seconds,
            "cpu_seconds": time.process_time() - self._cpu_seconds,
            "images_per_second": world.total(float(samples)) / seconds,
        }
