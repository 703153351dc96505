"""What a run folder tells: also after something beside it was interrupted, or of version 0.1."""

import json
from typing import Any

from reported_runs import begin_run, fitted_reward

from imgalign.cli.main import main
from imgalign.files import aside_of
from imgalign.report.record import read_run


def test_a_reward_whose_replacement_was_killed_is_put_back_and_told(tmp_path):
    reward = fitted_reward(tmp_path / "reward")
    run = begin_run(tmp_path / "run", reward)
    found = read_run(run)
    reward.rename(aside_of(reward))  # between the two renames of a replacement
    assert read_run(run) == found
    assert found.reward_folder == reward
    reward.rename(aside_of(reward))
    assert read_run(run, reward=reward) == found


RATE = {"value": 1.0, "low": None, "high": None, "num_clusters": 1}
# As version 0.1 wrote it, shortened to one pair of images.
OLD_EVALUATION: dict[str, Any] = {
    "base": {"model": "storybook", "adapter": None, "adapter_hash": None},
    "aligned": {"model": "storybook", "adapter": "demo/run", "adapter_hash": "5e" * 32},
    "gold_meaning": "what the cosy annotators truly want",
    "num_prompts": 1,
    "images_per_prompt": 1,
    "num_left_out": 0,
    "summary": {
        "win_rate": {"rate": RATE, "wilson": [0.2, 1.0], "wins": 1, "ties": 0, "losses": 0},
        "proxy_win_rate": None,
        "gold": None,
        "proxy": None,
        "faithful": None,
        "overoptimisation": None,
        "by_form": [],
    },
    "diversity": None,
    "drift": None,
    "pairs": [{"prompt": "a red cat", "seed": 0, "form": "single", "gold": [1.0, 2.0]}],
    "settings": {"aligned": "demo/run", "num_prompts": 1},
    "origin": {
        "command": "imgalign demo",
        "started_at": "2026-01-02T03:04:05Z",
        "seconds": 5.0,
        "versions": {"imgalign": "0.1.0"},
        "hardware": {"cpu": "x86_64"},
    },
    "pictures": ".",
}


def test_an_evaluation_of_version_0_1_is_refused_in_one_line_that_says_what_to_do(tmp_path, capsys):
    run = begin_run(tmp_path / "run", fitted_reward(tmp_path / "reward"))
    (run / "evaluation").mkdir()
    (run / "evaluation" / "evaluation.json").write_text(json.dumps(OLD_EVALUATION))
    capsys.readouterr()
    assert main(["report", str(run)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert "evaluation.json: not an evaluation of this version" in error
    assert "evaluate again" in error
    assert not (run / "report.html").exists()
