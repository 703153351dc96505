"""Claims: samples that were cut before their end are counted, are learned from without an end, and
earn less where the settings say so; given texts have an end, and cut ones are left out."""

import json
from collections.abc import Sequence

import pytest
import torch
from language_runs import language_settings, start_language, write_talker
from policies import language
from random_walk import RandomWalk, walk_settings
from torch import Tensor
from walk_runs import start

from imgalign.config import load_config
from imgalign.errors import ConfigError
from imgalign.language.chat import response_tokens
from imgalign.runs.metrics import read_metrics
from imgalign.runs.world import Alone
from imgalign.train.config import TrainConfig
from imgalign.train.data.judged import LEFT_OUT
from imgalign.train.data.rollouts import collect
from imgalign.train.data.texts import CompletionsConfig, LabelledConfig

PROMPTS = ["a boat"] * 12


class Length:
    def score(self, *, prompts: Sequence[str], samples: Sequence[str]) -> Tensor:
        return torch.tensor([float(len(text)) for text in samples])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_talker(tmp_path_factory.mktemp("talker") / "model")


def test_a_sample_is_finished_where_its_last_token_is_the_end(model):
    policy = language(model, max_new_tokens=6, batch_size=12)
    trajectory = policy.sample(PROMPTS, seeds=range(12))
    rows = zip(trajectory.replay["tokens"].tolist(), trajectory.mask.tolist(), strict=True)
    ended = [
        policy.tokenizer.eos_token_id in [token for token, there in zip(*row, strict=True) if there]
        for row in rows
    ]
    assert policy.finished(trajectory).tolist() == ended
    assert len(set(ended)) == 2


def test_the_penalty_is_subtracted_from_unfinished_samples_and_from_no_others(model):
    policy = language(model, max_new_tokens=6, batch_size=5)
    plain, less = (
        collect(
            policy,
            Length(),
            PROMPTS,
            seeds=range(12),
            unfinished_penalty=penalty,
            world=Alone(),
        )
        for penalty in (0.0, 100.0)
    )
    finished = torch.cat([policy.finished(each) for each in plain.batch])
    assert plain.rewards.min() >= 0
    assert torch.equal(plain.rewards - less.rewards, torch.where(finished, 0.0, 100.0))
    share = 1 - finished.double().mean().item()
    assert plain.metrics(Alone())["unfinished"] == less.metrics(Alone())["unfinished"] == share


def test_a_run_of_texts_counts_them_and_one_of_images_does_not(model, tmp_path):
    start_language(tmp_path / "texts", language_settings(model, iterations=1))
    start(tmp_path / "images", settings=walk_settings(iterations=1), policy=RandomWalk(num_steps=3))
    texts, images = (
        read_metrics(tmp_path / name / "metrics.jsonl")[-1] for name in ("texts", "images")
    )
    assert 0 < float(texts["unfinished"]) < 1
    assert "unfinished" not in images


def test_a_penalty_shows_in_the_reward_of_training_and_of_held_out_prompts(model, tmp_path):
    for name, penalty in (("free", 0.0), ("fined", 50.0)):
        settings = language_settings(model, iterations=1)
        data = settings.data.model_copy(update={"unfinished_penalty": penalty})
        start_language(tmp_path / name, settings.model_copy(update={"data": data}))
    free, fined = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("free", "fined"))
    unfinished = float(free[1]["unfinished"])
    lost = float(free[1]["reward_mean"]) - float(fined[1]["reward_mean"])
    assert lost == pytest.approx(50 * unfinished, rel=1e-5)
    assert float(fined[0]["held_out_reward"]) < float(free[0]["held_out_reward"]) - 1


def test_a_penalty_has_no_effect_on_images_and_is_refused():
    with pytest.raises(ConfigError) as caught:
        load_config(TrainConfig, None, ["data.unfinished_penalty=1", "reward.path=x"])
    assert "data.unfinished_penalty: has no effect with policy.kind: diffusion" in str(caught.value)


def test_an_end_that_a_given_text_spells_out_is_its_end_and_stands_there_once(model):
    tokenizer = language(model).tokenizer
    end = tokenizer.eos_token_id
    plain, spelled, twice = response_tokens(
        tokenizer, ["a boat", f"a boat{tokenizer.eos_token}", f"{tokenizer.eos_token} a boat"]
    )
    assert plain == spelled
    assert plain[-1] == end
    assert twice.count(end) == 1


def test_given_texts_that_were_cut_are_left_out_and_named_and_the_end_of_others_is_said(
    tmp_path, caplog
):
    caplog.set_level("INFO")
    row = {"prompt": "a cat", "completion": "a red cat", "label": True}
    rows = [row, {**row, "finish_reason": "stop"}, {**row, "finish_reason": "length"}]
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps(each) + "\n" for each in rows))
    labelled = LabelledConfig(file=file)
    labelled.keep(tmp_path)
    assert len(labelled.given.rankings) == 2
    assert (tmp_path / LEFT_OUT).read_text() == (
        "line 3: cut (finish_reason is 'length', so it has no end to learn)\n"
    )
    assert "each given text is learned with an end token after it" in caplog.text
    assert len(CompletionsConfig(file=file).read()[0]) == 2
