"""Claims: what is built has the settings that it was built from, and nothing of what was before."""

import pytest
import torch
from algorithms import ALGORITHMS, algorithm_config
from random_walk import RandomWalk
from safetensors.torch import load_file
from walk_batches import sample

from imgalign.diffusion.policy import DiffusionPolicy
from imgalign.policy import LikelihoodPolicy, StepPolicy
from imgalign.train import assemble
from imgalign.train.assemble import build_learner, load_policy
from imgalign.train.config import OptimizerConfig, TrainConfig
from imgalign.train.learner import Learner
from imgalign.train.world import Alone


def learner_of(policy: RandomWalk, name: str = "grpo") -> Learner:
    return build_learner(
        policy,
        algorithm=algorithm_config(name),
        optimizer=OptimizerConfig(learning_rate=0.5, betas=(0.1, 0.2), weight_decay=0.3),
        seed=0,
        world=Alone(),
    )


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_learner_has_the_algorithm_of_the_settings_and_trains_the_policy(name):
    policy = RandomWalk()
    learner = learner_of(policy, name)
    assert vars(learner.algorithm)["config"] == algorithm_config(name)
    (group,) = learner.optimizer.param_groups
    assert (group["lr"], group["betas"], group["weight_decay"]) == (0.5, (0.1, 0.2), 0.3)
    (trained,) = group["params"]
    assert trained is policy.shift


def test_a_learner_that_is_built_anew_remembers_nothing():
    policy = RandomWalk()
    before = learner_of(policy, "ppo")
    assert before.update(sample(policy), iteration=0)["optimizer_steps"] == 2
    assert before.state_dict()["algorithm"]["baseline"]
    after = learner_of(policy, "ppo").state_dict()
    assert after["optimizer"]["state"] == {}
    assert after["algorithm"]["baseline"] == {}


def test_the_learning_rate_of_a_lora_is_pointed_out_where_all_weights_are_trained(
    tiny_pipeline_folder, caplog, monkeypatch
):
    def said(train: str, rate: float) -> str:
        caplog.clear()
        settings = {
            "policy": {
                "kind": "diffusion",
                "model": str(tiny_pipeline_folder),
                "train": train,
                "dtype": "float32",
            },
            "optimizer": {"learning_rate": rate},
            "run": {"device": "cpu"},
        }
        load_policy(TrainConfig.model_validate(settings))
        return caplog.text

    assert "learning_rate" not in said("full", 2e-3)  # of a model as small as this
    monkeypatch.setattr(assemble, "SMALL_MODEL", 0)
    assert "learning_rate: 0.002 is the rate of a LoRA" in said("full", 2e-3)
    assert "learning_rate" not in said("full", 1e-4)
    assert "learning_rate" not in said("lora", 2e-3)


def test_weights_that_are_trained_are_loaded_as_they_are_whatever_the_network_computes_in(
    tiny_pipeline_folder,
):
    policy = {
        "kind": "diffusion",
        "model": str(tiny_pipeline_folder),
        "train": "full",
        "dtype": "bfloat16",
    }
    optimizer = {"learning_rate": 1e-5}
    settings = {"policy": policy, "optimizer": optimizer, "run": {"device": "cpu"}}
    found = load_policy(TrainConfig.model_validate(settings))
    assert isinstance(found, DiffusionPolicy)
    assert found.family.dtype == torch.bfloat16
    stored = load_file(tiny_pipeline_folder / "unet" / "diffusion_pytorch_model.safetensors")
    for name, weight in found.family.network.named_parameters():
        assert torch.equal(weight, stored[name])


def test_a_policy_is_the_model_of_the_settings_with_an_adapter_of_their_seed(tiny_pipeline_folder):
    def adapter(seed: int) -> list[torch.Tensor]:
        settings = TrainConfig.model_validate(
            {
                "policy": {
                    "model": str(tiny_pipeline_folder),
                    "kind": "diffusion",
                    "train": "lora",
                    "dtype": "float32",
                    "lora_rank": 2,
                },
                "run": {"device": "cpu"},
                "seed": seed,
            }
        )
        policy = load_policy(settings)
        assert isinstance(policy, StepPolicy)
        assert isinstance(policy, LikelihoodPolicy)
        return [parameter.detach() for parameter in policy.trainable_parameters()]

    first, again, other = adapter(1), adapter(1), adapter(2)
    assert {min(matrix.shape) for matrix in first} == {2}
    assert all(torch.equal(one, same) for one, same in zip(first, again, strict=True))
    assert any(not torch.equal(one, same) for one, same in zip(first, other, strict=True))
    # The second matrix of each pair starts at zero: the adapter changes nothing yet.
    assert not any(matrix.any() for matrix in first[1::2])
