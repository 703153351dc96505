"""What a run folder tells: also after something beside it was interrupted."""

from reported_runs import begin_run, fitted_reward

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
