"""Claims: a resumed run is the uninterrupted one, bit for bit, also after kill -9; the held-out
reward ends a run; what is not sound is refused before the first step."""

import json
import logging
import math
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from algorithm_rows import ALGORITHMS
from language_runs import language_settings, start_language, write_talker
from random_walk import Brightness, RandomWalk, walk_data_for, walk_settings
from tiny_language import CONTEXT
from walk_runs import measured, start, trainer_files, weights

from imgalign.algorithms.supervised import SupervisedConfig
from imgalign.config import load_config
from imgalign.errors import (
    InputError,
    NumericsError,
    StorageFullError,
)
from imgalign.runs.checkpoint import checkpoints, read_marker
from imgalign.runs.metrics import read_metrics
from imgalign.runs.status import read_status
from imgalign.runs.trained import find_weights
from imgalign.train import run as train
from imgalign.train.config import TrainConfig


def test_every_metric_is_explained_in_the_docs(whole_run):
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    keys = {key for record in read_metrics(whole_run / "metrics.jsonl") for key in record}
    assert {key for key in keys if f"`{key}`" not in page} == set()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path, algorithm):
    settings = ALGORITHMS[algorithm]
    data = walk_data_for(settings, tmp_path / "images")
    long = walk_settings(algorithm=settings, data=data)
    short = walk_settings(algorithm=settings, data=data, iterations=2)
    start(tmp_path / "whole", settings=long)
    start(tmp_path / "parts", settings=short)
    start(tmp_path / "parts", settings=long, resume=True)
    assert torch.equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert measured(tmp_path / "whole") == measured(tmp_path / "parts")
    assert trainer_files(tmp_path / "whole") == trainer_files(tmp_path / "parts")


def test_resuming_also_restores_the_global_generator_for_those_who_draw_from_it(tmp_path):
    class Moody(Brightness):
        def score(self, *, prompts, samples):
            return super().score(prompts=prompts, samples=samples) + torch.rand(len(prompts))

    start(tmp_path / "whole", reward=Moody())
    start(tmp_path / "parts", settings=walk_settings(iterations=4), reward=Moody())
    start(tmp_path / "parts", resume=True, reward=Moody())
    assert torch.equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def test_a_killed_run_resumes_to_the_same_weights(tmp_path, whole_run):
    out, script = tmp_path / "run", Path(__file__).parents[1] / "stand_ins" / "train_child.py"
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, str(script), str(out)],
        stdout=subprocess.PIPE,
        cwd=root,
        env={"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
    ) as process:
        # It waits after step 5, of which the last checkpoint knows nothing.
        assert process.stdout.readline() == b"step 5\n"
        with pytest.raises(InputError, match="another process"):
            start(out, resume=True)
        process.kill()
        process.wait()
    assert [path.name for path in checkpoints(out)] == ["step-000002", "step-000004"]
    assert [record["step"] for record in read_metrics(out / "metrics.jsonl")] == list(range(6))
    status = read_status(out)
    assert status is not None
    assert status.state == "stopped"
    (out / ".tmp-step-000006").mkdir()  # as if killed in the middle of the next save
    start(out, resume=True)
    assert torch.equal(weights(out), weights(whole_run))
    assert measured(out) == measured(whole_run)
    assert not (out / ".tmp-step-000006").exists()


def test_a_stop_while_sampling_gives_up_that_batch_and_resumes_exactly(tmp_path, whole_run):
    class Stopping(RandomWalk):
        def sample(self, prompts, **kwargs):
            if self.shift.any() and len(checkpoints(tmp_path / "run")) == 2:
                signal.raise_signal(signal.SIGTERM)
            return super().sample(prompts, **kwargs)

    result = start(tmp_path / "run", policy=Stopping(num_steps=3))
    assert (result.end, result.step, result.exit_code) == ("signal", 4, 143)
    start(tmp_path / "run", resume=True)
    assert torch.equal(weights(tmp_path / "run"), weights(whole_run))


def test_a_full_disk_while_saving_keeps_the_older_checkpoint_and_the_run_resumes(
    tmp_path, whole_run
):
    class Full(RandomWalk):
        def save(self, folder: Path) -> None:
            if "000004" in folder.name:
                raise OSError(28, "No space left on device")
            super().save(folder)

    with pytest.raises(StorageFullError, match="newest good checkpoint is step-000002"):
        start(tmp_path / "run", policy=Full(num_steps=3))
    assert [path.name for path in checkpoints(tmp_path / "run")] == ["step-000002"]
    status = read_status(tmp_path / "run")
    assert status is not None
    assert (status.state, status.step) == ("failed", 4)
    start(tmp_path / "run", resume=True)
    assert torch.equal(weights(tmp_path / "run"), weights(whole_run))


def test_a_held_out_reward_that_stops_rising_ends_the_run_and_marks_the_best(tmp_path):
    class Fading:
        """Rises for the first three measurements, then falls."""

        calls = 0

        def score(self, *, prompts, samples):
            Fading.calls += 1
            return torch.full((len(prompts),), float(-abs(Fading.calls - 3)))

    result = train.run(
        walk_settings(
            measure_every=1,
            patience=2,
            iterations=20,
            checkpoint_every=50,
            keep_checkpoints=1,
        ),
        reward=Brightness(),
        held_out_reward=Fading(),
        out=tmp_path / "run",
        policy=RandomWalk(num_steps=3),
    )
    assert (result.end, result.step) == ("held-out reward", 4)
    assert read_marker(tmp_path / "run", "best") == 2
    best = json.loads((tmp_path / "run" / "best.json").read_text())
    assert best == {"checkpoint": "step-000002", "held_out_reward": 0.0}
    assert result.checkpoint == tmp_path / "run" / "step-000002"
    assert find_weights(tmp_path / "run").name == "step-000002"
    again = start(
        tmp_path / "run",
        settings=load_config(TrainConfig, result.folder / "config.yaml"),
        resume=True,
    )
    assert (again.end, again.step) == ("held-out reward", 4)


def test_a_reward_that_is_not_finite_is_counted_and_said_and_the_run_goes_on(tmp_path, caplog):
    class Patchy(Brightness):
        def score(self, *, prompts, samples):
            scores = super().score(prompts=prompts, samples=samples)
            scores[0] = math.inf
            return scores

    with caplog.at_level(logging.WARNING):
        start(tmp_path / "run", settings=walk_settings(iterations=2), reward=Patchy())
    assert "sample left out of this update" in caplog.text
    assert read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]["dropped_images"] == 2
    assert weights(tmp_path / "run").isfinite().all()


def test_a_reward_of_the_wrong_shape_is_an_error(tmp_path):
    class Single(Brightness):
        def score(self, *, prompts, samples):
            return super().score(prompts=prompts, samples=samples).mean()

    with pytest.raises(NumericsError, match="expected one score for each of 4 samples"):
        start(tmp_path / "run", reward=Single())


def test_a_run_that_breaks_a_correctness_rule_is_refused_before_its_first_step(tmp_path):
    class Dropout(RandomWalk):
        def step_means(self, latents, steps):
            return torch.nn.functional.dropout(super().step_means(latents, steps), p=0.1)

    with pytest.raises(NumericsError, match="ratio is 1 before the first update"):
        start(tmp_path / "run", policy=Dropout(num_steps=3))
    assert not checkpoints(tmp_path / "run")


def test_a_follower_sees_the_metrics_as_they_come(tmp_path):
    seen = []

    def on_step(step, values):
        status = read_status(tmp_path / "run")
        assert status is not None
        seen.append((step, len(read_metrics(tmp_path / "run" / "metrics.jsonl")), status.state))

    start(tmp_path / "run", settings=walk_settings(iterations=2), on_step=on_step)
    assert seen == [(0, 1, "running"), (1, 2, "running"), (2, 3, "running")]


def test_the_noise_floor_is_printed_beside_the_clip(tmp_path, capsys):
    # The walk scores again exactly, so its floor is 0; the clip is the one set here.
    settings = walk_settings(iterations=1, algorithm={"name": "grpo", "clip_nats": 1.25})
    start(tmp_path / "run", settings=settings)
    line = next(line for line in capsys.readouterr().err.splitlines() if "noise floor" in line)
    assert "noise floor of the log-ratio: 0 nats" in line
    assert "third of the clip, 1.25 nats" in line


def test_passes_are_those_of_sampling_and_learning_and_not_those_of_measuring(tmp_path):
    # Three steps of eight images: sampled once; in each of two epochs policy and reference.
    kl = {"kind": "fixed", "coefficient": 0.1}
    grpo = {"name": "grpo", "inner_epochs": 2, "kl": kl}
    start(tmp_path / "run", settings=walk_settings(iterations=2, algorithm=grpo))
    for record in read_metrics(tmp_path / "run" / "metrics.jsonl")[1:]:
        assert record["forward_passes"] == 24 + 2 * 2 * 24
        assert record["backward_passes"] == 2 * 24


def test_exact_scores_are_computed_once_whatever_the_number_of_draws(tmp_path):
    model = write_talker(tmp_path / "model")
    settings = language_settings(model, iterations=1, algorithm={"name": "supervised"})
    assert isinstance(settings.algorithm, SupervisedConfig)
    assert settings.algorithm.draws == 8  # noise levels, of images
    start_language(tmp_path / "run", settings)
    record = read_metrics(tmp_path / "run" / "metrics.jsonl")[1]
    learned, passes = (float(record[key] or 0) for key in ("samples_used", "backward_passes"))
    assert learned * 8 < passes <= learned * CONTEXT  # a prompt of eight tokens or more
