import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from ranked_batches import ranked
from red_world import make_rankings
from torch.testing import assert_close

import reward_models
from imgalign.algorithms.objectives import DPOConfig, objective
from imgalign.config import load_config
from imgalign.errors import ConfigError, InputError
from imgalign.losses import plackett_luce_loss
from imgalign.preferences.fit_report import Ceiling, read_fit_report
from imgalign.preferences.records import ranks
from imgalign.preferences.splits import three_way_split
from imgalign.runs.world import Alone
from reward_models.clip import ClipReward
from reward_models.clip_models import load_towers
from reward_models.contract import read_contract
from reward_models.data import index_rankings
from reward_models.descent import LOG_TIE_START, weighted_mean
from reward_models.evaluate import evaluate
from reward_models.features import encode
from reward_models.fit import FitConfig, fit
from reward_models.training import ranking_scores, train_attempt


def test_a_leading_tilde_of_the_clip_is_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    assert load_config(FitConfig, None, ["clip=~/clip"]).clip == "/home/ada/clip"
    assert load_config(FitConfig, None, ["clip=hf-hub:ada/clip"]).clip == "hf-hub:ada/clip"


def test_a_planted_preference_is_recovered_on_unseen_prompts(fitted):
    _, report = fitted
    assert report.test.accuracy.micro > 0.85
    assert report.test.accuracy.by_prompt[0] > 0.75
    assert report.test.gain.by_prompt[0] > 0.1
    assert report.test.share_of_ceiling == report.test.accuracy.micro


def test_the_saved_report_reads_back_equal(fitted):
    out, report = fitted
    assert read_fit_report(out) == report


@pytest.mark.parametrize("text", ["", "[" * 10**6, "{}", "5", '{"test": 1}', "\xff"])
def test_a_report_that_is_none_is_one_line(tmp_path, text):
    (tmp_path / "report.json").write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=r"report.json: not the report of a reward fit \("):
        read_fit_report(tmp_path)


def test_shuffled_labels_give_chance(world, config, tmp_path):
    images, _, rankings = world
    generator = np.random.default_rng(0)
    shuffled = [
        replace(r, ranking=tuple((int(i),) for i in generator.permutation(4))) for r in rankings
    ]
    report = fit(shuffled, images.__getitem__, config, tmp_path / "reward")
    low, high = report.test.accuracy.by_prompt
    assert low < 0.5 < high
    assert report.test.accuracy.micro < 0.65


def test_training_scores_have_mean_0_and_spread_1(fitted, world, config):
    out, report = fitted
    images, _, rankings = world
    train = three_way_split(rankings, validation=0.15, test=0.2, seed=0).train
    reward = reward_models.load(out)
    scores = torch.cat(
        [
            reward.score(
                prompts=[r.prompt] * 4, samples=torch.stack([images[i] for i in r.sample_ids])
            )
            for r in train
        ]
    )
    assert_close(scores.mean(), torch.tensor(0.0), atol=1e-4, rtol=0)
    assert_close(scores.std(correction=0), torch.tensor(1.0))
    assert report.train_scores.std == pytest.approx(1.0)


def test_parts_of_the_split_share_no_prompt(fitted, world):
    _, report = fitted
    _, _, rankings = world
    assert sum(report.num_prompts.values()) == len({r.prompt for r in rankings})
    assert sum(report.num_rankings.values()) == len(rankings)


def test_evaluating_a_fitted_reward_uses_only_prompts_it_was_tested_on(fitted, world):
    out, report = fitted
    images, _, rankings = world
    ceiling = Ceiling(value=1.0, meaning="noiseless labels")
    baseline = reward_models.load(report.settings["clip"])
    again = evaluate(
        reward_models.load(out), rankings, images.__getitem__, baseline=baseline, ceiling=ceiling
    )
    assert again.accuracy == report.test.accuracy
    assert again.baseline == report.test.baseline
    assert again.calibration.ece == pytest.approx(report.test.calibration.ece, abs=1e-4)


def test_a_reward_cannot_be_evaluated_on_prompts_it_learned_from(fitted, world):
    out, _ = fitted
    images, _, rankings = world
    train = three_way_split(rankings, validation=0.15, test=0.2, seed=0).train
    with pytest.raises(InputError, match=r"none of 0 held-out rankings .* rank more prompts"):
        evaluate(reward_models.load(out), train, images.__getitem__)


def test_the_report_says_what_was_done(fitted):
    out, report = fitted
    saved = json.loads((out / "report.json").read_text())
    assert saved["test"]["accuracy"]["micro"] == report.test.accuracy.micro
    assert saved["losses"][0][0] is None
    assert (out / "reliability.png").read_bytes().startswith(b"\x89PNG")
    text = "\n".join(report.lines())
    for word in (
        "held-out pair accuracy",
        "chance",
        "zero-shot CLIP",
        "annotators' agreement (ceiling)",
    ):
        assert word in text
    contract = read_contract(out)
    assert contract.metrics["held_out_accuracy"] == report.test.accuracy.micro
    assert len(contract.golden) == 4
    assert contract.golden[0].score < contract.golden[3].score


def test_equal_seeds_give_equal_weights_and_other_seeds_do_not(world, config, tmp_path):
    images, _, rankings = world
    short = config.model_copy(update={"epochs": 3})
    other = short.model_copy(update={"seeds": (1,)})
    for name, settings in {"a": short, "b": short, "c": other}.items():
        fit(rankings, images.__getitem__, settings, tmp_path / name)
    a, b, c = (
        ClipReward.from_pretrained(tmp_path / name).heads.state_dict()["0.hidden"] for name in "abc"
    )
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_of_several_seeds_the_lowest_validation_loss_is_kept(world, config, tmp_path):
    images, _, rankings = world
    settings = config.model_copy(update={"epochs": 3, "seeds": (0, 1, 2)})
    report = fit(rankings, images.__getitem__, settings, tmp_path / "reward")
    losses = {result.seed: result.validation_loss for result in report.seeds}
    assert list(losses) == [0, 1, 2]
    assert losses[report.chosen_seed] == min(losses.values())


def test_a_wider_prior_is_kept_where_it_surely_lowers_the_validation_loss(world, config, tmp_path):
    images, _, rankings = world
    tight = config.model_copy(update={"prior_stds": (0.01,)})
    both = config.model_copy(update={"prior_stds": (0.01, 3.0)})
    alone = fit(rankings, images.__getitem__, tight, tmp_path / "tight").seeds[0]
    kept = fit(rankings, images.__getitem__, both, tmp_path / "both").seeds[0]
    assert (alone.prior_std, kept.prior_std) == (0.01, 3.0)
    assert kept.validation_loss < alone.validation_loss


def test_a_wider_prior_that_lowers_the_validation_loss_by_luck_is_not_kept(world, config, tmp_path):
    images, _, rankings = world
    generator = np.random.default_rng(0)
    shuffled = [
        replace(r, ranking=tuple((int(i),) for i in generator.permutation(4))) for r in rankings
    ]
    losses = {}
    for name, stds in {"tight": (0.01,), "wide": (0.1,), "both": (0.01, 0.1)}.items():
        settings = config.model_copy(update={"prior_stds": stds})
        losses[name] = fit(shuffled, images.__getitem__, settings, tmp_path / name).seeds[0]
    assert losses["wide"].validation_loss < losses["tight"].validation_loss
    assert losses["both"].prior_std == 0.01


def test_verdicts_without_an_order_are_counted_and_left_out(world, config, tmp_path):
    images, _, rankings = world
    more = [
        replace(rankings[0], ranking=None, verdict="all_bad"),
        replace(rankings[1], ranking=None, verdict="skipped", reason="broken"),
        replace(rankings[2], ranking=None, verdict="skipped", reason="unsafe"),
    ]
    short = config.model_copy(update={"epochs": 1})
    report = fit([*more, *rankings], images.__getitem__, short, tmp_path / "reward")
    assert (report.counts.ranked, report.counts.all_bad, report.counts.skipped) == (60, 1, 2)
    assert sum(report.num_rankings.values()) == 60


def test_many_ties_give_a_higher_tie_weight_than_none(world, config, tmp_path):
    images, redness, rankings = world
    tied = make_rankings(redness, tolerance=0.3)
    with_ties = fit(tied, images.__getitem__, config, tmp_path / "ties")
    without = fit(rankings, images.__getitem__, config, tmp_path / "none")
    assert with_ties.log_tie[0] > without.log_tie[0] + 0.5
    assert with_ties.test.num_tied_pairs > 0
    assert with_ties.test.accuracy.micro > 0.85


def test_rankings_of_different_lengths_mix(world, config, tmp_path):
    images, redness, _ = world
    mixed = make_rankings(redness)[:30] + [
        replace(r, ranking_id=f"pair{i}", prompt=f"pair {i}")
        for i, r in enumerate(make_rankings(redness, k=2)[60:])
    ]
    report = fit(mixed, images.__getitem__, config, tmp_path / "reward")
    assert report.test.accuracy.micro > 0.8


def test_a_ranking_of_weight_2_counts_like_two():
    losses = torch.tensor([0.3, 1.7])
    twice = weighted_mean(losses, torch.tensor([2.0, 1.0]))
    assert_close(twice, torch.tensor((0.3 + 0.3 + 1.7) / 3))


def test_weights_reach_the_fit(world, config, tmp_path):
    images, _, rankings = world
    # Half of the labels are turned round, and told to count for nothing.
    turned = {r.ranking_id for r in rankings[::2]}
    mixed = [replace(r, ranking=r.ranking[::-1]) if r.ranking_id in turned else r for r in rankings]
    trusted = fit(
        mixed,
        images.__getitem__,
        config,
        tmp_path / "reward",
        weights=dict.fromkeys(turned, 1e-6),
    )
    reward = ClipReward.from_pretrained(tmp_path / "reward")
    straight = evaluate(reward, rankings, images.__getitem__)
    assert straight.accuracy.micro > 0.8
    assert trusted.test.accuracy.micro < 0.7


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan])
def test_a_weight_that_is_not_positive_is_refused(world, config, tmp_path, weight):
    images, _, rankings = world
    with pytest.raises(InputError, match="expected a positive weight of ranking 0"):
        fit(rankings, images.__getitem__, config, tmp_path / "r", weights={"0": weight})


def features_of(data, images, towers):
    """What a head of frozen towers learns from."""
    return encode(
        data,
        images.__getitem__,
        towers,
        style=False,
        live_image=False,
        live_text=False,
        world=Alone(),
    )


def test_a_fit_starts_at_zero_shot_clip_and_counts_each_ranking_once(world, clip_folder):
    images, redness, _ = world
    towers = load_towers(clip_folder)
    rankings = [make_rankings(redness, k=2)[7], make_rankings(redness, k=4)[0]]
    data = index_rankings(rankings, [1.0, 1.0], device=towers.device)
    features = features_of(data, images, towers)
    rows = torch.arange(2)
    settings = FitConfig(clip="unused", epochs=1, batch_size=2)
    attempt = train_attempt(
        0, features, [], data, train=rows, validation=rows, config=settings, world=Alone()
    )

    zero_shot = ClipReward.zero_shot(towers)
    cosines = [
        zero_shot.score(
            prompts=[r.prompt] * len(r.sample_ids),
            samples=torch.stack([images[i] for i in r.sample_ids]),
        )
        for r in rankings
    ]
    spread = torch.cat(cosines).std(correction=0)
    losses = [
        plackett_luce_loss(
            cosine[None] / spread,
            torch.tensor([ranks(ranking)]),
            log_tie=torch.full((3,), LOG_TIE_START),
        )
        for cosine, ranking in zip(cosines, rankings, strict=True)
    ]
    # Two rankings, of one pair and of six: their plain mean, before and during the first pass.
    expected = pytest.approx(float(torch.cat(losses).mean()), rel=1e-4)
    assert attempt.losses[0][1] == expected
    assert attempt.losses[1][0] == expected


def test_the_loss_of_a_fit_is_that_of_direct_preference_optimization_for_equal_scores(
    world, clip_folder
):
    images, redness, _ = world
    towers = load_towers(clip_folder)
    rankings = make_rankings(redness, tolerance=0.1)[:12] + make_rankings(redness, k=3)[20:24]
    weights = [1.0 + number % 3 for number in range(16)]
    data = index_rankings(rankings, weights, device=towers.device)
    assert (data.ranks.amax(dim=1) < 2).any()  # some tie
    features = features_of(data, images, towers)
    rows = torch.arange(16)
    settings = FitConfig(clip="unused", epochs=3, batch_size=8)
    attempt = train_attempt(
        0, features, [], data, train=rows, validation=rows, config=settings, world=Alone()
    )
    with torch.no_grad():
        scores = ranking_scores(attempt.head, features, data, rows)
        losses = objective(
            DPOConfig(),
            scores / 0.3,
            replace(ranked(data.ranks), weights=data.weights),
            beta=0.3,
            log_tie=attempt.log_tie,
            baseline=0.0,
        )
    assert attempt.validation_loss == pytest.approx(
        weighted_mean(losses, data.weights).item(), rel=1e-5
    )


def test_unfrozen_blocks_learn_and_nothing_else_in_the_towers_moves(
    world, config, clip_folder, tmp_path
):
    images, _, rankings = world
    settings = config.model_copy(
        update={
            "unfreeze_image_blocks": 1,
            "unfreeze_text_blocks": 1,
            "tower_learning_rate": 1e-3,
            "tower_epochs": 3,
            "epochs": 3,
        }
    )
    report = fit(rankings, images.__getitem__, settings, tmp_path / "reward")
    assert report.seeds[0].unfrozen_helped
    before = load_towers(clip_folder).model.state_dict()
    after = ClipReward.from_pretrained(tmp_path / "reward").towers.model.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name.removeprefix("visual.").split(".")[0] for name in moved} <= {
        "transformer",
        "ln_post",
        "proj",
        "ln_final",
        "text_projection",
    }
    assert not any("resblocks.0" in name for name in moved)
    assert any(name.startswith("visual.transformer.resblocks.1") for name in moved)
    assert any(name.startswith("transformer.resblocks.1") for name in moved)


def test_unfrozen_blocks_beat_the_head_alone_on_the_training_loss(world, config, tmp_path):
    images, _, rankings = world
    settings = config.model_copy(update={"epochs": 2, "patience": 1})
    more = settings.model_copy(
        update={"unfreeze_image_blocks": 2, "tower_learning_rate": 3e-3, "tower_epochs": 6}
    )
    alone = fit(rankings, images.__getitem__, settings, tmp_path / "alone")
    joint = fit(rankings, images.__getitem__, more, tmp_path / "joint")
    assert joint.seeds[0].validation_loss < alone.seeds[0].validation_loss


def test_annotator_agreement_is_measured_where_annotators_overlap(world, config, tmp_path):
    images, _, rankings = world
    second = [replace(r, ranking_id=f"{r.ranking_id}b", annotator="other") for r in rankings]
    short = config.model_copy(update={"epochs": 1})
    report = fit([*rankings, *second], images.__getitem__, short, tmp_path / "reward")
    assert report.test.ceiling.value == 1.0
    # on the pairs of the test prompts, each of which both judged
    count = report.test.accuracy.num_pairs // 2
    assert report.test.ceiling.meaning == f"two annotators with each other, {count} pairs"


def test_bayes_optimal_accuracy_is_that_of_the_oracle_reward(world, config, tmp_path):
    images, redness, rankings = world
    short = config.model_copy(update={"epochs": 1})

    def found(name, oracle):
        return fit(rankings, images.__getitem__, short, tmp_path / name, oracle=oracle).test

    assert found("red", lambda r: [redness[i] for i in r.sample_ids]).truth.value == 1.0
    assert found("blue", lambda r: [-redness[i] for i in r.sample_ids]).truth.value == 0.0
    asked = set()

    def nothing(ranking):
        asked.add(ranking.prompt)
        return [0.0] * len(ranking.sample_ids)

    blind = found("blind", nothing)
    parts = three_way_split(
        rankings, validation=short.validation, test=short.test, seed=short.split_seed
    )
    assert asked == {ranking.prompt for ranking in parts.test}
    assert blind.truth.value == 0.5
    assert blind.share_of_truth == 2 * blind.accuracy.micro
    assert blind.ceiling is None
    assert any("Bayes-optimal accuracy" in line for line in blind.lines())


def test_too_few_prompts_name_a_split_that_works(world, config, tmp_path):
    images, _, rankings = world
    few = rankings[:4]
    with pytest.raises(InputError, match=r"4 prompts in 4 rankings leave no preference for "):
        fit(few, images.__getitem__, config, tmp_path / "reward")
    assert not (tmp_path / "reward").exists()


def test_settings_that_leave_nothing_to_train_on_or_change_nothing_are_refused_by_name():
    load_config(FitConfig, None, ["validation=0.6", "test=0.3"])
    with pytest.raises(ConfigError, match=r"^validation: expected to leave prompts for training"):
        load_config(FitConfig, None, ["validation=0.6", "test=0.4"])
    for setting in ("tower_learning_rate=1e-5", "tower_epochs=3", "tower_patience=2"):
        for blocks in ("unfreeze_image_blocks=1", "unfreeze_text_blocks=1"):
            load_config(FitConfig, None, [setting, blocks])
        name = setting.partition("=")[0]
        with pytest.raises(ConfigError, match=f"^{name}: has no effect without unfreeze_image_blo"):
            load_config(FitConfig, None, [setting])
