"""Claims: on a GPU the direct methods start from implicit rewards of exactly 0 and learn what they
learn on the CPU, and the rows of a forward pass, not the rankings of a step, bound their memory."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from policies import move_weights
from ranked_batches import CONFIGS
from torch import Tensor
from torch.testing import assert_close

from imgalign.algorithms.direct import Direct
from imgalign.algorithms.implicit import DrawKey, rows_of, score
from imgalign.algorithms.objectives import AnyDirectConfig
from imgalign.algorithms.rankings import RankedBatch
from imgalign.diffusion.config import LoraDiffusionConfig
from imgalign.diffusion.loading import load_pipeline
from imgalign.diffusion.policy import DiffusionPolicy
from imgalign.runs.world import Alone

pytestmark = pytest.mark.gpu

PROMPTS = ["a red house", "a blue boat", "two trees", "the green tree"]


def make_policy(
    model: Path | str,
    device: torch.device,
    *,
    dtype: torch.dtype = torch.float32,
    batch_size: int = 64,
) -> DiffusionPolicy:
    pipeline = load_pipeline(str(model), device=device, dtype=dtype)
    return DiffusionPolicy(pipeline, LoraDiffusionConfig(batch_size=batch_size))


def rankings(policy: DiffusionPolicy, *, number: int = 4, candidates: int = 3) -> RankedBatch:
    """Rankings of random images, the first candidate best, with scores that agree."""
    prompts = [PROMPTS[place % 4] for place in range(number) for _ in range(candidates)]
    generator = torch.Generator().manual_seed(0)
    width, height = policy.family.image_size()
    images = torch.rand(len(prompts), 3, height, width, generator=generator)
    index = torch.arange(len(prompts)).view(-1, candidates)
    ranks = torch.arange(candidates).repeat(number, 1)
    return RankedBatch(
        data=policy.encode(prompts, images),
        index=index,
        ranks=ranks,
        all_bad=torch.zeros(number, dtype=torch.bool),
        all_good=torch.zeros(number, dtype=torch.bool),
        weights=torch.ones(number),
        scores=-ranks.float(),
    )


def learn(algorithm: Direct, policy: DiffusionPolicy, batch: RankedBatch) -> list[Tensor]:
    """The gradients of one iteration, on the CPU."""
    generator = torch.Generator().manual_seed(0)
    for loss in algorithm.losses(policy, batch, world=Alone(), generator=generator):
        if loss.value is not None:
            torch.autograd.backward(loss.value)
    gradients = [parameter.grad for parameter in policy.trainable_parameters()]
    return [gradient.cpu() for gradient in gradients if gradient is not None]


@pytest.mark.parametrize("gradients", [False, True], ids=["without gradients", "with gradients"])
@pytest.mark.parametrize("model", ["tiny", "storybook"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_implicit_rewards_are_exactly_0_at_the_start_for_every_draw(
    model, dtype, gradients, gpu, tiny_pipeline_folder
):
    folder = tiny_pipeline_folder if model == "tiny" else model
    policy = make_policy(folder, gpu, dtype=dtype)
    keys = [[DrawKey(seed=9 * row + turn, level=turn / 5) for turn in range(5)] for row in range(4)]
    rows = rows_of(rankings(policy), keys)
    with torch.set_grad_enabled(gradients):
        scored = score(policy, rows)
    assert scored.log_prob.values.device.type == gpu.type
    assert scored.log_prob.values.requires_grad == gradients
    assert (scored.log_prob.values < -1).all()
    assert scored.log_ratio.tolist() == [0.0] * 60


@pytest.mark.parametrize("batch_size", [3, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_loss_of_pairs_is_log_2_at_the_start(dtype, batch_size, gpu, tiny_pipeline_folder):
    policy = make_policy(tiny_pipeline_folder, gpu, dtype=dtype, batch_size=batch_size)
    algorithm = Direct(CONFIGS["all pairs"].model_copy(update={"draws": 2}))
    assert all(gradient.isfinite().all() for gradient in learn(algorithm, policy, rankings(policy)))
    metrics = algorithm.metrics()
    assert metrics["preference_loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert metrics["implicit_accuracy"] == 0.5
    assert metrics["chosen_log_ratio"] == metrics["rejected_log_ratio"] == 0.0


CHANGES: Mapping[str, dict[str, Any]] = {
    "all pairs": {"draws": 2, "minibatches": 2},
    "best and worst": {"keep_chosen": 0.5},
    "ipo": {"sft": 0.1},
    "kto": {"draws": 2},
    "cardinal": {"beta": {"kind": "auto"}},
}


def settings(name: str) -> AnyDirectConfig:
    config = CONFIGS[name]
    changes = {"refresh": {"every": 1, "max_nats": 1e6}, **CHANGES.get(name, {})}
    return type(config).model_validate(config.model_dump(exclude_unset=True) | changes)


@pytest.mark.usefixtures("whole_float32")
@pytest.mark.parametrize("batch_size", [2, 64])
@pytest.mark.parametrize("name", CONFIGS)
def test_an_iteration_is_that_of_the_cpu(name, batch_size, gpu, tiny_pipeline_folder):
    found = []
    for device in (torch.device("cpu"), gpu):
        policy = make_policy(tiny_pipeline_folder, device, batch_size=batch_size)
        move_weights(policy, by=0.02)
        batch, algorithm = rankings(policy), Direct(settings(name))
        gradients = learn(algorithm, policy, batch)
        with torch.no_grad():
            held_out = algorithm.held_out(policy, batch, world=Alone())
        assert len(policy.remembered) == len(gradients)
        found.append((gradients, {**algorithm.metrics(), **held_out.metrics}))
    (expected, here), (gradients, there) = found
    # Float32 rounding, in sums over a thousand elements of two nearly equal errors.
    assert there == pytest.approx(here, rel=1e-2, abs=1e-2)
    for own, other in zip(gradients, expected, strict=True):
        assert_close(own, other, rtol=0, atol=1e-2 * float(other.abs().max()))


@pytest.fixture
def cuda(gpu: torch.device) -> Iterator[torch.device]:
    """A GPU whose memory is counted."""
    if gpu.type != "cuda":
        pytest.skip("only CUDA counts its memory")
    yield gpu
    torch.cuda.empty_cache()


def test_the_rows_of_a_pass_bound_the_memory_and_not_the_rankings_of_a_step(cuda):
    def peak(batch_size: int, *, number: int) -> int:
        """Bytes beyond those of weights and data."""
        policy = make_policy("storybook", cuda, batch_size=batch_size)
        batch = rankings(policy, number=number, candidates=2)
        algorithm = Direct(CONFIGS["all pairs"])
        learn(algorithm, policy, batch)  # gradients, libraries' workspaces
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        learn(algorithm, policy, batch)
        return torch.cuda.max_memory_allocated() - before

    small, large, many = peak(1, number=16), peak(32, number=16), peak(32, number=64)
    assert small < large / 2
    assert many < 1.2 * large
