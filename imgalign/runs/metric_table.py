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

from imgalign.runs.algorithm_metrics import OF_ALGORITHMS
from imgalign.runs.metric import Group, Metric

HEADINGS: Mapping[Group, str] = {
    "reward": "Reward",
    "distance": "Distance from the reference",
    "update": "The update",
    "cost": "Cost",
}


@dataclass(frozen=True, slots=True)
class Chart:
    """Metrics that are drawn together over the iterations, where any of them was measured."""

    key: str
    beside: str | None = None
    """A second curve in the same unit."""
    spread: str | None = None
    """Half the width of a band around the first curve."""
    from_zero: bool = False
    """Whether the vertical axis begins at 0."""
    called: str | None = None
    """Its title, where that is not the first metric's."""

    @property
    def title(self) -> str:
        """What it is called."""
        return self.called or self.metrics[0].title

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
        "Mean reward of this iteration's samples.",
        "This is the number that is optimised, so it rises even while the samples get worse.",
        "reward",
    ),
    Metric(
        "beside_reward_mean",
        "Reward of the prompts as they are",
        "reward",
        "Only with `data.original_share`: mean reward of this iteration's prompts as they are.",
        "Above the reward, the policy rewrites prompts for the worse.",
        "reward",
    ),
    Metric(
        "reward_std",
        "Spread of the reward",
        "reward",
        "Standard deviation of the reward over this iteration's samples.",
        "Near 0, the samples have become alike.",
        "reward",
    ),
    Metric(
        "reward_min",
        "Lowest reward",
        "reward",
        "Smallest reward of this iteration's samples.",
        "",
        "reward",
    ),
    Metric(
        "reward_max",
        "Highest reward",
        "reward",
        "Largest reward of this iteration's samples.",
        "",
        "reward",
    ),
    Metric(
        "dropped_images",
        "Dropped samples",
        "samples",
        "Samples without a finite reward; they are left out of the loss.",
        "Anything above 0 is a fault of the reward model or of the samples.",
        "reward",
    ),
    Metric(
        "unfinished",
        "Unfinished samples",
        "fraction",
        "Share of this iteration's samples that did not come to their end, such as texts that were "
        "cut at `policy.max_new_tokens`.",
        "They are learned from without an end, while a reward model scores them as if they ended "
        "there: raise `policy.max_new_tokens`, or set `data.unfinished_penalty`.",
        "reward",
    ),
    Metric(
        "held_out_reward",
        "Held-out reward",
        "reward",
        "Mean reward on held-out prompts and seeds, which are never trained on, by the evaluation "
        "reward where one is given.",
        "If it falls while the training reward rises, the reward is being over-optimised. Where "
        "there is a reward model, `run.patience` and `best.json` follow it.",
        "reward",
    ),
    Metric(
        "held_out_kl",
        "Held-out KL",
        "nats",
        "KL per sample on the held-out prompts, after this iteration's update.",
        "",
        "distance",
    ),
    Metric(
        "grad_norm",
        "Gradient norm",
        "per element",
        "Norm of the loss's gradient before clipping, averaged over the optimizer steps of this "
        "iteration.",
        "Spikes.",
        "update",
    ),
    Metric(
        "grad_norm_max",
        "Largest gradient norm",
        "per element",
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
        "skipped_steps",
        "Optimizer steps left out",
        "optimizer steps",
        "Updates that were not made in this iteration because their gradient was not finite.",
        "More than a few in a run: lower the learning rate. Ten in a row end it.",
        "update",
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
        "Time of sampling samples, where they are sampled.",
        "",
        "cost",
    ),
    Metric(
        "seconds_scoring",
        "Time of scoring",
        "s",
        "Time of scoring samples, where they are sampled.",
        "",
        "cost",
    ),
    Metric(
        "seconds_loading",
        "Time of loading",
        "s",
        "Time of reading and encoding samples, where they are given.",
        "Close to 0 once every sample has been encoded.",
        "cost",
    ),
    Metric(
        "seconds_learning",
        "Time of learning",
        "s",
        "Time of the passes over the samples and of the optimizer steps.",
        "",
        "cost",
    ),
    Metric(
        "cpu_seconds",
        "Processor time",
        "s",
        "Processor time of this process in this iteration, all its threads added up.",
        "Unlike `seconds`, it does not grow while other work is done beside the run.",
        "cost",
    ),
    Metric(
        "forward_passes",
        "Forward passes",
        "passes",
        "Forward passes of the network to sample and to learn, references included, without the "
        "held-out measurement. One is that of one image, or of one token of a text.",
        "",
        "cost",
    ),
    Metric(
        "backward_passes",
        "Backward passes",
        "passes",
        "Forward passes whose gradient was asked for, too. One costs about two forward passes, so "
        "methods are compared at equal `forward_passes` + 2 x `backward_passes`.",
        "",
        "cost",
    ),
    Metric(
        "images_drawn",
        "Images drawn",
        "images",
        "Images that `reward.drawn` drew to score texts by, without the held-out measurement. Each "
        "takes a forward pass of the image model for every step of its sampler, or two with "
        "guidance.",
        "Falls as rewrites repeat, since no image is drawn twice.",
        "cost",
    ),
    Metric(
        "images_per_second",
        "Speed",
        "samples/s",
        "This iteration's samples divided by `seconds`.",
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
    *OF_ALGORITHMS,
)

METRICS: Mapping[str, Metric] = {metric.key: metric for metric in TABLE}
"""Every metric by its key."""

CHARTS = (
    Chart("reward_mean", beside="held_out_reward", spread="reward_std"),
    Chart("kl", beside="held_out_kl", from_zero=True),
    Chart("loss"),
    Chart("implicit_accuracy", beside="held_out_implicit_accuracy"),
    Chart("preference_loss", beside="held_out_preference_loss"),
    Chart("implicit_margin", beside="held_out_implicit_margin"),
    Chart(
        "chosen_log_ratio",
        beside="rejected_log_ratio",
        called="Log-ratios of the best and the worst",
    ),
    Chart(
        "held_out_chosen_log_ratio",
        beside="held_out_rejected_log_ratio",
        called="Held-out log-ratios of the best and the worst",
    ),
    Chart(
        "gradient_factor",
        beside="negative_margins",
        from_zero=True,
        called="Gradient factor and negative margins",
    ),
    Chart("unfinished", from_zero=True),
    Chart("clip_fraction", from_zero=True),
    Chart("approx_kl", from_zero=True),
)
"""What the report and the app draw, as far as a run has measured it."""

INTRODUCTION = """\
# Metrics

`imgalign train` appends one JSON object to `metrics.jsonl` after every iteration and flushes it at
once, so that a plot can follow. An iteration takes a batch of samples, images or texts, made and
scored or given, and learns from it. Numbers that JSON cannot hold (NaN, infinity) are `null`.

An iteration makes one or more optimizer steps, as `optimizer_steps` says. The key `step`, and the
number in the folder names `step-000200`, count iterations.

The reference is the model that the run began with. A timestep is one denoising step of an image,
or one token of a text. Log-probabilities, KL and entropies are in **nats**, for images summed over
the elements of a latent; "per sample" means summed over the timesteps of a sample as well. Rewards
are in the reward model's unit.

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
