"""What an iteration costs: time, and passes of the network."""

import time

from imgalign.algorithms.interface import World
from imgalign.policy import Policy
from imgalign.runs.passes import CountsPasses, Passes


class Cost:
    """Of what a policy does from now on; one process of a run has one for each iteration."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._passes = self._so_far()
        self._seconds = time.perf_counter()
        self._cpu_seconds = time.process_time()

    def _so_far(self) -> Passes | None:
        return self._policy.passes if isinstance(self._policy, CountsPasses) else None

    def of_learning(self, world: World) -> dict[str, float]:
        """Passes of all processes until now; nothing where the policy does not count them."""
        before, now = self._passes, self._so_far()
        if before is None or now is None:
            return {}
        spent = now - before
        return {
            "forward_passes": world.total(float(spent.forward)),
            "backward_passes": world.total(float(spent.backward)),
        }

    def in_time(self, samples: int, world: World) -> dict[str, float]:
        """Seconds until now, and samples of all processes for each of them."""
        seconds = time.perf_counter() - self._seconds
        return {
            "seconds": seconds,
            "cpu_seconds": time.process_time() - self._cpu_seconds,
            "images_per_second": world.total(float(samples)) / seconds,
        }
