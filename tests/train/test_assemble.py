"""Claims: what is built has the settings that it was built from, and nothing of what was before."""

from pathlib import Path

import pytest
import torch
from algorithm_rows import ALGORITHMS, algorithm_config
from random_walk import RandomWalk
from safetensors.torch import load_file
from tiny_language import CONTEXT, LETTERS, TEMPLATE, build_tokenizer, write_language_model
from torch.testing import assert_close
from transformers import PreTrainedTokenizerFast
from walk_batches import sample

from imgalign.diffusion.policy import DiffusionPolicy
from imgalign.errors import ConfigError, InputError
from imgalign.language.config import LoraLanguageConfig
from imgalign.language.loading import load_language_model
from imgalign.language.policy import LanguagePolicy
from imgalign.policy import Critic, LikelihoodPolicy, StepPolicy
from imgalign.prompts import Prompts
from imgalign.runs.world import Alone
from imgalign.train import assemble
from imgalign.train.assemble import build_learner, critic_of, load_policy, refuse_by_model
from imgalign.train.config import OptimizerConfig, TrainConfig
from imgalign.train.data.rollouts import finite_scores
from imgalign.train.learner import Learner
from reward_models.text import TextReward
from reward_models.text_models import scalar_model


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


# --- rewards of texts


def text_reward(folder: Path, *, context_length: int = CONTEXT) -> TextReward:
    found = load_language_model(str(folder), device=torch.device("cpu"))
    model = scalar_model(found.model, likelihood=False)
    return TextReward(model, found.tokenizer, context_length=context_length)


def test_a_reward_that_reads_less_than_the_policy_writes_is_refused_before_the_first_text(tmp_path):
    own = write_language_model(tmp_path / "own")
    other = write_language_model(tmp_path / "other", tokenizer=build_tokenizer(begin=True))
    policy = {"kind": "language", "train": "lora", "model": str(own), "max_new_tokens": 24}
    data = {"from": "rollouts", "held_out": {"num_prompts": 1}}
    settings = TrainConfig.model_validate({"policy": policy, "data": data})
    prompts = Prompts(("a cat", "a red house"), ("a boat",))

    def refuse(folder: Path, *, reads: int) -> None:
        reward = text_reward(folder, context_length=reads)
        rewards = {"reward.path": None, "reward.held_out": reward}
        refuse_by_model(settings, prompts, None, rewards=rewards)

    refuse(own, reads=11 + 24)
    with pytest.raises(InputError) as error:
        refuse(own, reads=11 + 23)
    assert str(error.value) == (
        "reward.held_out: prompt 'a red house' has 11 tokens, and it reads 34, of which a text may "
        "take 24 by policy.max_new_tokens; lower that, leave out such prompts, or fit the reward "
        "on a model that reads more"
    )
    # Nobody knows how many tokens of another tokenizer a text will be.
    refuse(other, reads=12 + 2)
    with pytest.raises(InputError, match="has 12 tokens, and it reads 13"):
        refuse(other, reads=12 + 1)


def test_a_critic_that_would_read_other_tokens_is_refused(tmp_path):
    def policy(tokenizer: PreTrainedTokenizerFast) -> LanguagePolicy:
        folder = write_language_model(tmp_path / "model", tokenizer=tokenizer)
        found = load_language_model(str(folder), device=torch.device("cpu"))
        return LanguagePolicy(found, LoraLanguageConfig())

    plain = policy(build_tokenizer())
    reward = text_reward(tmp_path / "model")
    assert isinstance(critic_of(reward, plain), Critic)
    for other in (
        build_tokenizer(template=TEMPLATE),
        build_tokenizer(begin=True),
        build_tokenizer(letters=LETTERS),
    ):
        with pytest.raises(ConfigError, match="its tokenizer or chat template is not that of"):
            critic_of(reward, policy(other))


def test_a_sample_that_the_reward_has_no_room_for_is_left_out_and_named(tmp_path, caplog):
    reward = text_reward(write_language_model(tmp_path), context_length=20)
    prompts, texts = ["a cat"] * 3, ["red", "red " * 9, "blue"]
    named = ["seed 1", "seed 2", "seed 3"]
    found = finite_scores(reward, prompts, texts, named=named)
    assert found.isfinite().tolist() == [True, False, True]
    kept = reward.score(prompts=prompts[:1], samples=texts[:1])
    assert_close(found[:1], kept)
    assert "its 5 tokens and 37 of the response are more than the 20" in caplog.text
    assert "reward is nan for seed 2, prompt 'a cat': sample left out" in caplog.text
    with pytest.raises(InputError, match="more than the 20 that the model reads"):
        finite_scores(reward, prompts, [texts[1]] * 3, named=named)
