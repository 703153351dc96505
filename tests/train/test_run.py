"""Claims: a run leaves the folder that the design promises, stops when asked to and says why it
ended, and leaves the rest of the process as it was."""

import errno
import math
import os
import signal

import pytest
import torch
from PIL import Image
from random_walk import Brightness, walk_data, walk_settings
from walk_runs import measured, start, weights

from imgalign import environment
from imgalign.config import load_config
from imgalign.errors import (
    ConfigError,
    NumericsError,
    StorageFullError,
)
from imgalign.runs.checkpoint import checkpoints, verify
from imgalign.runs.status import RunStatus, read_status, write_status
from imgalign.runs.trained import ADAPTER
from imgalign.train import recorder
from imgalign.train.config import TrainConfig


def test_a_run_leaves_the_folder_that_the_design_promises(whole_run):
    names = {path.name for path in whole_run.iterdir()}
    assert {"config.yaml", "metrics.jsonl", "status.json", "samples", "latest.json"} <= names
    assert not any(name.startswith(".tmp") for name in names)
    newest = checkpoints(whole_run)[-1]
    assert newest.name == "step-000006"
    files = {path.name for path in newest.iterdir()}
    assert files == {ADAPTER, "manifest.json", "trainer.json", "trainer.safetensors"}
    kept = load_config(TrainConfig, whole_run / "config.yaml")
    assert kept.policy.dtype != "auto"
    assert kept == walk_settings(policy={"batch_size": 4, "dtype": kept.policy.dtype})
    assert [record["step"] for record in measured(whole_run)] == list(range(7))
    status = read_status(whole_run)
    assert status is not None
    assert (status.state, status.step, status.total) == ("finished", 6, 6)
    grids = sorted(path.name for path in (whole_run / "samples").iterdir())
    assert grids == ["step-000000.png", "step-000003.png", "step-000006.png"]
    with Image.open(whole_run / "samples" / grids[0]) as image:
        assert image.size == (2 * (2 + 2) + 2, 2 * (2 + 2) + 2)


def test_a_run_keeps_its_number_type_when_it_goes_on_on_another_machine(tmp_path, monkeypatch):
    out = tmp_path / "run"
    monkeypatch.setattr(environment, "has_native_bfloat16", lambda device: False)
    start(out, settings=walk_settings(iterations=1))
    monkeypatch.setattr(environment, "has_native_bfloat16", lambda device: True)
    start(out, settings=walk_settings(iterations=2), resume=True)
    assert load_config(TrainConfig, out / "config.yaml").policy.dtype == "float32"
    with pytest.raises(ConfigError, match="dtype: the run began with 'float32', got 'bfloat16'"):
        start(
            out,
            settings=walk_settings(iterations=3, policy={"batch_size": 4, "dtype": "bfloat16"}),
            resume=True,
        )


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)
def test_a_polite_stop_saves_first_and_loses_nothing(tmp_path, whole_run, number, code):
    out = tmp_path / "run"

    def on_step(step, values):
        if step == 3:
            signal.raise_signal(number)

    handlers = signal.getsignal(number)
    result = start(out, on_step=on_step)
    assert result.exit_code == code
    assert result.message == "stopped at iteration 3; resume with --resume"
    assert checkpoints(out)[-1].name == "step-000003"  # not a multiple of checkpoint_every
    verify(checkpoints(out)[-1])
    status = read_status(out)
    assert status is not None
    assert (status.state, status.step) == ("stopped", 3)
    assert signal.getsignal(number) is handlers
    start(out, resume=True)
    assert torch.equal(weights(out), weights(whole_run))


def test_a_run_that_failed_before_its_first_step_may_be_begun_again(tmp_path):
    class Broken(Brightness):
        def score(self, *, prompts, samples):
            return super().score(prompts=prompts, samples=samples) * math.nan

    with pytest.raises(NumericsError, match="none of"):
        start(tmp_path / "run", reward=Broken())
    status = read_status(tmp_path / "run")
    assert status is not None
    assert status.state == "failed"
    assert "none of" in str(status.message)
    start(tmp_path / "run", settings=walk_settings(iterations=1))


def test_the_global_generator_is_left_as_it_was(tmp_path):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    start(tmp_path / "run", settings=walk_settings(iterations=1))
    assert torch.equal(torch.get_rng_state(), before)


def test_too_many_prompts_per_iteration_is_a_clear_error(tmp_path):
    with pytest.raises(ConfigError, match="expected at most 5"):
        start(tmp_path / "run", settings=walk_settings(data=walk_data(prompts_per_iteration=6)))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("state", ["running", "finished"])
def test_a_full_disk_while_the_status_is_written_is_one_line(tmp_path, monkeypatch, state):
    def full(out, status: RunStatus):
        if status.state == state:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_status(out, status)

    monkeypatch.setattr(recorder, "write_status", full)
    with pytest.raises(StorageFullError, match=r"writing status.json; .* and resume$"):
        start(tmp_path / "run", settings=walk_settings(iterations=1))
