"""Plots take their looks from the page around them and their words from the table of metrics."""

import re

from imgalign.report import plots
from imgalign.runs.metric_table import METRICS, Chart

REWARD = Chart("reward_mean", beside="held_out_reward")


def test_plots_take_their_colours_from_the_page():
    drawing = plots.curve(REWARD, [(1, 0.0), (2, 1.0)], limit=2.0, limit_label="budget")
    assert "var(--aligned)" in drawing
    assert "var(--limit)" in drawing
    assert "#0000" not in drawing
    assert "DejaVu" not in drawing


def test_a_curve_is_named_after_its_metric():
    kl, held_out = METRICS["kl"], METRICS["held_out_kl"]
    chart = Chart("kl", beside="held_out_kl")
    drawing = plots.curve(chart, [(1, 0.0), (2, 1.0)], beside=[(0, 0.1), (2, 0.9)])
    assert drawing.startswith(f'<svg role="img" aria-label="{kl.title} over 2 iterations"')
    for word in (kl.title, held_out.title, kl.unit, "iteration"):
        assert f">{word}</text>" in drawing


def test_a_plot_of_a_single_iteration_can_be_drawn():
    assert "<svg" in plots.curve(REWARD, [(1, 0.5)], spread=[0.1], beside=[(0, 0.2)])


def test_a_line_at_zero_is_drawn_whole_and_not_cut_by_the_axis():
    chart = Chart("kl", beside="held_out_kl")
    drawing = plots.curve(chart, [(1, 0.0), (2, 0.0)], beside=[(0, 0.0), (2, 0.0)])
    for colour in ("aligned", "held-out"):
        lines = re.findall(rf"<path [^>]*var\(--{colour}\)[^>]*>", drawing)
        assert lines
        assert not [line for line in lines if "clip-path" in line]
