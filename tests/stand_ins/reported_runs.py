"""Run folders for a report: settings, metrics, a fitted reward and a comparison made of noise."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evaluations import HASH, NoisyImages, compare
from torch import Tensor

from imgalign.config import dump_config
from imgalign.evaluate.evaluation import FOLDER, Checkpoint, Evaluation
from imgalign.evaluate.votes import VoteCounts, VoteResult
from imgalign.preferences.accuracy import Accuracy, Bin, Calibration, Gain
from imgalign.preferences.fit_report import Ceiling, Counts, FitReport, Spread
from imgalign.preferences.fit_report import Evaluation as FitEvaluation
from imgalign.runs.checkpoint import save_checkpoint
from imgalign.runs.metrics import MetricsWriter
from imgalign.runs.trained import ADAPTER
from imgalign.statistics import Estimate
from imgalign.train.config import RewardConfig, TrainConfig
from imgalign.train.data.rollouts import PromptsConfig, RolloutsConfig
from imgalign.train.data.source import HeldOutConfig
from imgalign.train.schedule import RunConfig, SamplesConfig
from imgalign.train.watch import save_grid

SIDE = 8


class MixedImages(NoisyImages):
    """Noise, brighter with an adapter for all seeds but every fifth."""

    side = 8

    def pixels(self, prompt: str, seed: int) -> np.ndarray:
        noise = np.random.default_rng(seed).integers(100, size=(self.side, self.side, 3))
        shift = (-20 if seed % 5 == 0 else 40) if self.adapter else 0
        return np.clip(noise + shift, 0, 255)


def bright_enough(*, prompts: Sequence[str], samples: Tensor) -> Tensor:
    return samples.mean((1, 2, 3)) > 0.18


class Redness:
    """A reward model that the brightness of noise agrees with most of the time."""

    def score(self, *, prompts: Sequence[str], samples: Tensor) -> Tensor:
        return samples[:, 0].mean((1, 2))


def begin_run(folder: Path, reward: Path | None = None) -> Path:
    """A run folder with settings and nothing else."""
    folder.mkdir(parents=True)
    settings = TrainConfig(
        data=RolloutsConfig(
            prompts=PromptsConfig(num_storybook=6), held_out=HeldOutConfig(num_prompts=2)
        ),
        reward=RewardConfig(path=str(reward) if reward else None),
        run=RunConfig(
            iterations=4,
            kl_budget_nats=5.0,
            samples=SamplesConfig(num_prompts=3, images_per_prompt=2),
        ),
    )
    dump_config(settings, folder / "config.yaml")
    kept = settings.data.load_prompts()._asdict()
    (folder / "prompts.json").write_text(json.dumps(kept))
    return folder


def make_iterations(run: Path, iterations: int = 4) -> None:
    """What training leaves in a run's folder, without a status."""

    def write(folder: Path) -> None:
        (folder / ADAPTER).write_bytes(b"")

    save_checkpoint(run, iterations, write=write)
    with MetricsWriter(run / "metrics.jsonl") as metrics:
        metrics.write(0, {"held_out_reward": 0.0, "held_out_kl": 0.0})
        for step in range(1, iterations + 1):
            values = {"reward_mean": 0.1 * step, "reward_std": 0.5, "kl": step / 2}
            values |= {
                "clip_fraction": 0.05,
                "approx_kl": 0.3,
                "seconds": 30.0,
                "dropped_images": 0.0,
            }
            metrics.write(step, values | {"held_out_reward": 0.08 * step})
    for step in (0, 2, 4):
        images = torch.rand(6, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(step))
        save_grid(images, run / "samples" / f"step-{step:06d}.png", columns=2)


def fitted_reward(folder: Path) -> Path:
    """What a fit leaves beside its weights, as far as a page reads it."""
    accuracy = Accuracy(micro=0.81, macro=0.8, num_pairs=90, num_prompts=9, by_prompt=(0.68, 0.92))
    bins = (Bin(low=0.5, high=0.6, num_pairs=90, confidence=0.55, accuracy=0.6),)
    spread = Spread(mean=0.0, std=1.0, quantiles=(-2, -1, 0, 1, 2), within_prompt_std=0.9)
    report = FitReport(
        test=FitEvaluation(
            accuracy=accuracy,
            baseline=replace(accuracy, micro=0.6),
            gain=Gain(value=0.21),
            chance=0.5,
            ceiling=Ceiling(value=0.9, meaning="two <people> agree"),
            share_of_ceiling=0.9,
            truth=Ceiling(value=0.95, meaning="what they <truly> want"),
            share_of_truth=0.85,
            num_rankings=12,
            num_tied_pairs=0,
            calibration=Calibration(ece=0.05, log_loss=0.5, bins=bins),
            scores=spread,
        ),
        train_accuracy=0.9,
        temperature=1.0,
        ece_uncalibrated=0.1,
        train_scores=spread,
        log_tie=(),
        counts=Counts(ranked=57, all_bad=2, skipped=1),
        num_rankings={"train": 40, "validation": 8, "test": 9},
        num_prompts={"train": 40, "validation": 10, "test": 9},
        seeds=(),
        chosen_seed=0,
        losses=(),
        data_hash="",
        settings={},
        seconds=9.0,
    )
    folder.mkdir()
    (folder / "report.json").write_text(json.dumps(asdict(report)))
    return folder


def voted(run: Path, **changes: Any) -> VoteResult:
    """Votes of three annotators, and of simulated ones, as they lie in the run's folder."""
    people = VoteCounts(
        rate=Estimate(value=0.75, low=0.53, high=0.89),
        rate_of_these_annotators=Estimate(value=0.75, low=0.6, high=0.86),
        num_wins=14,
        num_ties=2,
        num_losses=4,
        num_all_bad=5,
        num_skipped=6,
        num_prompts=12,
        num_annotators=3,
    )
    simulated = replace(people, rate=Estimate(value=0.35, low=0.2, high=0.54), num_losses=24)
    found = VoteResult(
        base=Checkpoint(model="storybook", adapter=None, adapter_hash=None),
        aligned=Checkpoint(model="storybook", adapter=str(run), adapter_hash=HASH),
        people=people,
        simulated=simulated,
        num_on_known_prompts=0,
        database="sqlite:///<cats>.db",
        project=None,
        command=shlex.join(["imgalign", "evaluate", str(run), "--votes"]),
        counted_at=datetime(2026, 11, 22, 9, 30, tzinfo=UTC),
    )
    found = replace(found, **changes)
    found.save(run / FOLDER)
    return found


def judge(run: Path, **measures: Any) -> Evaluation:
    """The comparison of a run with its base, as it lies in the run's folder."""
    return compare(run, run / FOLDER, load=MixedImages, **measures)
