"""Images of the report: chosen by a rule, cut pixel for pixel, and what got worse is told."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from html_pages import read
from PIL import Image
from reported_runs import SIDE

from imgalign.evaluate.comparison import Change
from imgalign.evaluate.drift import Drift
from imgalign.evaluate.evaluation import Diversity, load_evaluation
from imgalign.report.gallery import cells, evenly, frames_shown, losses
from imgalign.report.record import read_run
from imgalign.report.writing import write_report
from imgalign.statistics import Estimate


def test_the_prompts_of_the_image_to_share_are_written_out(finished):
    found = load_evaluation(finished)
    text, _ = read(finished / "report.html")
    listed = re.search(
        r"<summary>The prompts of before_after.png</summary>\n<ol>(.*?)</ol>", text, re.S
    )
    entries = re.findall(r"<li>(.*?)</li>", listed[1])
    assert entries == [found.pairs[i].prompt for i in range(0, 12, 2)]


def test_every_loss_is_told(finished):
    record = read_run(finished)
    found = record.evaluation
    told = " ".join(losses(record, found))
    lost = found.summary.win_rate.losses
    assert lost > 0
    assert f"better one in {lost} pairs" in told
    assert "no longer do what their prompt says" in told


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


def test_a_sample_grid_that_is_damaged_is_left_out_and_named(run, caplog):
    (run / "samples" / "step-abc.png").write_bytes(b"not one of ours")
    (run / "samples" / "step-000007.png").write_bytes(b"not an image")
    Image.new("RGB", (1, 1)).save(run / "samples" / "step-000008.png")
    (run / "samples" / "step-000009.png").mkdir()
    text, _ = read(write_report(run))
    assert "iteration 4</th>" in text
    for step in (7, 8, 9):
        assert f"iteration {step}</th>" not in text
    told = "\n".join(record.getMessage() for record in caplog.records)
    assert "step-000007.png" in told
    assert "step-000008.png" in told


def test_frames_shown_begin_and_end_with_the_run():
    grids = [(step, Path(f"{step}")) for step in range(0, 210, 10)]
    shown = [step for step, _ in frames_shown(grids)]
    assert len(shown) == 6
    assert (shown[0], shown[-1]) == (0, 200)
