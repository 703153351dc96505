"""Claims: held-out rankings decide which weights are best, and when a run of a direct method ends;
what they decided, and where they cannot, is said."""

import json
import logging
import shutil
from pathlib import Path

import pytest
from image_folders import image
from random_walk import Brightness, RandomWalk, walk_settings
from walk_runs import Killed

from imgalign.errors import CheckpointError
from imgalign.policy import RewardModel
from imgalign.runs.checkpoint import checkpoints, read_marker
from imgalign.runs.metrics import read_metrics
from imgalign.runs.status import read_status
from imgalign.train import run as train
from imgalign.train.config import TrainConfig

HELD_OUT = "prompt 4"
FIXED = {"kind": "per_nat", "value": 1.0}


def table(folder: Path, *, held_out: tuple[int, int]) -> dict[str, object]:
    """Four training rankings that prefer the brighter image, and one with these ranks."""
    lines = []
    for number in range(5):
        for place, shade in enumerate((240, 10)):
            image(shade + number).save(folder / f"{number}-{place}.png")
        ranks = held_out if f"prompt {number}" == HELD_OUT else (0, 1)
        images = [f"{number}-{place}.png" for place in range(2)]
        lines.append({"prompt": f"prompt {number}", "images": images, "ranks": ranks})
    (folder / "table.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    (folder / "held_out.txt").write_text(f"{HELD_OUT}\n")
    return {
        "from": "table",
        "file": str(folder / "table.jsonl"),
        "held_out": {"file": str(folder / "held_out.txt")},
    }


def settings(folder: Path, *, held_out: tuple[int, int], **changes: object) -> TrainConfig:
    """A run of six iterations; with held-out ranks (1, 0) it unlearns the held-out ranking."""
    own: dict[str, object] = {
        "algorithm": {"name": "dpo", "beta": FIXED},
        "data": table(folder, held_out=held_out),
        "optimizer": {"learning_rate": 0.05},
        "measure_every": 1,
    }
    return walk_settings(**(own | changes))


def start(
    out: Path, given: TrainConfig, *, reward: RewardModel | None = None, resume: bool = False
) -> train.RunResult:
    return train.run(given, reward=reward, out=out, policy=RandomWalk(num_steps=3), resume=resume)


@pytest.mark.parametrize("reward", [None, Brightness()])
def test_a_run_ends_where_the_best_images_become_less_likely_than_is_allowed(tmp_path, reward):
    safeguard = {"name": "dpo", "beta": FIXED, "max_chosen_drop": 1.0}
    given = settings(tmp_path, held_out=(1, 0), algorithm=safeguard, iterations=20)
    result = start(tmp_path / "run", given, reward=reward)
    records = read_metrics(result.folder / "metrics.jsonl")
    drops = [-float(record["held_out_chosen_log_ratio"] or 0) for record in records]
    assert [drop > 1.0 for drop in drops] == [False] * (len(drops) - 2) + [True, True]
    assert (result.end, result.step) == ("chosen drop", len(drops) - 1)
    assert result.step < 20
    assert read_marker(result.folder, "best") not in (result.step, result.step - 1)
    assert "more than algorithm.max_chosen_drop, 1.0" in result.message
    again = start(result.folder, given, reward=reward, resume=True)
    assert (again.end, again.step) == (result.end, result.step)


def test_a_run_whose_held_out_loss_only_rose_says_so_with_the_cure(tmp_path):
    result = start(tmp_path / "run", settings(tmp_path, held_out=(1, 0)))
    records = read_metrics(result.folder / "metrics.jsonl")
    losses = [float(record["held_out_preference_loss"] or 0) for record in records]
    assert min(losses[1:]) > losses[0]
    expected = (
        f"finished at iteration 6; the held-out loss was never below its {losses[0]:.4g} at the "
        "start, so no checkpoint is marked as best and the last one is used; lower "
        "optimizer.learning_rate, or judge more samples"
    )
    status = read_status(result.folder)
    assert status is not None
    assert result.message == status.message == expected
    assert not (result.folder / "best.json").exists()


def test_a_run_whose_held_out_reward_only_fell_says_so(tmp_path):
    class Darkness(Brightness):
        def score(self, *, prompts, samples):
            return -super().score(prompts=prompts, samples=samples)

    result = start(tmp_path / "run", settings(tmp_path, held_out=(0, 1)), reward=Darkness())
    assert "; the held-out reward was never above its -0." in result.message


def test_patience_and_the_marker_name_the_held_out_loss_where_there_is_no_reward(tmp_path):
    good = start(tmp_path / "good", settings(tmp_path, held_out=(0, 1)))
    assert good.message == "finished at iteration 6"
    best = json.loads((good.folder / "best.json").read_text())
    losses = {
        record["step"]: record["held_out_preference_loss"]
        for record in read_metrics(good.folder / "metrics.jsonl")
    }
    assert best["checkpoint"] == "step-000006"
    assert best == {"checkpoint": best["checkpoint"], "held_out_preference_loss": losses[6]}
    bad = start(tmp_path / "bad", settings(tmp_path, held_out=(1, 0), patience=2))
    assert (bad.end, bad.step) == ("held-out loss", 2)
    assert bad.message.startswith(
        "the held-out loss has not fallen for 2 measurements; the best was iteration 0; "
    )


def test_a_run_whose_best_checkpoint_by_its_loss_is_gone_does_not_begin_again(tmp_path):
    def kill(step: int, values: object) -> None:
        if step == 3:
            raise Killed

    given = settings(tmp_path, held_out=(0, 1), checkpoint_every=40)
    out, policy = tmp_path / "run", RandomWalk(num_steps=3)
    with pytest.raises(Killed):
        train.run(given, reward=None, out=out, policy=policy, on_step=kill)
    assert checkpoints(out)
    for path in (*checkpoints(out), out / "latest.json", out / "best.json"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(CheckpointError, match="its checkpoints are gone"):
        start(out, given, resume=True)


def test_held_out_ties_have_no_metrics_and_that_is_said_once(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    result = start(tmp_path / "run", settings(tmp_path, held_out=(0, 0), patience=1))
    assert (result.end, result.step) == ("finished", 6)
    held_out = {
        key
        for record in read_metrics(result.folder / "metrics.jsonl")
        for key in record
        if key.startswith("held_out_")
    }
    assert held_out == {"held_out_kl"}
    said = "no ranking of a held-out prompt prefers a sample to another"
    assert [message.startswith(said) for message in caplog.messages].count(True) == 1


def test_a_run_that_ends_before_its_beta_is_fixed_says_so(tmp_path, caplog):
    free = {"name": "dpo"}
    for iterations, said in ((10, True), (11, False)):
        caplog.clear()
        given = settings(tmp_path, held_out=(0, 1), algorithm=free, iterations=iterations)
        start(tmp_path / f"{iterations}", given)
        assert ("algorithm.beta.steps: beta is fixed after 10" in caplog.text) == said
