"""Every metric that a run writes: its unit, its meaning, and what to watch.

docs/metrics.md, the captions of the report and the app's charts are made from this table. To add
a metric, add one entry to it, and write the page again:

    python -m imgalign.runs.metric_table > docs/metrics.md

Texts are sentences in Markdown without links. Left out: values; metrics.py reads and writes those.
"""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, TypeAlias

Group: TypeAlias = Literal["reward", "distance", "update", "cost"]

HEADINGS: Mapping[Group, str] = {
    "reward": "Reward",
    "distance": "Distance from the reference",
    "update": "The update",
    "cost": "Cost",
}
POLICY_GRADIENT = ("policy_gradient",)
SUPERVISED = ("supervised",)


@dataclass(frozen=True, slots=True)
class Metric:
    """One key of metrics.jsonl.

    Example: `Metric("kl", "KL to the reference", "nats", "KL per image.", "...", "distance")`.
    """

    key: str
    title: str
    """What a chart is called."""
    unit: str
    """Empty for a ratio without a unit."""
    meaning: str
    watch: str
    """When to worry, or what to expect; may be empty."""
    group: Group
    algorithms: tuple[str, ...] = ()
    """Modules of `imgalign.algorithms` that write it; empty where every run does."""
    limit: float | None = None
    """Charts draw a line here: beyond it there is reason to worry."""

    @property
    def caption(self) -> str:
        """What it means and what to watch, as running text."""
        return f"{self.meaning} {self.watch}".strip()


@dataclass(frozen=True, slots=True)
class Chart:
    """Metrics that are drawn together over the iterations; the first one gives the title."""

    key: str
    beside: str | None = None
    """A second curve in the same unit."""
    spread: str | None = None
    """Half the width of a band around the first curve."""
    from_zero: bool = False
    """Whether the vertical axis begins at 0."""

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Of its curves, in the order they are named."""
        return tuple(METRICS[key] for key in (self.key, self.beside) if key is not None)


TABLE = (
    Metric(
        "step",
        "Iteration",
        "iterations",
        "Number of iterations that the weights have been trained for.",
        "0 is the model that the run began with, measured before training.",
        "reward",
    ),
    Metric(
        "reward_mean",
        "Reward",
        "reward",
        "Mean reward of this iteration's images.",
        "This is the number that is optimised, so it rises even while the images get worse.",
        "reward",
    ),
    Metric(
        "reward_std",
        "Spread of the reward",
        "reward",
        "Standard deviation of the reward over this iteration's images.",
        "Near 0, the images have become alike.",
        "reward",
    ),
    Metric(
        "reward_min",
        "Lowest reward",
        "reward",
        "Smallest reward of this iteration's images.",
        "",
        "reward",
    ),
    Metric(
        "reward_max",
        "Highest reward",
        "reward",
        "Largest reward of this iteration's images.",
        "",
        "reward",
    ),
    Metric(
        "dropped_images",
        "Dropped images",
        "images",
        "Images without a finite reward; they are left out of the loss.",
        "Anything above 0 is a fault of the reward model or of the images.",
        "reward",
    ),
    Metric(
        "held_out_reward",
        "Held-out reward",
        "reward",
        "Mean reward on held-out prompts and seeds, which are never trained on, by the evaluation "
        "reward where one is given.",
        "If it falls while the training reward rises, the reward is being over-optimised. Early "
        "stopping and `best.json` follow it.",
        "reward",
    ),
    Metric(
        "kl",
        "KL to the reference",
        "nats",
        "KL(policy ‖ reference) per image, on this iteration's images and before its update: exact "
        "at every timestep, averaged over the images.",
        "It is the cost at which the reward was gained; `run.kl_budget_nats` limits it.",
        "distance",
        POLICY_GRADIENT,
    ),
    Metric(
        "kl_per_step",
        "KL per timestep",
        "nats",
        "KL(policy ‖ reference) of one timestep, averaged over timesteps and images.",
        "",
        "distance",
        POLICY_GRADIENT,
    ),
    Metric(
        "held_out_kl",
        "Held-out KL",
        "nats",
        "KL per image on the held-out prompts, after this iteration's update.",
        "",
        "distance",
    ),
    Metric(
        "kl_coefficient",
        "KL coefficient",
        "advantage per nat",
        "Weight of one nat of KL in this iteration's loss.",
        "It changes only with `algorithm.kl.kind: adaptive`.",
        "distance",
        POLICY_GRADIENT,
    ),
    Metric(
        "grad_norm",
        "Gradient norm",
        "per latent element",
        "Norm of the loss's gradient before clipping, averaged over the optimizer steps of this "
        "iteration.",
        "Spikes.",
        "update",
    ),
    Metric(
        "grad_norm_max",
        "Largest gradient norm",
        "per latent element",
        "Largest gradient norm of this iteration.",
        "Spikes.",
        "update",
    ),
    Metric(
        "learning_rate",
        "Learning rate",
        "",
        "Learning rate of this iteration, after warm-up.",
        "",
        "update",
    ),
    Metric(
        "optimizer_steps",
        "Optimizer steps",
        "optimizer steps",
        "Updates of the weights in this iteration: inner epochs times minibatches.",
        "",
        "update",
    ),
    Metric(
        "policy_loss",
        "Policy loss",
        "advantage",
        "Clipped surrogate loss, averaged over timesteps. Before the first optimizer step it is "
        "minus the mean advantage, so close to 0.",
        "It does not measure progress.",
        "update",
        POLICY_GRADIENT,
    ),
    Metric(
        "loss",
        "Loss",
        "nats per element",
        "Weighted mean of minus the log-probability of the images trained on, per latent element; "
        "for a diffusion model half the mean squared error of the prediction.",
        "It varies with the noise levels drawn in an iteration; only its trend counts.",
        "update",
        SUPERVISED,
    ),
    Metric(
        "samples_used",
        "Images used",
        "images",
        "Images with a weight above 0: with `weighting: best` the best of each prompt, more where "
        "several tie.",
        "",
        "update",
        SUPERVISED,
    ),
    Metric(
        "log_ratio_max",
        "Largest log-ratio",
        "nats",
        "Largest absolute log(new probability / old probability) of one timestep.",
        "Exactly 0 with one minibatch and one inner epoch, because the sampler's own "
        "log-probabilities are the anchor.",
        "update",
        POLICY_GRADIENT,
    ),
    Metric(
        "clip_fraction",
        "Clip fraction",
        "fraction",
        "Share of timesteps whose log-ratio left the clip range.",
        "Above 0.3, lower the learning rate or the number of minibatches.",
        "update",
        POLICY_GRADIENT,
        limit=0.3,
    ),
    Metric(
        "approx_kl",
        "KL of one update",
        "nats",
        "KL(old ‖ new) per image, estimated from the ratios (Schulman's k3) and averaged over all "
        "passes.",
        "It says how far one iteration moves the policy; above a few nats, the samples no longer "
        "describe the policy that is updated.",
        "update",
        POLICY_GRADIENT,
    ),
    Metric(
        "entropy_per_step",
        "Entropy per timestep",
        "nats",
        "Entropy of one timestep's distribution.",
        "Fixed by the sampler's noise for a diffusion policy.",
        "update",
        POLICY_GRADIENT,
    ),
    Metric(
        "advantage_abs_mean",
        "Size of the advantages",
        "advantage",
        "Mean absolute advantage after clipping, over the timesteps that are credited.",
        "About 0.8 when normalised; 0 where all rewards are equal and there is no signal.",
        "update",
        POLICY_GRADIENT,
    ),
    Metric(
        "useless_group_fraction",
        "Groups without a signal",
        "fraction",
        "Share of prompts whose images all earned the same reward (group baselines only).",
        "Near 1, the reward cannot tell images of one prompt apart.",
        "update",
        POLICY_GRADIENT,
    ),
    Metric(
        "value_loss",
        "Value loss",
        "squared standard deviations",
        "Loss of the value estimator before its update in this iteration (value estimator only).",
        "",
        "update",
        POLICY_GRADIENT,
    ),
    Metric(
        "explained_variance",
        "Explained variance",
        "fraction",
        "Share of the reward's variance that the value estimator predicted (value estimator only).",
        "1 is all, 0 none; below 0 it is worse than a constant.",
        "update",
        POLICY_GRADIENT,
    ),
    Metric(
        "seconds",
        "Time of an iteration",
        "s",
        "Time of this iteration: sampling, scoring, learning and the held-out measurement, without "
        "checkpoints and sample grids.",
        "",
        "cost",
    ),
    Metric(
        "seconds_sampling",
        "Time of sampling",
        "s",
        "Time of sampling images, where they are sampled.",
        "",
        "cost",
    ),
    Metric(
        "seconds_scoring",
        "Time of scoring",
        "s",
        "Time of scoring images, where they are sampled.",
        "",
        "cost",
    ),
    Metric(
        "seconds_loading",
        "Time of loading",
        "s",
        "Time of reading and encoding images, where they are given.",
        "Close to 0 once every image has been encoded.",
        "cost",
    ),
    Metric(
        "seconds_learning",
        "Time of learning",
        "s",
        "Time of the passes over the images and of the optimizer steps.",
        "",
        "cost",
    ),
    Metric(
        "images_per_second",
        "Speed",
        "images/s",
        "This iteration's images divided by `seconds`.",
        "",
        "cost",
    ),
    Metric(
        "peak_memory_gb",
        "Peak memory",
        "GB",
        "Peak memory so far: of the GPU if one is used, else of the process. 1 GB is 10^9 bytes.",
        "",
        "cost",
    ),
)

METRICS: Mapping[str, Metric] = {metric.key: metric for metric in TABLE}
"""Every metric by its key."""

CHARTS = (
    Chart("reward_mean", beside="held_out_reward", spread="reward_std"),
    Chart("kl", beside="held_out_kl", from_zero=True),
    Chart("clip_fraction", from_zero=True),
    Chart("approx_kl", from_zero=True),
)
"""What the report and the app draw, as far as a run has measured it."""

INTRODUCTION = """\
# Metrics

`imgalign train` appends one JSON object to `metrics.jsonl` after every iteration and flushes it at
once, so that a plot can follow. An iteration takes a batch of images, sampled and scored or given,
and learns from it. Numbers that JSON cannot hold (NaN, infinity) are `null`.

An iteration makes one or more optimizer steps, as `optimizer_steps` says. The key `step`, and the
number in the folder names `step-000200`, count iterations.

The reference is the model that the run began with. A timestep is one denoising step of one image.
Log-probabilities, KL and entropies are in **nats, summed over the elements of a latent**; "per
image" means summed over the timesteps of an image as well. Rewards are in the reward model's unit.

This page is written by `python -m imgalign.runs.metric_table > docs/metrics.md`.
"""

STATUS = """\
## status.json
Replaced atomically after every iteration: `state` (`running`, `stopped`, `finished`, `failed`),
`pid` and `birth` of the process, `step` and `total` in iterations, `eta_seconds`, and a `message`
in plain language. A run whose process is gone while the file still says `running` was killed;
`imgalign.runs.status.read_status` reports it as stopped.
"""


def document() -> str:
    """The text of docs/metrics.md."""
    groups = list(HEADINGS)
    ordered = sorted(TABLE, key=lambda metric: (groups.index(metric.group), metric.algorithms))
    by_section = groupby(ordered, key=lambda metric: (metric.group, metric.algorithms))
    sections = [section(heading(*each), metrics) for each, metrics in by_section]
    return "\n".join([INTRODUCTION, *sections, STATUS])


def heading(group: Group, algorithms: tuple[str, ...]) -> str:
    """Example: "The update: policy gradient"."""
    names = ", ".join(name.replace("_", " ") for name in algorithms)
    return f"{HEADINGS[group]}: {names}" if names else HEADINGS[group]


def section(title: str, metrics: Iterable[Metric]) -> str:
    """One Markdown table under its heading."""
    rows = "".join(
        f"| `{metric.key}` | {metric.unit} | {metric.meaning} | {metric.watch} |\n"
        for metric in metrics
    )
    return f"## {title}\n| key | unit | meaning | what to watch |\n|---|---|---|---|\n{rows}"


if __name__ == "__main__":
    sys.stdout.write(document())
