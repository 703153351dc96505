"""What gpu.py measures: a device with a pipeline, and functions that take times and memory on it.

Policies, algorithms and optimizer steps are those of a training run. Left out: which cases there
are (gpu.py).
"""

import gc
import json
import os
import shlex
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import sd15
import torch
from sampling_ways import Way, plain, without_adapter
from torch import Tensor
from torch.distributions import Independent, Normal
from torch.utils.flop_counter import FlopCounterMode

from imgalign.algorithms.kl import FixedKLConfig
from imgalign.algorithms.objectives import DPOConfig
from imgalign.algorithms.policy_gradient import GRPOConfig
from imgalign.algorithms.rankings import RankedBatch
from imgalign.diffusion.config import LoraDiffusionConfig
from imgalign.diffusion.policy import DEFAULT_RANK, DiffusionPolicy
from imgalign.policy import Data, Steps, Trajectory, Weights
from imgalign.runs.world import Alone
from imgalign.train.assemble import build_learner
from imgalign.train.config import OptimizerConfig
from imgalign.train.data.rollouts import collect

Facts: TypeAlias = dict[str, Any]
Phases: TypeAlias = Mapping[str, float]
"""Seconds of each phase of one repetition."""

STEPS = 10
"""Denoising steps, the default of training."""
BATCH = 8
PAIRS = 16
"""Pairs of one optimizer step of DPO."""
MATRIX = 8192
GIB = 2**30
PROMPTS = ("a red fox on a hill", "a blue boat at sea")
PEER = Path(__file__).parent / "peers" / "ddpo.py"


class Brightness:
    """A reward that costs nothing."""

    def score(self, *, prompts: Any, samples: Tensor) -> Tensor:
        """The mean of all pixels."""
        return samples.mean(dim=(1, 2, 3))


class WithoutReference(DiffusionPolicy):
    """What training would take without the forward passes of the pretrained model for the KL."""

    away = False

    @contextmanager
    def using(self, weights: Weights) -> Iterator[None]:
        """Inside, distributions cost nothing and mean nothing."""
        self.away = True
        try:
            yield
        finally:
            self.away = False

    def step_distributions(self, trajectory: Trajectory, steps: Steps) -> Independent:
        """Those of the policy, or any."""
        if not self.away:
            return super().step_distributions(trajectory, steps)
        actions = self.actions(trajectory, steps)
        return Independent(Normal(actions, torch.ones_like(actions)), 3)


class Bench:
    """A device with the pipeline, on which one policy after another is measured."""

    def __init__(self, device: torch.device, *, tiny: bool, peer: str | None, seconds: float):
        self.device = device
        self.tiny = tiny
        self.peer = peer
        self.seconds = seconds
        self.pipeline = sd15.build(device, torch.bfloat16, tiny=tiny)
        self.ceiling: float | None = None
        """FLOP a second of a bfloat16 matrix product."""
        self.forward_flop = self._count()
        self.learned_steps = int(self.policy().denoiser.mask.sum())

    @property
    def network(self) -> Any:
        """The UNet."""
        return self.pipeline.unet

    def policy(
        self,
        kind: type[DiffusionPolicy] = DiffusionPolicy,
        *,
        dtype: torch.dtype = torch.bfloat16,
        **settings: Any,
    ) -> DiffusionPolicy:
        """A fresh one; that before it must not be used any more."""
        self.pipeline.unload_lora_weights()
        self.network.disable_gradient_checkpointing()
        self.network.to(dtype)
        config = LoraDiffusionConfig(num_inference_steps=STEPS, **settings)
        return kind(self.pipeline, config)

    def _count(self) -> int:
        """Floating-point operations of the network for one row of latents."""
        policy = self.policy()
        latents = torch.randn(1, *policy.latent_shape, device=self.device)
        timesteps = torch.full((1,), 500, device=self.device)
        conditions = policy.family.encode(PROMPTS[:1])
        counter = FlopCounterMode(display=False)
        with torch.no_grad(), without_adapter(policy), counter:
            policy.family.predict(latents, timesteps, conditions)
        return int(counter.get_total_flops())

    def synchronize(self) -> None:
        """Wait until the device has done everything."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    @contextmanager
    def phase(self, seconds: dict[str, float], name: str) -> Iterator[None]:
        """Time what happens inside, under a name."""
        self.synchronize()
        start = time.perf_counter()
        yield
        self.synchronize()
        seconds[name] = time.perf_counter() - start

    def repeat(self, work: Callable[[], Phases], *, most: int = 20) -> tuple[Facts, float]:
        """Do it once and then again for the time of a case: median and range of each phase.

        Also the seconds of the first time.
        """
        first = sum(work().values())
        end, found = time.perf_counter() + self.seconds, [work()]
        while time.perf_counter() < end and len(found) < most:
            found.append(work())
        return {name: spread([each[name] for each in found]) for name in found[0]}, first

    def memory(self) -> Facts:
        """Peaks since the last call, GB: of tensors, and of what was taken from the card."""
        if self.device.type != "cuda":
            return {}
        found = {
            "peak_memory_gb": torch.cuda.max_memory_allocated() / 1e9,
            "peak_reserved_gb": torch.cuda.max_memory_reserved() / 1e9,
        }
        torch.cuda.reset_peak_memory_stats()
        return found

    def clear(self) -> None:
        """Give back all memory that nothing holds."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


def spread(values: list[float]) -> Facts:
    """Example: {"median": 1.02, "low": 1.01, "high": 1.1, "times": 5}."""
    ends = {"low": min(values), "high": max(values), "times": len(values)}
    return {"median": statistics.median(values), **ends}


def card(bench: Bench) -> Facts:
    """What the largest bfloat16 matrix products reach, of random numbers."""
    size = 128 if bench.tiny else MATRIX
    one, other = (
        torch.randn(size, size, device=bench.device, dtype=torch.bfloat16) for _ in range(2)
    )

    def work() -> Phases:
        if bench.device.type != "cuda":
            start = time.perf_counter()
            torch.mm(one, other)
            return {"seconds": time.perf_counter() - start}
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        torch.mm(one, other)
        end.record()
        torch.cuda.synchronize()
        return {"seconds": begin.elapsed_time(end) / 1000}

    found, _ = bench.repeat(work, most=200)
    bench.ceiling = 2 * size**3 / found["seconds"]["median"]
    return {**found, "tflop_per_second": bench.ceiling / 1e12}


def sampling(
    bench: Bench,
    *,
    batch: int,
    guidance: float = 1.0,
    dtype: torch.dtype = torch.bfloat16,
    way: Way = plain,
) -> Facts:
    """Images a second of `DiffusionPolicy.sample`: latents without decoding."""
    policy = bench.policy(batch_size=batch, guidance_scale=guidance, dtype=dtype)
    prompts = [PROMPTS[number % 2] for number in range(batch)]

    def work() -> Phases:
        seconds: dict[str, float] = {}
        with bench.phase(seconds, "seconds"):
            policy.sample(prompts, seeds=range(batch))
        return seconds

    with way(policy):
        found, first = bench.repeat(work)
    median = found["seconds"]["median"]
    rows = batch * (2 if guidance != 1 else 1)
    rate = rows * STEPS * bench.forward_flop / median
    return {
        **found,
        "first_seconds": first,
        "images_per_second": batch / median,
        "milliseconds_per_network_call": 1000 * median / STEPS,
        "tflop_per_second": rate / 1e12,
        "of_ceiling": rate / bench.ceiling if bench.ceiling else None,
        **bench.memory(),
    }


def decoding(bench: Bench, *, batch: int, dtype: torch.dtype) -> Facts:
    """Images a second of the autoencoder alone."""
    policy = bench.policy(batch_size=batch)
    vae = bench.pipeline.vae.to(dtype)
    latents = torch.randn(batch, *policy.latent_shape, device=bench.device)

    def work() -> Phases:
        seconds: dict[str, float] = {}
        with torch.no_grad(), bench.phase(seconds, "seconds"):
            policy.family.decode(latents)
        return seconds

    try:
        found, _ = bench.repeat(work)
    finally:
        vae.to(torch.float32)
    rate = batch / found["seconds"]["median"]
    return {**found, "images_per_second": rate, **bench.memory()}


def where_time_goes(bench: Bench, *, batch: int) -> Facts:
    """Kernels of one sampling on the card: their share of the time, and the longest."""
    policy = bench.policy(batch_size=batch)
    prompts, seconds = [PROMPTS[0]] * batch, dict[str, float]()
    policy.sample(prompts, seeds=range(batch))
    profiler = torch.profiler
    kinds = profiler.ProfilerActivity
    with (
        bench.phase(seconds, "seconds"),
        profiler.profile(
            activities=[kinds.CUDA if bench.device.type == "cuda" else kinds.CPU]
        ) as profile,
    ):
        policy.sample(prompts, seeds=range(batch))
        bench.synchronize()
    kernels = sorted(profile.key_averages(), key=lambda each: -each.self_device_time_total)
    total = sum(each.self_device_time_total for each in kernels) / 1e6
    return {
        "kernels": sum(each.count for each in kernels),
        "seconds_of_kernels": total,
        "seconds_with_profiler": seconds["seconds"],
        "longest": {
            each.key[:90]: [each.count, each.self_device_time_total / 1e6] for each in kernels[:12]
        },
    }


def training(
    bench: Bench,
    *,
    batch: int = BATCH,
    guidance: float = 1.0,
    checkpointing: bool = False,
    reference: bool = True,
    steps_per_pass: int = 1,
    most: int = 20,
) -> Facts:
    """Iterations of GRPO: sample and score `batch` images in two groups, and one optimizer step."""
    policy = bench.policy(
        DiffusionPolicy if reference else WithoutReference,
        batch_size=batch,
        guidance_scale=guidance,
        gradient_checkpointing=checkpointing,
        steps_per_pass=steps_per_pass,
    )
    algorithm = GRPOConfig(kl=FixedKLConfig(coefficient=0.02 if reference else 0.0))
    learner = build_learner(
        policy, algorithm=algorithm, optimizer=OptimizerConfig(), seed=0, world=Alone()
    )
    images = max(batch, 2)
    prompts = [PROMPTS[0]] * (images // 2) + [PROMPTS[1]] * (images - images // 2)
    rows, peaks, number = {"sampling": 0, "learning": 0}, {}, 0

    def work() -> Phases:
        nonlocal number
        seconds: dict[str, float] = {}
        phase = "sampling"
        hook = bench.network.register_forward_pre_hook(
            lambda _, given: rows.update({phase: rows[phase] + len(given[0])})
        )
        rows.update(sampling=0, learning=0)
        with bench.phase(seconds, "seconds_sampling"):
            seeds = range(number * images, (number + 1) * images)
            rollout = collect(policy, Brightness(), prompts, seeds=seeds, world=Alone())
        peaks["sampling"], phase = bench.memory(), "learning"
        with bench.phase(seconds, "seconds_learning"):
            learner.update(rollout, iteration=number)
        peaks["learning"] = bench.memory()
        number += 1
        hook.remove()
        return seconds

    if most:
        found, _ = bench.repeat(work, most=most)
    else:
        found = {name: spread([value]) for name, value in work().items()}
    sampled, learned = (found[f"seconds_{name}"]["median"] for name in peaks)
    return {
        **found,
        "images": images,
        "images_per_second": images / (sampled + learned),
        "image_steps_per_second_sampling": images * STEPS / sampled,
        "image_steps_per_second_learning": images * bench.learned_steps / learned,
        **{f"rows_{name}": count for name, count in rows.items()},
        **{f"{key}_{name}": value for name, each in peaks.items() for key, value in each.items()},
    }


def preferences(
    bench: Bench, *, pairs: int, checkpointing: bool = False, total: int = PAIRS, most: int = 20
) -> Facts:
    """Optimizer steps of DPO on `total` pairs that are encoded already, `pairs` at a time."""
    policy = bench.policy(batch_size=2 * pairs, gradient_checkpointing=checkpointing)
    learner = build_learner(
        policy, algorithm=DPOConfig(), optimizer=OptimizerConfig(), seed=0, world=Alone()
    )
    prompts = [PROMPTS[0]] * (2 * total)
    batch = RankedBatch(
        data=Data(
            prompts=prompts,
            prompt_ids=prompts,
            content={"latents": torch.randn(2 * total, *policy.latent_shape)},
        ),
        index=torch.arange(2 * total).view(total, 2),
        ranks=torch.tensor([[0, 1]] * total),
        all_bad=torch.zeros(total, dtype=torch.bool),
        all_good=torch.zeros(total, dtype=torch.bool),
        weights=torch.ones(total),
    )

    def work() -> Phases:
        seconds: dict[str, float] = {}
        with bench.phase(seconds, "seconds"):
            learner.update(batch, iteration=0)
        return seconds

    found = bench.repeat(work, most=most)[0] if most else {"seconds": spread([work()["seconds"]])}
    return {**found, "pairs_per_second": total / found["seconds"]["median"], **bench.memory()}


def within(gib: int, measure: Callable[[Bench], Facts]) -> Callable[[Bench], Facts]:
    """The same once, where the process may take so much memory of the card, its context apart."""

    def measured(bench: Bench) -> Facts:
        if bench.device.type != "cuda":
            return measure(bench)
        whole = torch.cuda.get_device_properties(bench.device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(gib * GIB / whole, 1.0))
        try:
            return {"fits": True, **measure(bench)}
        except torch.OutOfMemoryError:
            return {"fits": False}
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)

    return measured


def trl(bench: Bench) -> Facts:
    """The peer in a process of its own, at both guidance scales."""
    assert bench.peer is not None
    with tempfile.TemporaryDirectory() as folder:
        model, out = Path(folder) / "model", Path(folder) / "ddpo.json"
        sd15.save(sd15.build(bench.device, torch.bfloat16, tiny=bench.tiny), model)
        bench.clear()
        settings: Facts = {"batch": BATCH, "steps": STEPS, "learned": bench.learned_steps}
        settings |= {"rank": DEFAULT_RANK, "out": out}
        settings["precision"] = "bf16" if bench.device.type == "cuda" else "no"
        done = subprocess.run(
            [
                *(*shlex.split(bench.peer), str(PEER), str(model)),
                *(f"--{name}={value}" for name, value in settings.items()),
            ],
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            capture_output=True,
            text=True,
            check=False,
        )
        why = done.stderr.strip().splitlines()[-1:] if done.returncode else []
        if not out.is_file():  # it writes after each guidance scale
            raise RuntimeError(*why)
        found: Facts = json.loads(out.read_text(encoding="utf-8"))
    for row in found["rows"]:
        sampled, learned = (row[f"seconds_{name}"] for name in ("sampling", "learning"))
        row |= {"seconds_sampling": spread(sampled), "seconds_learning": spread(learned)}
        middle = statistics.median(sampled) + statistics.median(learned)
        row["images_per_second"] = BATCH / middle
    return found | ({"failed": why[0]} if why else {})
