"""Which device to compute on, decided once per command."""

import re

import torch

from imgalign.errors import InputError


def choose_device(name: str = "auto") -> torch.device:
    """The device of a run: "auto" is a CUDA device where there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name != "cpu" and not re.fullmatch(r"cuda(:\d+)?", name):
        raise InputError(f"device: expected auto, cpu, cuda or cuda:<number>, got {name!r}")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise InputError(f"device: {name} is not there, PyTorch sees {count} cuda devices; use cpu")
    return device
