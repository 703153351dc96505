"""The report of a run: honest, self-contained, and written whatever is missing."""

import json
import re
import shlex
import shutil
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from imgalign.config import dump_config
from imgalign.errors import InputError
from imgalign.evaluate.comparison import Change
from imgalign.evaluate.config import EvaluateConfig
from imgalign.evaluate.drift import Drift
from imgalign.evaluate.evaluation import FOLDER, Diversity, Evaluation, load_evaluation
from imgalign.evaluate.judging import Measures
from imgalign.evaluate.run import evaluate
from imgalign.preferences.accuracy import Accuracy, Bin, Calibration, Gain
from imgalign.preferences.fit_report import Ceiling, Counts, FitReport, Spread
from imgalign.preferences.fit_report import Evaluation as FitEvaluation
from imgalign.preferences.records import Generated, Provenance
from imgalign.report import plots
from imgalign.report.gallery import cells, evenly, losses
from imgalign.report.lettering import Letters
from imgalign.report.record import read_run
from imgalign.report.sheets import before_after, data_uri, magnified, wrapped
from imgalign.report.text import duration, number, signed, steps_shown
from imgalign.report.writing import write_report
from imgalign.runs.checkpoint import ADAPTER, save_checkpoint
from imgalign.runs.metrics import MetricsWriter
from imgalign.runs.status import RunStatus, write_status
from imgalign.statistics import Estimate
from imgalign.storybook.gold import slice_of
from imgalign.storybook.scenes import evaluation_prompts
from imgalign.train.config import RewardConfig, SamplesConfig, TrainConfig
from imgalign.train.sources import PromptsConfig, load_prompts
from imgalign.train.watch import save_grid

SIDE = 8


class NoisyImages:
    """Noise, brighter with an adapter for all seeds but every fifth."""

    def __init__(self, model, **settings):
        self.model = model

    def use(self, adapter):
        self.adapter = adapter

    def generate(self, prompts, *, seeds, steps, guidance_scale, eta, on_progress):
        for prompt, seed in zip(prompts, seeds, strict=True):
            noise = np.random.default_rng(seed).integers(100, size=(SIDE, SIDE, 3))
            shift = (-20 if seed % 5 == 0 else 40) if self.adapter else 0
            yield Generated(
                image=Image.fromarray(np.clip(noise + shift, 0, 255).astype(np.uint8)),
                provenance=Provenance(
                    model=self.model,
                    adapter=str(self.adapter) if self.adapter else None,
                    adapter_hash="5e" * 32 if self.adapter else None,
                    prompt=prompt,
                    seed=seed,
                    steps=steps,
                    guidance_scale=guidance_scale,
                    scheduler="ddim",
                    eta=eta,
                    width=SIDE,
                    height=SIDE,
                ),
            )


def brightness(*, prompts, samples):
    return samples.mean((1, 2, 3))


def bright_enough(*, prompts, samples):
    return samples.mean((1, 2, 3)) > 0.18


class Redness:
    def score(self, *, prompts, samples):
        return samples[:, 0].mean((1, 2))


def begin_run(folder: Path, reward: Path | None = None) -> Path:
    """A run folder with settings and nothing else."""
    folder.mkdir(parents=True)
    settings = TrainConfig(
        iterations=4,
        kl_budget_nats=5.0,
        prompts=PromptsConfig(num_storybook=6, num_held_out=2),
        reward=RewardConfig(path=str(reward) if reward else None),
        samples=SamplesConfig(num_prompts=3, images_per_prompt=2),
    )
    dump_config(settings, folder / "config.yaml")
    kept = load_prompts(settings.prompts)._asdict()
    (folder / "prompts.json").write_text(json.dumps(kept))
    return folder


def make_steps(run: Path, steps: int = 4) -> None:
    def write(folder: Path) -> None:
        (folder / ADAPTER).write_bytes(b"")

    save_checkpoint(run, steps, write=write)
    with MetricsWriter(run / "metrics.jsonl") as metrics:
        metrics.write(0, {"held_out_reward": 0.0, "held_out_kl": 0.0})
        for step in range(1, steps + 1):
            values = {"reward_mean": 0.1 * step, "reward_std": 0.5, "kl": step / 2}
            values |= {"clip_fraction": 0.05, "approx_kl": 0.3, "seconds": 30.0, "quarantined": 0.0}
            metrics.write(step, values | {"held_out_reward": 0.08 * step})
    for step in (0, 2, 4):
        images = torch.rand(6, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(step))
        save_grid(images, run / "samples" / f"step-{step:06d}.png", columns=2)


def fitted_reward(folder: Path) -> Path:
    """What a fit leaves beside its weights, as far as a page reads it."""
    accuracy = Accuracy(micro=0.81, macro=0.8, num_pairs=90, num_prompts=9, by_prompt=(0.68, 0.92))
    bins = (Bin(low=0.5, high=0.6, num_pairs=90, confidence=0.55, accuracy=0.6),)
    spread = Spread(mean=0.0, std=1.0, quantiles=(-2, -1, 0, 1, 2), within_prompt_std=0.9)
    report = FitReport(
        test=FitEvaluation(
            accuracy=accuracy,
            baseline=replace(accuracy, micro=0.6),
            gain=Gain(value=0.21),
            chance=0.5,
            ceiling=Ceiling(value=0.9, meaning="two <people> agree"),
            share_of_ceiling=0.9,
            truth=Ceiling(value=0.95, meaning="what they <truly> want"),
            share_of_truth=0.85,
            num_rankings=12,
            num_tied_pairs=0,
            calibration=Calibration(ece=0.05, log_loss=0.5, bins=bins),
            scores=spread,
        ),
        train_accuracy=0.9,
        temperature=1.0,
        ece_uncalibrated=0.1,
        train_scores=spread,
        log_tie=(),
        counts=Counts(ranked=57, all_bad=2, skipped=1),
        num_rankings={"train": 40, "validation": 8, "test": 9},
        num_prompts={"train": 40, "validation": 10, "test": 9},
        seeds=(),
        chosen_seed=0,
        losses=(),
        data_hash="",
        settings={},
        seconds=9.0,
    )
    folder.mkdir()
    (folder / "report.json").write_text(json.dumps(asdict(report)))
    return folder


def judge(run: Path, **measures) -> Evaluation:
    settings = EvaluateConfig(aligned=run, num_prompts=6, images_per_prompt=2)
    return evaluate(
        settings,
        measures=Measures(slices=slice_of, **measures),
        draw_prompts=evaluation_prompts,
        out=run / FOLDER,
        load=NoisyImages,
        command="imgalign evaluate x",
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A finished run with everything a report can show, and its report; leave it as it is."""
    folder = tmp_path_factory.mktemp("finished")
    run = begin_run(folder / "run", fitted_reward(folder / "reward"))
    make_steps(run)
    write_status(run, RunStatus.of_this_process("finished", 4, 4, message="finished at step 4"))
    judge(
        run,
        oracle=brightness,
        oracle_meaning="how <bright> it is",
        proxy=Redness(),
        faithful=bright_enough,
    )
    write_report(run)
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """The same in a folder of one's own, without the report."""
    folder = shutil.copytree(finished, tmp_path / "run")
    (folder / "report.html").unlink()
    return folder


class Reader(HTMLParser):
    """Collects what a page would load, its headings, and checks that tags are closed."""

    VOID = frozenset({"meta", "img", "br", "path", "use"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.headings: list[str] = []
        self.images = 0

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag not in self.VOID:
            self.open.append(tag)
        for name in ("src", "href", "xlink:href", "action"):
            if name in values:
                self.loads.append(values[name])
        if tag == "img":
            self.images += 1
            assert values["alt"]

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def read(path: Path) -> tuple[str, Reader]:
    text, reader = path.read_text(encoding="utf-8"), Reader()
    reader.feed(text)
    assert not reader.open
    return text, reader


# --- the page


def test_the_page_needs_nothing_from_outside(finished):
    text, page = read(finished / "report.html")
    assert all(address.startswith(("data:image/", "#")) for address in page.loads)
    assert "<script" not in text
    assert "@import" not in text
    # what is left are names of XML formats, which nobody fetches
    assert set(re.findall(r"https?://[^\"' <]+", text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert not re.findall(r"url\((?!#)", text)


def test_a_finished_run_has_every_section(finished):
    text, page = read(finished / "report.html")
    assert page.headings == [
        "Before and after",
        "What was done",
        "Training",
        "By kind of prompt",
        "Gold and reward",
        "Reward model",
        "Pictures over training",
        "What got worse",
        "Where the aligned model won by most",
        "How to repeat it",
    ]
    assert 'class="missing"' not in text


def test_the_verdict_is_the_evaluations_own_sentence(finished):
    found = load_evaluation(finished)
    text, _ = read(finished / "report.html")
    assert found.verdict() in text.replace("\N{NO-BREAK SPACE}", " ")


def test_text_from_outside_is_escaped(finished):
    text, _ = read(finished / "report.html")
    assert "how &lt;bright&gt; it is" in text
    assert "two &lt;people&gt; agree" in text
    assert "<bright>" not in text
    assert "<people>" not in text


def test_the_page_can_be_written_elsewhere_and_is_the_same(finished, tmp_path):
    out = tmp_path / "deep" / "page.html"
    assert write_report(finished, out=out) == out
    assert out.read_bytes() == (finished / "report.html").read_bytes()


# --- unfinished runs


def test_a_run_that_has_not_begun_says_what_to_run(tmp_path):
    run = begin_run(tmp_path / "run")
    text, page = read(write_report(run))
    assert page.headings == ["How to repeat it"]
    assert text.count('class="missing"') == 5
    for command in ("train", "evaluate", "report"):
        assert f"imgalign {command} {run}" in text
    assert page.images == 0


def test_a_run_in_progress_says_how_far_it_is(tmp_path):
    run = begin_run(tmp_path / "run")
    make_steps(run, 2)
    write_status(run, RunStatus.of_this_process("running", 2, 4, eta_seconds=300.0))
    text, page = read(write_report(run))
    assert "running: step 2 of 4, about 5 min left" in text
    assert "Training" in page.headings
    assert "No verdict yet." in text


def test_a_comparison_without_pictures_or_gold_is_still_told(run):
    judge(run, proxy=Redness())
    next((run / FOLDER).glob("*/base.png")).unlink()
    (run / FOLDER / "before_after.png").unlink(missing_ok=True)
    text, _ = read(write_report(run))
    assert "by the reward model it was trained on" in text
    assert "Before and after.</b> The pictures were not kept" in text
    assert "Gold and reward.</b> Needs a gold measure" in text
    assert not (run / FOLDER / "before_after.png").exists()


def test_what_is_no_run_or_damaged_is_one_clear_line(run, tmp_path):
    with pytest.raises(InputError, match=r"no run here \(no config.yaml\)"):
        write_report(tmp_path)
    with pytest.raises(InputError, match=r"give the folder of a reward model"):
        write_report(run, reward=tmp_path)
    with pytest.raises(InputError, match="give the folder of an evaluation"):
        write_report(run, evaluation=tmp_path)
    next((run / FOLDER).glob("*/base.png")).write_bytes(b"not a picture")
    with pytest.raises(InputError, match=r"base.png: expected a PNG, JPEG or WebP image"):
        write_report(run)


# --- damage


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[" * 100_000, b"", b"null", b"[]", b"{}"])
@pytest.mark.parametrize("name", ["evaluation/evaluation.json", "reward/report.json"])
def test_a_damaged_input_is_one_line_that_names_it(run, tmp_path, name, content):
    reward = fitted_reward(tmp_path / "reward")
    file = tmp_path / "reward" / "report.json" if name.startswith("reward") else run / name
    file.write_bytes(content)
    with pytest.raises(InputError, match=re.escape(str(file))) as caught:
        write_report(run, reward=reward)
    assert "again" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("key", "value"), [("images_per_prompt", 0), ("num_prompts", 5), ("pairs", [])]
)
def test_an_evaluation_whose_counts_do_not_fit_its_pairs_is_refused(run, key, value):
    file = run / FOLDER / "evaluation.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    with pytest.raises(InputError, match="pairs of images, got"):
        write_report(run)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_an_evaluation_with_a_number_that_is_none_is_refused(run, number):
    file = run / FOLDER / "evaluation.json"
    values = json.loads(file.read_text())
    values["pairs"][0]["gold"][0] = "here"
    file.write_text(json.dumps(values).replace('"here"', number))
    with pytest.raises(InputError, match=r"evaluation.json: damaged .*; evaluate again"):
        write_report(run)


def test_numbers_that_are_none_stop_neither_plots_nor_counts(run):
    last = (run / "metrics.jsonl").read_text().splitlines()[-1]
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(json.loads(last) | {"step": 10**30}) + "\n")
        for key in ("reward_mean", "seconds", "quarantined", "kl"):
            for value in ("NaN", "Infinity", "1e999", 10**30):
                changed = json.dumps(json.loads(last) | {key: 0})
                file.write(changed.replace(f'"{key}": 0', f'"{key}": {value}') + "\n")
    text, _ = read(write_report(run))
    assert "nan" not in re.sub("<[^>]*>", "", text).lower().split()


def test_a_sample_grid_that_is_damaged_is_left_out_and_named(run, caplog):
    (run / "samples" / "step-abc.png").write_bytes(b"not one of ours")
    (run / "samples" / "step-000007.png").write_bytes(b"not an image")
    Image.new("RGB", (1, 1)).save(run / "samples" / "step-000008.png")
    (run / "samples" / "step-000009.png").mkdir()
    text, _ = read(write_report(run))
    assert "step 4</th>" in text
    for step in (7, 8, 9):
        assert f"step {step}</th>" not in text
    told = "\n".join(record.getMessage() for record in caplog.records)
    assert "step-000007.png" in told
    assert "step-000008.png" in told


def test_a_sheet_that_is_too_small_for_its_images_is_refused(run):
    (sheet,) = (run / FOLDER).rglob("base.png")
    Image.new("RGB", (1, 1)).save(sheet)
    with pytest.raises(InputError, match=r"base.png: too small for 6 x 2 images; evaluate again"):
        write_report(run)


# --- commands


class Commands(HTMLParser):
    """The text of every command, as a browser copies it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inside = False

    def handle_starttag(self, tag, attrs):
        if tag in ("code", "pre"):
            self.inside = True
            self.found.append("")

    def handle_endtag(self, tag):
        self.inside = self.inside and tag not in ("code", "pre")

    def handle_data(self, data):
        if self.inside:
            self.found[-1] += data


def test_every_command_can_be_copied_into_a_shell_whatever_the_folder_is_called(tmp_path):
    run = begin_run(tmp_path / "my run's  2 %, <b>; $HOME *")
    reader = Commands()
    reader.feed(write_report(run).read_text(encoding="utf-8"))
    lines = [line for text in reader.found for line in text.splitlines() if "imgalign " in line]
    words = [shlex.split(line) for line in lines]
    assert ["imgalign", "evaluate", str(run)] in words
    assert ["imgalign", "report", str(run), "--reward", "FOLDER"] in words
    config = str(run / "config.yaml")
    assert ["imgalign", "train", config, "--out", str(run), "--resume"] in words
    assert ["imgalign", "train", config, "--out", "NEW_FOLDER"] in words
    assert all(str(run) in line or config in line for line in words)


def test_the_prompts_of_the_picture_to_share_are_written_out(finished):
    found = load_evaluation(finished)
    text, _ = read(finished / "report.html")
    listed = re.search(
        r"<summary>The prompts of before_after.png</summary>\n<ol>(.*?)</ol>", text, re.S
    )
    entries = re.findall(r"<li>(.*?)</li>", listed[1])
    assert entries == [found.pairs[i].prompt for i in range(0, 12, 2)]


# --- honesty


def test_every_loss_is_told(finished):
    record = read_run(finished)
    found = record.evaluation
    told = " ".join(losses(record, found))
    lost = found.summary.win_rate.losses
    assert lost > 0
    assert f"better one in {lost} pairs" in told
    assert "no longer show what their prompt says" in told


def test_a_fall_in_diversity_is_told_with_its_size(finished):
    record = read_run(finished)
    fall = Change(
        before=Estimate(value=0.5, low=0.4, high=0.6),
        after=Estimate(value=0.4, low=0.3, high=0.5),
        difference=Estimate(value=-0.1, low=-0.2, high=-0.05),
    )
    found = replace(
        record.evaluation,
        diversity=Diversity(change=fall, space="pixels"),
        drift=Drift(nats=7.0, budget_nats=5.0),
    )
    told = " ".join(losses(record, found))
    assert "20 % more alike" in told
    assert "chance" not in told
    assert "KL of 7.0 nats is over its budget</b> of 5" in told


def test_pairs_at_the_top_are_evenly_spaced_and_of_the_first_seed(finished):
    found = read_run(finished).evaluation
    assert evenly(found, 3) == [0, 4, 8]  # prompts 0, 2 and 4 of six, two pairs each
    assert evenly(found, 99) == [0, 2, 4, 6, 8, 10]


def test_rows_of_a_grid_are_cut_pixel_for_pixel(finished):
    record = read_run(finished)
    found = cells(record, finished / "samples" / "step-000002.png")
    images = torch.rand(6, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
    assert len(found) == 3
    for row, image in enumerate(found):
        expected = (images[2 * row] * 255).round().byte().permute(1, 2, 0).numpy()
        assert np.array_equal(np.asarray(image), expected)


# --- plots and pictures


def test_plots_take_their_colours_from_the_page():
    drawing = plots.curve([(1, 0.0), (2, 1.0)], label="reward", limit=2.0, limit_label="budget")
    assert "var(--aligned)" in drawing
    assert "var(--limit)" in drawing
    assert "#0000" not in drawing
    assert "DejaVu" not in drawing
    assert drawing.startswith('<svg role="img" aria-label="reward over 2 steps"')


def test_a_plot_of_a_single_step_can_be_drawn():
    assert "<svg" in plots.curve([(1, 0.5)], label="reward", band=[0.1], beside=[(0, 0.2)])


def test_before_and_after_shows_pixels_as_whole_squares():
    base, aligned = Image.new("RGB", (64, 64), "red"), Image.new("RGB", (64, 64), "blue")
    base.putpixel((3, 5), (0, 255, 0))
    sheet = before_after([base] * 5, [aligned] * 5, ["a red cat"] * 5)
    colours = {colour: count for count, colour in sheet.getcolors(1 << 20)}
    assert colours[(0, 255, 0)] == 5 * 4 * 4
    assert colours[(255, 0, 0)] == 5 * (64 * 64 - 1) * 4 * 4
    assert colours[(0, 0, 255)] == 5 * 64 * 64 * 4 * 4


def test_before_and_after_wants_as_many_pictures_as_prompts():
    with pytest.raises(InputError, match="got 1 and 0 for 1 prompts"):
        before_after([Image.new("RGB", (4, 4))], [], ["a"])
    with pytest.raises(InputError, match="at least one"):
        before_after([], [], [])


def test_before_and_after_lies_beside_the_evaluation(finished):
    with Image.open(finished / FOLDER / "before_after.png") as sheet:
        assert min(sheet.size) > 500


def test_large_pictures_are_made_smaller():
    assert magnified(Image.new("RGB", (1024, 512))).size == (256, 128)
    assert magnified(Image.new("RGB", (64, 32))).size == (256, 128)
    assert data_uri(Image.new("RGB", (64, 64))).startswith("data:image/png;base64,")
    assert data_uri(Image.new("RGB", (1024, 1024))).startswith("data:image/jpeg;base64,")


@pytest.mark.parametrize("text", ["a cat", "Donaudampfschifffahrtsgesellschaft", "word " * 60])
def test_captions_fit_under_their_picture(text):
    letters = Letters(21)
    lines = wrapped(text, letters, 256)
    assert 1 <= len(lines) <= 4
    assert all(letters.getlength(line) <= 256 for line in lines)


# --- words


def test_numbers_as_a_person_writes_them():
    assert [duration(s) for s in (42, 372, 5460)] == ["42 s", "6 min", "1 h 31 min"]
    assert [number(x) for x in (0.1234, -0.337, 4.216, 55.55, 312.2)] == [
        "0.123",
        "−0.34",
        "4.22",
        "55.5",
        "312",
    ]
    assert signed(-0.112) == "−0.11"


def test_frames_shown_begin_and_end_with_the_run():
    grids = [(step, Path(f"{step}")) for step in range(0, 210, 10)]
    shown = [step for step, _ in steps_shown(grids)]
    assert len(shown) == 6
    assert (shown[0], shown[-1]) == (0, 200)
