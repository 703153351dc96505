"""Speed and memory of training and sampling at the size of Stable Diffusion 1.5, at 512 pixels.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --peer "env PYTHONPATH=<its packages> python"   # beside TRL's trainer
    python benchmarks/gpu.py --tiny --device cpu --results runs/gpu          # to see that it runs

Parts, by `--only`: card (what bfloat16 matrix products reach), sampling, training (GRPO), trl (the
same training by the peer, alternating), preferences (DPO), options (of sampling, one at a time),
budgets (training on cards with less memory), compiled. Policies, algorithms and optimizer steps are
those of a training run; weights are random. Every case has its own time, and one that fails is
written down with the reason; gpu.json is written after each. Left out: models of other families,
which are not supported.
"""

import argparse
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from algorithms import record
from gpu_bench import (
    BATCH,
    STEPS,
    Bench,
    Facts,
    card,
    decoding,
    preferences,
    sampling,
    training,
    trl,
    where_time_goes,
    within,
)
from sampling_ways import (
    attention,
    captured,
    channels_last,
    compiled,
    without_adapter,
    without_tf32,
)
from torch.nn.attention import SDPBackend

from imgalign.diffusion.loading import quiet
from imgalign.environment import choose_device
from imgalign.errors import ImgalignError, first_line
from imgalign.evaluate.origin import command_line

BUDGETS_GIB = (12, 24)
"""The card itself is the largest."""
FAILURES = (RuntimeError, OSError, ImgalignError)
"""Out of memory, no such kernel, no compiler, no time: results. A mistake of ours ends it all."""
SECONDS = 3.0
"""Of repetitions of one case, after the first."""
LIMIT, COMPILE_LIMIT = 60.0, 150.0
"""Seconds after which a case is given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One row of the table."""

    part: str
    name: str
    measure: Callable[[Bench], Facts]
    limit: float = LIMIT


def sampled(part: str, name: str, *, limit: float = LIMIT, **settings: Any) -> Case:
    """A case of sampling."""
    settings = {"batch": 4} | settings
    return Case(part=part, name=name, measure=partial(sampling, **settings), limit=limit)


def sampling_cases() -> Iterator[Case]:
    """Eager sampling, the autoencoder, and where the time goes."""
    for batch in (4, 16):
        for guidance in (1.0, 5.0):
            name = f"batch {batch}, guidance {guidance:g}"
            yield sampled("sampling", name, batch=batch, guidance=guidance)
        name = f"batch {batch}, without adapter"
        yield sampled("sampling", name, batch=batch, way=without_adapter)
    for dtype in (torch.float32, torch.bfloat16):
        measure = partial(decoding, batch=BATCH, dtype=dtype)
        yield Case(part="sampling", name=f"autoencoder, batch {BATCH}, {dtype}", measure=measure)
    for batch in (4, 16):
        measure = partial(where_time_goes, batch=batch)
        yield Case(part="sampling", name=f"kernels, batch {batch}", measure=measure)


def training_cases(turn: str = "") -> Iterator[Case]:
    """GRPO at the settings of the peer, which has no reference."""
    for guidance in (1.0, 5.0):
        for reference in (True, False):
            yield Case(
                part="trl" if turn else "training",
                name=f"guidance {guidance:g}, {'with' if reference else 'without'} KL{turn}",
                measure=partial(training, guidance=guidance, reference=reference),
            )


def more_training_cases() -> Iterator[Case]:
    """What else GRPO may be asked for."""
    for name, settings in {
        "checkpointing": {"checkpointing": True},
        "2 steps a pass": {"steps_per_pass": 2},
        "batch 16": {"batch": 16},
    }.items():
        yield Case(part="training", name=name, measure=partial(training, **settings))


def peer_cases() -> Iterator[Case]:
    """Twice, in turns."""
    for turn in (1, 2):
        yield Case(part="trl", name=f"TRL, turn {turn}", measure=trl, limit=2 * LIMIT)
        yield from training_cases(f", turn {turn}")


def preference_cases() -> Iterator[Case]:
    """DPO by pairs at a time."""
    for pairs in (1, 4, 16):
        for checkpointing in (False, True):
            yield Case(
                part="preferences",
                name=f"{pairs} pairs at a time{', checkpointing' * checkpointing}",
                measure=partial(preferences, pairs=pairs, checkpointing=checkpointing),
            )


def option_cases() -> Iterator[Case]:
    """Sampling at batch 4 and without guidance but for one option."""
    half = torch.float16
    for batch in (4, 16):
        yield sampled("options", f"CUDA graph, batch {batch}", batch=batch, way=captured)
        yield sampled("options", f"channels_last, batch {batch}", batch=batch, way=channels_last)
    yield sampled("options", "float16", dtype=half)
    yield sampled("options", "float32, TF32 off", dtype=torch.float32, way=without_tf32)
    flash = SDPBackend.FLASH_ATTENTION
    for name, backends in {
        "flash": [flash],
        "cudnn, else flash": [SDPBackend.CUDNN_ATTENTION, flash],
        "memory-efficient": [SDPBackend.EFFICIENT_ATTENTION],
        "math": [SDPBackend.MATH],
    }.items():
        yield sampled("options", f"attention: {name}", way=attention(*backends))


def budget_cases() -> Iterator[Case]:
    """What trains on smaller cards, once each."""
    for gib in BUDGETS_GIB:
        for checkpointing in (False, True):
            own = {"checkpointing": checkpointing, "most": 0}
            end = f"{', checkpointing' * checkpointing}, {gib} GiB"
            for batch in (1, 4, BATCH):
                measure = within(gib, partial(training, batch=batch, **own))
                yield Case(part="budgets", name=f"GRPO, batch {batch}{end}", measure=measure)
            for pairs in (1, 4, 16):
                measure = within(gib, partial(preferences, pairs=pairs, total=pairs, **own))
                yield Case(part="budgets", name=f"DPO, {pairs} pairs{end}", measure=measure)


def compiled_cases() -> Iterator[Case]:
    """Slow to begin with, so last."""
    limit = COMPILE_LIMIT
    for name, way in {
        "repeated blocks": compiled(None, blocks=True),
        "default": compiled(None),
        "reduce-overhead": compiled("reduce-overhead"),
    }.items():
        yield sampled("compiled", f"torch.compile, {name}", batch=16, way=way, limit=limit)


PARTS: Mapping[str, Callable[[], Iterator[Case]]] = {
    "card": lambda: iter([Case(part="card", name="bfloat16 matrix product", measure=card)]),
    "sampling": sampling_cases,
    "training": lambda: chain(training_cases(), more_training_cases()),
    "trl": peer_cases,
    "preferences": preference_cases,
    "options": option_cases,
    "budgets": budget_cases,
    "compiled": compiled_cases,
}


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """TimeoutError inside, once so many seconds have passed and Python has its turn."""

    def late(*_: Any) -> None:
        raise TimeoutError(f"not done after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def result(bench: Bench, case: Case, *, left: float) -> Facts:
    """What a case comes to, or why it comes to nothing."""
    row: Facts = {"part": case.part, "case": case.name}
    if left < 1:
        return row | {"failed": "no time left"}
    bench.clear()
    start = time.perf_counter()
    try:
        with time_limit(min(case.limit, left)):
            row |= case.measure(bench)
    except FAILURES as error:
        row["failed"] = f"{type(error).__name__}: {first_line(error)}"[:300]
    return row | {"seconds_of_case": time.perf_counter() - start}


def shown(row: Facts) -> str:
    """One line."""
    numbers = [
        f"{name} {value:.3g}"
        for name, value in row.items()
        if isinstance(value, int | float) and name != "seconds_of_case"
    ]
    for each in row.get("rows", []):
        numbers += [f"guidance {each['guidance']:g}: {each['images_per_second']:.3g} images/s"]
    what = ", ".join([*numbers, row["failed"]] if "failed" in row else numbers)
    return f"{row['part']}: {row['case']}: {what} [{row.get('seconds_of_case', 0):.1f} s]"


def main() -> None:
    """Measure case by case, writing after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(PARTS), help="Parts, with commas between.")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--peer", help="The Python that has TRL: a command, such as 'env A=b c'.")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="Of each case.")
    parser.add_argument("--limit", type=float, default=540.0, help="Seconds of everything.")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    with quiet():
        measure_all(parser.parse_args())


def measure_all(given: argparse.Namespace) -> None:
    """All parts that are asked for, while there is time."""
    begin = time.perf_counter()
    bench = Bench(
        choose_device(given.device), tiny=given.tiny, peer=given.peer, seconds=given.seconds
    )
    facts = {
        "pixels": bench.policy().family.image_size(),
        "steps": STEPS,
        "tflop_of_a_network_call_of_one_row": bench.forward_flop / 1e12,
        "learned_steps": bench.learned_steps,
        "tf32": {
            "products": torch.backends.cuda.matmul.allow_tf32,
            "convolutions": torch.backends.cudnn.allow_tf32,
        },
    }
    wanted = given.only.split(",")
    order = [part for part in PARTS if part in wanted and (part != "trl" or given.peer)]
    rows = []
    for case in chain.from_iterable(PARTS[part]() for part in order):
        left = given.limit - (time.perf_counter() - begin)
        rows.append(result(bench, case, left=left))
        print(shown(rows[-1]), flush=True)
        command = f"python benchmarks/{command_line()}"
        record(given.results / "gpu.json", command, **facts, rows=rows)


if __name__ == "__main__":
    main()
