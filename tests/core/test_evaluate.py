"""Blind comparison: what is counted, what is hidden from the judge, what training never saw."""

import errno
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from imgalign.checkpoint import ADAPTER, save_checkpoint
from imgalign.config import dump_config
from imgalign.errors import (
    CheckpointError,
    ConfigError,
    InputError,
    NumericsError,
    StorageFullError,
)
from imgalign.evaluate import EvaluateConfig, evaluate, load_evaluation
from imgalign.evaluate.comparison import Pair, Summary, correlation, summarise
from imgalign.evaluate.judging import (
    FaithfulCheck,
    Generate,
    GoldMeasure,
    Judge,
    cosine_distance,
    mean_distances,
    pixel_distance,
)
from imgalign.evaluate.pictures import load_pictures
from imgalign.evaluate.subjects import choose_subjects, drift_of, form_of, known_prompts
from imgalign.generate import Generated, generate
from imgalign.metrics import MetricsWriter
from imgalign.preferences.records import Provenance
from imgalign.train import TrainConfig
from imgalign.train.prompts import PromptsConfig, load_prompts

SIDE = 4


def flat(value: int) -> Image.Image:
    """A picture of one grey."""
    return Image.new("RGB", (SIDE, SIDE), (value, value, value))


def noisy_images(model, adapter, prompts, *, seeds, on_progress=lambda _: None, **settings):
    """Pictures decided by prompt and seed alone; with an adapter, 40 of 255 brighter."""
    for number, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True), start=1):
        noise = np.random.default_rng([seed, len(prompt)]).integers(100, size=(SIDE, SIDE, 3))
        pixels = (noise + (40 if adapter else 0)).astype(np.uint8)
        yield Generated(
            image=Image.fromarray(pixels),
            provenance=Provenance(
                model=model,
                adapter=None if adapter is None else str(adapter),
                adapter_hash=None if adapter is None else "0" * 64,
                prompt=prompt,
                seed=seed,
                scheduler="ddim",
                width=SIDE,
                height=SIDE,
                steps=settings["steps"],
                guidance_scale=settings["guidance_scale"],
                eta=settings["eta"],
            ),
        )
        on_progress(number / len(prompts))


def brightness(*, prompts, samples):
    return samples.mean((1, 2, 3))


class Brightness:
    """A reward model that agrees with the gold measure of these tests."""

    def score(self, *, prompts, samples):
        return 10 * samples.mean((1, 2, 3))


def bright_enough(*, prompts, samples):
    return samples.mean((1, 2, 3)) > 0.25


def flat_features(samples):
    return samples.flatten(1)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "lora"
    folder.mkdir()
    (folder / ADAPTER).write_bytes(b"")
    return folder


def compare(adapter: Path, out: Path | None, *, made=noisy_images, settings=None, **measures):
    settings = {"num_prompts": 6, "images_per_prompt": 2} | (settings or {})
    return evaluate(EvaluateConfig(aligned=adapter, **settings), out=out, generate=made, **measures)


def judged(*gold: tuple[float, float], proxy=None, faithful=None) -> Summary:
    """The summary of pairs of as many prompts."""
    return summarise(
        [
            Pair(
                prompt=f"{number}",
                seed=number,
                form="free text",
                gold=each,
                proxy=proxy[number] if proxy else None,
                faithful=faithful[number] if faithful else None,
            )
            for number, each in enumerate(gold)
        ],
        seed=0,
    )


# --- what is counted


def test_equal_images_win_exactly_half(adapter, tmp_path):
    def same(model, adapter, prompts, **settings):
        return noisy_images(model, None, prompts, **settings)

    def rounding(*, prompts, samples):
        # as a network does: a score depends on its place in the batch and the batch's size
        place = torch.arange(len(samples)) * 1e-7 + len(samples) * 1e-6
        return samples.mean((1, 2, 3)) + place

    found = compare(adapter, tmp_path / "out", made=same, gold=rounding).summary
    assert found.win_rate.rate.value == 0.5
    assert (found.win_rate.wins, found.win_rate.ties, found.win_rate.losses) == (0, 12, 0)
    assert found.gold.difference.value == 0


def test_a_tie_counts_half():
    found = judged((0, 1), (0, 1), (1, 0), (1, 1)).win_rate
    assert found.rate.value == 2.5 / 4
    assert (found.wins, found.ties, found.losses) == (2, 1, 1)


def test_interval_beside_the_clustered_one_is_wilsons():
    found = judged(*[(0, 1)] * 8, *[(1, 0)] * 2).win_rate
    # 8 of 10 at 95 %: Brown, Cai & DasGupta (2001), or any calculator
    assert found.wilson == pytest.approx((0.4901625, 0.9433178), abs=1e-6)


def test_interval_is_wider_when_pairs_of_a_prompt_agree():
    outcomes = [(0.0, 1.0)] * 24 + [(1.0, 0.0)] * 8

    def found(prompts):
        pairs = [
            Pair(prompt=prompt, seed=0, form="free text", gold=gold)
            for prompt, gold in zip(prompts, outcomes, strict=True)
        ]
        return summarise(pairs, seed=0).win_rate.rate

    alone, grouped = found([f"{i}" for i in range(32)]), found([f"{i // 4}" for i in range(32)])
    assert alone.value == grouped.value == 0.75
    assert grouped.high - grouped.low > 1.5 * (alone.high - alone.low)


def test_difference_is_paired():
    # Prompts differ by far more than sides do, and by the same amount on both sides.
    found = judged(*[(10.0 * i, 10.0 * i + 1) for i in range(12)]).gold
    assert (found.difference.low, found.difference.value, found.difference.high) == (1, 1, 1)
    assert found.before.high - found.before.low > 30


def test_gains_are_in_standard_deviations_of_the_base():
    gold = [(0.0, 1.0), (2.0, 3.0)]  # deviation 1, gain 1
    proxy = [(0.0, 30.0), (20.0, 50.0)]  # deviation 10, gain 3
    found = judged(*gold, proxy=proxy).overoptimisation
    assert found.gold_gain.value == pytest.approx(1)
    assert found.proxy_gain.value == pytest.approx(3)
    assert found.gap.value == pytest.approx(2)
    assert found.fooled.value == 0


def test_fooled_are_the_pairs_that_only_the_reward_likes_better():
    gold = [(1.0, 0.0), (0.0, 1.0), (2.0, 0.0), (1.0, 0.0)]
    proxy = [(0.0, 1.0), (0.0, 1.0), (3.0, 4.0), (1.0, 0.0)]
    assert judged(*gold, proxy=proxy).overoptimisation.fooled.value == 0.5


def test_faithfulness_is_the_share_that_is_verified():
    faithful = [(True, True), (False, True), (False, True), (True, False)]
    found = judged(*[(0.0, 0.0)] * 4, faithful=faithful).faithful
    assert (found.before.value, found.after.value, found.difference.value) == (0.5, 0.75, 0.25)


def test_what_was_not_measured_is_none(adapter, tmp_path):
    found = compare(adapter, tmp_path / "out")
    own = found.summary
    assert own.win_rate is own.gold is own.proxy is own.faithful is own.overoptimisation is None
    assert found.gold_meaning is found.drift is None
    assert "nothing judged them" in found.verdict()


def test_correlation_of_a_constant_is_unknown():
    assert correlation(np.ones(3), np.arange(3.0)) is None
    assert correlation(np.arange(3.0), -np.arange(3.0)) == pytest.approx(-1)


def test_every_form_of_prompt_is_a_comparison_of_its_own(adapter, tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("a red cat\na blue cup\ntwo red cats\na red cat left of a blue cup\nhello\n")
    found = compare(
        adapter, tmp_path / "out", gold=brightness, settings={"prompts": file}
    ).summary.by_form
    assert {each.form: (each.num_prompts, each.num_pairs) for each in found} == {
        "one object": (2, 4),
        "several of a kind": (1, 2),
        "two in a relation": (1, 2),
        "free text": (1, 2),
    }
    assert all(each.win_rate.rate.value == 1 for each in found)


@pytest.mark.parametrize(
    ("prompt", "form"),
    [
        ("a red cat at night", "one object"),
        ("three fish", "several of a kind"),
        ("a cat on a house", "two in a relation"),
        ("an oil painting", "free text"),
    ],
)
def test_form_of_a_prompt(prompt, form):
    assert form_of(prompt) == form


# --- blindness


def test_swapping_the_sides_turns_the_win_rate_around():
    rng = np.random.default_rng(0)
    values = rng.integers(3, size=(20, 2)).astype(float)
    there = judged(*map(tuple, values.tolist())).win_rate
    back = judged(*map(tuple, values[:, ::-1].tolist())).win_rate
    assert there.rate.value == 1 - back.rate.value
    assert (there.wins, there.ties, there.losses) == (back.losses, back.ties, back.wins)
    assert there.wilson == pytest.approx((1 - back.wilson[1], 1 - back.wilson[0]))


def test_the_order_in_which_a_pair_is_shown_changes_nothing():
    pairs = {
        "prompts": [f"{i}" for i in range(9)],
        "base": [flat(10 * i) for i in range(9)],
        "aligned": [flat(200 - 15 * i) for i in range(9)],
    }
    one, other = (Judge(**pairs, seed=seed).scores(brightness, name="gold") for seed in (0, 1))
    assert one == other
    assert one[3] == pytest.approx((30 / 255, 155 / 255))


def test_a_judge_that_prefers_what_comes_first_is_fair_to_both_sides():
    shown = []

    def biased(*, prompts, samples):
        shown.append(samples[:, 0, 0, 0])
        return torch.full((len(samples),), -float(len(shown)))

    count = 400
    judge = Judge(
        prompts=["a cat"] * count, base=[flat(0)] * count, aligned=[flat(255)] * count, seed=0
    )
    scores = judge.scores(biased, name="gold")
    share = sum(aligned > base for base, aligned in scores) / count
    assert share == pytest.approx(0.5, abs=0.1)  # four standard deviations of fair coins
    assert {0.0, 1.0} == set(torch.cat(shown[: len(shown) // 2]).tolist())


def test_every_judge_meets_the_same_prompt_with_both_images():
    seen = []

    def note(*, prompts, samples):
        seen.extend(zip(prompts, samples[:, 0, 0, 0].mul(255).round().int().tolist(), strict=True))
        return torch.zeros(len(samples))

    judge = Judge(prompts=["x", "y"], base=[flat(1), flat(2)], aligned=[flat(3), flat(4)], seed=5)
    judge.scores(note, name="gold")
    assert sorted(seen) == [("x", 1), ("x", 3), ("y", 2), ("y", 4)]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_an_error_that_names_the_prompt(bad):
    judge = Judge(prompts=["x", "y"], base=[flat(1)] * 2, aligned=[flat(2)] * 2, seed=0)
    with pytest.raises(NumericsError, match=r"gold: expected a finite number, got \w+ for 'y'"):
        judge.scores(lambda prompts, samples: torch.tensor([0.0, bad]), name="gold")


def test_a_score_for_each_image_is_expected():
    judge = Judge(prompts=["x"], base=[flat(1)], aligned=[flat(2)], seed=0)
    with pytest.raises(NumericsError, match=r"one number for each of 1 images, got shape \[1, 1\]"):
        judge.scores(lambda prompts, samples: torch.zeros(1, 1), name="gold")


# --- diversity


def test_diversity_is_a_mean_over_pairs_of_a_prompt():
    images = [flat(0), flat(255), flat(0), flat(7)]
    # pairs of "a" differ by 1, 0 and 1; "b" has one image and no distance
    assert mean_distances(images, ["a", "a", "a", "b"], None) == pytest.approx({"a": 2 / 3})


def test_distances_of_known_vectors():
    assert cosine_distance(torch.tensor([[1.0, 0.0], [0.0, 5.0]])) == pytest.approx(1)
    assert cosine_distance(torch.tensor([[1.0, 1.0], [3.0, 3.0]])) == pytest.approx(0, abs=1e-12)
    halves = torch.stack([torch.zeros(3, 2, 2), torch.full((3, 2, 2), 0.5)])
    assert pixel_distance(halves) == pytest.approx(0.5)


def test_diversity_of_single_images_is_unknown(adapter, tmp_path):
    assert compare(adapter, tmp_path / "out", settings={"images_per_prompt": 1}).diversity is None


# --- what training never saw


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with one checkpoint, step 3, and metrics around it."""
    folder = tmp_path / "run"

    def write(checkpoint: Path) -> None:
        (checkpoint / ADAPTER).write_bytes(b"")

    save_checkpoint(folder, 3, write=write)
    settings = TrainConfig(
        prompts=PromptsConfig(num_storybook=5, num_held_out=4), kl_budget_nats=12.0
    )
    dump_config(settings, folder / "config.yaml")
    kept = load_prompts(settings.prompts)._asdict()
    (folder / "prompts.json").write_text(json.dumps(kept))
    with MetricsWriter(folder / "metrics.jsonl") as metrics:
        metrics.write(3, {"kl": 1.0})
        metrics.write(4, {"kl": 2.5})
    return folder


def test_prompts_that_a_run_knew_are_left_out(run, caplog):
    training, held_out = load_prompts(PromptsConfig(num_storybook=5, num_held_out=4))
    assert known_prompts(run) == {*training, *held_out}
    drawn = EvaluateConfig(aligned=run, num_prompts=8, images_per_prompt=1, prompt_seed=7001)
    with caplog.at_level(logging.INFO):
        chosen = choose_subjects(drawn, known_prompts(run))
    assert len(chosen.prompts) == 8
    assert not known_prompts(run) & set(chosen.prompts)
    assert chosen.num_left_out == 4  # the seed of the run's own held-out prompts
    assert "4 prompts left out" in caplog.text


def test_a_prompt_file_that_the_run_learned_is_refused(run, tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("\n".join(known_prompts(run)))
    with pytest.raises(InputError, match="each of its 9 prompts; evaluate on others"):
        choose_subjects(EvaluateConfig(aligned=run, prompts=file), known_prompts(run))


def test_seeds_are_apart_from_those_of_training_and_from_each_other(adapter):
    chosen = choose_subjects(EvaluateConfig(aligned=adapter, num_prompts=5), frozenset())
    assert len(set(chosen.seeds)) == len(chosen.prompts) == 20
    assert max(chosen.seeds) < 2**31
    with pytest.raises(ValueError, match="which training never uses"):
        EvaluateConfig(aligned=adapter, first_seed=2**31 - 10)


def test_both_sides_have_the_same_prompts_and_seeds(adapter, tmp_path):
    asked = []

    def note(model, adapter, prompts, **settings):
        asked.append((adapter, tuple(prompts), tuple(settings["seeds"]), settings["steps"]))
        return noisy_images(model, adapter, prompts, **settings)

    compare(adapter, tmp_path / "out", made=note, settings={"steps": 7})
    (base, *rest), (aligned, *same) = asked
    assert (base, aligned) == (None, adapter)
    assert rest == same
    assert rest[-1] == 7


def test_kl_is_that_of_the_weights_that_are_judged(run):
    # the KL of round 4 was measured before its update, on the weights of step 3
    assert drift_of(run, run / "step-000003").nats == 2.5
    with MetricsWriter(run / "metrics.jsonl", resume_step=2) as metrics:
        metrics.write(3, {"kl": 1.0, "held_out_kl": 2.75})
    found = drift_of(run, run)
    assert (found.nats, found.budget_nats, found.source) == (2.75, 12, "held-out prompts, step 3")


def test_kl_of_the_caller_goes_first(run, tmp_path):
    found = compare(run, tmp_path / "out", kl_nats=4.0).drift
    assert (found.nats, found.budget_nats) == (4, 12)


# --- on disk


def test_an_evaluation_reads_back_equal(adapter, tmp_path):
    out = tmp_path / "out"
    found = compare(
        adapter,
        out,
        gold=brightness,
        gold_meaning="how bright it is",
        proxy=Brightness(),
        faithful=bright_enough,
        features=flat_features,
    )
    assert load_evaluation(out) == load_evaluation(out / "evaluation.json") == found
    assert found.summary.win_rate.rate.value == found.summary.proxy_win_rate.rate.value == 1
    assert found.summary.overoptimisation.agreement_before == pytest.approx(1)
    assert found.diversity.space == "features of the reward model"
    assert found.base.adapter is None
    assert found.aligned.adapter == str(adapter)
    assert torch.__version__.startswith(found.origin.versions["torch"])
    json.loads((out / "evaluation.json").read_text(), parse_constant=pytest.fail)


def test_saved_numbers_follow_from_the_saved_pairs(adapter, tmp_path):
    found = compare(adapter, tmp_path / "out", gold=brightness, proxy=Brightness())
    assert summarise(found.pairs, seed=0) == found.summary


def test_the_verdict_says_number_and_interval(adapter, tmp_path):
    found = compare(adapter, tmp_path / "out", gold=brightness)
    # 6 prompts without a loss: Wilson's interval of 6 out of 6 begins at 6 / (6 + 1.96^2)
    assert found.verdict() == (
        "Aligned beats the base in 100 % of 12 blind comparisons (95 % interval 61 to 100 %)"
    )
    assert found.lines()[0] == found.verdict()


def test_without_gold_the_verdict_says_who_judged(adapter, tmp_path):
    found = compare(adapter, tmp_path / "out", proxy=Brightness())
    assert "by the reward model it was trained on" in found.verdict()


@pytest.mark.parametrize("layout", ["sheets", "files"])
def test_pictures_read_back_pixel_for_pixel(adapter, tmp_path, layout):
    out = tmp_path / "out"
    found = compare(adapter, out, settings={"pictures": layout})
    again = noisy_images(
        "storybook",
        None,
        [pair.prompt for pair in found.pairs],
        seeds=[pair.seed for pair in found.pairs],
        steps=20,
        guidance_scale=1.0,
        eta=0.0,
    )
    read = load_pictures(out, "base", count=12, columns=2)
    assert [image.tobytes() for image in read] == [each.image.tobytes() for each in again]
    assert (out / "base.png").exists() == (layout == "sheets")


@pytest.mark.parametrize("failing", ["save_sheet", "write_atomically"])
def test_a_full_disk_leaves_the_earlier_evaluation_whole(adapter, tmp_path, monkeypatch, failing):
    out = tmp_path / "out"
    compare(adapter, out, gold=brightness)
    (out / "notes.txt").write_text("mine")
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def full(*arguments, **settings):
        raise OSError(errno.ENOSPC, "No space left on device")

    module = "pictures" if failing == "save_sheet" else "evaluation"
    monkeypatch.setattr(f"imgalign.evaluate.{module}.{failing}", full)
    with pytest.raises(StorageFullError, match="saving the evaluation; free some space and try"):
        compare(adapter, out, gold=brightness, settings={"num_prompts": 3})
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_other_files_beside_an_evaluation_stay(adapter, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    compare(adapter, out)
    assert (out / "notes.txt").read_text() == "mine"
    assert not list(out.glob(".tmp-*"))


def test_an_evaluation_of_a_checkpoint_lies_in_its_run_where_reports_look(run, monkeypatch):
    step = run / "step-000003"
    monkeypatch.chdir(step)
    for path in (step, step / ADAPTER, run, Path()):
        found = compare(path, None, settings={"first_seed": 2_000_000 + len(str(path))})
        assert load_evaluation(run) == found
    assert [path.name for path in step.iterdir() if path.is_dir()] == []


def test_the_model_is_that_of_the_run_unless_the_settings_say_another(run, tmp_path):
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("model: storybook", "model: some/model"))
    assert compare(run, tmp_path / "out").base.model == "some/model"
    assert compare(run, tmp_path / "out").settings["model"] == "some/model"
    assert compare(run, tmp_path / "out", settings={"model": "other"}).base.model == "other"


def test_provenance_is_beside_the_pictures(adapter, tmp_path):
    out = tmp_path / "out"
    compare(adapter, out, settings={"pictures": "files"})
    facts = json.loads((out / "aligned" / "002-1.json").read_text())
    assert (facts["adapter"], facts["seed"]) == (str(adapter), 1_000_000 + 2 * 2 + 1)


def test_another_evaluation_replaces_the_pictures_of_the_one_before(adapter, tmp_path):
    out = tmp_path / "out"
    compare(adapter, out, settings={"pictures": "files"})
    compare(adapter, out, settings={"num_prompts": 3})
    assert not (out / "base").exists()
    assert len(load_pictures(out, "base", count=6, columns=2)) == 6


def test_bad_input_is_one_clear_line(tmp_path, adapter):
    with pytest.raises(CheckpointError, match="no such folder"):
        compare(tmp_path / "nothing", tmp_path / "out")
    with pytest.raises(CheckpointError, match=f"no {ADAPTER} here; the folder is empty"):
        compare(Path(tmp_path / "empty").mkdir() or tmp_path / "empty", tmp_path / "out")
    with pytest.raises(InputError, match="make one with `imgalign evaluate"):
        load_evaluation(tmp_path)
    (tmp_path / "evaluation.json").write_text('{"pairs": 3}')
    with pytest.raises(InputError, match=r"not an evaluation of this version \(at "):
        load_evaluation(tmp_path)
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="out: expected a folder, got a file"):
        compare(adapter, tmp_path / "out")


# --- end to end


def test_a_real_model_against_its_own_adapter(tiny_pipeline_folder, tmp_path):
    from imgalign.diffusion.loading import load_pipeline
    from imgalign.diffusion.policy import DiffusionPolicy, PolicyConfig

    model = str(tiny_pipeline_folder)
    policy = DiffusionPolicy(
        load_pipeline(model, device=torch.device("cpu")), PolicyConfig(), seed=0
    )
    with torch.no_grad():
        for parameter in policy.trainable_parameters():
            parameter.add_(0.05)
    policy.save(tmp_path)
    file = tmp_path / "prompts.txt"
    file.write_text("a red house\na blue boat\n")
    found = compare(
        tmp_path,
        tmp_path / "out",
        made=generate,
        gold=brightness,
        settings={"model": model, "prompts": file, "steps": 2, "device": "cpu"},
    )
    assert found.summary.win_rate.num_pairs == 4
    assert found.summary.win_rate.ties < 4
    assert found.aligned.adapter_hash


def test_what_users_hand_in_satisfies_the_protocols():
    assert isinstance(generate, Generate)
    assert isinstance(brightness, GoldMeasure)
    assert isinstance(bright_enough, FaithfulCheck)


def test_settings_are_refused_by_name(adapter):
    from imgalign.config import load_config

    with pytest.raises(ConfigError, match="did you mean 'num_prompts'"):
        load_config(EvaluateConfig, None, [f"aligned={adapter}", "num_prompt=3"])
