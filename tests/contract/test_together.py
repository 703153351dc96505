"""What every algorithm must do in two real processes, on networks of both kinds: what one does.

Both hold the same bits. One process rounds its sums in another order, so it is compared within a
bound: the mean of the gradients within 1e-4 of its largest element, and the weights within 2e-5, a
hundredth of what two steps can move them, where a sample has a pass of its own and there are two
minibatches.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest
from learned_pairs import assert_as_good_as, assert_same_bits, assert_same_metrics, run_pair
from safetensors.torch import load_file
from together_child import ALL, CASES, learned, place_of
from torch.testing import assert_close

from imgalign.runs.world import Alone

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

Find: TypeAlias = Callable[..., tuple[Path, Path]]


@pytest.fixture(scope="module")
def together(servers, models, folder, tmp_path_factory) -> Path:
    """What two processes came to."""
    out = tmp_path_factory.mktemp("together")
    return run_pair(servers, "together_child", models, folder, out)


@pytest.fixture
def find(kind, name, drawn, models, folder, together, tmp_path) -> Find:
    """What one process came to, and two, after they were found to hold the same bits."""

    def found(*, singly: bool) -> tuple[Path, Path]:
        case = {"singly": singly, "drawn": drawn}
        first, second = (place_of(together, kind, name, each, **case) for each in range(2))
        assert_same_bits(first, second)
        alone = tmp_path / "alone"
        learned(kind, name, models, folder, alone, world=Alone(), share=ALL, **case)
        return alone, first

    return found


@pytest.mark.parametrize(("kind", "name", "drawn"), CASES)
def test_two_processes_have_the_gradients_and_metrics_of_one(find):
    assert_as_good_as(*find(singly=False), within=1e-4)


@pytest.mark.parametrize(("kind", "name", "drawn"), CASES)
def test_where_no_rounding_depends_on_who_scores_a_sample_they_have_its_metrics_and_weights(find):
    alone, both = find(singly=True)
    assert_same_metrics(alone, both)
    weights, moved = (load_file(folder / "weights") for folder in (alone, both))
    for place, mean in load_file(alone / "gradients").items():
        where = mean.abs() > 1e-3 * mean.abs().max()
        assert where.any()
        assert_close(moved[place][where], weights[place][where], rtol=0, atol=2e-5)
