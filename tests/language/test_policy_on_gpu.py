"""Claims: on a GPU the ratio of texts starts at 1, up to a third of the clip, and the KL at 0; a
seed and a given text mean what they mean on the CPU; runs of texts train, stop and go on."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from policies import move_weights, randomize
from red_texts import make_text_rankings
from torch.testing import assert_close

from imgalign.algorithms.checks import require
from imgalign.algorithms.kl import measure_kl
from imgalign.algorithms.policy_gradient import GRPOConfig, PolicyGradient
from imgalign.cli.main import main
from imgalign.language.config import FullLanguageConfig, LoraLanguageConfig
from imgalign.language.loading import load_language_model
from imgalign.language.policy import LanguagePolicy
from imgalign.runs.checkpoint import checkpoints
from imgalign.runs.folder import METRICS
from imgalign.runs.metrics import read_metrics
from reward_models.text_fit import TextFitConfig, fit_texts

pytestmark = pytest.mark.gpu

PROMPTS = ["a red house", "two birds and a boat", "the green tree", "a boat"]
SEEDS = [11, 12, 13, 14]
CONFIGS: Mapping[str, Any] = {"lora": LoraLanguageConfig, "full": FullLanguageConfig}


def make_policy(
    device: torch.device, *, train: str = "lora", dtype: torch.dtype = torch.float32, **fields: Any
) -> LanguagePolicy:
    """The storybook's language model."""
    loaded = load_language_model(
        "storybook", device=device, dtype=torch.float32 if train == "full" else dtype
    )
    config = CONFIGS[train].model_validate({"max_new_tokens": 24, "batch_size": 4, **fields})
    return LanguagePolicy(loaded, config, dtype=dtype)


@pytest.mark.parametrize("train", CONFIGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_before_the_first_update_the_ratio_is_1_and_the_kl_0(dtype, train, gpu):
    policy = make_policy(gpu, train=train, dtype=dtype)
    with torch.no_grad():
        trajectory = policy.sample(PROMPTS, seeds=SEEDS)
    assert trajectory.log_probs.device.type == gpu.type
    assert measure_kl(policy, [trajectory]) == 0.0
    algorithm = PolicyGradient(GRPOConfig(), seed=0)
    require(algorithm.checks(policy, trajectory, fresh=True))
    require(policy.checks())
    move_weights(policy)
    assert measure_kl(policy, [trajectory]) > 0.0


@pytest.mark.usefixtures("whole_float32")
def test_a_seed_gives_the_same_text_as_on_the_cpu(gpu):
    here, there = (make_policy(device) for device in (torch.device("cpu"), gpu))
    with torch.no_grad():
        on_cpu, on_gpu = (each.sample(PROMPTS, seeds=SEEDS) for each in (here, there))
    assert there.decode(on_gpu) == here.decode(on_cpu)
    assert_close(on_gpu.log_probs.cpu(), on_cpu.log_probs, rtol=1e-3, atol=1e-3)


@pytest.mark.usefixtures("whole_float32")
def test_given_texts_have_the_same_log_probabilities_and_gradients_as_on_the_cpu(gpu):
    texts = ["a red house under a blue sky", "two birds", "the tree, in a soft style", "a boat"]
    values, gradients = [], []
    for device in (torch.device("cpu"), gpu):
        policy = make_policy(device)
        randomize(policy.trainable_parameters(), by=0.02)
        data = policy.encode(PROMPTS, texts)
        found = policy.log_prob(data, policy.draw(data, seeds=SEEDS)).values
        torch.autograd.backward(found.sum())
        values.append(found.detach().cpu())
        own = [each.grad for each in policy.trainable_parameters()]
        gradients.append(torch.cat([each.flatten().cpu() for each in own if each is not None]))
    assert_close(values[1], values[0], rtol=1e-4, atol=1e-3)
    assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-3 * gradients[0].abs().max().item())


@pytest.fixture(scope="module")
def text_reward_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model that has learned next to nothing."""
    out = tmp_path_factory.mktemp("reward") / "reward"
    rankings, texts = make_text_rankings(24)
    config = TextFitConfig(model="storybook", epochs=1, seeds=(0,))
    fit_texts(rankings, texts.__getitem__, config, out)
    return out


@pytest.mark.parametrize("recipe", ["rewriter_sft", "rewriter_grpo", "rewriter_ppo"])
def test_a_run_of_texts_trains_stops_and_goes_on(recipe, gpu, tmp_path, text_reward_folder):
    out = tmp_path / "run"
    size = "data.completions_per_iteration=8"
    settings = [f"run.device={gpu.type}", "run.checkpoint_every=1", "policy.model=storybook"]
    settings.append("policy.batch_size=4")
    if recipe != "rewriter_sft":
        size = "data.prompts_per_iteration=2"
        settings += ["data.group_size=4", f"reward.path={text_reward_folder}"]
    command = ["train", recipe, size, *settings]
    assert main([*command, "run.iterations=2", "--out", str(out)]) == 0
    assert main([*command, "run.iterations=4", "--out", str(out), "--resume"]) == 0
    records = [each for each in read_metrics(out / METRICS) if "learning_rate" in each]
    assert [each["step"] for each in records] == [1, 2, 3, 4]
    assert all(math.isfinite(float(each["grad_norm"] or 0)) for each in records)
    assert checkpoints(Path(out))
