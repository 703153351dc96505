"""Time of a forward pass of the shipped UNet on this CPU, by dtype, with the threads that are set.

    python benchmarks/cpu_forward.py
    GOMP_SPINCOUNT=300000 python benchmarks/cpu_forward.py --busy 2
    ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 python benchmarks/cpu_forward.py

Prints milliseconds per image of one forward pass, median of the passes and their range, and how
many times as long a convolution takes in bfloat16. `--busy N` runs N computing processes beside it,
which shows the cost of spinning threads.
"""

import argparse
import multiprocessing
import os
import statistics
import time

from imgalign.environment import calm_threads

calm_threads()  # before torch is loaded

import torch  # noqa: E402

from imgalign.diffusion.config import LoraDiffusionConfig  # noqa: E402
from imgalign.diffusion.loading import load_pipeline  # noqa: E402
from imgalign.diffusion.policy import DiffusionPolicy  # noqa: E402
from imgalign.environment import (  # noqa: E402
    device_name,
    emulation_factor,
    has_native_bfloat16,
)

CPU = torch.device("cpu")


def work(seconds: float) -> None:
    """Keep a core busy."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def milliseconds(policy: DiffusionPolicy, *, batch: int, passes: int) -> list[float]:
    """Per image, of each pass but the first."""
    latents = torch.randn(batch, *policy.latent_shape)
    timesteps = torch.full((batch,), 500)
    embeddings = policy.family.encode(["a red cat"] * batch)
    taken = []
    with torch.no_grad():
        for _ in range(passes + 1):
            start = time.perf_counter()
            policy.family.predict(latents, timesteps, embeddings)
            taken.append(1000 * (time.perf_counter() - start) / batch)
    return taken[1:]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--busy", type=int, default=0, help="Number of other computing processes.")
    given = parser.parse_args()
    others = [
        multiprocessing.Process(target=work, args=(600.0,), daemon=True) for _ in range(given.busy)
    ]
    for other in others:
        other.start()
    spin = os.environ.get("GOMP_SPINCOUNT")
    print(f"{device_name(CPU)}, {torch.get_num_threads()} threads, GOMP_SPINCOUNT {spin}")
    dtypes = [torch.float32, *([torch.bfloat16] if has_native_bfloat16(CPU) else [])]
    for dtype in dtypes:
        policy = DiffusionPolicy(
            load_pipeline("storybook", device=CPU, dtype=dtype), LoraDiffusionConfig()
        )
        taken = milliseconds(policy, batch=given.batch, passes=given.passes)
        low, high = min(taken), max(taken)
        print(f"{dtype}: {statistics.median(taken):.2f} ms an image ({low:.2f} to {high:.2f})")
    print(f"a convolution in bfloat16: {emulation_factor(CPU):.2g} times as long as in float32")
    for other in others:
        other.terminate()


if __name__ == "__main__":
    main()
