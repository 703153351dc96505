"""At which noise levels implicit rewards tell better images from worse ones.

    python benchmarks/noise_levels.py runs/direct/dpo-all-levels-seed-0

Scores the held-out rankings of finished runs of a direct method at fixed noise levels, with the
weights of the checkpoint to use, and with the same draws for both models and all candidates. Of the
margins (better less worse log-ratio, nats) it gives mean, standard deviation, their ratio, and the
share above 0, with 95 % intervals over rankings. Levels at which the ratio is 0 add only noise to
the gradient. Writes noise_levels.json and prints a table.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from algorithms import record
from torch import Tensor

from imgalign.algorithms.implicit import DrawKey, Rows, over_draws, rows_of
from imgalign.algorithms.rankings import RankedBatch, better_pairs
from imgalign.config import load_config
from imgalign.policy import LikelihoodPolicy
from imgalign.runs.folder import CONFIG
from imgalign.runs.trained import find_weights
from imgalign.runs.world import Alone
from imgalign.statistics import clustered_mean
from imgalign.train.assemble import load_policy
from imgalign.train.config import TrainConfig
from imgalign.train.data.source import Parts
from imgalign.train.starting import prompts_to_use

LEVELS = (0.02, 0.08, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.92, 0.98)
DRAWS = 4


def log_ratios(policy: LikelihoodPolicy, rows: Rows, level: float) -> Tensor:
    """Of each row, at one noise level."""
    parts = torch.split(torch.arange(len(rows)), policy.batch_size)
    found = []
    for part in map(rows.select, parts):
        drawn = policy.draw(part.data, seeds=[key.seed for key in part.keys])
        draws = replace(drawn, levels=torch.full_like(drawn.levels, level))
        with torch.no_grad():
            with policy.using("reference"):
                reference = policy.log_prob(part.data, draws).values
            found.append(policy.log_prob(part.data, draws).values - reference)
    return torch.cat(found).float().cpu()


def margins_at(policy: LikelihoodPolicy, batch: RankedBatch, level: float) -> dict[str, object]:
    """What the margins at one noise level are like."""
    pairs = better_pairs(batch.ranks)
    which = pairs.nonzero()[:, 0].tolist()
    margins = []
    for turn in range(DRAWS):
        keys = [[DrawKey(seed=1000 * turn + row, level=level)] for row in range(len(pairs))]
        rows = rows_of(batch, keys)
        own = over_draws(log_ratios(policy, rows, level), rows, batch.index.shape)
        margins.append((own[:, :, None] - own[:, None, :])[pairs])
    all_ = torch.cat(margins)
    right = clustered_mean((all_ > 0).double().tolist(), which * DRAWS, seed=0)
    mean = clustered_mean(all_.tolist(), which * DRAWS, seed=0)
    return {
        "level": level,
        "mean": [mean.value, mean.low, mean.high],
        "std": all_.std().item(),
        "ratio": (all_.mean() / all_.std()).item(),
        "right": [right.value, right.low, right.high],
    }


def measured(run: Path) -> list[dict[str, object]]:
    """All levels of one run."""
    settings = load_config(TrainConfig, run / CONFIG)
    policy = load_policy(settings)
    policy.load(find_weights(run))
    parts = Parts(
        policy=policy,
        reward=None,
        prompts=prompts_to_use(run, settings, resume=True),
        run=run,
        seed=settings.seed,
        world=Alone(),
    )
    batch = settings.data.build(parts).held_out()
    return [margins_at(parts.scoring_policy(), batch, level) for level in LEVELS]


def table(rows: list[dict[str, object]]) -> str:
    """Markdown, one line per level and run."""
    lines = [
        "| run | noise level | mean margin, nats | its standard deviation | ratio | right |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        mean, right = row["mean"], row["right"]
        assert isinstance(mean, list)
        assert isinstance(right, list)
        lines.append(
            f"| {row['run']} | {row['level']} | {mean[0]:+.3f} ({mean[1]:+.3f} to {mean[2]:+.3f}) "
            f"| {row['std']:.3f} | {row['ratio']:+.2f} "
            f"| {100 * right[0]:.0f} % ({100 * right[1]:.0f} to {100 * right[2]:.0f}) |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure all runs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args()
    rows = [{"run": run.name} | row for run in given.runs for row in measured(run)]
    command = "python benchmarks/noise_levels.py runs/direct/dpo-all-levels-seed-0"
    record(given.results / "noise_levels.json", command, rows=rows)
    print(table(rows))


if __name__ == "__main__":
    main()
