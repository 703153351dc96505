"""What every algorithm must do in two real processes, on networks of both kinds: what one does.

Both hold the same bits. One process rounds its sums in another order, so it is compared within a
bound: the mean of the gradients within 1e-4 of its largest element, and the weights within 1e-4, a
twentieth of what two steps can move them.
"""

import json
from pathlib import Path

import pytest
from algorithms import ALGORITHMS
from batches import write_given_images
from processes import Processes
from safetensors.torch import load_file
from source_tree import ROOT
from together_child import ALL, KINDS, learned
from torch.testing import assert_close

from imgalign.train.world import Alone

CHILD = ROOT / "tests" / "stand_ins" / "together_child.py"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return write_given_images(tmp_path_factory.mktemp("given"))


@pytest.fixture(scope="module")
def together(models, images, tmp_path_factory) -> Path:
    """What two processes came to."""
    out = tmp_path_factory.mktemp("together")
    named = json.dumps({name: str(path) for name, path in models.items()})
    processes = Processes([CHILD, named, images, out], folder=ROOT)
    for code, _, errors in processes.ends():
        assert code == 0, errors
    return out


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_learn_what_one_learns(kind, name, models, images, together, tmp_path):
    first, second = (together / kind / name / str(index) for index in range(2))
    for file in ("weights", "learner.json", "learner.safetensors", "metrics.json"):
        assert (first / file).read_bytes() == (second / file).read_bytes(), file
    alone = tmp_path / "alone"
    learned(kind, name, models, images, alone, world=Alone(), share=ALL)
    expected, found = (load_file(folder / "weights") for folder in (alone, first))
    means = [load_file(folder / "gradients") for folder in (alone, first)]
    for place, weight in expected.items():
        mean, both = (each[place] for each in means)
        largest = mean.abs().max().item()
        assert_close(both, mean, rtol=0, atol=1e-4 * largest)
        moved = mean.abs() > 1e-2 * largest  # Adam makes steps of nothing but rounding, too
        assert moved.any()
        assert_close(found[place][moved], weight[moved], rtol=0, atol=1e-4)
    said = [json.loads((folder / "metrics.json").read_text()) for folder in (alone, first)]
    for one, other in zip(*said, strict=True):
        assert other == pytest.approx(one, rel=1e-3, abs=1e-6)
