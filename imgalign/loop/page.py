"""The report of a loop: OUT/report.html, one page without scripts or requests.

It links to the reports of the runs, which are below it. Numbers of a comparison are read from its
evaluation.json; votes from the journal.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from imgalign.config import as_yaml
from imgalign.evaluate.comparison import Change, interval, percent
from imgalign.evaluate.evaluation import FOLDER as EVALUATION
from imgalign.evaluate.evaluation import Evaluation, load_evaluation
from imgalign.files import lock_name, reporting_full_disk, write_atomically
from imgalign.images import read_image_file
from imgalign.loop.config import LoopConfig
from imgalign.loop.deciding import last_kept
from imgalign.loop.plan import Plan
from imgalign.loop.rounds import Round, folder_of
from imgalign.loop.stages import AGAINST_BASE, BASE_SAMPLES, RUN, SAMPLES
from imgalign.report import page, plots
from imgalign.report.private import without_folders
from imgalign.report.text import change, duration, sentence, signed
from imgalign.report.writing import PAGE
from imgalign.runs.model_names import public_name
from imgalign.statistics import Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A round and its two comparisons by measures."""

    round: Round
    against_start: Evaluation
    against_base: Evaluation
    """The same as `against_start` where the round started from the base."""


def write_page(out: Path, plan: Plan, rounds: Sequence[Round], *, reason: str | None) -> Path:
    """Write OUT/report.html from what the finished rounds left; returns its path.

    `reason` is why the loop ended; None while it goes on.
    """
    found = [compared(out, each) for each in rounds]
    target = out / PAGE
    content = page.page(
        f"imgalign loop: {out.name}",
        [
            headline(out, plan, found, reason),
            progress_of(found),
            table_of(found),
            grid(out, plan, rounds),
            how(plan.settings),
        ],
    )
    with lock_name(target), reporting_full_disk(out, "writing the report"):
        write_atomically(target, content)
    return target


def compared(out: Path, round: Round) -> Compared:
    """The comparisons of a round, as they were saved."""
    folder = folder_of(out, round.number)
    against_start = load_evaluation(folder / RUN / EVALUATION)
    against_base = against_start
    if round.start.round != 0:
        against_base = load_evaluation(folder / AGAINST_BASE)
    return Compared(round=round, against_start=against_start, against_base=against_base)


def headline(out: Path, plan: Plan, found: Sequence[Compared], reason: str | None) -> str:
    """What has come out, in a sentence, with the numbers of the round that is kept."""
    kept = last_kept([each.round.improved for each in found])
    state = "running" if reason is None else "finished"
    said = f"{state}: {len(found)} round{'' if len(found) == 1 else 's'}"
    model = escape(public_name(plan.training.policy.model))
    header = (
        f'<header>\n<p class="kicker">imgalign loop <span class="chip {state}">{said}</span></p>\n'
        f"<h1>Aligning {model} in rounds <span>{escape(out.name)}</span></h1>\n</header>\n"
    )
    if not kept:
        verdict = "No round has been shown to be better than the pretrained model"
        tiles = ""
    else:
        best = found[kept - 1]
        verdict = f"Round {kept} is kept"
        rate = best.against_base.summary.win_rate
        if rate is not None:
            verdict += (
                f"; the oracle prefers it to the pretrained model in {percent(rate.rate.value)} of "
                f"{rate.num_pairs} pairs ({interval(rate.rate)})"
            )
        tiles = page.tiles(at_a_glance(best))
    why = "" if reason is None else f" The loop ended: {reason}."
    rule = (
        "A round is kept if annotators, who do not know whose image is whose, prefer its images "
        "to those of the round that it started from: the lower bound of the win rate, ties as "
        "halves, has to be above 50 %. Oracle, faithfulness, diversity and KL are measured beside "
        f"it and decide nothing.{why}"
    )
    return (
        f'{header}<section class="verdict alone">\n<div><p class="said">{escape(verdict)}.</p>\n'
        f"<p>{escape(rule)}</p></div>\n</section>\n{tiles}"
    )


def at_a_glance(best: Compared) -> list[tuple[str, str, str]]:
    """The kept round beside the base: what, the number, and how sure it is."""
    own, entries = best.against_base.summary, []
    if own.oracle:
        gain = own.oracle.difference
        entries.append(
            (
                "Oracle reward",
                change(own.oracle.before.value, own.oracle.after.value),
                f"{signed(gain.value)} from the base",
            )
        )
    if own.faithful:
        before, after = percent(own.faithful.before.value), percent(own.faithful.after.value)
        entries.append(("True to the prompt", f"{before} → {after}", "base → kept round"))
    if best.against_base.diversity:
        moved, space = best.against_base.diversity.change, best.against_base.diversity.space
        entries.append(("Diversity", change(moved.before.value, moved.after.value), f"in {space}"))
    nats = f"{best.round.kl_from_base:.1f} nats"
    entries.append(("KL from the base", nats, "per image, over all rounds"))
    entries.append(("Rankings", f"{best.round.num_rankings}", "of all rounds up to this one"))
    return entries


def progress_of(found: Sequence[Compared]) -> str:
    """Win rates over the rounds, by votes and by the oracle."""
    step: list[tuple[str, Estimate, str]] = []
    total: list[tuple[str, Estimate, str]] = []
    for each in found:
        name = f"round {each.round.number}"
        start = each.round.start.round
        against = "base" if start == 0 else f"round {start}"
        votes = each.round.votes
        if votes is not None and votes.rate_of_these_annotators is not None:
            rate = votes.rate_of_these_annotators
            step.append((f"{name} over {against}, votes", rate, plots.ALIGNED))
        if each.against_start.summary.win_rate is not None:
            rate = each.against_start.summary.win_rate.rate
            step.append((f"{name} over {against}, oracle", rate, plots.HELD_OUT))
        if each.against_base.summary.win_rate is not None:
            total.append((f"{name}, oracle", each.against_base.summary.win_rate.rate, plots.INK))
    figures = []
    if step:
        figures.append(
            (
                win_rates(step, "win rate of each round over the one it started from"),
                "<b>Over the start.</b> Each round against the model that it started from, with "
                "95 % intervals over prompts. Votes decide; the oracle is only reported.",
            )
        )
    if total:
        figures.append(
            (
                win_rates(total, "win rate of each round over the base"),
                "<b>Over the base.</b> Each round against the pretrained model.",
            )
        )
    lead = "Prompts are the same in every round and never trained on; seeds are new each time."
    return page.section("Round by round", page.plots(*figures), lead=lead) if figures else ""


def win_rates(rows: Sequence[tuple[str, Estimate, str]], label: str) -> str:
    """A row for each win rate, with its interval and the even line."""
    with plots.style():
        figure = Figure(figsize=(5.4, 0.75 + 0.36 * len(rows)), layout="constrained")
        axes = figure.subplots()
        plots.forest(axes, rows, digits="{:.0f} %", scale=100)
        axes.axvline(50, color=plots.MUTED, linewidth=0.8)
        axes.set_xlim(0, 103)
        axes.set_xticks([0, 25, 50, 75, 100])
        axes.xaxis.set_major_formatter(PercentFormatter(100, decimals=0, symbol=" %"))
        axes.set_xlabel("preferred, ties as halves")
        return plots.svg(figure, label)


HEADERS = ("", "start", "rankings", "votes", "oracle", "oracle, to base")
MORE_HEADERS = ("oracle reward", "faithful", "diversity", "KL", "time")


def table_of(found: Sequence[Compared]) -> str:
    """All numbers, a row for each round."""
    head = "".join(f"<th>{escape(name)}</th>" for name in (*HEADERS, *MORE_HEADERS))
    rows = "".join(f"<tr>{row_of(each)}</tr>\n" for each in found)
    table = f'<div class="wide"><table class="rounds">\n<tr>{head}</tr>\n{rows}</table></div>\n'
    lead = (
        "Votes and oracle: share of pairs preferred to the start of the round, or to the base, "
        "with a 95 % interval. Oracle reward, faithful and diversity: from the base to the round. "
        "KL: from the base, in nats per image."
    )
    return page.section("All numbers", table, lead=escape(lead))


def row_of(each: Compared) -> str:
    """The cells of a round; the first leads to the report of its run."""
    own, votes = each.round, each.round.votes
    base, start = each.against_base.summary, each.against_start.summary
    diversity = each.against_base.diversity
    link = folder_of(Path(), own.number) / RUN / PAGE
    cells = [
        "base" if own.start.round == 0 else f"round {own.start.round}",
        str(own.num_rankings),
        rated(votes.rate_of_these_annotators if votes else None),
        rated(start.win_rate.rate if start.win_rate else None),
        rated(base.win_rate.rate if base.win_rate else None),
        moved(base.oracle),
        shares(base.faithful),
        moved(diversity.change if diversity else None),
        f"{own.kl_from_base:.1f}",
        duration(sum(own.seconds.values())),
    ]
    kept = "kept" if own.improved else "not kept"
    first = f'<td><a href="{escape(str(link))}">round {own.number}</a>, {kept}</td>'
    return first + "".join(f"<td>{escape(cell)}</td>" for cell in cells)


def rated(rate: Estimate | None) -> str:
    """Example: "81 % (74 to 87)"."""
    if rate is None:
        return "none"
    if rate.low is None or rate.high is None:
        return percent(rate.value)
    return f"{percent(rate.value)} ({100 * rate.low:.0f} to {100 * rate.high:.0f})"


def moved(found: Change | None) -> str:
    """Example: "5.10 → 5.42"."""
    return "none" if found is None else change(found.before.value, found.after.value)


def shares(found: Change | None) -> str:
    """Example: "61 % → 74 %"."""
    if found is None:
        return "none"
    return f"{percent(found.before.value)} → {percent(found.after.value)}"


def grid(out: Path, plan: Plan, rounds: Sequence[Round]) -> str:
    """The same prompts and seeds by the base and by every round."""
    columns = [("base", out / BASE_SAMPLES)]
    columns += [
        (f"round {each.number}{'' if each.improved else ', not kept'}", folder_of(out, each.number))
        for each in rounds
    ]
    folders = [columns[0][1], *(folder / SAMPLES for _, folder in columns[1:])]
    names = sorted(path.name for path in folders[0].glob("*.png"))
    if not names:
        return ""
    head = "".join(f"<th>{escape(name)}</th>" for name, _ in columns)
    rows = ""
    for place, name in enumerate(names):
        prompt = plan.compared[place]
        cells = "".join(
            f"<td>{page.inline(read_image_file(folder / name, cure='run the loop again'), prompt)}"
            "</td>"
            for folder in folders
        )
        rows += f"<tr>{cells}<th>{escape(prompt)}</th></tr>\n"
    table = (
        f'<div class="wide"><table class="grid">\n<tr>{head}<th></th></tr>\n{rows}</table></div>\n'
    )
    lead = "Held-out prompts; every image of a row begins with the same noise."
    return page.section("The same prompts and seeds over the rounds", table, lead=lead)


def how(settings: LoopConfig) -> str:
    """The settings of the loop."""
    text = as_yaml(without_folders(settings.model_dump(mode="json", by_alias=True)))
    who = "simulated annotators" if settings.ask.kind == "simulated" else "people"
    lead = sentence(f"asked were {who}; align.yaml beside this page has all settings of training")
    return page.section(
        "Settings", page.folded("Settings of the loop (loop.yaml)", page.code(text)), lead=lead
    )
