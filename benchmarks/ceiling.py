"""How near the UNet's passes come to what this processor can do: what limits training on a CPU.

    OMP_NUM_THREADS=1 python benchmarks/ceiling.py

For several batch sizes: GFLOP of a row, milliseconds of CPU time a row, and the share of the speed
of a product of large matrices in the same run and type, forward without gradients and forward and
backward through a LoRA. Then the operators of a pass by their share of the time. Each is a median
of turns, with the range. Writes results/ceiling.json, or the file that `--results` names.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from imgalign.diffusion.config import LoraDiffusionConfig
from imgalign.diffusion.loading import load_pipeline
from imgalign.diffusion.policy import DiffusionPolicy
from imgalign.evaluate.origin import command_line, hardware, library_versions

RESULTS = Path(__file__).parent / "results" / "ceiling.json"
ROWS = (8, 16, 32, 64)
SIDE = 1024
"""Of the matrices."""
CPU = torch.device("cpu")


def gflop(work: Callable[[], object]) -> float:
    """Of multiplications and additions in products and convolutions."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / 1e9


def seconds(work: Callable[[], object], turns: int) -> list[float]:
    """CPU seconds of each turn but the first."""
    taken = []
    for _ in range(turns + 1):
        began = time.process_time()
        work()
        taken.append(time.process_time() - began)
    return taken[1:]


def best_possible(turns: int) -> float:
    """GFLOP a second of a product of matrices, the median of the turns."""
    left, right = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE)
    return 2 * SIDE**3 / 1e9 / statistics.median(seconds(lambda: left @ right, 4 * turns))


def passes(policy: DiffusionPolicy, rows: int) -> dict[str, Callable[[], object]]:
    """A forward pass, and one with its backward pass."""
    latents = torch.randn(rows, *policy.latent_shape)
    timesteps = torch.randint(0, 1000, (rows,))
    embeddings = policy.family.encode(["a red cat"] * rows)

    def forward() -> None:
        with torch.no_grad():
            policy.family.predict(latents, timesteps, embeddings)

    def backward() -> None:
        policy.family.predict(latents, timesteps, embeddings).square().mean().backward()

    return {"forward": forward, "forward and backward": backward}


def operators(work: Callable[[], object], most: int = 8) -> dict[str, float]:
    """The largest by their own share of the time."""
    work()
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        work()
    events = profiled.key_averages()
    total = sum(each.self_cpu_time_total for each in events)
    largest = sorted(events, key=lambda each: -each.self_cpu_time_total)[:most]
    return {each.key: round(each.self_cpu_time_total / total, 3) for each in largest}


def main() -> None:
    """Measure, write, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS, help="Of a pass.")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    pipeline = load_pipeline("storybook", device=CPU, dtype=torch.float32)
    policy = DiffusionPolicy(pipeline, LoraDiffusionConfig(lora_rank=8))
    found: list[dict[str, Any]] = []
    for rows in given.rows:
        ceiling = best_possible(given.turns)
        for name, work in passes(policy, rows).items():
            each = gflop(work) / rows
            taken = [value / rows for value in seconds(work, given.turns)]
            share = [each / value / ceiling for value in taken]
            found.append(
                {
                    "pass": name,
                    "rows": rows,
                    "gflop_a_row": round(each, 3),
                    "milliseconds_a_row": [round(1000 * f(taken), 2) for f in AT],
                    "ceiling_gflops": round(ceiling, 1),
                    "share_of_the_ceiling": [round(f(share), 2) for f in AT],
                }
            )
            print(json.dumps(found[-1]), flush=True)
    facts = {
        "command": f"python benchmarks/{command_line()}",
        "hardware": hardware(),
        "versions": library_versions(),
        "threads": torch.get_num_threads(),
        "passes": found,
        "operators": {name: operators(work) for name, work in passes(policy, 16).items()},
    }
    given.results.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


AT = (statistics.median, min, max)

if __name__ == "__main__":
    main()
