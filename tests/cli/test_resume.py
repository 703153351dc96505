"""`imgalign train --resume` finds the run that a config.yaml lies in."""

import pytest

from imgalign.cli.main import main
from imgalign.config import dump_config
from imgalign.train.config import RewardConfig, TrainConfig


def test_the_settings_of_a_run_resume_that_run_wherever_it_lies(tmp_path, capsys, monkeypatch):
    run = tmp_path / "somewhere" / "my run"
    run.mkdir(parents=True)
    dump_config(TrainConfig(reward=RewardConfig(path="storybook")), run / "config.yaml")
    (run / "metrics.jsonl").write_text('{"step": 0}\n')
    monkeypatch.chdir(tmp_path)
    assert main(["train", str(run / "config.yaml"), "--resume"]) == 2
    assert f"{run / 'prompts.json'}: missing" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [(), ("--resume",)])
def test_a_recipe_has_a_run_of_its_own_name(tmp_path, capsys, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").write_text("a file, so that nothing is begun")
    command = ["train", "storybook_grpo", "reward.path=storybook", *arguments]
    assert main(command) == 2
    assert "runs: expected a folder for the run, got a file" in capsys.readouterr().err
