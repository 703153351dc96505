"""The journal of a loop: nothing is done twice, and another loop is not continued."""

import pytest

from imgalign.errors import CheckpointError, ConfigError, InputError
from imgalign.loop.journal import FILE, Journal

SETTINGS = {"seed": 0, "stop.max_rounds": 3, "train.seed": 0}


def begun(folder, **changes):
    journal = Journal.begin(folder, SETTINGS | changes, free=("stop.",))
    journal.save()
    return journal


def test_a_finished_stage_is_looked_up_and_not_done_again(tmp_path):
    done = []

    def work():
        done.append("once")
        return {"items": "ab12"}

    for _ in range(2):
        outputs = begun(tmp_path).perform(1, "generate", {"start": "base"}, work)
        assert outputs == {"items": "ab12"}
    assert done == ["once"]


def test_a_stage_that_was_killed_leaves_no_entry(tmp_path):
    def killed():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        begun(tmp_path).perform(1, "generate", {}, killed)
    assert begun(tmp_path).find(1, "generate") is None


def test_a_stage_made_from_something_else_is_not_taken_for_this_one(tmp_path):
    begun(tmp_path).perform(1, "align", {"start": "base", "rankings": "aa"}, dict)
    with pytest.raises(CheckpointError, match=r"stage align of round 1 .* other rankings than"):
        begun(tmp_path).perform(1, "align", {"start": "base", "rankings": "bb"}, dict)


def test_a_loop_is_continued_with_the_settings_that_it_began_with(tmp_path):
    begun(tmp_path)
    with pytest.raises(ConfigError, match=r"^train.seed: the loop in .* began with 0, got 1; "):
        begun(tmp_path, **{"train.seed": 1})


def test_a_setting_that_only_another_version_has_does_not_stop_a_loop(tmp_path):
    begun(tmp_path).perform(1, "generate", {}, dict)
    newer = begun(tmp_path, **{"train.data.share": 0.0})
    assert newer.find(1, "generate") is not None
    assert begun(tmp_path).find(1, "generate") is not None


def test_a_section_in_the_place_of_null_is_another_setting(tmp_path):
    section = {"train.refresh.every": 4}
    begun(tmp_path / "one", **{"train.refresh": None})
    with pytest.raises(ConfigError, match=r"^train.refresh.every: .* began with None, got 4"):
        begun(tmp_path / "one", **section)
    begun(tmp_path / "other", **section)
    with pytest.raises(ConfigError, match=r"^train.refresh.every: .* began with 4, got None"):
        begun(tmp_path / "other", **{"train.refresh": None})


def test_when_to_stop_may_be_changed_on_the_way(tmp_path):
    begun(tmp_path).perform(1, "generate", {}, dict)
    longer = begun(tmp_path, **{"stop.max_rounds": 5})
    assert longer.find(1, "generate") is not None


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "mine").touch()
    with pytest.raises(InputError, match=r"expected a new or empty folder.* found 'mine'"):
        begun(tmp_path)
    assert not (tmp_path / FILE).exists()


@pytest.mark.parametrize("content", ["{", '{"settings": {}}', '{"settings": {}, "entries": [1]}'])
def test_a_damaged_journal_is_one_clear_line(tmp_path, content):
    (tmp_path / FILE).write_text(content)
    with pytest.raises(CheckpointError, match=rf"{FILE}: damaged \(.*\); start again"):
        begun(tmp_path)
