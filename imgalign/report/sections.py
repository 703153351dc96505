"""The parts of the report in words and plots; a part without its input is one line."""

import shlex
from html import escape

from imgalign.config import as_yaml
from imgalign.evaluate.comparison import interval, percent
from imgalign.evaluate.evaluation import Evaluation, bounds
from imgalign.report import page, plots
from imgalign.report.private import (
    command_without_folders,
    from_here,
    text_without_folders,
    without_folders,
)
from imgalign.report.record import RunRecord
from imgalign.report.text import (
    change,
    command_of,
    duration,
    marked,
    sentence,
    signed,
    typeset,
)
from imgalign.runs.folder import CONFIG
from imgalign.runs.metric_table import CHARTS, METRICS, Chart
from imgalign.runs.model_names import public_name


def headline(run: RunRecord) -> str:
    """Title, how far the run is, and the verdict."""
    model = escape(public_name(run.settings.policy.model))
    chip = ""
    if run.status is not None:
        state, at = run.status.state, f"iteration {run.status.step} of {run.status.total}"
        left = run.status.eta_seconds
        more = f", about {duration(left)} left" if state == "running" and left else ""
        chip = f'<span class="chip {state}">{state}: {at}{more}</span>'
    name = escape(run.folder.resolve().name)
    return (
        f'<header>\n<p class="kicker">imgalign report {chip}</p>\n'
        f"<h1>Aligning {model} <span>{name}</span></h1>\n</header>\n{verdict(run)}"
    )


def verdict(run: RunRecord) -> str:
    """The result in one sentence with its interval, and the other numbers beside it."""
    found = run.evaluation
    if found is None:
        return page.missing(
            "No verdict yet",
            "Compare the aligned model with its base:",
            command_of("evaluate", run),
        )
    judged = found.summary.win_rate or found.summary.proxy_win_rate
    dial = ""
    if judged is not None:
        rate = judged.rate
        low, high = rate.low or 0.0, rate.high if rate.high is not None else 1.0
        dial = (
            f'<p class="figure">{100 * rate.value:.0f}<small>%</small></p>\n'
            f'<div class="scale" role="img" aria-label="{escape(interval(rate))}">'
            f'<i class="range" style="left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%"></i>'
            f'<i class="even"></i><i class="dot" style="left:{100 * rate.value:.1f}%"></i>'
            "<span>base</span><span>even</span><span>aligned</span></div>\n"
        )
    doubt = ""
    if judged is not None and (judged.rate.low or 0) <= 0.5 <= (judged.rate.high or 1):
        doubt = " The interval includes an even 50 %, so this may be chance."
    by = f" The judge is {escape(found.oracle_meaning)}." if found.oracle_meaning else ""
    if judged is not None and judged.ties:
        alike = f", which it puts at most {found.oracle_tie:g} apart," if found.oracle_tie else ""
        share = percent(judged.ties / judged.num_pairs)
        by += f" {share} of the pairs{alike} are ties and count half."
    fresh = (
        f"{found.num_prompts} prompts with {found.images_per_prompt} seeds each, none of which "
        f"training used; both sides have the same seeds, and the judge does not know whose "
        f"{found.sample} is whose.{by}{doubt}"
    )
    return (
        f'<section class="verdict">\n{dial}<div><p class="said">{escape(found.verdict())}.</p>\n'
        f"<p>{fresh}</p></div>\n</section>\n{page.tiles(at_a_glance(run, found))}"
    )


def at_a_glance(run: RunRecord, found: Evaluation) -> list[tuple[str, str, str]]:
    """What, the number, and how sure it is."""
    own, entries = found.summary, []
    if own.faithful:
        before, after = percent(own.faithful.before.value), percent(own.faithful.after.value)
        gain = own.faithful.difference
        note = f"{signed(100 * gain.value, 0)} points{typeset(bounds(gain, scale=100, digits=0))}"
        entries.append(("True to the prompt", f"{before} → {after}", note))
    for name, each in (("Oracle reward", own.oracle), ("Reward", own.proxy)):
        if each:
            gain = each.difference
            entries.append(
                (
                    name,
                    change(each.before.value, each.after.value),
                    f"{signed(gain.value)}{typeset(bounds(gain))}",
                )
            )
    if found.diversity:
        each = found.diversity.change
        share = each.difference.value / each.before.value if each.before.value else 0.0
        note = f"{signed(100 * share, 0)} %, in {found.diversity.space}"
        entries.append(("Diversity", change(each.before.value, each.after.value), note))
    if found.length:
        each = found.length
        note = f"{signed(each.difference.value)}{typeset(bounds(each.difference))} words of a text"
        entries.append(("Length", change(each.before.value, each.after.value), note))
    if found.drift:
        budget = found.drift.budget_nats
        allowed = f"of {budget:g} allowed, " if budget else ""
        metric = METRICS["kl"]
        nats = f"{found.drift.nats:.3g} {metric.unit}"
        entries.append((metric.title, nats, f"{allowed}per {found.sample}"))
    return entries


def pipeline(run: RunRecord) -> str:
    """What was done, with counts."""
    done = []
    if run.reward:
        counts, prompts = run.reward.counts, sum(run.reward.num_prompts.values())
        judged = counts.ranked + counts.all_bad + counts.skipped
        done.append(("Prompts", f"{prompts}", f"with {run.samples} to choose from"))
        rest = f"{counts.all_bad} times all bad, {counts.skipped} skipped"
        done.append(("Rankings", f"{judged}", f"{counts.ranked} with an order, {rest}"))
        own = run.reward.test
        ceiling = f", ceiling {percent(own.ceiling.value)}" if own.ceiling else ""
        note = f"of {own.accuracy.num_pairs} held-out pairs right{ceiling}"
        done.append(("Reward", percent(own.accuracy.micro), note))
    elif run.num_rankings:
        note = f"of given {run.samples}, learned from or held out"
        ranked = run.settings.data.gives == "rankings"
        name = "Rankings" if ranked else "Likes and dislikes"
        done.append((name, f"{run.num_rankings}", note))
    if run.iterations:
        note = f"iterations in {duration(run.seconds)} on {run.num_images} {run.samples}"
        done.append(("Alignment", f"{run.iterations}", note))
    if run.evaluation:
        seconds = duration(run.evaluation.origin.seconds)
        note = f"pairs of {run.samples} judged blind, {seconds}"
        done.append(("Comparison", f"{len(run.evaluation.pairs)}", note))
    if not done:
        return page.missing("What was done", "Nothing yet:", command_of("train", run))
    steps = "".join(
        f"<li><b>{escape(name)}</b><strong>{escape(count)}</strong>"
        f"<small>{escape(note)}</small></li>\n"
        for name, count, note in done
    )
    return page.section("What was done", f'<ol class="steps">\n{steps}</ol>\n')


def training(run: RunRecord) -> str:
    """Curves over the iterations of the run."""
    figures = [
        curve(run, chart)
        for chart in CHARTS
        if any(run.series(metric.key) for metric in chart.metrics)
    ]
    if not figures:
        return page.missing("Training", "No iteration is done yet:", command_of("train", run))
    lead = f"{run.iterations} iterations."
    if run.seconds:
        count, time = f"{run.num_images} {run.samples}", duration(run.seconds)
        lead = f"{run.iterations} iterations on {count} in {time}."
    said = text_without_folders(run.status.message or "") if run.status else ""
    return page.section(
        "Training", page.plots(*figures), lead=escape(f"{lead} {sentence(said)}".strip())
    )


def curve(run: RunRecord, chart: Chart) -> tuple[str, str]:
    """A chart of the run and its caption, in the words of the table of metrics."""
    points = run.series(chart.key)
    beside = run.series(chart.beside) if chart.beside else []
    deviations = dict(run.series(chart.spread)) if chart.spread else {}
    budget = run.settings.run.kl_budget_nats if chart.key == "kl" else None
    first, *others = chart.metrics
    limit = first.limit if budget is None else budget
    label = "" if limit is None else f"{'limit' if budget is None else 'budget'} {limit:g}"
    drawing = plots.curve(
        chart,
        points,
        beside=beside,
        spread=[deviations.get(at, 0.0) for at, _ in points] if chart.spread else None,
        limit=limit,
        limit_label=label,
    )
    caption = f"<b>{escape(chart.title)}.</b>"
    if points:
        caption += f" {marked(first.caption)}"
    if points and chart.spread:
        caption += f" Band: {marked(METRICS[chart.spread].caption)}"
    if beside:
        caption += "".join(
            f' <span class="held-out">{escape(each.title)}.</span> {marked(each.caption)}'
            for each in others
        )
    return drawing, caption


def oracle_and_reward(run: RunRecord) -> str:
    """Whether what was maximised is what was wanted."""
    found = run.evaluation
    if found is None:
        return ""
    own = found.summary.overoptimisation
    if own is None:
        return page.missing(
            "Oracle and reward",
            "Needs an oracle reward and the reward that was maximised:",
            f"{command_of('evaluate', run)} --reward FOLDER --group GROUP",
        )
    agreement = ""
    if own.agreement_before is not None and own.agreement_after is not None:
        agreement = (
            f" Across {found.samples}, the two correlate {own.agreement_before:.2f} on the base's "
            f"and {own.agreement_after:.2f} on the aligned ones."
        )
    low = own.gap.low or 0.0
    maximised = run.settings.data.gives == "rollouts"
    worth = (
        "The reward rose more than the oracle reward: part of the gain is the reward being gamed."
        if low > 0 and maximised
        else "The reward rose more than the oracle reward, although this run did not maximise it."
        if low > 0
        else "The oracle reward rose about as much, or more."
        if own.oracle_gain.value > 0
        else "The oracle reward did not rise."
    )
    return page.section(
        "Oracle and reward",
        page.plots(
            (
                plots.gains(found.pairs),
                f"<b>Every pair.</b> To the right the reward prefers the aligned {found.sample}, "
                "upwards the oracle does. The reward was fooled in "
                f"{percent(own.fooled.value)} of the pairs.",
            ),
            (
                plots.standard_gains(own),
                "<b>On one scale.</b> Gains in standard deviations over the base's "
                f"{found.samples}, so that the two can be compared.{agreement}",
            ),
        ),
        lead="The reward model estimates what people want; the oracle reward is what they want. "
        f"{worth}",
    )


def by_slice(run: RunRecord) -> str:
    """The comparison on each kind of prompt."""
    found = run.evaluation
    if found is None:
        return ""
    own = found.summary
    figures = []
    if own.win_rate:
        figures.append(
            (
                plots.win_rates(own.win_rate, own.by_slice),
                "<b>Win rate</b> with 95 % intervals by bootstrap over prompts. Few prompts make a "
                "wide interval.",
            )
        )
    if own.faithful and own.by_slice:
        figures.append(
            (
                plots.faithful_shares(own.by_slice),
                '<b>True to the prompt</b>, <span class="base">base</span> and '
                '<span class="aligned">aligned</span>: objects, colours, number, place and '
                "setting all as asked for.",
            )
        )
    return page.section("By kind of prompt", page.plots(*figures)) if figures else ""


def reward_model(run: RunRecord) -> str:
    """How good the reward was on prompts that its fit never saw."""
    if run.reward is None and run.settings.data.gives != "rollouts":
        return ""
    if run.reward is None:
        return page.missing(
            "Reward model",
            "Its report is not at hand; name its folder:",
            f"{command_of('report', run)} --reward FOLDER",
        )
    test = run.reward.test
    figures = [
        (
            plots.accuracies(test),
            f"<b>Held-out accuracy</b> over {test.accuracy.num_prompts} prompts."
            + (f" Annotators: {escape(test.ceiling.meaning)}." if test.ceiling else "")
            + (f" Bayes-optimal: {escape(test.truth.meaning)}." if test.truth else ""),
        )
    ]
    if test.calibration:
        figures.append(
            (
                plots.reliability(test.calibration),
                "<b>Calibration.</b> On the dashed line, a confidence of 80 % is right 80 % of the "
                f"time. Mean distance {100 * test.calibration.ece:.1f} points; larger dots are "
                "more pairs.",
            )
        )
    reached = ""
    if test.ceiling and test.share_of_ceiling is not None:
        reached = (
            f", which is {percent(test.share_of_ceiling)} of the accuracy at which annotators "
            "predict each other"
        )
        if test.share_of_truth is not None:
            reached += f", and {percent(test.share_of_truth)} of the Bayes-optimal accuracy"
    return page.section(
        "Reward model",
        page.plots(*figures),
        lead=f"It orders {percent(test.accuracy.micro)} of held-out pairs as the annotator did"
        f"{reached}.",
    )


def origin(run: RunRecord) -> str:
    """How to repeat it: commands, hardware, durations, settings; no folders of this machine."""
    config = str(from_here(run.folder) / CONFIG)
    commands = [shlex.join(["imgalign", "train", config, "--out", "NEW_FOLDER"])]
    rows = []
    if run.seconds:
        rows.append(("Training", f"{duration(run.seconds)}, {run.num_images} {run.samples}"))
    if peak := run.series("peak_memory_gb"):
        metric = METRICS["peak_memory_gb"]
        rows.append((metric.title, f"{max(value for _, value in peak):.1f} {metric.unit}"))
    if run.reward:
        rows.append(("Reward fit", duration(run.reward.seconds)))
    found = run.evaluation
    if found:
        commands.append(command_without_folders(found.origin.command))
        rows.append(
            (
                "Comparison",
                f"{duration(found.origin.seconds)}, {2 * len(found.pairs)} {found.samples}",
            )
        )
        then = found.origin.started_at
        rows.append(("Compared at", f"{then:%Y-%m-%d %H:%M} {then.tzname() or ''}".strip()))
        rows.append(("Hardware", hardware(found.origin.hardware)))
        rows.append(("Versions", ", ".join(f"{k} {v}" for k, v in found.origin.versions.items())))
        adapter = found.aligned.adapter_hash
        rows.append(("Judged", text_without_folders(found.aligned.adapter or "no adapter")))
        if adapter:
            rows.append(("SHA-256 of its weights", adapter))
        if found.num_left_out:
            rows.append(
                (
                    "Prompts left out",
                    f"{found.num_left_out}, which the run was trained or selected on",
                )
            )
    if run.votes:
        commands.append(command_without_folders(run.votes.command))
        project = f", project {run.votes.project}" if run.votes.project else ""
        database = without_folders(run.votes.database)
        rows.append(("Votes", f"{database}{project}, {run.votes.counted_at:%Y-%m-%d %H:%M}"))
    commands.append(command_of("report", run))
    settings = as_yaml(without_folders(run.settings.model_dump(by_alias=True)))
    return page.section(
        "How to repeat it",
        page.code("\n".join(commands)),
        page.facts(rows),
        page.folded("Settings of the run (config.yaml, without folders)", page.code(settings)),
    )


def hardware(found: dict[str, str]) -> str:
    """Example: "AMD EPYC 7B13, 2 cores, 8 GiB"."""
    cores = found.get("cores")
    parts = [
        found.get("gpu", ""),
        found.get("processor", ""),
        f"{cores} core{'' if cores == '1' else 's'}" if cores else "",
        found.get("memory", ""),
    ]
    return ", ".join(part for part in parts if part)
