"""What algorithms do in two processes that share frozen weights: what they do with all of them.

On texts bit for bit. On images FSDP adds the gradients of skip connections in another order: all
numbers of the first iteration are the same, and gradients within 1e-4 of their largest element.
"""

import json
from pathlib import Path

import pytest
from batches import write_given_images
from fsdp import with_fsdp
from policies import KINDS as POLICIES
from processes import Processes
from safetensors.torch import load_file
from sharded_child import CASES, HELD, IMAGES, SHARED, TEXTS, WHOLE
from source_tree import ROOT
from together_child import ALL, learned, place_of
from torch.testing import assert_close

from imgalign.runs.world import Alone

CHILD = ROOT / "tests" / "stand_ins" / "sharded_child.py"
FILES = ("weights", "learner.json", "learner.safetensors", "metrics.json")

pytestmark = [with_fsdp, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return write_given_images(tmp_path_factory.mktemp("given"))


@pytest.fixture(scope="module")
def found(models, images, tmp_path_factory) -> Path:
    """What two processes came to."""
    out = tmp_path_factory.mktemp("sharded")
    named = json.dumps({name: str(path) for name, path in models.items()})
    for code, _, errors in Processes([CHILD, named, images, out], folder=ROOT).ends():
        assert code == 0, errors
    return out


def assert_as_good_as(one: Path, other: Path, *, within: float) -> None:
    """Gradients within a share of their largest element, weights and metrics accordingly."""
    means, weights = load_file(one / "gradients"), load_file(one / "weights")
    gradients, moved = load_file(other / "gradients"), load_file(other / "weights")
    for name, mean in means.items():
        largest = mean.abs().max().item()
        assert_close(gradients[name], mean, rtol=0, atol=within * largest)
        where = mean.abs() > 1e-2 * largest  # Adam makes steps of nothing but rounding, too
        assert_close(moved[name][where], weights[name][where], rtol=0, atol=1e-4)
    said = [json.loads((folder / "metrics.json").read_text()) for folder in (one, other)]
    for before, after in zip(*said, strict=True):
        assert after == pytest.approx(before, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize(("kind", "name", "iterations"), CASES)
def test_shared_weights_make_the_steps_of_whole_ones(kind, name, iterations, found):
    first, second = (place_of(found / SHARED, kind, name, each, singly=False) for each in range(2))
    for file in FILES:
        assert (first / file).read_bytes() == (second / file).read_bytes(), file
    whole = place_of(found / WHOLE, kind, name, 0, singly=False)
    if kind == TEXTS:
        for file in FILES:
            assert (first / file).read_bytes() == (whole / file).read_bytes(), file
    said = [json.loads((folder / "metrics.json").read_text())[0] for folder in (whole, first)]
    assert said[0] == said[1]
    assert_as_good_as(whole, first, within=1e-4)


@pytest.mark.parametrize(("kind", "name", "iterations"), CASES)
def test_two_processes_that_share_weights_have_the_gradients_and_metrics_of_one(
    kind, name, iterations, found, models, images, tmp_path
):
    alone = tmp_path / "alone"
    learned(
        kind,
        name,
        models,
        images,
        alone,
        world=Alone(),
        share=ALL,
        singly=False,
        iterations=iterations,
    )
    shared = place_of(found / SHARED, kind, name, 0, singly=False)
    assert_as_good_as(alone, shared, within=2e-4)  # of other sums, and of another order


@pytest.mark.parametrize("kind", [IMAGES, TEXTS])
def test_each_of_two_processes_holds_half_of_the_frozen_weights(kind, found, models):
    policy = POLICIES[kind](models)
    frozen = [each for each in policy.trained_network.parameters() if not each.requires_grad]
    half = sum(each.numel() * each.element_size() for each in frozen) / 2
    for index in range(2):
        before, after, later = json.loads((found / f"{index}-{HELD}").read_text())[kind]
        assert before - after == pytest.approx(half, rel=0.02)
        assert before - later == pytest.approx(half, rel=0.05)
