"""Fitting a language model to rankings of texts: it learns, calibrates, and leaves out."""

import json
import logging
import math
import random
from dataclasses import replace

import pytest
import torch
from red_texts import ANIMALS, COLOURS, judgement, make_text_rankings
from safetensors.torch import load_file
from tiny_language import CONTEXT, TEMPLATE, build_tokenizer, write_language_model
from torch.testing import assert_close
from transformers import GraniteConfig, GraniteForCausalLM

import reward_models
from imgalign.errors import InputError
from imgalign.language.loading import load_language_model
from imgalign.losses import bradley_terry_loss, plackett_luce_loss
from imgalign.preferences.fit_report import read_fit_report
from imgalign.preferences.splits import three_way_split
from imgalign.preferences.texts import text_id
from reward_models.contract import read_contract
from reward_models.data import index_rankings
from reward_models.descent import LOG_TIE_START
from reward_models.evaluate import Fitted, evaluate
from reward_models.text import LengthReward, TextReward
from reward_models.text_fit import TextFitConfig, fit_texts
from reward_models.text_models import scalar_model
from reward_models.text_training import TextData, ranking_scores

FAST = {"epochs": 6, "batch_size": 8, "learning_rate": 3e-3}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    tokenizer = build_tokenizer(template=TEMPLATE)
    return write_language_model(tmp_path_factory.mktemp("model"), "llama", tokenizer)


@pytest.fixture(scope="module")
def world():
    return make_text_rankings(60)


@pytest.fixture(scope="module")
def fitted_texts(model, world, tmp_path_factory):
    """A fit of three seeds, and its report."""
    rankings, texts = world
    out = tmp_path_factory.mktemp("fits") / "reward"
    config = TextFitConfig(model=str(model), seeds=(0, 1, 2), **FAST | {"epochs": 12})
    return out, fit_texts(rankings, texts.__getitem__, config, out)


def test_a_taste_is_learned_with_every_seed(fitted_texts):
    """On prompts that were never seen; four colours, so chance is one half."""
    _, report = fitted_texts
    for seed in report.seeds:
        assert seed.test_accuracy > 0.9
        assert seed.validation_loss < 0.8 * seed.start_loss
    low, _ = report.test.accuracy.by_prompt
    assert low > report.test.chance


def test_it_starts_from_chance_where_every_order_is_as_likely(fitted_texts):
    """Without ties, a third, then a half; ties, of which there are none, take little of it."""
    _, report = fitted_texts
    chance, much = math.log(3) + math.log(2), math.exp(LOG_TIE_START)
    with_ties = math.log(3 + 3 * much + much) + math.log(2 + much)
    for seed in report.seeds:
        assert chance < seed.start_loss < chance + 0.2 * (with_ties - chance)


def test_the_best_seed_is_kept_and_its_scores_are_standardised(fitted_texts, world):
    out, report = fitted_texts
    best = min(report.seeds, key=lambda seed: seed.validation_loss)
    assert report.chosen_seed == best.seed
    assert (report.train_scores.mean, report.train_scores.std) == pytest.approx((0, 1), abs=1e-3)
    reward = reward_models.load(out)
    scores = [
        reward.score(prompts=[f"{animal} 7"] * 4, samples=[f"{c} {animal}" for c in COLOURS])
        for animal in ANIMALS
    ]
    assert torch.stack(scores).mean(0).diff().min() > 0


def test_the_folder_has_a_contract_a_report_and_a_plot(fitted_texts, model):
    out, report = fitted_texts
    names = {path.name for path in out.iterdir()}
    assert names == {
        "contract.json",
        "model.safetensors",
        "tokenizer",
        "report.json",
        "reliability.png",
    }
    assert read_fit_report(out) == report
    contract = read_contract(out)
    assert contract.kind == "texts"
    assert (contract.origin.model, contract.context_length) == (str(model), CONTEXT)
    assert contract.log_tie == report.log_tie
    assert contract.metrics["held_out_accuracy"] == report.test.accuracy.micro
    assert len(contract.golden) == 4


def test_the_report_compares_with_preferring_the_longer_text(fitted_texts, world):
    """All texts of this world are equally long, so that is right half of the time."""
    _, report = fitted_texts
    assert report.test.baseline_name == "the longer text"
    assert report.test.baseline.micro == 0.5
    assert any("the longer text" in line and "50.0 %" in line for line in report.lines())
    assert LengthReward().score(prompts=["x"] * 2, samples=["abc", ""]).tolist() == [3.0, 0.0]


def test_evaluating_it_gives_the_numbers_of_its_report_on_the_test_split_alone(fitted_texts, world):
    out, report = fitted_texts
    rankings, texts = world
    reward = reward_models.load(out)
    assert isinstance(reward, Fitted)
    found = evaluate(reward, rankings, texts.__getitem__)
    assert found.accuracy == report.test.accuracy
    assert (found.baseline, found.baseline_name) == (report.test.baseline, "the longer text")
    assert found.calibration.ece == pytest.approx(report.test.calibration.ece, abs=1e-4)


def test_log_odds_are_per_point_of_score_at_the_fitted_temperature(fitted_texts):
    """A score is (u - mean) / std, and u / temperature a log-odds."""
    out, report = fitted_texts
    scale = read_contract(out).scale
    assert scale.log_odds == pytest.approx(scale.std / report.temperature)


def test_equal_settings_and_seeds_give_equal_weights(model, world, tmp_path):
    rankings, texts = world
    config = TextFitConfig(model=str(model), **FAST | {"epochs": 1})
    for name in "ab":
        fit_texts(rankings, texts.__getitem__, config, tmp_path / name)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in "ab"]
    assert weights[0] == weights[1]


def test_a_seed_is_tried_from_the_same_start_as_alone(model, world, tmp_path):
    rankings, texts = world
    results = []
    for number, seeds in enumerate([(1, 0), (0,)]):
        config = TextFitConfig(model=str(model), seeds=seeds, **FAST | {"epochs": 1})
        report = fit_texts(rankings, texts.__getitem__, config, tmp_path / str(number))
        results.append([each for each in report.seeds if each.seed == 0])
    assert results[0] == results[1]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_lora_learns_and_is_merged_into_the_weights(world, tmp_path, kind):
    rankings, texts = world
    folder = write_language_model(tmp_path / "model", kind, build_tokenizer(template=TEMPLATE))
    settings = FAST | {"epochs": 3, "learning_rate": 1e-2, "head_learning_rate": 1e-2}
    config = TextFitConfig(model=str(folder), train="lora", lora_rank=4, **settings)
    before = torch.get_rng_state()
    report = fit_texts(rankings, texts.__getitem__, config, tmp_path / "reward")
    assert torch.equal(torch.get_rng_state(), before)
    assert report.seeds[0].validation_loss < report.seeds[0].start_loss
    # Loading recomputes the golden scores, which were taken with the LoRA merged.
    reward = TextReward.from_pretrained(tmp_path / "reward")
    start = load_language_model(str(folder), device=torch.device("cpu")).model.base_model
    untouched = start.state_dict()
    body = reward.model.body.state_dict()
    assert body.keys() == untouched.keys()
    changed = {name for name, value in body.items() if not torch.equal(value, untouched[name])}
    linear = {name for name in body if "attn" in name or "mlp" in name}
    assert changed == {name for name in linear if body[name].ndim == 2}


def test_two_texts_without_ties_are_bradley_terry(model):
    rankings, texts = make_text_rankings(6, candidates=2)
    reward = untrained(model)
    data = tokens_of(reward, rankings, texts)
    scores = ranking_scores(reward.model, data, torch.arange(6))
    better = data.rankings.ranks.argmin(1, keepdim=True)
    chosen, rejected = scores.gather(1, better)[:, 0], scores.gather(1, 1 - better)[:, 0]
    assert chosen.std() > 0.01
    ours = plackett_luce_loss(scores, data.rankings.ranks)
    assert_close(ours, bradley_terry_loss(chosen, rejected))


def test_utilities_of_rankings_are_those_of_their_texts_one_by_one(model):
    """Of rankings of different lengths, whose texts are in one batch and partly the same."""
    shared = {text_id(text): text for text in ("red! cat", "blue cat", "gray cat")}
    two = dict(list(shared.items())[:2])
    rankings = [judgement("x", shared, [2.0, 1.0, 0.0]), judgement("a cat", two, [0.0, 1.0])]
    again = replace(rankings[0], ranking_id="again")
    reward = untrained(model)
    data = tokens_of(reward, [*rankings, again], shared)
    scores = ranking_scores(reward.model, data, torch.arange(3))
    expected = [
        reward.score(prompts=[r.prompt] * len(r.sample_ids), samples=own)
        for r in (*rankings, again)
        for own in [[shared[each] for each in r.sample_ids]]
    ]
    assert_close(scores[0], expected[0])
    assert_close(scores[1, :2], expected[1])
    assert torch.equal(scores[2], scores[0])


def untrained(model) -> TextReward:
    """The language model with a random head."""
    found = load_language_model(str(model), device=torch.device("cpu"))
    scalar = scalar_model(found.model, likelihood=True)
    with torch.no_grad():
        scalar.head.weight.normal_(generator=torch.Generator().manual_seed(0))
    reward = TextReward(scalar, found.tokenizer, context_length=found.context_length)
    return reward.requires_grad_(False)


def tokens_of(reward: TextReward, rankings, texts) -> TextData:
    """Tokens as the fit has them, made pair by pair."""
    data = index_rankings(rankings, [1.0] * len(rankings), device=torch.device("cpu"))
    tokens = {
        (data.prompts.index(r.prompt), data.images.index(each)): reward.rows(
            [r.prompt], [texts[each]]
        )[0]
        for r in rankings
        for each in r.sample_ids
    }
    return TextData(rankings=data, tokens=tokens, pad=reward.padded)


def test_ties_are_learned_from_rankings_that_have_them(model, world, tmp_path):
    rankings, texts = world
    config = TextFitConfig(model=str(model), **FAST | {"epochs": 3, "head_learning_rate": 1e-2})
    tied = [replace(each, ranking=(tuple(range(3)),)) for each in rankings[::2]]
    log_tie = []
    for name, given in (("without", rankings), ("with", [*tied, *rankings[1::2]])):
        report = fit_texts(given, texts.__getitem__, config, tmp_path / name)
        log_tie.append(report.log_tie)
        assert len(report.log_tie) == 2
    assert log_tie[1][1] > log_tie[0][1] + 0.5


def test_a_text_longer_than_the_context_leaves_its_ranking_out_and_is_named(
    model, world, tmp_path, caplog
):
    rankings, texts = world
    long = {text_id(text): text for text in ("x" * CONTEXT, "red! cat")}
    added = judgement("cat 99", long, [0.0, 1.0])
    config = TextFitConfig(model=str(model), **FAST | {"epochs": 1})
    with caplog.at_level(logging.WARNING):
        report = fit_texts(
            [*rankings, added], (texts | long).__getitem__, config, tmp_path / "reward"
        )
    assert (report.counts.ranked, report.counts.unreadable) == (60, 1)
    assert "more than the 64 that the model reads" in caplog.text
    assert "1 text cannot be read, so 1 of 61 rankings are left out" in caplog.text


def test_weights_of_rankings_count(model, world, tmp_path):
    """Twice the weight everywhere is no weight at all; on half of them it is another fit."""
    rankings, texts = world
    config = TextFitConfig(model=str(model), **FAST | {"epochs": 1})
    double = {each.ranking_id: 2.0 for each in rankings}
    half = dict(list(double.items())[::2])
    losses = []
    for name, weights in (("none", None), ("double", double), ("half", half)):
        out = tmp_path / name
        report = fit_texts(rankings, texts.__getitem__, config, out, weights=weights)
        losses.append(report.seeds[0].validation_loss)
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert losses[2] != pytest.approx(losses[0], rel=1e-5)


def test_a_fit_that_learns_nothing_of_use_says_so_and_writes_nothing(model, world, tmp_path):
    """Annotators of the validation prompts like what all others dislike."""
    rankings, texts = world
    config = TextFitConfig(model=str(model), **FAST | {"epochs": 1})
    held_out = three_way_split(rankings, validation=0.15, test=0.2, seed=0).validation
    odd = {each.ranking_id for each in held_out}
    mixed = [replace(r, ranking=r.ranking[::-1]) if r.ranking_id in odd else r for r in rankings]
    with pytest.raises(InputError, match="lowered the validation loss, so nothing was learned"):
        fit_texts(mixed, texts.__getitem__, config, tmp_path / "reward")
    assert not (tmp_path / "reward").exists()


def test_a_rank_without_a_lora_is_refused():
    with pytest.raises(ValueError, match="lora_rank: has no effect without train=lora"):
        TextFitConfig(lora_rank=4)
    assert TextFitConfig().chosen_learning_rate == 1e-4
    assert TextFitConfig(train="lora").chosen_learning_rate == 5e-4
    assert TextFitConfig(learning_rate=1.0).chosen_learning_rate == 1.0


def test_the_settings_are_in_the_report(fitted_texts):
    out, _ = fitted_texts
    settings = json.loads((out / "report.json").read_text())["settings"]
    assert (settings["train"], settings["epochs"], settings["seeds"]) == ("full", 12, [0, 1, 2])


def test_what_the_language_model_knows_of_a_text_is_used_from_the_first_rankings(tmp_path):
    """Whoever ranked preferred what the model itself finds likelier, of meaningless texts."""
    folder = write_language_model(tmp_path / "model", "llama", build_tokenizer(), spread=0.2)
    found = load_language_model(str(folder), device=torch.device("cpu"))
    likely = scalar_model(found.model, likelihood=True)
    assert likely.likelihood is not None
    likely.likelihood.data.fill_(1.0)
    judge = TextReward(likely, found.tokenizer, context_length=found.context_length)
    rng, rankings, texts = random.Random(0), [], {}
    for number in range(60):
        own = ["".join(rng.sample("abcdefghijklmnop", 8)) for _ in range(3)]
        texts |= {text_id(text): text for text in own}
        prompt = f"prompt {number}"
        scores = judge.score(prompts=[prompt] * 3, samples=own).tolist()
        rankings.append(judgement(prompt, {text_id(text): text for text in own}, scores))

    def accuracy(*, likelihood: bool) -> float:
        config = TextFitConfig(model=str(folder), epochs=6, likelihood=likelihood)
        report = fit_texts(rankings, texts.__getitem__, config, tmp_path / f"fit {likelihood}")
        return report.test.accuracy.micro

    assert accuracy(likelihood=True) > 0.9
    assert accuracy(likelihood=False) < 0.8


def test_a_model_that_scales_its_logits_is_refused_unless_likelihoods_are_left_out(tmp_path):
    tokenizer = build_tokenizer(context_length=CONTEXT)
    config = GraniteConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        logits_scaling=8.0,
    )
    GraniteForCausalLM(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    rankings, texts = make_text_rankings(30)
    config_of_fit = TextFitConfig(model=str(tmp_path / "model"), **FAST)
    with pytest.raises(InputError, match=r"changes the logits .* add likelihood=false"):
        fit_texts(rankings, texts.__getitem__, config_of_fit, tmp_path / "reward")
    plain = config_of_fit.model_copy(update={"likelihood": False})
    fit_texts(rankings, texts.__getitem__, plain, tmp_path / "reward")


@pytest.mark.parametrize("train", ["full", "lora"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_fit_ends_at_its_best_pass_with_everything_that_was_trained(world, tmp_path, train, tied):
    """As a fit that makes no pass more; the head of tokens is trained with all other weights."""
    tokenizer = build_tokenizer(template=TEMPLATE)
    folder = write_language_model(tmp_path / "model", "llama", tokenizer, tied=tied)
    before = load_language_model(str(folder), device=torch.device("cpu")).model
    # A third of the rankings are turned around: it is at its best soon, and learns them by heart.
    rankings, texts = world
    turned = [
        replace(r, ranking=r.ranking[::-1]) if number % 3 == 0 else r
        for number, r in enumerate(rankings)
    ]
    settings = {"model": str(folder), "train": train, "learning_rate": 1e-2, "patience": 100}
    fits = []
    for epochs in (10, None):
        config = TextFitConfig(**settings, epochs=epochs or fits[0].seeds[0].best_epoch)
        fits.append(fit_texts(turned, texts.__getitem__, config, tmp_path / f"{epochs}"))
    assert 0 < fits[0].seeds[0].best_epoch < 10
    states = [load_file(tmp_path / f"{each}" / "model.safetensors") for each in (10, None)]
    assert states[0].keys() == states[1].keys()
    for name, each in states[0].items():
        assert torch.equal(each, states[1][name]), name
    assert states[0]["model.likelihood"] != 0
    if not tied:
        own = before.get_output_embeddings().weight
        assert torch.equal(states[0]["model.language_head.weight"], own) == (train == "lora")
