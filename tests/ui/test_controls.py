from dataclasses import replace

import pytest

from imgalign.config import plain
from imgalign.preferences.coverage import ProjectRankings
from ui import recipes
from ui.controls import CHOSEN, MATTER, MOST, controls


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def values(recipe, overrides=""):
    return {each.path: each.value for each in controls(recipe, "runs/reward", overrides)}


@pytest.mark.parametrize("recipe", recipes.names())
def test_every_recipe_has_four_to_eight_controls_at_its_own_values(recipe):
    found = controls(recipe, "runs/reward", "")
    settings = recipes.explain(recipe, ["reward.path=runs/reward"]).settings
    explained = {each.path: each for each in settings}
    assert 4 <= sum(not each.choices for each in found) <= MOST
    assert len({each.name for each in found}) == len(found)
    for each in found:
        assert each.value == each.usual == plain(explained[each.path].value)
        assert each.meaning == explained[each.path].meaning.replace("`", "") != ""


def test_a_recipe_has_the_controls_of_its_family():
    assert "algorithm.kl.coefficient" in values("storybook_grpo")
    assert "algorithm.beta.value" not in values("storybook_grpo")
    assert "algorithm.beta.value" in values("storybook_dpo")
    assert "data.group_size" not in values("storybook_dpo")
    assert {"run.iterations", "optimizer.learning_rate", "seed"} <= set(values("sd15_dpo"))


def test_a_setting_that_no_recipe_has_is_no_control():
    known = {
        each.path
        for recipe in recipes.names()
        for each in recipes.explain(recipe, ["reward.path=runs/reward"]).settings
    }
    assert {*CHOSEN, *MATTER} <= known


def test_a_control_shows_what_the_overrides_make_of_it_beside_what_the_recipe_says():
    found = {each.path: each for each in controls("storybook_dpo", "", "seed = 3\n# why")}
    assert (found["seed"].value, found["seed"].usual) == ("3", "0")
    assert (found["run.iterations"].value, found["run.iterations"].usual) == ("160", "160")


def test_what_was_typed_wrongly_stays_in_its_control():
    found = values("storybook_dpo", "run.iterations=many")
    assert found["run.iterations"] == "many"
    assert found["seed"] == "0"


def test_what_rankings_to_learn_from_is_chosen_among_what_there_is_and_comparisons_come_last():
    cats = ProjectRankings(
        project="cats", samples="images", rankings=3, prompts=1, groups=("", "cosy")
    )
    votes = replace(cats, project="cats-compare", rankings=7, groups=("", "warm"))
    tales = replace(cats, project="tales", samples="texts", groups=("", "loud"))
    liked = replace(cats, project="dogs", groups=("",), compared=False, liked=True)
    judged = [votes, cats, tales, liked]
    project, group, *_ = controls("storybook_dpo", "", "", judged)
    assert (project.path, project.value) == ("data.project", "null")
    assert project.choices == (
        ("all projects, without blind comparisons", "null"),
        ("cats: 3 rankings", "cats"),
        ("dogs: 3 likes and dislikes", "dogs"),
        ("cats-compare: 7 blind comparisons", "cats-compare"),
    )
    assert [value for _, value in group.choices] == ["null", "cosy", "warm"]
    project, group, *_ = controls("storybook_dpo", "", "data.project=cats", judged)
    assert project.value == "cats"
    assert [value for _, value in group.choices] == ["null", "cosy"]
    gone, _, *_ = controls("storybook_dpo", "", "data.project=gone", judged)
    assert gone.choices[-1] == ("gone", "gone")
    assert not {"data.project", "data.group"} & set(values("storybook_grpo"))


def test_a_setting_that_an_override_takes_out_has_no_control():
    assert "algorithm.beta.value" not in values("storybook_dpo", "algorithm.name=supervised")


def test_without_a_recipe_that_can_be_read_there_are_no_controls():
    assert controls(None, "", "") == controls("gone", "", "") == []
