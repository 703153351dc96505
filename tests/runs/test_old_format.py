"""Claims: every setting of imgalign 0.1 that has another name now is refused with that name; runs
of 0.1 are told what can still be done with them."""

import re

import pytest

from imgalign.algorithms.old_names import TRAINING
from imgalign.cli.main import main
from imgalign.config import Config, load_config, settings_of
from imgalign.errors import CheckpointError, ConfigError
from imgalign.evaluate.config import EvaluateConfig
from imgalign.report.record import read_run
from imgalign.runs.folder import model_under
from imgalign.runs.old_format import EVALUATION, refuse_old
from imgalign.train.config import TrainConfig
from imgalign.train.starting import claim

# All settings of `imgalign train` in 0.1, but for those that are where they were.
NOW = {
    "model": "policy.model",
    "device": "run.device",
    "dtype": "policy.dtype",
    "attention": "policy.attention",
    "policy.num_steps": "policy.num_inference_steps",
    "policy.lora_targets": "policy.target_modules",
    "policy.autocast": "policy.dtype",
    "ppo.clip_nats": "algorithm.clip_nats",
    "ppo.clip_range": "algorithm.clip_range",
    "ppo.advantages": "algorithm.baseline.kind",
    "ppo.normalise": "algorithm.baseline.normalise",
    "ppo.advantage_clip": "algorithm.advantage_clip",
    "ppo.running_window": "algorithm.baseline.window",
    "ppo.running_min_count": "algorithm.baseline.min_count",
    "ppo.kl.coefficient": "algorithm.kl.coefficient",
    "ppo.kl.target_nats": "algorithm.kl.target_nats",
    "ppo.kl.rate": "algorithm.kl.rate",
    "ppo.value.hidden": "algorithm.baseline.hidden",
    "ppo.value.learning_rate": "algorithm.baseline.learning_rate",
    "ppo.value.epochs": "algorithm.baseline.epochs",
    "ppo.value.error_clip": "algorithm.baseline.error_clip",
    "ppo.inner_epochs": "algorithm.inner_epochs",
    "ppo.minibatches": "algorithm.minibatches",
    "ppo.credited_steps": "algorithm.credited_steps",
    "ppo.kl_steps": "algorithm.kl_steps",
    "ppo.num_steps": "algorithm.timesteps_per_update",
    "ppo.steps_per_pass": "policy.steps_per_pass",
    "prompts.file": "data.prompts.file",
    "prompts.num_storybook": "data.prompts.num_storybook",
    "prompts.seed": "data.prompts.seed",
    "prompts.held_out_file": "data.held_out.file",
    "prompts.num_held_out": "data.held_out.num_prompts",
    "iterations": "run.iterations",
    "prompts_per_iteration": "data.prompts_per_iteration",
    "images_per_prompt": "data.group_size",
    "kl_budget_nats": "run.kl_budget_nats",
    "held_out.every": "run.measure_every",
    "held_out.images_per_prompt": "data.held_out.images_per_prompt",
    "held_out.patience": "run.patience",
    "samples.every": "run.samples.every",
    "samples.num_prompts": "run.samples.num_prompts",
    "samples.images_per_prompt": "run.samples.images_per_prompt",
    "checkpoint_every": "run.checkpoint_every",
    "keep_checkpoints": "run.keep_checkpoints",
}
NOW_OF_EVALUATION = {
    "steps": "sampler.num_inference_steps",
    "guidance_scale": "sampler.guidance_scale",
    "eta": "sampler.eta",
    "precision": "dtype",
    "pictures": "images",
    "held_out_combinations": "unseen_combinations",
}
EACH = [
    *[(TrainConfig, old, new) for old, new in NOW.items()],
    *[(EvaluateConfig, old, new) for old, new in NOW_OF_EVALUATION.items()],
]


@pytest.mark.parametrize(("model", "old", "new"), EACH)
def test_an_old_name_is_refused_with_the_new_one(model: type[Config], old: str, new: str):
    with pytest.raises(ConfigError) as caught:
        load_config(model, None, [f"{old}=1"])
    assert re.fullmatch(rf"{re.escape(old)}: is now {re.escape(new)}( \(.+\))?", str(caught.value))
    paths = {each.path for each in settings_of(model)}
    assert new in paths
    assert old not in paths


def test_the_table_has_nothing_that_was_no_setting():
    known = {**NOW, **NOW_OF_EVALUATION}
    for entry in (*TRAINING, *EVALUATION):
        assert any(f"{old}.".startswith(f"{entry}.") for old in known), entry


def test_all_old_names_of_a_recipe_are_named_at_once(tmp_path):
    (tmp_path / "mine.yaml").write_text("model: storybook\nppo:\n  kl: {coefficient: 0.2}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(TrainConfig, tmp_path / "mine.yaml", ["images_per_prompt=4"])
    assert str(caught.value) == (
        f"images_per_prompt: is now data.group_size; {tmp_path}/mine.yaml: model: is now "
        "policy.model; ppo.kl.coefficient: is now algorithm.kl.coefficient"
    )


@pytest.fixture
def old_run(tmp_path, monkeypatch):
    """The folder of a run as imgalign 0.1 left it, without its weights."""
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "old run"
    run.mkdir()
    (run / "config.yaml").write_text(
        "model: storybook\ndtype: float32\npolicy: {num_steps: 10}\nppo: {clip_nats: 1.6}\n"
        "iterations: 24\nkl_budget_nats: 30\n"
    )
    (run / "metrics.jsonl").write_text('{"step": 1, "kl": 2.0}\n')
    return run


CAN = (
    "config.yaml: a run of imgalign 0.1, which cannot be resumed, repeated or reported on; its "
    "weights still work: imgalign generate --adapter '"
)


@pytest.mark.parametrize(
    "command",
    [
        ["train", "old run/config.yaml"],
        ["train", "old run/config.yaml", "--resume"],
        ["report", "old run"],
    ],
)
def test_a_run_of_old_is_refused_in_a_line_that_says_what_still_works(old_run, capsys, command):
    assert main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: old run/{CAN}old run', imgalign evaluate 'old run'")


def test_neither_a_report_nor_a_resumed_run_begins_on_a_run_of_old(old_run):
    with pytest.raises(CheckpointError, match=re.escape(CAN)):
        read_run(old_run)
    with pytest.raises(CheckpointError, match=re.escape(CAN)):
        claim(old_run, resume=True)


def test_a_recipe_without_sections_is_no_run_of_old(tmp_path):
    (tmp_path / "config.yaml").write_text("reward: {path: storybook}\n")
    refuse_old(tmp_path)


def test_the_model_under_a_run_of_old_is_known(old_run):
    from imgalign.runs.trained import ADAPTER

    (old_run / "step-000024").mkdir()
    (old_run / "step-000024" / ADAPTER).touch()
    (old_run / "config.yaml").write_text("model: mine\npolicy: {num_steps: 10}\nppo: {}\n")
    assert model_under(old_run / "step-000024") == "mine"
