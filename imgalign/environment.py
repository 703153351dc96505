"""Device, dtype and number of threads to compute with, as the hardware supports them.

The dtype is chosen once per command and logged in one line. Importing this module does not load
torch, so that `calm_threads` can run before it. Left out: what is computed.
"""

import functools
import logging
import math
import os
import platform
import re
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from imgalign import __version__
from imgalign.errors import InputError

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

DType = Literal["auto", "float32", "bfloat16", "float16"]
TrainingDType = Literal["auto", "float32", "bfloat16"]

AMPERE = (8, 0)
"""The first CUDA compute capability with native bfloat16."""

X86_BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16"})
ARM_BFLOAT16 = frozenset({"bf16"})

ONEDNN_WITH_BFLOAT16 = re.compile(r"ALL|DEFAULT|AVX512_CORE_(BF16|FP16|AMX.*)|AVX10_.*512.*")
"""Values of ONEDNN_MAX_CPU_ISA that allow oneDNN to use bfloat16 instructions."""

SPIN_COUNT = "3000"
"""How often an idle OpenMP thread checks for work before it sleeps, about 0.1 ms. The library's
default is 300,000: beside other work on the same cores, a spinning thread delays the thread that it
waits for."""


def checked_device(name: str) -> str:
    """The name of a device as it is; ValueError unless PyTorch could have one of that name."""
    if name not in ("auto", "cpu") and not re.fullmatch(r"cuda(:\d+)?", name):
        raise ValueError(f"expected auto, cpu, cuda or cuda:<number>, got {name!r}")
    return name


def choose_device(name: str = "auto") -> "torch.device":
    """The device of a run: "auto" is a CUDA device where there is one, else the CPU."""
    import torch

    try:
        checked_device(name)
    except ValueError as error:
        raise InputError(f"device: {error}") from None
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise InputError(f"device: {name} is not there, PyTorch sees {count} cuda devices; use cpu")
    return device


def choose_dtype(name: DType, device: "torch.device") -> "torch.dtype":
    """The dtype that a network computes in.

    "auto" is bfloat16 where the device multiplies it natively, else float32.
    """
    if name == "auto":
        name = "bfloat16" if has_native_bfloat16(device) else "float32"
    return dtype_named(name)


def say_dtype(dtype: "torch.dtype", device: "torch.device") -> None:
    """Log once, in one line, the dtype and why it was chosen.

    Emulated bfloat16 is a warning, with its measured slowdown.
    """
    import torch

    native, name = has_native_bfloat16(device), str(dtype).removeprefix("torch.")
    if dtype == torch.bfloat16 and not native:
        _say(
            logging.WARNING,
            f"computing in bfloat16, which this {device_name(device)} only emulates: a convolution "
            f"takes {emulation_factor(device):.0f} times as long as in float32 (measured just now);"
            " dtype auto would take float32",
        )
    elif dtype == torch.bfloat16:
        why = f"this {device_name(device)} multiplies it natively"
        _say(logging.INFO, f"computing in {name}: {why}")
    elif dtype == torch.float32 and not native:
        why = f"this {device_name(device)} has no native bfloat16"
        _say(logging.INFO, f"computing in {name}: {why}")
    else:
        _say(logging.INFO, f"computing in {name}, as asked for")


def dtype_named(name: Literal["float32", "bfloat16", "float16"]) -> "torch.dtype":
    """The torch.dtype of that name."""
    import torch

    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]


def has_native_bfloat16(device: "torch.device") -> bool:
    """Whether the device multiplies bfloat16 in hardware."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= AMPERE
    return cpu_multiplies_bfloat16(platform.machine(), cpu_flags(), os.environ)


def cpu_multiplies_bfloat16(
    machine: str, flags: Collection[str], environment: Mapping[str, str]
) -> bool:
    """Whether a CPU with these flags does, as far as the environment lets PyTorch use them.

    `machine` is that of `platform.machine`. AVX512-BF16 or AMX on x86, BF16 on Arm; AVX2 alone
    emulates bfloat16, 20 to 40 times slower than float32. Flags are those of /proc/cpuinfo; where
    they are unknown, the answer is no.
    """
    if machine in ("aarch64", "arm64"):
        return not ARM_BFLOAT16.isdisjoint(flags)
    limited = environment.get("ATEN_CPU_CAPABILITY", "avx512").lower() != "avx512"
    onednn = environment.get("ONEDNN_MAX_CPU_ISA") or environment.get("DNNL_MAX_CPU_ISA", "ALL")
    if limited or not ONEDNN_WITH_BFLOAT16.fullmatch(onednn.upper()):
        return False
    return not X86_BFLOAT16.isdisjoint(flags)


@functools.cache
def cpu_flags() -> frozenset[str]:
    """CPU flags from /proc/cpuinfo; empty where there is no such file."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    found = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", text, re.MULTILINE)
    return frozenset(found[1].split()) if found else frozenset()


def device_name(device: "torch.device") -> str:
    """Example: "CPU (AVX2)", "NVIDIA H100"."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU ({torch.backends.cpu.get_cpu_capability()})"


def emulation_factor(device: "torch.device") -> float:
    """Time of a small convolution in bfloat16 over its time in float32."""
    import torch

    def least_seconds(dtype: torch.dtype) -> float:
        rows = torch.ones(8, 96, 16, 16, dtype=dtype, device=device)
        kernel = torch.ones(96, 96, 3, 3, dtype=dtype, device=device)
        best = math.inf
        end = time.perf_counter() + 0.3
        while (start := time.perf_counter()) < end:
            torch.nn.functional.conv2d(rows, kernel, padding=1).sum().item()
            best = min(best, time.perf_counter() - start)
        return best

    with torch.no_grad():
        return least_seconds(torch.bfloat16) / least_seconds(torch.float32)


@contextmanager
def computing_in(dtype: "torch.dtype", device: "torch.device") -> Iterator[None]:
    """Autocast to `dtype`; operations that are unsafe in it stay in float32.

    Half precision on a CPU runs without fused attention, whose backward pass makes a training step
    take 1.4 times as long; in sampling too, so that sampling and re-scoring agree bit for bit.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with ExitStack() as stack:
        if dtype != torch.float32:
            stack.enter_context(torch.autocast(device.type, dtype))
            if device.type == "cpu":
                stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield


def calm_threads() -> None:
    """Set the number of OpenMP threads and how long idle ones spin; call it before torch is loaded.

    A container may see 64 cores and be allowed two; 64 threads that spin while they wait would
    stall each other. Variables that are set already are kept.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    os.environ.setdefault("OMP_NUM_THREADS", str(usable_cores()))


def usable_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Physical cores that this process may use: by affinity, and by its container's CPU quota."""
    try:
        allowed = os.sched_getaffinity(0)
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1
    siblings = {_siblings(cpu) for cpu in allowed}
    return max(1, int(min(len(siblings), _quota(cgroup))))


def most_memory(status: Path = Path("/proc/self/status")) -> int:
    """Bytes that this process held at most.

    Linux begins ru_maxrss with what the process held that started this one, so that training from a
    large program would seem to need as much.
    """
    import resource  # not on Windows

    try:
        found = re.search(r"^VmHWM:\s*(\d+) kB$", status.read_text(encoding="ascii"), re.MULTILINE)
    except OSError:  # not on Linux
        found = None
    own = found[1] if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(own) * 1024


def _siblings(cpu: int) -> str:
    """Identifier of a logical core's physical core; its own number where that is unknown."""
    try:
        topology = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        return topology.read_text(encoding="ascii").strip()
    except OSError:
        return str(cpu)


def _quota(cgroup: Path) -> float:
    """CPUs that the container may use at a time; infinite without a limit."""
    for quota, period in (
        ("cpu.max", None),
        ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"),
    ):
        try:
            numbers = (cgroup / quota).read_text(encoding="ascii").split()
            if period is not None:
                numbers += (cgroup / period).read_text(encoding="ascii").split()
            limit, each = numbers
            if limit not in ("max", "-1"):
                return float(limit) / float(each)
        except (OSError, ValueError):
            continue
    return math.inf


@functools.cache
def _say(level: int, text: str) -> None:
    log.log(level, text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A fact about the installation, e.g. name "torch", value "2.15.0"."""

    name: str
    value: str


def facts() -> list[Fact]:
    """Versions and hardware, for a bug report."""
    names = ["torch", "diffusers", "transformers", "peft", "open_clip_torch", "xformers"]
    known = [
        Fact(name="imgalign", value=__version__),
        Fact(name="python", value=platform.python_version()),
        Fact(name="system", value=platform.platform()),
        *(Fact(name=name, value=version(name)) for name in names),
    ]
    import torch

    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 1e9
        device = f"cuda: {torch.cuda.get_device_name(0)}, {memory:.0f} GB"
    else:
        device = f"cpu: {torch.get_num_threads()} threads"
    return [*known, Fact(name="device", value=device)]


def version(distribution: str) -> str:
    """Version of a distribution, or `not installed`."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"
