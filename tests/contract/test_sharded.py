"""What algorithms do in two processes that share frozen weights: what they do with all of them.

On texts bit for bit. On images FSDP adds the gradients of skip connections in another order: all
numbers of the first iteration are the same but for the norm's last digits, and gradients are within
1e-4 of their largest element.
"""

import json
from pathlib import Path

import pytest
from fsdp import with_fsdp
from learned_pairs import assert_as_good_as, assert_same_bits, run_pair
from policies import KINDS as POLICIES
from sharded_child import CASES, HELD, IMAGES, SHARED, TEXTS, WHOLE
from together_child import ALL, learned, place_of

from imgalign.runs.world import Alone

pytestmark = [with_fsdp, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def found(servers, models, folder, tmp_path_factory) -> Path:
    """What two processes came to."""
    out = tmp_path_factory.mktemp("sharded")
    return run_pair(servers, "sharded_child", models, folder, out)


def rounded(said: dict[str, float]) -> dict[str, object]:
    """The metrics, with norms that are equal to 1e-5 of them."""
    norms = {name for name in said if name.startswith("grad_norm")}
    assert norms
    return {k: pytest.approx(v, rel=1e-5) if k in norms else v for k, v in said.items()}


@pytest.mark.parametrize(("kind", "name", "iterations"), CASES)
def test_shared_weights_make_the_steps_of_whole_ones(kind, name, iterations, found):
    first, second = (place_of(found / SHARED, kind, name, each, singly=False) for each in range(2))
    assert_same_bits(first, second)
    whole = place_of(found / WHOLE, kind, name, 0, singly=False)
    if kind == TEXTS:
        assert_same_bits(first, whole)
    said = [json.loads((folder / "metrics.json").read_text())[0] for folder in (whole, first)]
    if kind == IMAGES:
        said[0] = rounded(said[0])
    assert said[0] == said[1]
    assert_as_good_as(whole, first, within=1e-4)


@pytest.mark.parametrize(("kind", "name", "iterations"), CASES)
def test_two_processes_that_share_weights_have_the_gradients_and_metrics_of_one(
    kind, name, iterations, found, models, folder, tmp_path
):
    alone = tmp_path / "alone"
    learned(
        kind,
        name,
        models,
        folder,
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
