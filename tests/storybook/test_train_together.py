"""Claims: two processes that pretrain together make the gradients, terms and weights of one, for
each model of the storybook; one process writes and speaks; a loss has a part for each.
"""

from pathlib import Path

import pytest
from pretrained_child import RATE, TRAINERS, make_inputs
from source_tree import ROOT
from torch.testing import assert_close
from worlds import Meeting, OneOfTwo

from imgalign.errors import InputError
from imgalign.runs.metrics import read_metrics
from imgalign.runs.state import load_state
from imgalign.runs.world import Alone
from imgalign.storybook.train.loop import part_of

LARGEST_DIFFERENCE = {"clip": 1e-2, "verifier": 1e-2}
"""Of a gradient, relative to its largest element; 1e-4 of the other models.

The two have batch normalisation, on which the rounding of float32 has more effect: in one process,
convolutions that round otherwise move them as much. test_train_shared.py is in float64.
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def pretrained(servers, tmp_path_factory) -> dict[int, Path]:
    """What one process and two came to, by their number."""
    inputs = tmp_path_factory.mktemp("inputs")
    make_inputs(inputs)
    with pytest.MonkeyPatch.context() as patch:
        # In float32: bfloat16 rounds the parts of a batch otherwise than the whole.
        patch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
        found = {size: tmp_path_factory.mktemp(f"of-{size}") for size in (1, 2)}
        child = ["pretrained_child", inputs]
        ends = [servers.alone([*child, found[1]], folder=ROOT)]
        ends += servers.together([*child, found[2]], folder=ROOT).ends()
        for code, said, told in ends:
            assert code == 0, told
            assert said == ""
        assert "step" not in ends[-1][2]
    return found


@pytest.mark.parametrize("name", TRAINERS)
def test_two_processes_have_the_gradients_terms_and_weights_of_one(pretrained, name):
    folders = [next((pretrained[size] / name).glob("**/state.json")).parent for size in (1, 2)]
    one, two = (load_state(folder, "state") for folder in folders)
    assert one["step"] == two["step"] >= 2
    means = one["optimizer"]["state"]
    largest = max(own["exp_avg"].abs().max().item() for own in means.values())
    assert largest > 0
    for place, own in means.items():
        found = two["optimizer"]["state"][place]["exp_avg"]
        bound = LARGEST_DIFFERENCE.get(name, 1e-4) * largest
        assert_close(found, own["exp_avg"], rtol=0, atol=bound)
    # Adam moves a weight whose gradient is nothing but rounding by as much as the others.
    bound = RATE if name in LARGEST_DIFFERENCE else 5e-6
    for key, weight in one["module"].items():
        atol = 1e-4 if "running" in key else bound
        assert_close(two["module"][key], weight, rtol=0, atol=atol)
    (expected,), (terms,) = (read_metrics(folder / "log.jsonl") for folder in folders)
    for key in expected.keys() - {"samples_per_second", "machine"}:
        assert terms[key] == pytest.approx(expected[key], rel=1e-3), key


@pytest.mark.parametrize("name", TRAINERS)
def test_two_processes_leave_the_files_of_one(pretrained, name):
    written = [
        {path.relative_to(pretrained[size] / name) for path in (pretrained[size] / name).rglob("*")}
        for size in (1, 2)
    ]
    assert written[0] == written[1]
    assert Path("log.jsonl") in written[0]


def test_the_parts_of_a_batch_are_all_of_it_and_each_process_has_one():
    meeting = Meeting()
    parts = [part_of(OneOfTwo(meeting, index), 5) for index in range(2)]
    assert [place for own, _ in parts for place in range(5)[own]] == list(range(5))
    assert [share for _, share in parts] == [3 / 5, 2 / 5]
    assert part_of(Alone(), 5) == (slice(0, 5), 1.0)
    with pytest.raises(InputError, match=r"at most 1 processes, .* got 2; start fewer"):
        part_of(OneOfTwo(meeting, 0), 1)
