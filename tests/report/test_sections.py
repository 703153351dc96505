"""Captions of curves say what the table of metrics says, of what a run has measured."""

import pytest
from reported_runs import begin_run

from imgalign.config import dump_config
from imgalign.preferences.foreign.records import GivenRanking
from imgalign.report import sections
from imgalign.report.record import read_run
from imgalign.report.text import marked
from imgalign.runs.metric_table import CHARTS, METRICS
from imgalign.runs.metrics import MetricsWriter
from imgalign.train.config import TrainConfig
from imgalign.train.data.judged import RECORD, write_record


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


def test_a_curve_beside_is_drawn_where_the_first_was_not_measured(tmp_path):
    text = sections.training(measured(tmp_path, "held_out_kl"))
    assert text.count("<figure") == 1
    assert marked(METRICS["held_out_kl"].meaning) in text
    assert marked(METRICS["kl"].meaning) not in text


def test_a_run_on_given_rankings_says_how_many_and_asks_for_no_reward_model(tmp_path):
    run = begin_run(tmp_path / "run")
    assert "name its folder" in sections.reward_model(read_run(run))
    settings = {"algorithm": {"name": "dpo"}, "data": {"from": "rankings"}}
    dump_config(TrainConfig.model_validate(settings), run / "config.yaml")
    ranking = GivenRanking(prompt="a red fox", images=("a", "b"), ranks=(0, 1))
    write_record(run / RECORD, [ranking] * 7)
    found = read_run(run)
    assert "<b>Rankings</b><strong>7</strong>" in sections.pipeline(found)
    assert sections.reward_model(found) == ""
