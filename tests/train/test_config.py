"""Claims: settings that cannot work are refused by name."""

import re

import pytest

from imgalign.config import load_config
from imgalign.errors import ConfigError
from imgalign.train.config import TrainConfig

TWO_STEPS = "algorithm.timesteps_per_update=2"
ONE_AND_ONE_STEP = ["algorithm.credited_steps=1", "algorithm.kl_steps=1"]
TWO_BATCHES_OF_THREE_PASSES = [
    "data={prompts_per_iteration: 5, group_size: 2}",
    # Ten images in batches of 8; seven steps, of which the last adds no noise, two in a pass.
    "policy={batch_size: 8, num_inference_steps: 7, steps_per_pass: 2}",
]


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
        (
            [*TWO_BATCHES_OF_THREE_PASSES, "algorithm.minibatches=7"],
            "algorithm.minibatches: expected at most 6, 3 forward passes for each of 2 batches",
        ),
        (
            [*TWO_BATCHES_OF_THREE_PASSES, "algorithm.minibatches=5", TWO_STEPS],
            "algorithm.minibatches: expected at most 4, 2 forward passes for each of 2 batches",
        ),
        (
            [*TWO_BATCHES_OF_THREE_PASSES, "algorithm.minibatches=5", *ONE_AND_ONE_STEP],
            "algorithm.minibatches: expected at most 4, 2 forward passes for each of 2 batches",
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
        "algorithm.minibatches=7": "algorithm.minibatches=6",
        "algorithm.minibatches=5": "algorithm.minibatches=4",
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


DPO = ["algorithm.name=dpo", "data.from=rankings"]
HELD_OUT_NONE = "data.held_out.num_prompts=0"
GIVEN = ["data={from: images, folder: x}", "algorithm={name: supervised, weighting: {kind: equal}}"]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ([HELD_OUT_NONE, "reward.held_out=r"], "reward.held_out: has no effect"),
        ([*GIVEN, HELD_OUT_NONE, "reward.path=r"], "reward.path: has no effect on given samples"),
        ([HELD_OUT_NONE, "run.patience=2"], "run.patience: has no effect without a held-out"),
        ([*GIVEN, "run.patience=2"], "run.patience: has no effect without a held-out"),
        (
            [HELD_OUT_NONE, "data.held_out.images_per_prompt=5"],
            "data.held_out.images_per_prompt: has no effect",
        ),
        (
            ["algorithm={credited_steps: 3, kl_steps: 50}"],
            "algorithm.kl_steps: expected at most policy.num_inference_steps, 10, got 50",
        ),
        (
            ["algorithm={name: supervised, weighting: {keep: 8}}"],
            "algorithm.weighting.keep: expected less than data.group_size, 8",
        ),
        (
            [*DPO, HELD_OUT_NONE, "algorithm.max_chosen_drop=1"],
            "algorithm.max_chosen_drop: has no effect without held-out prompts",
        ),
        (
            ["algorithm={name: kto, max_chosen_drop: 1}"],
            "algorithm.max_chosen_drop: has no effect with data.from: rollouts",
        ),
        (
            [*DPO, "data={from: table, file: x, held_out_rankings: 5}", HELD_OUT_NONE],
            "data.held_out_rankings: has no effect without held-out prompts",
        ),
        (
            ["algorithm.name=supervised", "data={from: rankings, held_out_rankings: 5}"],
            "data.held_out_rankings: has no effect with algorithm.name: supervised",
        ),
        (
            [*DPO, "algorithm.minibatches=2", "algorithm.beta.steps=80"],
            "algorithm.beta.steps: expected less than 80, the optimizer steps of the run "
            "(run.iterations=40, algorithm.minibatches=2), got 80",
        ),
        (
            [*DPO, "algorithm.refresh={every: 41, max_nats: 5}"],
            "algorithm.refresh.every: expected less than 40, the optimizer steps of the run "
            "(run.iterations=40, algorithm.minibatches=1), got 41",
        ),
        (["data.prompts={file: x, seed: 3}"], "data.prompts.seed: has no effect"),
        (["data.held_out={file: x, num_prompts: 3}"], "data.held_out.num_prompts: has no effect"),
    ],
)
def test_a_setting_without_an_effect_is_refused(overrides, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        load_config(TrainConfig, None, overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        [HELD_OUT_NONE],
        [*DPO, "data.held_out_rankings=5", "algorithm.max_chosen_drop=1"],
        [*DPO, "reward.path=r", "algorithm.max_chosen_drop=1", "run.patience=null"],
        [*DPO, "algorithm.beta.steps=39", "algorithm.refresh={every: 39, max_nats: 5}"],
        [*DPO, "run.iterations=1"],
        [HELD_OUT_NONE, "data.held_out.images_per_prompt=5", "run.kl_budget_nats=3"],
        [*GIVEN, "reward.path=r", "run.patience=2"],
    ],
)
def test_a_setting_with_an_effect_is_taken(overrides):
    load_config(TrainConfig, None, overrides)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optimizer.betas=[0.9]", "expected 2 values, got [0.9]"),
        ("optimizer.betas=[]", "expected 2 values, got []"),
        ("optimizer.betas=[0.1,0.2,0.3]", "expected at most 2 values, got [0.1, 0.2, 0.3]"),
        ("policy.target_modules=[]", "expected at least 1 value, got []"),
        ("policy.target_modules=to_q", "expected a list, got 'to_q' (did you mean [to_q]?)"),
        ("run.device=quantum", "expected auto, cpu, cuda or cuda:<number>, got 'quantum'"),
    ],
)
def test_a_wrong_value_is_refused_with_what_was_expected(override, said):
    with pytest.raises(ConfigError) as caught:
        load_config(TrainConfig, None, [override])
    assert str(caught.value) == f"{override.partition('=')[0]}: {said}"


def test_a_wrong_value_in_a_list_is_one_problem_and_not_two():
    with pytest.raises(ConfigError) as caught:
        load_config(TrainConfig, None, ["policy.target_modules=[1]"])
    assert str(caught.value) == "policy.target_modules.0: expected text, got 1"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("algorithm.name=drpo", "algorithm.name: expected one of 'grpo', 'ppo', 'supervised'"),
        ("data.from=preferences", "data.from: expected one of 'rollouts', 'images', 'rankings',"),
        ("algorithm.kl.kind=x", "algorithm.kl.kind: expected one of 'fixed', 'adaptive', got 'x'"),
    ],
)
def test_a_kind_that_there_is_not_is_named_with_those_there_are(override, said):
    with pytest.raises(ConfigError, match=said):
        load_config(TrainConfig, None, [override])
