"""Claims: lines survive a kill and a resume; a status never lies about a dead process."""

import json
import math
import os
import subprocess
import sys

import pytest

from imgalign.errors import InputError
from imgalign.metrics import (
    MetricsWriter,
    RunStatus,
    read_metrics,
    read_status,
    write_status,
)


def test_what_is_written_is_on_disk_before_the_next_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsWriter(path) as metrics:
        metrics.write(1, {"reward_mean": 0.1 + 0.2, "note": "ü", "images": 64})
        expected = [{"step": 1, "reward_mean": 0.1 + 0.2, "note": "ü", "images": 64}]
        assert read_metrics(path) == expected


def test_resuming_drops_the_lines_of_work_that_was_lost(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsWriter(path) as metrics:
        for step in range(5):
            metrics.write(step, {"kl": float(step)})
    with MetricsWriter(path, resume_step=2) as metrics:
        metrics.write(3, {"kl": 30.0})
    assert [record["kl"] for record in read_metrics(path)] == [0.0, 1.0, 2.0, 30.0]


def test_a_half_written_last_line_is_left_out_and_the_next_one_starts_fresh(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "kl": 0.')
    assert read_metrics(path) == [{"step": 1}]
    with MetricsWriter(path) as metrics:
        metrics.write(2, {})
    assert read_metrics(path) == [{"step": 1}, {"step": 2}]


@pytest.mark.parametrize("content", ["nonsense", "[1]", '{"kl": 1}'])
def test_a_damaged_line_in_the_middle_is_named(tmp_path, content):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1}}\n{content}\n{{"step": 3}}\n')
    with pytest.raises(InputError, match="line 2"):
        read_metrics(path)


def test_numbers_that_json_lacks_become_null(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsWriter(path) as metrics:
        metrics.write(1, {"a": math.nan, "b": -math.inf})
    assert path.read_text() == '{"step": 1, "a": null, "b": null}\n'


def test_a_missing_metrics_file_is_an_empty_list(tmp_path):
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_a_status_comes_back_as_written(tmp_path):
    status = RunStatus(state="running", pid=os.getpid(), step=3, total=9, eta_seconds=1.5)
    write_status(tmp_path, status)
    assert read_status(tmp_path) == status
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "running"


def test_a_run_whose_process_was_killed_reads_as_stopped(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    write_status(tmp_path, RunStatus(state="running", pid=child.pid, step=3, total=9))
    status = read_status(tmp_path)
    assert status is not None
    assert status.state == "running"
    child.kill()
    child.communicate()
    status = read_status(tmp_path)
    assert status is not None
    assert (status.state, status.step) == ("stopped", 3)


@pytest.mark.parametrize("content", ["{", "{}", "[]", '{"state": "running"}'])
def test_a_damaged_status_is_none(tmp_path, content):
    (tmp_path / "status.json").write_text(content)
    assert read_status(tmp_path) is None
