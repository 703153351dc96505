"""Origin of a result: command, library versions, hardware, time."""

import os
import platform
import re
import shlex
import sys
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from imgalign import __version__
from imgalign.preferences import address

LIBRARIES = ("torch", "diffusers", "transformers", "peft")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What is needed to repeat a measurement and to compare its time."""

    command: str
    """Quoted for a shell."""
    started_at: datetime
    seconds: float
    versions: dict[str, str]
    hardware: dict[str, str]


def command_line() -> str:
    """The command that this process was started with, with stars for a password."""
    program = Path(sys.argv[0])
    started = (
        ["python", "-m", program.parent.name] if program.stem == "__main__" else [program.name]
    )
    return shlex.join([*started, *map(without_password, sys.argv[1:])])


def without_password(argument: str) -> str:
    """An argument as it is, but for what may be secret in the URL of a server.

    Example: "--database=postgresql://ann:***@server/name".
    """
    match = re.fullmatch(r"([\w.-]+=)?([\w+]+://.*)", argument, flags=re.DOTALL)
    if match is None or match[2].startswith("sqlite"):
        return argument
    return f"{match[1] or ''}{address.shown(match[2])}"


def library_versions() -> dict[str, str]:
    """Versions of Python, imgalign and the main libraries."""
    found = {"python": platform.python_version(), "imgalign": __version__}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, str]:
    """Processor, the instructions that PyTorch uses of it, memory and, if there is one, the GPU."""
    found = {"processor": processor(), "cores": str(len(os.sched_getaffinity(0)))}
    found["instructions"] = torch.backends.cpu.get_cpu_capability()
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    found["memory"] = f"{pages / 2**30:.0f} GiB"
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def processor() -> str:
    """Model name of the processor, from /proc/cpuinfo."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())
