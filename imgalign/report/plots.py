"""The report's plots, as SVG that takes its colours and letters from the page around it.

matplotlib draws with stand-in colours, and each is replaced by a CSS variable: one plot serves
light and dark, screen and paper, and is sharp at any size.
"""

import io
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from imgalign.evaluate.comparison import Overoptimisation, Pair, SliceResult, WinRate
from imgalign.preferences.accuracy import Calibration
from imgalign.preferences.fit_report import Evaluation
from imgalign.runs.metric_table import Chart
from imgalign.statistics import Estimate

INK, MUTED, LINE, ALIGNED, BASE, HELD_OUT, LIMIT = (f"#00000{digit}" for digit in range(1, 8))
VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    LINE: "line",
    ALIGNED: "aligned",
    BASE: "base",
    HELD_OUT: "held-out",
    LIMIT: "limit",
}
SMALL = (4.4, 2.5)
"""Inches; 72 of the page's pixels each."""

Points = Sequence[tuple[int, float]]


def style() -> AbstractContextManager[Any]:
    """How all plots look."""
    return mpl.rc_context(
        {
            "axes.edgecolor": LINE,
            "axes.labelcolor": MUTED,
            "axes.labelsize": 9,
            "axes.linewidth": 1,
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.xmargin": 0.03,
            "font.size": 9,
            "lines.linewidth": 1.8,
            "lines.solid_capstyle": "round",
            "svg.fonttype": "none",
            "svg.hashsalt": "imgalign",
            "text.color": INK,
            "xtick.color": LINE,
            "xtick.labelcolor": MUTED,
            "ytick.color": LINE,
            "ytick.labelcolor": MUTED,
        }
    )


def svg(figure: Figure, label: str) -> str:
    """The figure as an element of the page; `label` says it to those who cannot see it."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # How matplotlib writes a font depends on its version.
    text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font: \1 var(--sans)", text)
    text = re.sub(r"font-family: [^;\"]*", "font-family: var(--sans)", text)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var(--{variable})")
    safe = label.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    # Its size in points would be taken for pixels; the page decides how wide it is.
    text = re.sub(r'(<svg[^>]*?) (?:width|height)="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) (?:width|height)="[^"]*"', r"\1", text, count=1)
    return text.replace("<svg", f'<svg role="img" aria-label="{safe}"', 1)


MARKED = 40
"""A curve of more points than these has no marker at each."""


def curve(
    chart: Chart,
    points: Points,
    *,
    beside: Points = (),
    spread: Sequence[float] | None = None,
    limit: float | None = None,
    limit_label: str = "",
) -> str:
    """A metric over the iterations of a run, and the one that is drawn beside it.

    `spread` is half the width of a band around each point, `limit` a line not to cross.
    """
    with style():
        figure = Figure(figsize=SMALL, layout="constrained")
        axes = figure.subplots()
        iterations, values = [at for at, _ in points], [value for _, value in points]
        if spread is not None:
            low = [value - half for value, half in zip(values, spread, strict=True)]
            high = [value + half for value, half in zip(values, spread, strict=True)]
            axes.fill_between(iterations, low, high, color=ALIGNED, alpha=0.13, linewidth=0)
        first, *others = chart.metrics
        marker = "o" if len(points) < 2 else ""
        # At 0 the axis would hide half of a line.
        whole: dict[str, Any] = {"clip_on": False, "zorder": 3}
        if points:
            axes.plot(iterations, values, color=ALIGNED, marker=marker, label=first.title, **whole)
        if beside:
            at, beside_values = zip(*beside, strict=True)
            name = others[0].title
            dots = "o" if len(beside) <= MARKED else ""
            whole |= {"marker": dots, "markersize": 4}
            axes.plot(at, beside_values, color=HELD_OUT, label=name, **whole)
            name_lines(axes)
        if limit is not None:
            limit_line(axes, limit, limit_label)
        if chart.from_zero:
            axes.set_ylim(bottom=0)
        axes.set_xlabel("iteration")
        axes.set_ylabel(first.unit)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
        ruled(axes)
        return svg(figure, f"{chart.title} over {max(len(points), len(beside))} iterations")


def limit_line(axes: Axes, limit: float, label: str) -> None:
    """A dashed line that is in sight however low the curve is."""
    axes.axhline(limit, color=LIMIT, linewidth=1.2, linestyle=(0, (4, 3)))
    axes.annotate(
        label,
        (0, limit),
        xycoords=("axes fraction", "data"),
        xytext=(4, 4),
        textcoords="offset points",
        color=LIMIT,
    )
    axes.set_ylim(top=max(axes.get_ylim()[1], limit * 1.15))


def name_lines(axes: Axes) -> None:
    """The names of the curves above them, each in its colour."""
    axes.legend(
        loc="lower right",
        bbox_to_anchor=(1, 1),
        ncols=2,
        frameon=False,
        handlelength=1.2,
        borderpad=0,
        borderaxespad=0.2,
        labelcolor="linecolor",
    )


def ruled(axes: Axes, *, axis: Literal["both", "x", "y"] = "y") -> None:
    """Faint lines at the ticks of one axis, behind everything."""
    axes.grid(axis=axis, color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)


def gains(pairs: Sequence[Pair]) -> str:
    """What each pair gained: in reward to the right, in oracle reward upwards."""
    points = [
        (pair.proxy[1] - pair.proxy[0], pair.oracle[1] - pair.oracle[0])
        for pair in pairs
        if pair.proxy is not None and pair.oracle is not None
    ]
    with style():
        figure = Figure(figsize=(4.4, 3.3), layout="constrained")
        axes = figure.subplots()
        for fooled, colour in ((False, ALIGNED), (True, LIMIT)):
            own = [(x, y) for x, y in points if (x > 0 and y < 0) == fooled]
            if own:
                xs, ys = zip(*own, strict=True)
                axes.scatter(xs, ys, s=15, color=colour, alpha=0.6, linewidths=0)
        reach = 1.08 * max(abs(x) for x, _ in points), 1.2 * max(abs(y) for _, y in points)
        axes.set_xlim(-(reach[0] or 1), reach[0] or 1)
        axes.set_ylim(-(reach[1] or 1), reach[1] or 1)
        axes.axhline(0, color=MUTED, linewidth=0.8)
        axes.axvline(0, color=MUTED, linewidth=0.8)
        for x, y, ha, va, text, colour in (
            (0.985, 0.98, "right", "top", "both better", MUTED),
            (0.985, 0.02, "right", "bottom", "reward fooled", LIMIT),
            (0.015, 0.02, "left", "bottom", "both worse", MUTED),
        ):
            axes.text(x, y, text, ha=ha, va=va, color=colour, transform=axes.transAxes)
        axes.set_xlabel("gain in reward, aligned minus base")
        axes.set_ylabel("gain in oracle reward")
        ruled(axes, axis="both")
        return svg(figure, f"gain in reward and in oracle reward of {len(points)} pairs")


def standard_gains(found: Overoptimisation) -> str:
    """Gains in reward and oracle reward in standard deviations of the base, with intervals."""
    rows = [("reward", found.proxy_gain, HELD_OUT), ("oracle reward", found.oracle_gain, ALIGNED)]
    rows.append(("gap", found.gap, LIMIT if (found.gap.low or 0) > 0 else MUTED))
    with style():
        figure = Figure(figsize=(4.4, 1.9), layout="constrained")
        axes = figure.subplots()
        forest(axes, rows, digits="{:+.2f}", scale=1)
        axes.axvline(0, color=MUTED, linewidth=0.8)
        axes.set_xlabel("gain, in standard deviations of the base")
        return svg(figure, "gain in reward, gain in oracle reward, and the gap between them")


def win_rates(overall: WinRate, slices: Sequence[SliceResult]) -> str:
    """Win rate of all pairs and of each kind of prompt, with intervals and the even line."""
    rows = [(f"all {overall.num_pairs} pairs", overall.rate, INK)]
    rows += [
        (f"{each.name} ({each.num_pairs})", each.win_rate.rate, ALIGNED)
        for each in slices
        if each.win_rate
    ]
    with style():
        figure = Figure(figsize=(4.4, 0.75 + 0.36 * len(rows)), layout="constrained")
        axes = figure.subplots()
        forest(axes, rows, digits="{:.0f} %", scale=100)
        axes.axvline(50, color=MUTED, linewidth=0.8)
        axes.set_xlim(0, 103)
        axes.set_xticks([0, 25, 50, 75, 100])
        axes.xaxis.set_major_formatter(PercentFormatter(100, decimals=0, symbol=" %"))
        axes.set_xlabel("aligned preferred")
        return svg(figure, "win rate by kind of prompt")


def faithful_shares(slices: Sequence[SliceResult]) -> str:
    """Share of faithful samples before and after, by kind of prompt."""
    rows = [(each.name, each.faithful) for each in slices if each.faithful]
    with style():
        figure = Figure(figsize=(4.4, 0.75 + 0.42 * len(rows)), layout="constrained")
        axes = figure.subplots()
        for place, (_, found) in enumerate(reversed(rows)):
            before, after = 100 * found.before.value, 100 * found.after.value
            axes.plot((before, after), (place, place), color=LINE, linewidth=2.5, zorder=1)
            axes.scatter([before], [place], s=42, color=BASE, zorder=2)
            axes.scatter([after], [place], s=42, color=ALIGNED, zorder=3)
            if abs(after - before) >= 0.5:
                rises = after > before
                for value, right, colour in (
                    (before, not rises, BASE),
                    (after, rises, ALIGNED),
                ):
                    axes.annotate(
                        f"{value:.0f} %",
                        (value, place),
                        xytext=(7 if right else -7, 0),
                        textcoords="offset points",
                        ha="left" if right else "right",
                        va="center",
                        color=colour,
                    )
        axes.set_yticks(range(len(rows)), [name for name, _ in reversed(rows)])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlim(-8, 108)
        axes.set_xticks([0, 25, 50, 75, 100])
        axes.xaxis.set_major_formatter(PercentFormatter(100, decimals=0, symbol=" %"))
        axes.set_xlabel("verified as what the prompt says")
        axes.spines["left"].set_visible(False)
        ruled(axes, axis="x")
        return svg(figure, "share of faithful samples, base and aligned, by kind of prompt")


def forest(
    axes: Axes, rows: Sequence[tuple[str, Estimate, str]], *, digits: str, scale: float
) -> None:
    """A dot and an interval per row, the first row on top, numbers above the dots."""
    for place, (_, found, colour) in enumerate(reversed(rows)):
        value = scale * found.value
        if found.low is not None and found.high is not None:
            ends = (scale * found.low, scale * found.high)
            axes.plot(ends, (place, place), color=colour, linewidth=2.2, alpha=0.55)
        axes.scatter([value], [place], s=34, color=colour, zorder=3)
        axes.annotate(
            digits.format(value).replace("-", "−"),
            (value, place),
            xytext=(0, 6),
            textcoords="offset points",
            ha="center",
            color=colour,
        )
    axes.set_yticks(range(len(rows)), [name for name, _, _ in reversed(rows)])
    axes.set_ylim(-0.5, len(rows) - 0.3)
    axes.spines["left"].set_visible(False)
    ruled(axes, axis="x")


def accuracies(test: Evaluation) -> str:
    """Accuracy of a reward between chance and what can be reached."""
    own, baseline = test.accuracy, test.baseline
    rows = [("chance", Estimate(value=test.chance), MUTED)]
    if baseline:
        name = test.baseline_name
        rows.append((name, bounded(baseline.micro, baseline.by_prompt), BASE))
    rows.append(("this reward", bounded(own.micro, own.by_prompt), ALIGNED))
    if test.ceiling:
        rows.append(("annotators", Estimate(value=test.ceiling.value), INK))
    if test.truth:
        rows.append(("Bayes-optimal", Estimate(value=test.truth.value), INK))
    with style():
        figure = Figure(figsize=(4.4, 0.75 + 0.42 * len(rows)), layout="constrained")
        axes = figure.subplots()
        forest(axes, rows, digits="{:.1f} %", scale=100)
        axes.set_xlim(45, 103)
        axes.xaxis.set_major_formatter(PercentFormatter(100, decimals=0, symbol=" %"))
        axes.set_xlabel(f"of {own.num_pairs} held-out pairs ordered as the annotator did")
        return svg(figure, "accuracy of the reward model beside a baseline and the annotators")


def bounded(value: float, interval: tuple[float, float] | None) -> Estimate:
    """A number and its interval as an estimate."""
    low, high = interval or (None, None)
    return Estimate(value=value, low=low, high=high)


def reliability(found: Calibration) -> str:
    """Predicted probability against what came true."""
    with style():
        figure = Figure(figsize=(4.4, 2.9), layout="constrained")
        axes = figure.subplots()
        axes.plot((50, 100), (50, 100), color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        largest = max(each.num_pairs for each in found.bins)
        confidence = [100 * each.confidence for each in found.bins]
        accuracy = [100 * each.accuracy for each in found.bins]
        sizes = [12 + 110 * each.num_pairs / largest for each in found.bins]
        axes.plot(confidence, accuracy, color=ALIGNED, alpha=0.5)
        axes.scatter(confidence, accuracy, s=sizes, color=ALIGNED, linewidths=0)
        axes.set_xlim(48, 102)
        axes.set_ylim(min(40, *accuracy), 104)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(100, decimals=0, symbol=" %"))
        axes.set_xlabel("confidence of the reward")
        axes.set_ylabel("share that is right")
        ruled(axes, axis="both")
        return svg(figure, "calibration of the reward model")
