"""What the memory of a policy gradient on images is made of, stage by stage, on a CPU.

    OMP_NUM_THREADS=1 python benchmarks/peak_memory.py

The work is that of imgalign beside TRL's DDPOTrainer (peers/our_ddpo.py): 32 images of ten steps in
batches of 8, guidance 5, a LoRA of rank 8, float32, the KL of one pass of nine. Each turn is a
process of its own. Of each stage: what the process holds at its end, and the most that it held
during it; of the model, the bytes of its weights. Writes results/peak_memory.json and prints it.
Linux.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "peak_memory.json"
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
PEAK_ANEW = "5"
"""What resets VmHWM to what is held now (proc(5), clear_refs)."""
BATCH, BATCHES, STEPS = 8, 4, 10
MB = 1e6

Stages = dict[str, tuple[float, float]]
"""By name: megabytes held at the end, and at most."""


def megabytes(name: str) -> float:
    """What a line of the kernel's status of this process says."""
    (line,) = (each for each in STATUS.read_text("ascii").splitlines() if each.startswith(name))
    return int(line.split()[1]) * 1024 / MB


@contextmanager
def stage(stages: Stages, name: str) -> Iterator[None]:
    """Measure what happens inside."""
    CLEAR.write_text(PEAK_ANEW, encoding="ascii")
    yield
    stages[name] = megabytes("VmRSS:"), megabytes("VmHWM:")


def measured() -> dict[str, Any]:
    """One turn: the stages of two iterations, and the bytes of what is counted."""
    stages: Stages = {}
    with stage(stages, "libraries"):
        import torch

        sys.path.insert(0, str(Path(__file__).parent / "peers"))
        from our_ddpo import CPU, PROMPTS, Brightness

        from imgalign.algorithms.kl import FixedKLConfig
        from imgalign.algorithms.policy_gradient import GRPOConfig
        from imgalign.diffusion.config import LoraDiffusionConfig
        from imgalign.diffusion.loading import load_pipeline
        from imgalign.diffusion.policy import DiffusionPolicy
        from imgalign.runs.world import Alone
        from imgalign.train.assemble import build_learner
        from imgalign.train.config import OptimizerConfig
        from imgalign.train.data.rollouts import collect
    with stage(stages, "model"):
        pipeline = load_pipeline("storybook", device=CPU, dtype=torch.float32)
        parts = {
            name: sum(each.numel() * each.element_size() for each in part.parameters()) / MB
            for name, part in pipeline.components.items()
            if isinstance(part, torch.nn.Module)
        }
    with stage(stages, "adapter and optimizer"):
        policy = DiffusionPolicy(
            pipeline,
            LoraDiffusionConfig(
                num_inference_steps=STEPS, guidance_scale=5.0, batch_size=BATCH, lora_rank=8
            ),
        )
        learner = build_learner(
            policy,
            algorithm=GRPOConfig(
                kl=FixedKLConfig(coefficient=0.02), minibatches=BATCHES, reference_passes=1
            ),
            optimizer=OptimizerConfig(),
            seed=0,
            world=Alone(),
        )
    trained = [each for each in policy.family.network.parameters() if each.requires_grad]
    parts["adapter"] = sum(each.numel() * each.element_size() for each in trained) / MB
    prompts = [PROMPTS[number * len(PROMPTS) // (BATCH * BATCHES)] for number in range(32)]
    for iteration in range(2):
        seeds = range(iteration * len(prompts), (iteration + 1) * len(prompts))
        with stage(stages, f"sampling {iteration}"):
            rollout = collect(policy, Brightness(), prompts, seeds=seeds, world=Alone())
        with stage(stages, f"learning {iteration}"):
            learner.update(rollout, iteration=iteration)
    return {"stages": stages, "weights": parts}


def main() -> None:
    """Measure in turns, write, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--once", action="store_true", help="One turn, as JSON, in this process.")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    if given.once:
        print(json.dumps(measured()))
        return
    own = [sys.executable, __file__, "--once"]
    turns = [
        json.loads(subprocess.run(own, check=True, capture_output=True, text=True).stdout)
        for _ in range(given.turns)
    ]
    from imgalign.evaluate.origin import command_line, hardware, library_versions

    found = {
        "command": f"python benchmarks/{command_line()}",
        "hardware": hardware(),
        "versions": library_versions(),
        "megabytes": {
            name: {
                what: spread([turn["stages"][name][place] for turn in turns])
                for place, what in enumerate(("held at the end", "at most"))
            }
            for name in turns[0]["stages"]
        },
        "megabytes of weights": {k: round(v, 1) for k, v in turns[0]["weights"].items()},
    }
    given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for name, each in found["megabytes"].items():
        print(name, each)
    print(found["megabytes of weights"])


def spread(values: list[float]) -> list[float]:
    """Median, smallest and largest."""
    return [round(take(values), 1) for take in (statistics.median, min, max)]


if __name__ == "__main__":
    main()
