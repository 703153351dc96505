"""What a loop decides before it begins: which prompts, which seeds, which recipes."""

from itertools import pairwise

import pytest

from imgalign.errors import ConfigError, InputError
from imgalign.loop.config import MOST_ROUNDS, SEEDS_PER_ROUND, LoopConfig
from imgalign.loop.plan import PROMPTS, make_plan
from imgalign.prompts import EVALUATION_SEEDS, read_prompts


def changed(**sections):
    return LoopConfig.model_validate(sections)


def test_every_round_has_new_prompts_and_none_is_compared():
    plan = make_plan(changed(candidates={"num_prompts": 20}, stop={"max_rounds": 3}))
    rounds = [plan.prompts_of(number) for number in (1, 2, 3)]
    assert [len(set(each)) for each in rounds] == [20, 20, 20]
    assert len({prompt for each in rounds for prompt in each} - set(plan.compared)) == 60


def test_more_rounds_leave_the_prompts_of_the_first_ones_as_they_are():
    short = make_plan(changed(candidates={"num_prompts": 20}, stop={"max_rounds": 2}))
    long = make_plan(changed(candidates={"num_prompts": 20}, stop={"max_rounds": 5}))
    assert [long.prompts_of(number) for number in (1, 2)] == [
        short.prompts_of(number) for number in (1, 2)
    ]
    assert long.compared == short.compared


def test_no_two_rounds_of_any_loops_share_noise_and_none_has_that_of_training():
    starts = []
    for seed in (0, 1, 999):
        plan = make_plan(changed(seed=seed, candidates={"num_prompts": 4}))
        for number in range(1, MOST_ROUNDS + 1):
            starts += [plan.first_candidate_seed(number), plan.first_compared_seed(number)]
    starts.sort()
    gaps = [after - before for before, after in pairwise(starts)]
    assert min(gaps) >= SEEDS_PER_ROUND
    assert starts[-1] + SEEDS_PER_ROUND <= len(EVALUATION_SEEDS)
    assert starts[0] >= 1_000_000  # lower ones are those of a run's own measurements


def test_compared_prompts_in_a_file_are_taken_out_of_those_to_rank(tmp_path):
    ranked, compared = tmp_path / "ranked.txt", tmp_path / "compared.txt"
    ranked.write_text("a fox\nA  Boat\na tree\na sun\na cat\n")
    compared.write_text("a boat\n")
    files = {"candidates": {"prompts": ranked, "num_prompts": 4}, "compare": {"prompts": compared}}
    asked = {"ask": {"kind": "people"}, "stop": {"max_rounds": 1}}
    assert make_plan(changed(**files, **asked)).prompts == (*("a fox", "a tree", "a sun", "a cat"),)
    with pytest.raises(InputError, match="expected at least 8 prompts for 2 rounds of 4, got 4 "):
        make_plan(changed(**files, ask={"kind": "people"}, stop={"max_rounds": 2}))


def test_a_compared_prompt_that_looks_like_a_comment_stays_a_prompt(tmp_path):
    compared = tmp_path / "compared.txt"
    compared.write_text("\\#1 in the charts\na fox\n")
    plan = make_plan(changed(compare={"prompts": compared}, ask={"kind": "people"}))
    plan.write(tmp_path)
    assert read_prompts(tmp_path / PROMPTS) == ("#1 in the charts", "a fox")


def test_simulated_annotators_are_not_asked_about_prompts_they_cannot_read(tmp_path):
    compared = tmp_path / "compared.txt"
    compared.write_text("a fox in a teapot\n")
    with pytest.raises(InputError, match=r"^ask.kind: simulated annotators .* ask people"):
        make_plan(changed(compare={"prompts": compared}))


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"align": {"recipe": "storybook_grpo"}}, r"^reward: expected fit, since storybook_grpo"),
        ({"align": {"recipe": "rewriter_sft"}}, r"^align.recipe: rewriter_sft has policy.kind: la"),
        (
            {"align": {"overrides": ["data={from: folder, folder: pairs}"]}},
            r"^align.recipe: storybook_dpo has data.from: folder, which rounds add nothing to",
        ),
        (
            {"align": {"overrides": ["policy.adapter=mine"]}},
            r"^align.recipe: storybook_dpo has policy.adapter, which the loop sets itself",
        ),
        (
            {"align": {"recipe": "storybook_dpo", "overrides": ["policy={train: full}"]}},
            r"^reference: expected base, since storybook_dpo trains all weights",
        ),
        ({"align": {"recipe": "storybok_dpo"}}, r"no such file \(did you mean storybook_dpo\?\)"),
    ],
)
def test_a_recipe_that_rounds_cannot_be_made_of_is_refused_with_the_cure(sections, said):
    with pytest.raises((ConfigError, InputError), match=said):
        make_plan(changed(**sections))


def test_too_few_candidates_for_the_training_are_refused_before_anybody_ranks_them():
    few = changed(candidates={"num_prompts": 3})
    with pytest.raises(ConfigError, match=r"^candidates.num_prompts: expected at least 4, a qua"):
        make_plan(few)
    many = {"overrides": ["data.rankings_per_iteration=33"]}
    asked = {"kind": "simulated", "annotators": 2}
    enough = changed(candidates={"num_prompts": 22}, align=many, ask=asked)
    assert make_plan(enough).training.data.groups == 33
    with pytest.raises(ConfigError, match=r"enough for 33 rankings .* got 32 \(21 prompts less 5 "):
        make_plan(changed(candidates={"num_prompts": 21}, align=many, ask=asked))


def test_all_weights_can_be_trained_from_the_base_again_in_each_round():
    full = {"recipe": "storybook_dpo", "overrides": ["policy={train: full}"]}
    assert make_plan(changed(align=full, reference="base")).training.policy.train == "full"
