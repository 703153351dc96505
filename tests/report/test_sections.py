"""Captions of curves say what the table of metrics says, of what a run has measured."""

import pytest
from reported_runs import begin_run

from imgalign.report import sections
from imgalign.report.record import read_run
from imgalign.report.text import marked
from imgalign.runs.metric_table import CHARTS, METRICS
from imgalign.runs.metrics import MetricsWriter


def measured(folder, *keys):
    """A run that measured these after each of two iterations."""
    run = begin_run(folder / "run")
    with MetricsWriter(run / "metrics.jsonl") as metrics:
        for iteration in (1, 2):
            metrics.write(iteration, dict.fromkeys(keys, 0.5))
    return read_run(run)


@pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.key)
def test_a_curve_is_explained_in_the_words_of_the_table(tmp_path, chart):
    keys = [key for key in (chart.key, chart.beside, chart.spread) if key is not None]
    text = sections.training(measured(tmp_path, *keys))
    assert text.count("<figure") == 1
    for key in keys:
        assert marked(METRICS[key].meaning) in text
        assert marked(METRICS[key].watch) in text


def test_a_curve_beside_is_named_only_where_it_was_measured(tmp_path):
    text = sections.training(measured(tmp_path, "kl"))
    assert METRICS["kl"].title in text
    assert METRICS["held_out_kl"].title not in text


def test_the_limit_of_the_kl_is_the_budget_of_the_run(tmp_path):
    run = measured(tmp_path, "kl", "clip_fraction")
    text = sections.training(run)
    assert f"budget {run.settings.run.kl_budget_nats:g}" in text
    assert f"limit {METRICS['clip_fraction'].limit:g}" in text
