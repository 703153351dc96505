"""What every algorithm must do in two real processes, on networks of both kinds: what one does.

Both hold the same bits. One process rounds its sums in another order, so it is compared within a
bound: the mean of the gradients within 1e-4 of its largest element, and the weights within 2e-5, a
hundredth of what two steps can move them, where a sample has a pass of its own.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from batches import write_given_images
from processes import Processes
from safetensors.torch import load_file
from source_tree import ROOT
from together_child import ALL, CASES, learned, place_of
from torch import Tensor
from torch.testing import assert_close

from imgalign.runs.world import Alone

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


@dataclass(frozen=True)
class Found:
    """What one process came to, and what two did."""

    alone: Path
    together: Path

    def tensors(self, file: str) -> Iterator[tuple[Tensor, Tensor]]:
        one, both = (load_file(folder / file) for folder in (self.alone, self.together))
        assert one.keys() == both.keys()
        yield from ((one[name], both[name]) for name in one)


@pytest.fixture
def find(kind, name, models, images, together, tmp_path) -> Callable[..., Found]:
    """Both, after the two processes were found to hold the same bits."""

    def found(*, singly: bool) -> Found:
        first, second = (place_of(together, kind, name, each, singly=singly) for each in range(2))
        for file in ("weights", "learner.json", "learner.safetensors", "metrics.json"):
            assert (first / file).read_bytes() == (second / file).read_bytes(), file
        alone = tmp_path / "alone"
        learned(kind, name, models, images, alone, world=Alone(), share=ALL, singly=singly)
        return Found(alone=alone, together=first)

    return found


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_two_processes_have_the_gradients_and_metrics_of_one(kind, name, find):
    found = find(singly=False)
    pairs = zip(found.tensors("gradients"), found.tensors("weights"), strict=True)
    for (mean, both), (weight, moved) in pairs:
        largest = mean.abs().max().item()
        assert_close(both, mean, rtol=0, atol=1e-4 * largest)
        where = mean.abs() > 1e-2 * largest  # Adam makes steps of nothing but rounding, too
        assert_close(moved[where], weight[where], rtol=0, atol=1e-4)
    folders = (found.alone, found.together)
    said = [json.loads((folder / "metrics.json").read_text()) for folder in folders]
    for one, other in zip(*said, strict=True):
        assert other == pytest.approx(one, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_where_no_rounding_depends_on_who_scores_a_sample_they_have_its_weights(kind, name, find):
    found = find(singly=True)
    pairs = zip(found.tensors("gradients"), found.tensors("weights"), strict=True)
    for (mean, _), (weight, moved) in pairs:
        where = mean.abs() > 1e-3 * mean.abs().max()
        assert where.any()
        assert_close(moved[where], weight[where], rtol=0, atol=2e-5)
