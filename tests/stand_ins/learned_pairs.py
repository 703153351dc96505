"""What two processes came to that learn together, and how it is compared."""

import json
from pathlib import Path

import pytest
from policies import Models
from processes import Servers
from safetensors.torch import load_file
from source_tree import ROOT
from torch.testing import assert_close

FILES = ("weights", "learner.json", "learner.safetensors", "metrics.json")
"""Beside the gradients, which optimizers sum."""


def run_pair(servers: Servers, child: str, models: Models, images: Path, out: Path) -> Path:
    """The folder of what both processes of a module write; it is told where the models are."""
    named = json.dumps({name: str(path) for name, path in models.items()})
    for code, _, errors in servers.together([child, named, images, out], folder=ROOT).ends():
        assert code == 0, errors
    return out


def assert_same_bits(one: Path, other: Path) -> None:
    for file in FILES:
        assert (one / file).read_bytes() == (other / file).read_bytes(), file


def assert_as_good_as(one: Path, other: Path, *, within: float) -> None:
    """Gradients within a share of their largest element, weights and metrics accordingly."""
    means, weights = load_file(one / "gradients"), load_file(one / "weights")
    gradients, moved = load_file(other / "gradients"), load_file(other / "weights")
    assert means.keys() == gradients.keys() <= weights.keys() == moved.keys()
    for name, mean in means.items():
        largest = mean.abs().max().item()
        assert_close(gradients[name], mean, rtol=0, atol=within * largest)
        where = mean.abs() > 1e-2 * largest  # Adam makes steps of nothing but rounding, too
        assert_close(moved[name][where], weights[name][where], rtol=0, atol=1e-4)
    assert_same_metrics(one, other)


def assert_same_metrics(one: Path, other: Path) -> None:
    said = [json.loads((folder / "metrics.json").read_text()) for folder in (one, other)]
    for before, after in zip(*said, strict=True):
        assert after == pytest.approx(before, rel=1e-3, abs=1e-6)
