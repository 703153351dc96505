"""Claims: settings that cannot work are refused by name."""

import pytest

from imgalign.config import load_config
from imgalign.errors import ConfigError
from imgalign.train.config import TrainConfig


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["data.group_size=1"], "data.group_size: expected at least 2 with grpo, got 1"),
        (
            ["data.group_size=1", "algorithm={name: supervised}"],
            "data.group_size: expected at least 2 with weighting 'best', got 1",
        ),
        (
            ["policy.num_inference_steps=5", "algorithm.credited_steps=6"],
            "algorithm.credited_steps: expected at most policy.num_inference_steps, 5, got 6",
        ),
        (
            ["policy.num_inference_steps=5", "algorithm.timesteps_per_update=6"],
            "algorithm.timesteps_per_update: expected at most policy.num_inference_steps, 5, got 6",
        ),
        (["policy.num_inference_steps=1"], "policy.num_inference_steps: "),
        (["policy.target_modules=[]"], "policy.target_modules: "),
        (["seed=99999999999999999999"], "seed: "),
    ],
)
def test_settings_that_cannot_work_together_are_refused_by_name(overrides, said):
    with pytest.raises(ConfigError, match=said):
        load_config(TrainConfig, None, overrides)
    fitting = {
        "data.group_size=1": "data.group_size=2",
        "policy.num_inference_steps=1": "policy.num_inference_steps=2",
        "policy.target_modules=[]": "policy.target_modules=[conv2]",
        "seed=99999999999999999999": "seed=9223372036854775807",
    }
    alone = [fitting.get(each, each.replace("=6", "=5")) for each in overrides]
    load_config(TrainConfig, None, alone)


@pytest.mark.parametrize(
    "override",
    ["data.prompts.seed=-1", "optimizer.betas=[1.5,0.9]", "optimizer.betas=[0.9,-0.1]"],
)
def test_settings_that_no_library_accepts_are_refused_by_name(override):
    with pytest.raises(ConfigError, match=override.split("=")[0]):
        load_config(TrainConfig, None, [override])
