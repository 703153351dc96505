"""What was tried to make learning faster on a processor, each beside what is done.

    OMP_NUM_THREADS=1 python benchmarks/tried.py

On a LoRA of the storybook's UNet in passes of 16 rows: a forward and backward pass as it is, with
channels last, and compiled by torch.compile (with the seconds that compiling takes); and a step of
AdamW as it is, over all tensors at once (foreach) and fused. CPU milliseconds, the median of turns
with the range, all ways by turns within one process. Writes results/tried.json.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Else only the first run would tell what compiling takes.
os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"

import torch
from ceiling import CPU, passes, seconds

from imgalign.diffusion.config import LoraDiffusionConfig
from imgalign.diffusion.loading import load_pipeline
from imgalign.diffusion.policy import DiffusionPolicy
from imgalign.evaluate.origin import command_line, hardware, library_versions

RESULTS = Path(__file__).parent / "results" / "tried.json"
ROWS = 16
WAYS: dict[str, dict[str, Any]] = {"as it is": {}, "foreach": {"foreach": True}}
WAYS["fused"] = {"fused": True}


def learner() -> DiffusionPolicy:
    """A LoRA on the attention of the storybook's UNet."""
    config = LoraDiffusionConfig(model="storybook")
    return DiffusionPolicy(load_pipeline(config.model, device=CPU), config)


def compiled() -> tuple[Callable[[], object], float]:
    """A pass whose network is compiled, and the seconds until the first one has ended."""
    policy = learner()
    policy.family.network.compile()
    work = passes(policy, ROWS)["forward and backward"]
    began = time.perf_counter()
    work()
    return work, time.perf_counter() - began


def channels_last() -> Callable[[], object]:
    """A pass with the other layout of memory."""
    config = LoraDiffusionConfig(model="storybook", channels_last=True)
    policy = DiffusionPolicy(load_pipeline(config.model, device=CPU), config)
    return passes(policy, ROWS)["forward and backward"]


def steps(policy: DiffusionPolicy) -> dict[str, Callable[[], object]]:
    """A step of AdamW on the gradients that are there."""
    parameters = list(policy.trainable_parameters())
    return {
        f"AdamW, {name}": torch.optim.AdamW(parameters, lr=1e-9, **how).step
        for name, how in WAYS.items()
    }


def in_turns(ways: dict[str, Callable[[], object]], turns: int) -> dict[str, dict[str, float]]:
    """CPU milliseconds of each way."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(turns):
        for name, work in ways.items():
            taken[name] += seconds(work, 1)
    return {
        name: {
            "median_ms": round(1000 * statistics.median(each), 2),
            "lowest_ms": round(1000 * min(each), 2),
            "highest_ms": round(1000 * max(each), 2),
        }
        for name, each in taken.items()
    }


def main() -> None:
    """Measure all, and write it."""
    options = argparse.ArgumentParser()
    options.add_argument("--turns", type=int, default=9)
    options.add_argument("--beside", default="", help="what else the machine was doing")
    options.add_argument("--results", type=Path, default=RESULTS)
    given = options.parse_args()
    policy = learner()
    plain = passes(policy, ROWS)["forward and backward"]
    plain()
    fast, until = compiled()
    ways = {"a pass, as it is": plain, "a pass, channels last": channels_last()}
    ways["a pass, compiled"] = fast
    found = {
        "command": f"python benchmarks/{command_line()}",
        "hardware": hardware(),
        "versions": library_versions(),
        "beside": given.beside or "nothing that is known",
        "rows": ROWS,
        "seconds_of_compiling": round(until, 1),
        **in_turns({**ways, **steps(policy)}, given.turns),
    }
    given.results.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
