"""Claims: a tracker holds what metrics.jsonl and samples/ hold, each once at its iteration, also
after a kill; it changes no number of the run, and nothing that goes wrong in it ends one."""

import io
import json
import logging
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from random_walk import walk_settings
from tracking_services import Kept, Table, install
from walk_runs import Killed, killed_at, measured, start, weights

from imgalign.cli.main import main
from imgalign.config import load_config
from imgalign.errors import ConfigError
from imgalign.runs.metrics import read_metrics
from imgalign.train import trackers
from imgalign.train.config import TrainConfig
from imgalign.train.recorder import Recorder
from imgalign.train.schedule import RunConfig

TRACKED = walk_settings(trackers=("wandb",))


@pytest.fixture
def wandb(monkeypatch):
    return install(monkeypatch)


def killed(out, settings):
    """A run that is killed after iteration 5; its last checkpoint is of iteration 4."""
    with pytest.raises(Killed):
        start(out, settings=settings, on_step=killed_at(5))


def said(caplog):
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


# --- TensorBoard, read back


@pytest.fixture(scope="module")
def read_events():
    """What TensorBoard shows of a run."""
    reason = "tensorboard is not installed; the [test] extra has it"
    pytest.importorskip("tensorboard", reason=reason)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def read(out):
        return EventAccumulator(str(out / "tensorboard")).Reload()

    return read


def scalars(events):
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def numbers_of(out):
    """The numbers of metrics.jsonl by their key, with their iterations."""
    found = {}
    for record in read_metrics(out / "metrics.jsonl"):
        for key, value in record.items():
            if key != "step" and value is not None:
                found.setdefault(key, []).append((record["step"], value))
    return found


def assert_all_logged(events, out):
    """Each number once, in the 32 bits that TensorBoard keeps of it."""
    logged, written = scalars(events), numbers_of(out)
    assert logged.keys() == written.keys()
    for key, values in written.items():
        assert [step for step, _ in logged[key]] == [step for step, _ in values], key
        assert logged[key] == [(step, pytest.approx(value, rel=1e-6)) for step, value in values]


@pytest.fixture(scope="module")
def resumed(tmp_path_factory, read_events):
    """A run of six iterations that was killed after the fifth and resumed after the fourth."""
    out = tmp_path_factory.mktemp("tracked") / "run"
    settings = walk_settings(trackers=("tensorboard",))
    killed(out, settings)
    start(out, settings=settings, resume=True)
    return out


def test_tensorboard_shows_each_line_of_metrics_once_after_a_kill(resumed, read_events):
    assert [record["step"] for record in read_metrics(resumed / "metrics.jsonl")] == [*range(7)]
    assert_all_logged(read_events(resumed), resumed)


def test_tensorboard_shows_each_sample_grid_pixel_for_pixel(resumed, read_events):
    shown = read_events(resumed).Images("samples")
    assert [image.step for image in shown] == [0, 3, 6]
    for image in shown:
        with (
            Image.open(io.BytesIO(image.encoded_image_string)) as found,
            Image.open(resumed / "samples" / f"step-{image.step:06d}.png") as written,
        ):
            assert np.array_equal(np.asarray(found), np.asarray(written))


def test_a_tracker_changes_no_number_of_a_run(resumed, whole_run):
    assert measured(resumed) == measured(whole_run)
    assert torch.equal(weights(resumed), weights(whole_run))


def test_a_tracker_that_is_named_on_resuming_gets_the_iterations_before(tmp_path, read_events):
    start(tmp_path / "run", settings=walk_settings(iterations=2))
    settings = walk_settings(iterations=4, trackers=("tensorboard",))
    start(tmp_path / "run", settings=settings, resume=True)
    assert_all_logged(read_events(tmp_path / "run"), tmp_path / "run")


def test_tensorboard_shows_texts_under_their_prompts(tmp_path, read_events):
    samples = tmp_path / "step-000003.json"
    samples.write_text(json.dumps({"a cat": ["black", "white"]}))
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    tracker = trackers.TensorBoard(tmp_path, 0)
    tracker.show(3, samples)
    tracker.close()
    (event,) = read_events(tmp_path).Tensors("samples/text_summary")
    assert event.step == 3
    (text,) = event.tensor_proto.string_val
    assert text.decode() == "**a cat**\n\nblack\n\n**a cat**\n\nwhite"


# --- Weights & Biases, by a stand-in for its library


def test_weights_and_biases_gets_each_line_and_those_done_again_at_their_step(tmp_path, wandb):
    killed(tmp_path / "run", TRACKED)
    lost = read_metrics(tmp_path / "run" / "metrics.jsonl")
    start(tmp_path / "run", settings=TRACKED, resume=True)
    before, after = ([row for row in each.rows if "samples" not in row] for each in wandb.sessions)
    assert before == lost
    assert after == read_metrics(tmp_path / "run" / "metrics.jsonl")[5:]
    assert [row["step"] for row in after] == [5, 6]
    for session in wandb.sessions:
        assert session.metrics == {"step": None, "*": "step"}
        assert session.finished


def test_a_resumed_run_goes_on_in_the_same_run_of_weights_and_biases(tmp_path, wandb):
    for name in ("one", "other"):
        start(tmp_path / name, settings=walk_settings(iterations=1, trackers=("wandb",)))
    start(tmp_path / "one", settings=TRACKED, resume=True)
    first, other, resumed = (each.settings for each in wandb.sessions)
    assert first["id"] == resumed["id"] != other["id"]
    assert resumed["resume"] == "allow"
    assert (first["name"], first["dir"]) == ("one", str(tmp_path / "one"))
    assert wandb.sessions[0].config["optimizer.learning_rate"] == 0.02


def test_weights_and_biases_gets_grids_and_tables_of_texts_with_their_step(tmp_path, wandb):
    start(tmp_path / "run", settings=TRACKED)
    rows = [row for row in wandb.sessions[0].rows if "samples" in row]
    assert [row["step"] for row in rows] == [0, 3, 6]
    with Image.open(tmp_path / "run" / "samples" / "step-000006.png") as written:
        assert np.array_equal(rows[-1]["samples"][0].pixels, np.asarray(written))
    texts = tmp_path / "step-000003.json"
    texts.write_text(json.dumps({"a cat": ["black", "white"]}))
    trackers.WeightsAndBiases(tmp_path / "run", 6).show(7, texts)
    table = Table(["prompt", "sample"], [["a cat", "black"], ["a cat", "white"]])
    assert wandb.sessions[1].rows == [{"samples": table, "step": 7}]


@pytest.mark.parametrize("mode", [None, "online", "disabled"])
def test_weights_and_biases_stays_offline_unless_the_users_own_mode_says_so(
    tmp_path, wandb, monkeypatch, mode
):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    if mode is not None:
        monkeypatch.setenv("WANDB_MODE", mode)
    start(tmp_path / "run", settings=walk_settings(iterations=1, trackers=("wandb",)))
    quiet = {"console": "off", "silent": True}
    expected = quiet if mode else quiet | {"mode": "offline"}
    assert wandb.sessions[0].settings["settings"] == expected


def test_a_process_that_does_not_write_logs_nothing(tmp_path, wandb):
    recorder = Recorder(tmp_path, TRACKED.run, writes=False)
    with recorder.open(0):
        recorder.record(1, {"loss": 1.0})
    assert wandb.sessions == []
    assert list(tmp_path.iterdir()) == []


# --- what goes wrong


def test_a_tracker_that_fails_is_said_once_and_the_run_and_the_other_trackers_go_on(
    tmp_path, monkeypatch, caplog
):
    def fail_from_3(values):
        if values.get("step", 0) >= 3:
            raise ConnectionError("the server\nwent away")

    wandb = install(monkeypatch, before=fail_from_3)
    other = Kept()
    monkeypatch.setitem(sys.modules, "tensorboard", ModuleType("tensorboard"))
    monkeypatch.setitem(trackers.TRACKERS, "tensorboard", lambda out, step: other)
    result = start(tmp_path / "run", settings=walk_settings(trackers=("wandb", "tensorboard")))
    assert result.end == "finished"
    assert said(caplog) == [
        "wandb: failed at iteration 3 (the server), so nothing more is logged there; the run goes "
        "on, and metrics.jsonl has every iteration"
    ]
    assert wandb.sessions[0].finished
    assert other.rows == read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert len(other.rows) == 7
    assert other.grids == [(step, f"step-{step:06d}.png") for step in (0, 3, 6)]
    assert other.closed


def test_a_tracker_that_cannot_be_opened_is_said_once_and_the_run_goes_on(
    tmp_path, monkeypatch, caplog
):
    def refuse(values):
        raise RuntimeError("no key")

    install(monkeypatch, before=refuse)
    start(tmp_path / "run", settings=walk_settings(iterations=2, trackers=("wandb",)))
    (line,) = said(caplog)
    assert line.startswith("wandb: failed at iteration 0 (no key), so")
    assert len(read_metrics(tmp_path / "run" / "metrics.jsonl")) == 3


def test_ctrl_c_in_a_tracker_is_no_failure_of_it(tmp_path, monkeypatch, caplog):
    def interrupt(values):
        if values.get("step") == 1:
            raise KeyboardInterrupt

    wandb = install(monkeypatch, before=interrupt)
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path / "run", settings=TRACKED)
    assert said(caplog) == []
    assert wandb.sessions[0].finished


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_tracker_that_is_not_installed_is_one_line_before_any_work(
    tmp_path, monkeypatch, capsys, name
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, name, None)
    arguments = ["train", "storybook_grpo", f"run.trackers=[{name}]", "reward.path=nowhere"]
    assert main(arguments) == 2
    assert capsys.readouterr().err == (
        f"error: run.trackers: {name} is not installed; install 'imgalign-studio[trackers]', or "
        "leave it out\n"
    )
    with pytest.raises(ConfigError, match=f"{name} is not installed"):
        start(tmp_path / "run", settings=walk_settings(trackers=(name,)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("import no_such_library", "wandb is not installed (it lacks no_such_library); install"),
        ("raise TypeError('old\\nprotobuf')", "wandb cannot be imported (old); install"),
    ],
)
def test_a_broken_tracker_is_one_line_before_any_work(tmp_path, monkeypatch, content, says):
    (tmp_path / "wandb.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with pytest.raises(ConfigError) as refused:
        start(tmp_path / "run", settings=TRACKED)
    assert says in str(refused.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("[tensorbord]", "run.trackers.0: expected one of 'tensorboard', 'wandb', got 'tensorbord"),
        ("wandb", "run.trackers: expected a list, got 'wandb'"),
        ("[wandb, wandb]", "run.trackers: expected each of them once, got wandb, wandb"),
    ],
)
def test_wrong_names_of_trackers_are_refused(typed, says):
    with pytest.raises(ConfigError) as refused:
        load_config(TrainConfig, None, [f"run.trackers={typed}"])
    assert says in str(refused.value)


def test_without_trackers_nothing_of_them_is_opened(tmp_path, wandb, caplog):
    caplog.set_level(logging.INFO)
    assert RunConfig().trackers == ()
    start(tmp_path / "run", settings=walk_settings(iterations=1))
    assert wandb.sessions == []
    assert not any("logs to" in record.getMessage() for record in caplog.records)
