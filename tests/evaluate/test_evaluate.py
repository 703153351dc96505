"""Evaluation: what training never saw, what lies on disk, and the whole of it."""

import errno
import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from evaluations import (
    Brightness,
    NoisyImages,
    bright_enough,
    brightness,
    compare,
    flat_features,
)

from imgalign.diffusion.generate import ImageGenerator
from imgalign.errors import CheckpointError, ConfigError, InputError, StorageFullError
from imgalign.evaluate.comparison import summarise
from imgalign.evaluate.config import EvaluateConfig
from imgalign.evaluate.drift import drift_of
from imgalign.evaluate.evaluation import load_evaluation
from imgalign.evaluate.judging import FaithfulCheck, OracleReward
from imgalign.evaluate.saved_images import load_side
from imgalign.evaluate.selection import DrawPrompts, known_prompts, select_prompts
from imgalign.evaluate.sides import LoadGenerator, SwitchingGenerator
from imgalign.preferences.records import SamplerSettings
from imgalign.runs.metrics import MetricsWriter
from imgalign.runs.trained import ADAPTER
from imgalign.storybook.scenes import evaluation_prompts
from imgalign.train.data.rollouts import PromptsConfig, RolloutsConfig
from imgalign.train.data.source import HeldOutConfig

# --- what training never saw


def test_prompts_that_a_run_was_trained_on_are_left_out(run, caplog):
    data = RolloutsConfig(
        prompts=PromptsConfig(num_storybook=5), held_out=HeldOutConfig(num_prompts=4)
    )
    training, held_out = data.load_prompts()
    assert known_prompts(run) == {*training, *held_out}
    drawn = EvaluateConfig(aligned=run, num_prompts=8, images_per_prompt=1, prompt_seed=7001)
    with caplog.at_level(logging.INFO):
        chosen = select_prompts(drawn, known_prompts(run), draw=evaluation_prompts)
    assert len(chosen.prompts) == 8
    assert not known_prompts(run) & set(chosen.prompts)
    assert chosen.num_left_out == 4  # the seed of the run's own held-out prompts
    assert "4 prompts left out" in caplog.text


def test_a_prompt_in_another_spelling_is_the_one_that_the_run_was_trained_on(run, tmp_path):
    file = tmp_path / "prompts.txt"
    known = sorted(known_prompts(run))[0]
    file.write_text(f"{known.upper()}\n  {known.replace(' ', '   ')}\nsomething new\n")
    chosen = select_prompts(EvaluateConfig(aligned=run, prompts=file), known_prompts(run))
    assert set(chosen.prompts) == {"something new"}
    assert chosen.num_left_out == 2


def test_a_prompt_file_that_the_run_learned_is_refused(run, tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("\n".join(known_prompts(run)))
    with pytest.raises(InputError, match="each of its 9 prompts; evaluate on others"):
        select_prompts(EvaluateConfig(aligned=run, prompts=file), known_prompts(run))


def test_without_a_file_and_a_source_of_prompts_the_file_is_asked_for(adapter):
    with pytest.raises(InputError, match="prompts: expected a text file with one prompt per line"):
        select_prompts(EvaluateConfig(aligned=adapter), frozenset())


def test_seeds_are_apart_from_those_of_training_and_from_each_other(adapter):
    settings = EvaluateConfig(aligned=adapter, num_prompts=5)
    chosen = select_prompts(settings, frozenset(), draw=evaluation_prompts)
    assert len(set(chosen.seeds)) == len(chosen.prompts) == 20
    assert max(chosen.seeds) < 2**31
    with pytest.raises(ValueError, match="which training never uses"):
        EvaluateConfig(aligned=adapter, first_seed=2**31 - 10)


def test_both_sides_have_the_same_prompts_and_seeds(adapter, tmp_path):
    asked = []

    class Noting(NoisyImages):
        def generate(self, prompts, *, seeds, settings, **others):
            asked.append((self.adapter, tuple(prompts), tuple(seeds), settings))
            return super().generate(prompts, seeds=seeds, settings=settings, **others)

    sampler = SamplerSettings(num_inference_steps=7, scheduler="euler")
    compare(adapter, tmp_path / "out", load=Noting, settings={"sampler": sampler})
    (base, *rest), (aligned, *same) = asked
    assert (base, aligned) == (None, adapter)
    assert rest == same
    assert rest[-1] == sampler
    asked.clear()
    guided = compare(
        adapter,
        tmp_path / "out",
        load=Noting,
        oracle=brightness,
        settings={"sampler": sampler, "baseline_guidance_scale": 2.5},
    )
    (base, *rest), (aligned, *same) = asked
    assert (base, aligned) == (None, adapter)
    assert rest[:-1] == same[:-1]
    assert same[-1] == sampler
    assert rest[-1] == sampler.model_copy(update={"guidance_scale": 2.5})
    assert guided.verdict().startswith("Aligned beats the base at guidance 2.5 in 100 %")


def test_a_checkpoint_of_a_run_from_an_adapter_is_compared_with_that_adapter(adapter, tmp_path):
    reference = adapter / "reference"
    reference.mkdir()
    (reference / ADAPTER).write_bytes(b"")
    found = compare(adapter, tmp_path / "out")
    assert (found.base.adapter, found.aligned.adapter) == (str(reference), str(adapter))
    other = compare(adapter, tmp_path / "other", settings={"baseline": tmp_path})
    assert other.base.adapter == str(tmp_path)


def test_the_model_is_loaded_once_for_both_sides(adapter, tmp_path):
    loaded = []

    def load(model, **settings):
        loaded.append((model, settings))
        return NoisyImages(model)

    found = compare(adapter, tmp_path / "out", load=load, settings={"device": "cpu"})
    assert loaded == [("storybook", {"device": "cpu", "dtype": "auto"})]
    assert (found.base.adapter, found.aligned.adapter) == (None, str(adapter))


def test_at_another_strength_it_is_another_comparison_without_the_kl_of_the_run(run):
    part = compare(run, None, oracle=brightness, settings={"strength": 0.5})
    full = compare(run, None, oracle=brightness)
    assert (part.aligned.strength, full.aligned.strength) == (0.5, 1.0)
    gain = [each.summary.oracle.difference.value for each in (part, full)]
    assert gain[0] == pytest.approx(gain[1] / 2, rel=0.01)  # pixels are whole numbers
    assert (part.drift is None, full.drift is None) == (True, False)
    assert part.verdict().startswith("Aligned at 0.5 beats the base")
    assert load_evaluation(run / "evaluation-0.5") == part
    assert load_evaluation(run) == full


def test_an_adapter_that_does_not_fit_is_refused_before_an_image_is_made(adapter, tmp_path):
    class Unfit(NoisyImages):
        def use(self, adapter, *, strength=1.0):
            if adapter is not None:
                raise CheckpointError(f"{adapter}: cannot use this adapter")

        def generate(self, *arguments, **settings):
            pytest.fail("an image was made")

    with pytest.raises(CheckpointError, match="cannot use this adapter"):
        compare(adapter, tmp_path / "out", load=Unfit)


def test_settings_of_a_run_that_cannot_be_read_are_told_before_a_model_is_loaded(run, tmp_path):
    (run / "config.yaml").write_text("policy: {model: storybook}\nrun: {iteration: 3}\n")

    def load(*arguments, **settings):
        pytest.fail("a model was loaded")

    with pytest.raises(ConfigError, match=r"run.iteration: unknown key \(did you mean 'iter"):
        compare(run, tmp_path / "out", load=load)


def test_kl_is_that_of_the_weights_that_are_judged(run):
    # the KL of iteration 4 was measured before its update, on the weights of step 3
    assert drift_of(run, run / "step-000003").nats == 2.5
    with MetricsWriter(run / "metrics.jsonl", resume_step=2) as metrics:
        metrics.write(3, {"kl": 1.0, "held_out_kl": 2.75})
    found = drift_of(run, run)
    assert (found.nats, found.budget_nats, found.source) == (
        2.75,
        12,
        "held-out prompts, iteration 3",
    )


def test_a_run_of_an_older_version_has_a_kl_and_no_budget(run):
    (run / "config.yaml").write_text(
        "model: storybook\nppo: {}\niterations: 24\nkl_budget_nats: 12\n"
    )
    found = drift_of(run, run / "step-000003")
    assert (found.nats, found.budget_nats) == (2.5, None)


# --- on disk


def test_an_evaluation_reads_back_equal(adapter, tmp_path):
    out = tmp_path / "out"
    found = compare(
        adapter,
        out,
        oracle=brightness,
        oracle_meaning="how bright it is",
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
    found = compare(
        adapter, tmp_path / "out", oracle=brightness, oracle_tie=0.5, proxy=Brightness()
    )
    assert found.oracle_tie == 0.5
    assert summarise(found.pairs, seed=0, oracle_tie=found.oracle_tie) == found.summary
    assert found.summary.win_rate.ties == len(found.pairs)
    assert "12 ties (at most 0.5 apart)" in "\n".join(found.lines())


def test_the_verdict_says_number_and_interval(adapter, tmp_path):
    found = compare(adapter, tmp_path / "out", oracle=brightness)
    # 6 prompts without a loss: Wilson's interval of 6 out of 6 begins at 6 / (6 + 1.96^2)
    assert found.verdict() == (
        "Aligned beats the base in 100 % of 12 blind comparisons (95 % interval 61 to 100 %)"
    )
    assert found.lines()[0] == found.verdict()


def test_without_an_oracle_reward_the_verdict_says_who_judged(adapter, tmp_path):
    found = compare(adapter, tmp_path / "out", proxy=Brightness())
    assert "by the reward model it was trained on" in found.verdict()


@pytest.mark.parametrize("layout", ["sheets", "files"])
def test_images_read_back_pixel_for_pixel(adapter, tmp_path, layout):
    out = tmp_path / "out"
    found = compare(adapter, out, settings={"images": layout})
    again = NoisyImages("storybook").generate(
        [pair.prompt for pair in found.pairs],
        seeds=[pair.seed for pair in found.pairs],
        settings=SamplerSettings(),
    )
    read = load_side(out / found.images, "base", count=12, columns=2)
    assert [image.tobytes() for image in read] == [each.image.tobytes() for each in again]
    assert (out / found.images / "base.png").exists() == (layout == "sheets")


@pytest.mark.parametrize("failing", ["save_sheet", "write_atomically"])
def test_a_full_disk_leaves_the_earlier_evaluation_whole(adapter, tmp_path, monkeypatch, failing):
    out = tmp_path / "out"
    compare(adapter, out, oracle=brightness)
    (out / "notes.txt").write_text("mine")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}

    def full(*arguments, **settings):
        raise OSError(errno.ENOSPC, "No space left on device")

    module = "saved_images" if failing == "save_sheet" else "evaluation"
    monkeypatch.setattr(f"imgalign.evaluate.{module}.{failing}", full)
    with pytest.raises(StorageFullError, match="saving the evaluation; free some space and try"):
        compare(adapter, out, oracle=brightness, settings={"num_prompts": 3})
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


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


def test_provenance_is_beside_the_images(adapter, tmp_path):
    out = tmp_path / "out"
    found = compare(adapter, out, settings={"images": "files"})
    facts = json.loads((out / found.images / "aligned" / "002-1.json").read_text())
    assert (facts["adapter"], facts["seed"]) == (str(adapter), 1_000_000 + 2 * 2 + 1)


def test_another_evaluation_replaces_the_images_of_the_one_before(adapter, tmp_path):
    out = tmp_path / "out"
    earlier = compare(adapter, out, settings={"images": "files"})
    shutil.copytree(out / earlier.images, out / "pictures-20250101-000000")  # version 0.1's name
    found = compare(adapter, out, settings={"num_prompts": 3})
    assert sorted(path.name for path in out.iterdir()) == ["evaluation.json", found.images]
    assert len(load_side(out / found.images, "base", count=6, columns=2)) == 6


def test_bad_input_is_one_clear_line(tmp_path, adapter):
    with pytest.raises(CheckpointError, match="no such folder"):
        compare(tmp_path / "nothing", tmp_path / "out")
    with pytest.raises(CheckpointError, match="or full weights here; the folder"):
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
    from imgalign.diffusion.config import LoraDiffusionConfig
    from imgalign.diffusion.loading import load_pipeline
    from imgalign.diffusion.policy import DiffusionPolicy

    model = str(tiny_pipeline_folder)
    policy = DiffusionPolicy(
        load_pipeline(model, device=torch.device("cpu")), LoraDiffusionConfig(), seed=0
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
        load=ImageGenerator,
        oracle=brightness,
        settings={"model": model, "prompts": file, "device": "cpu"}
        | {"sampler": SamplerSettings(num_inference_steps=2)},
    )
    assert found.summary.win_rate.num_pairs == 4
    assert found.summary.win_rate.ties < 4
    assert found.aligned.adapter_hash


def test_what_users_hand_in_satisfies_the_protocols():
    assert issubclass(ImageGenerator, SwitchingGenerator)
    assert isinstance(ImageGenerator, LoadGenerator)
    assert isinstance(evaluation_prompts, DrawPrompts)
    assert isinstance(brightness, OracleReward)
    assert isinstance(bright_enough, FaithfulCheck)


def test_settings_are_refused_by_name(adapter):
    from imgalign.config import load_config

    with pytest.raises(ConfigError, match="did you mean 'num_prompts'"):
        load_config(EvaluateConfig, None, [f"aligned={adapter}", "num_prompt=3"])
