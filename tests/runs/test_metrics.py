"""Claims: lines survive a kill and a resume; a status never lies about a dead process."""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from imgalign.runs.metrics import MetricsWriter, read_metrics
from imgalign.runs.status import RunStatus, read_status, write_status


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


@pytest.mark.parametrize(
    "content",
    [
        b"nonsense",
        b"[1]",
        b'{"kl": 1}',
        b'{"step": true}',
        b'{"step": -5}',
        b'{"step": 2, "note": "\xff"}',
        b"[" * 100_000,
        b"\x00",
    ],
)
def test_a_damaged_line_is_named_and_the_others_are_used(tmp_path, caplog, content):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' + content + b'\n{"step": 3}\n')
    assert read_metrics(path) == [{"step": 1}, {"step": 3}]
    (said,) = caplog.messages
    assert said.startswith(f"{path}, line 2: ")


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


def test_a_run_whose_number_another_process_has_reads_as_stopped(tmp_path):
    # As process 1 after a restart of its container: alive, and not the one that wrote the status.
    status = RunStatus.of_this_process("running", 3, 9, eta_seconds=1.0)
    write_status(tmp_path, status)
    assert read_status(tmp_path) == status
    write_status(tmp_path, replace(status, birth="another start of the machine/1"))
    found = read_status(tmp_path)
    assert found is not None
    assert (found.state, found.step, found.eta_seconds) == ("stopped", 3, None)


@pytest.mark.parametrize("pid", [0, -1, 2**70])
def test_a_number_that_no_process_can_have_is_not_alive(tmp_path, pid):
    write_status(tmp_path, RunStatus(state="running", pid=pid, step=3, total=9))
    found = read_status(tmp_path)
    assert found is not None
    assert found.state == "stopped"


def test_a_status_of_a_later_version_is_read_as_far_as_this_one_knows_it(tmp_path):
    (tmp_path / "status.json").write_text(
        '{"state": "finished", "pid": 1, "step": 2, "total": 2, "colour": "blue"}'
    )
    assert read_status(tmp_path) == RunStatus(state="finished", pid=1, step=2, total=2)


@pytest.mark.parametrize(
    "content",
    [
        *["{", "{}", "[]", '{"state": "running"}', "[" * 100_000],
        '{"state": "running", "pid": "x", "step": 1, "total": 2}',
        '{"state": "asleep", "pid": 1, "step": 1, "total": 2}',
    ],
)
def test_a_damaged_status_is_none(tmp_path, content):
    (tmp_path / "status.json").write_text(content)
    assert read_status(tmp_path) is None
