"""What both sides of a comparison measure with: CPU seconds, rows through a network, memory.

Both sides import it, each in its own environment, so it needs torch alone. CPU seconds are of all
threads of the process; beside other work they say more than the time on the wall.
"""

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

LIBRARIES = ("torch", "trl", "diffusers", "transformers", "peft", "accelerate")


def synchronize() -> None:
    """Wait for the GPU, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class Meter:
    """CPU seconds, seconds and rows of phases by their names, each time that they come."""

    def __init__(self) -> None:
        self.cpu: dict[str, list[Any]] = defaultdict(list)
        self.wall: dict[str, list[Any]] = defaultdict(list)
        self.rows: dict[str, list[Any]] = defaultdict(list)
        self.memory: dict[str, list[float]] = defaultdict(list)
        self._count = 0
        self.begin()

    def watch(self, network: Any) -> None:
        """Count the rows that go through a network from now on."""
        network.register_forward_pre_hook(self._add, with_kwargs=True)

    def _add(self, module: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        first = arguments[0] if arguments else named.get("input_ids", named.get("inputs_embeds"))
        self._count += len(first)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure what happens inside."""
        synchronize()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        count, cpu, wall = self._count, time.process_time(), time.perf_counter()
        yield
        synchronize()
        self.cpu[name].append(time.process_time() - cpu)
        self.wall[name].append(time.perf_counter() - wall)
        self.rows[name].append(self._count - count)
        if torch.cuda.is_available():
            self.memory[name].append(torch.cuda.max_memory_allocated() / 1e9)

    def begin(self) -> None:
        """Begin the first lap."""
        self._begin = time.process_time(), time.perf_counter(), self._count

    def lap(self, name: str) -> None:
        """End a phase that began with `begin` or with the last lap."""
        now = time.process_time(), time.perf_counter(), self._count
        cpu, wall, count = (end - begin for end, begin in zip(now, self._begin, strict=True))
        self.cpu[name].append(cpu)
        self.wall[name].append(wall)
        self.rows[name].append(int(count))
        self._begin = now

    def rest(self, name: str, *, of: str, without: Sequence[str]) -> None:
        """A phase of its own from what some phases leave of another one, time by time."""
        for found in (self.cpu, self.wall, self.rows):
            parts = zip(*(found[each] for each in (of, *without)), strict=True)
            found[name] = [whole - sum(others) for whole, *others in parts]

    def watched(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, each call of which is a phase."""

        def measured(*arguments: Any, **named: Any) -> Any:
            with self.phase(name):
                return function(*arguments, **named)

        return measured

    def found(self, *, warm: int = 1) -> dict[str, Any]:
        """All that was measured but the first `warm` times of each phase, and the peak memory."""
        return {
            "cpu_seconds": {name: values[warm:] for name, values in self.cpu.items()},
            "seconds": {name: values[warm:] for name, values in self.wall.items()},
            "rows": {name: values[-1] for name, values in self.rows.items()},
            "peak_memory_gb": peak_memory_gb(),
        }


def peak_memory_gb() -> float:
    """Most memory that this process ever held.

    Not ru_maxrss, which begins with what the process had that started this one.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = (each for each in status.splitlines() if each.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024 / 1e9


def versions() -> dict[str, str]:
    """Of the libraries that are installed here."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def write(file: Path, **facts: Any) -> None:
    """As JSON, with the versions, the threads and the instructions that were used."""
    own = {
        "versions": versions(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }
    file.write_text(json.dumps(own | facts), encoding="utf-8")
