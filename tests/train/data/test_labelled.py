"""Claims: texts that were liked or disliked one by one are what KTO learns from, in TRL's columns;
what compares texts refuses them and names KTO; rare likes or dislikes are warned of."""

import logging
from pathlib import Path
from typing import Any

import pytest
from json_lines import lines
from language_runs import PROMPTS, language_settings, start_language, write_talker

from imgalign.algorithms.interface import RankingCounts
from imgalign.algorithms.objectives import KTOConfig
from imgalign.config import load_config
from imgalign.errors import ConfigError, InputError
from imgalign.language.policy import LanguagePolicy
from imgalign.preferences.foreign.records import GivenRanking
from imgalign.prompts import Prompts
from imgalign.runs.metrics import read_metrics
from imgalign.runs.world import Alone
from imgalign.train.config import TrainConfig
from imgalign.train.data.given_rankings import GivenRankings
from imgalign.train.data.judged import LEFT_OUT, counts_of
from imgalign.train.data.source import Parts
from imgalign.train.data.texts import LabelledConfig

ROWS: list[dict[str, Any]] = [
    {"prompt": "a cat", "completion": "a red cat", "label": True},
    {"prompt": "a cat", "completion": "a dog", "label": False},
    {"prompt": "a dog", "completion": "a dog", "label": True, "weight": 2.0},
    {"prompt": "a bird", "completion": "a tree", "label": False},
]


def source(
    config: LabelledConfig, policy: LanguagePolicy, run: Path, *, held_out: tuple[str, ...] = ()
) -> GivenRankings:
    config.keep(run)
    parts = Parts(
        policy=policy,
        reward=None,
        prompts=Prompts((), held_out),
        run=run,
        seed=0,
        world=Alone(),
    )
    return config.build(parts)


def test_each_text_is_liked_or_disliked_for_itself_with_its_own_prompt_and_weight(policy, tmp_path):
    batch = source(LabelledConfig(file=lines(tmp_path / "a.jsonl", *ROWS)), policy, tmp_path).batch(
        0
    )
    assert batch.index.shape == (4, 1)
    found = set()
    for row, place in enumerate(batch.index[:, 0].tolist()):
        length = int(batch.data.content["length"][place])
        tokens = batch.data.content["tokens"][place, : length - 1].tolist()
        good, bad = bool(batch.all_good[row]), bool(batch.all_bad[row])
        assert good is not bad
        text = policy.tokenizer.decode(tokens)
        found.add((batch.data.prompts[place], text, good, float(batch.weights[row])))
    assert found == {
        (each["prompt"], each["completion"], each["label"], each.get("weight", 1.0))
        for each in ROWS
    }


def test_a_run_keeps_them_when_the_file_goes_and_measures_those_of_held_out_prompts(
    policy, tmp_path
):
    file = lines(tmp_path / "a.jsonl", *ROWS)
    given = source(LabelledConfig(file=file), policy, tmp_path, held_out=("A  cat",))
    file.unlink()
    assert "file" in given.config.moved(tmp_path)
    batch, measured = given.batch(0), given.held_out()
    assert sorted(batch.data.prompts) == ["a bird", "a dog"]
    assert measured is not None
    assert measured.data.prompts == ["a cat", "a cat"]
    assert measured.all_good.tolist() == (~measured.all_bad).tolist()


def test_conversations_are_read_and_rows_without_a_label_are_left_out_by_name(policy, tmp_path):
    talk: dict[str, Any] = {
        "messages": [
            {"role": "user", "content": "a cat"},
            {"role": "assistant", "content": "a red cat"},
        ]
    }
    rows = [{**talk, "label": False}, {**talk, "label": "yes"}, talk]
    config = LabelledConfig(file=lines(tmp_path / "a.jsonl", *rows))
    (kept,) = config.given.rankings
    assert (kept.prompt, kept.all_bad, kept.ranks) == ("a cat", True, (-1,))
    config.keep(tmp_path)
    told = (tmp_path / LEFT_OUT).read_text()
    assert "line 2: no label (label is 'yes', expected true or false)" in told
    assert "line 3: unusable row (no label)" in told


def test_a_file_without_labels_is_refused_by_its_columns(tmp_path):
    file = lines(tmp_path / "a.jsonl", {"prompt": "a cat", "completion": "a red cat"})
    with pytest.raises(InputError, match=r"missing: label; there are: completion, prompt"):
        _ = LabelledConfig(file=file).given


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["algorithm.name=dpo"], "have no partners to be compared with; use algorithm.name: kto"),
        (
            ["algorithm={name: dpo, compare: all_pairs}"],
            "have no partners to be compared with; use algorithm.name: kto",
        ),
        (["algorithm.name=ipo"], "have no partners to be compared with; use algorithm.name: kto"),
        (
            ["algorithm.name=cardinal", "reward.path=x"],
            "have no partners to be compared with; use algorithm.name: kto",
        ),
        (
            ["algorithm={name: supervised, weighting: {kind: equal}}"],
            "use data.from: completions, which takes the liked ones, or algorithm.name: kto",
        ),
        (["algorithm.name=grpo"], "(or use algorithm.name: kto)"),
        (["algorithm.name=kto", "policy.kind=diffusion"], "labelled gives texts"),
        (
            ["algorithm.name=kto", "data.held_out.num_prompts=0", "data.held_out_completions=5"],
            "data.held_out_completions: has no effect without held-out prompts",
        ),
    ],
)
def test_what_cannot_learn_from_likes_and_dislikes_says_so_in_one_line(overrides, said):
    given = ["policy.kind=language", "data={from: labelled, file: a.jsonl}"]
    with pytest.raises(ConfigError) as caught:
        load_config(TrainConfig, None, [*given, *overrides])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def warned(
    config: KTOConfig, caplog: pytest.LogCaptureFixture, *, likes: int, dislikes: int
) -> str:
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        config.refuse_rankings(RankingCounts(ordered=0, tied=0, all_bad=dislikes, all_good=likes))
    return caplog.text


def test_weights_outside_of_what_the_authors_advise_are_warned_of_with_those_inside(caplog):
    # Equation 8 of arXiv:2402.01306v1: (lambda_D n_D) / (lambda_U n_U) between 1 and 4/3.
    said = warned(KTOConfig(), caplog, likes=10, dislikes=40)
    assert "algorithm.desirable_weight between 4 and 5.33" in said
    assert "algorithm.undesirable_weight between 0.188 and 0.25" in said
    for config in (
        KTOConfig(desirable_weight=4.0),
        KTOConfig(desirable_weight=5.33),
        KTOConfig(undesirable_weight=0.188),
        KTOConfig(undesirable_weight=0.25),
    ):
        assert not warned(config, caplog, likes=10, dislikes=40), config
    for config in (KTOConfig(desirable_weight=3.9), KTOConfig(desirable_weight=5.5)):
        assert "authors advise" in warned(config, caplog, likes=10, dislikes=40)
    assert not warned(KTOConfig(), caplog, likes=40, dislikes=40)


def test_weights_of_the_data_count_in_what_is_warned_of(caplog):
    judged = [
        GivenRanking(
            prompt="a",
            images=(f"{number}",),
            ranks=(-1,),
            all_bad=not good,
            all_good=good,
            weight=4.0 if good else 1.0,
        )
        for number, good in enumerate([True] * 10 + [False] * 40)
    ]
    counts = counts_of(judged)
    assert (counts.all_good, counts.weight_good, counts.all_bad, counts.weight_bad) == (
        10,
        4,
        40,
        1,
    )
    with caplog.at_level(logging.WARNING):
        KTOConfig().refuse_rankings(counts)
        assert not caplog.text
        KTOConfig().refuse_rankings(counts._replace(weight_good=1.0))
    assert "10 likes of weight 1 and 40 dislikes of weight 1" in caplog.text
    caplog.clear()
    KTOConfig(undesirable_weight=2.0).refuse_rankings(counts)
    # Half of what it should be at least: desirable_weight 2 brings 2 x 10 x 4 to 2 x 40.
    assert "algorithm.desirable_weight between 2 and 2.67" in caplog.text


def test_likes_alone_and_dislikes_alone_are_learned_from_with_a_warning(caplog):
    assert "all 7 judgements are likes" in warned(KTOConfig(), caplog, likes=7, dislikes=0)
    assert "all 7 judgements are dislikes" in warned(KTOConfig(), caplog, likes=0, dislikes=7)


def test_a_run_on_labelled_texts_learns_what_is_liked_and_goes_on_without_its_file(
    tmp_path, capsys
):
    model = write_talker(tmp_path / "model")
    rows = [
        {"prompt": prompt, "completion": text, "label": text == "trees"}
        for prompt in PROMPTS
        for text in ("trees", "aha ", "nun")
    ]
    file = lines(tmp_path / "a.jsonl", *rows)
    data = {"from": "labelled", "file": str(file), "held_out": {"num_prompts": 2}}
    algorithm = {"name": "kto", "beta": {"kind": "per_nat", "value": 0.1}, "desirable_weight": 2.0}
    settings = language_settings(model, data=data, algorithm=algorithm, iterations=3)
    result = start_language(tmp_path / "run", settings)
    assert (result.end, result.step) == ("finished", 3)
    assert "iteration 3/3  loss 0." in capsys.readouterr().err
    first, *_, last = [
        each
        for each in read_metrics(tmp_path / "run" / "metrics.jsonl")
        if "held_out_preference_loss" in each
    ]
    assert float(last["held_out_preference_loss"]) < float(first["held_out_preference_loss"])
    assert float(last["held_out_chosen_log_ratio"]) > float(last["held_out_rejected_log_ratio"])
    file.unlink()
    longer = settings.model_copy(update={"run": settings.run.model_copy(update={"iterations": 4})})
    assert start_language(tmp_path / "run", longer, resume=True).step == 4


def test_likes_and_dislikes_are_counted_for_the_algorithm(tmp_path):
    config = LabelledConfig(file=lines(tmp_path / "a.jsonl", *ROWS))
    assert counts_of(config.given.rankings) == (0, 0, 2, 2, 1.0, 1.5)
