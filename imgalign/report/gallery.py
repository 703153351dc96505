"""The parts of the report that show samples: before and after, over training, what got worse.

Shapes: gains are aligned less base, in units of the oracle reward.
"""

import logging
from collections.abc import Sequence
from html import escape
from pathlib import Path

from PIL import Image

from imgalign.errors import CheckpointError, InputError
from imgalign.evaluate.comparison import Pair, percent
from imgalign.evaluate.evaluation import Evaluation, moved
from imgalign.evaluate.saved_images import opened
from imgalign.report import page, texts
from imgalign.report.record import RunRecord
from imgalign.report.sheets import SHEET, before_after
from imgalign.report.text import command_of, marked, sentence, signed, typeset
from imgalign.runs.folder import run_prompts
from imgalign.runs.metric_table import METRICS
from imgalign.train.watch import GAP as GRID_GAP

log = logging.getLogger(__name__)

NUM_HERO = 5
NUM_TEXTS = 8
NUM_ON_SHEET = 8
NUM_IN_GALLERY = 6
NUM_ROWS = 5
NUM_FRAMES = 6


def hero(run: RunRecord) -> str:
    """The same prompts and seeds before and after, not chosen for their looks."""
    found = run.evaluation
    if found is None:
        return ""
    if not run.base or not run.aligned:
        return page.missing(
            "Before and after",
            f"The {found.samples} were not kept; make them:",
            command_of("evaluate", run),
        )
    chosen = evenly(found, NUM_HERO if found.samples == "images" else NUM_TEXTS)
    folded = ""
    if found.samples == "images":
        prompts = page.numbered(found.pairs[i].prompt for i in evenly(found, NUM_ON_SHEET))
        folded = page.folded(f"The prompts of {SHEET}", prompts)
    return page.section(
        "Before and after",
        shown(run, found, [(i, "") for i in chosen], upright=True),
        folded,
        lead=(
            f"The first seed of {len(chosen)} prompts, evenly spaced over all "
            f"{found.num_prompts}, not chosen."
        ),
    )


def sheet_of(run: RunRecord) -> Image.Image | None:
    """The image to share, of pairs of images; None where there are none."""
    found = run.evaluation
    base, aligned = images_among(run.base), images_among(run.aligned)
    if found is None or not base or not aligned:
        return None
    chosen = evenly(found, NUM_ON_SHEET)
    return before_after(
        [base[i] for i in chosen],
        [aligned[i] for i in chosen],
        [found.pairs[i].prompt for i in chosen],
        subtitle=found.verdict(),
    )


def images_among(samples: Sequence[Image.Image | str]) -> list[Image.Image]:
    """Those that are images: all or none."""
    return [sample for sample in samples if isinstance(sample, Image.Image)]


def shown(
    run: RunRecord, found: Evaluation, chosen: Sequence[tuple[int, str]], *, upright: bool = False
) -> str:
    """Some pairs by their numbers, each with a note: cards of images, or a table of texts."""
    if found.samples == "texts":
        return texts.table(
            texts.TextPair(found.pairs[i].prompt, str(run.base[i]), str(run.aligned[i]), note)
            for i, note in chosen
        )
    base, aligned = images_among(run.base), images_among(run.aligned)
    cards = [
        page.pair_card(base[i], aligned[i], found.pairs[i].prompt, note=note, upright=upright)
        for i, note in chosen
    ]
    return f'<div class="strip">\n{"".join(cards)}</div>\n' if upright else page.gallery(cards)


def evenly(found: Evaluation, count: int) -> list[int]:
    """Pairs of the first seed of evenly spaced prompts."""
    num = min(count, found.num_prompts)
    prompts = [round((i + 0.5) * found.num_prompts / num - 0.5) for i in range(num)]
    return [prompt * found.images_per_prompt for prompt in prompts]


def evolution(run: RunRecord) -> str:
    """How the samples of some prompts changed, a row per prompt and a column per grid."""
    if run.samples == "texts":
        return texts_over_training(run)
    frames = [(at, images) for at, path in frames_shown(run.grids) if (images := cells(run, path))]
    if not frames:
        return page.missing(
            "Images over training", "No sample grid has been drawn yet:", command_of("train", run)
        )
    names = ["base" if at == 0 else f"iteration {at}" for at, _ in frames]
    head = "".join(f"<th>{name}</th>" for name in names)
    rows = []
    for row, prompt in enumerate(sample_prompts(run)[:NUM_ROWS]):
        row_cells = "".join(
            f"<td>{page.inline(images[row], f'{name}: {prompt}', largest=128)}</td>"
            for name, (_, images) in zip(names, frames, strict=True)
            if row < len(images)
        )
        rows.append(f"<tr><th>{escape(prompt)}</th>{row_cells}</tr>\n")
    return page.section(
        "Images over training",
        f'<div class="film"><table>\n<tr><th></th>{head}</tr>\n{"".join(rows)}</table></div>\n',
        lead="The same prompts and seeds each time, from the grids in <code>samples/</code>.",
    )


def texts_over_training(run: RunRecord) -> str:
    """How the texts of some prompts changed, a row per prompt and time."""
    title = "Texts over training"
    found = [(at, texts.read_samples(path)) for at, path in frames_shown(run.grids)]
    frames = [("base" if at == 0 else f"iteration {at}", own) for at, own in found if own]
    if not frames:
        return page.missing(title, "No samples were written yet:", command_of("train", run))
    return page.section(
        title,
        texts.film(frames, num_prompts=NUM_ROWS),
        lead="The same prompts and seeds each time, from the lists in <code>samples/</code>. "
        f"<ins>Set off</ins> is what the text did not say at {frames[0][0]}.",
    )


def frames_shown(grids: Sequence[tuple[int, Path]]) -> list[tuple[int, Path]]:
    """At most NUM_FRAMES of them, the first and the last among these."""
    if len(grids) <= NUM_FRAMES:
        return list(grids)
    places = sorted({round(i * (len(grids) - 1) / (NUM_FRAMES - 1)) for i in range(NUM_FRAMES)})
    return [grids[place] for place in places]


def cells(run: RunRecord, path: Path) -> list[Image.Image]:
    """The first image of each row of a sample grid; none, and a warning, if it is damaged."""
    try:
        grid = opened(path)
    except InputError as error:
        log.warning("%s; left out of the report", error)
        return []
    columns = run.settings.run.samples.images_per_prompt
    side = max(1, (grid.width - GRID_GAP) // columns)
    # Images need not be square, so the height of a row follows from how many there are.
    num_rows = min(run.settings.run.samples.num_prompts, max(1, round(grid.height / side)))
    height = (grid.height - GRID_GAP) // num_rows
    if min(side, height) <= GRID_GAP:
        log.warning("%s: no grid of %d columns; left out of the report", path, columns)
        return []
    return [
        grid.crop((GRID_GAP, GRID_GAP + row * height, side, (row + 1) * height))
        for row in range(num_rows)
    ]


def sample_prompts(run: RunRecord) -> list[str]:
    """What the rows of the sample grids show; numbers where the prompts are not at hand."""
    num = run.settings.run.samples.num_prompts
    try:
        training, held_out = run_prompts(run.folder)
    except CheckpointError:
        return [f"prompt {number + 1}" for number in range(num)]
    return list((held_out + training)[:num])


def worse(run: RunRecord) -> str:
    """What got worse, and the pairs that the base won by most."""
    found = run.evaluation
    if found is None:
        return ""
    entries = losses(run, found) or [
        "Nothing that was measured here got worse. What was not measured may have."
    ]
    parts = [page.items(entries)]
    lost = sorted(
        (gain, i)
        for i, pair in enumerate(found.pairs)
        if (gain := oracle_gain(pair)) is not None and gain < 0
    )[:NUM_IN_GALLERY]
    if lost and run.base and run.aligned:
        parts.append(f"<h3>Where the base won by most</h3>\n{pair_gallery(run, found, lost)}")
    return page.section("What got worse", *parts)


def better(run: RunRecord) -> str:
    """The pairs that the aligned model won by most."""
    found = run.evaluation
    if found is None or not (run.base and run.aligned):
        return ""
    won = sorted(
        (-gain, i)
        for i, pair in enumerate(found.pairs)
        if (gain := oracle_gain(pair)) is not None and gain > 0
    )[:NUM_IN_GALLERY]
    if not won:
        return ""
    return page.section(
        "Where the aligned model won by most",
        pair_gallery(run, found, [(-gain, i) for gain, i in won]),
        lead="These, unlike the ones at the top, are picked: the largest gains in oracle reward.",
    )


def oracle_gain(pair: Pair) -> float | None:
    """Aligned minus base."""
    return None if pair.oracle is None else pair.oracle[1] - pair.oracle[0]


def pair_gallery(run: RunRecord, found: Evaluation, chosen: Sequence[tuple[float, int]]) -> str:
    """Cards of some pairs with their gain."""
    noted = [(i, f"oracle reward {signed(gain)}, seed {found.pairs[i].seed}") for gain, i in chosen]
    return shown(run, found, noted)


def losses(run: RunRecord, found: Evaluation) -> list[str]:
    """Everything that fell, as sentences in HTML."""
    own, entries = found.summary, []
    if own.win_rate and own.win_rate.losses:
        lost = own.win_rate.losses
        share = percent(lost / own.win_rate.num_pairs)
        entries.append(f"The base's {found.sample} was the better one in {lost} pairs ({share}).")
    if own.faithful:
        pairs = [pair.faithful for pair in found.pairs if pair.faithful]
        broken = sum(before and not after for before, after in pairs)
        mended = sum(after and not before for before, after in pairs)
        if own.faithful.difference.value < 0:
            entries.append(
                f"<b>Fewer {found.samples} do what their prompt says</b>: "
                f"{percent(own.faithful.before.value)} → {percent(own.faithful.after.value)}."
            )
        if broken:
            entries.append(
                f"{broken} {found.samples} no longer do what their prompt says ({mended} now do)."
            )
    if found.diversity and found.diversity.change.difference.value < 0:
        each = found.diversity.change
        high = each.difference.high
        sure = "" if high is not None and high < 0 else ", within what chance would do"
        fall = -each.difference.value / each.before.value
        entries.append(
            f"<b>{found.samples.capitalize()} of one prompt are {percent(fall)} more alike</b> "
            f"({escape(typeset(moved(each)))}, {escape(found.diversity.space)}){sure}."
        )
    for part in own.by_slice:
        if part.win_rate and part.win_rate.rate.value < 0.5:
            entries.append(
                f"<b>{escape(sentence(part.name).rstrip('.'))}</b>: the aligned model wins only "
                f"{percent(part.win_rate.rate.value)} of {part.num_pairs} pairs."
            )
    if own.oracle and own.oracle.difference.value < 0:
        entries.append(f"<b>The oracle reward fell</b>: {escape(typeset(moved(own.oracle)))}.")
    maximised = run.settings.data.gives == "rollouts"
    if maximised and own.overoptimisation and (own.overoptimisation.gap.low or 0.0) > 0:
        gap = own.overoptimisation.gap
        entries.append(
            f"<b>The reward rose {gap.value:.2f} standard deviations more than the oracle "
            "reward</b>: it is being gamed. A smaller KL budget or more rankings help."
        )
    drift = found.drift
    if drift and drift.budget_nats is not None and drift.nats > drift.budget_nats:
        entries.append(
            f"<b>The KL of {drift.nats:.1f} nats is over its budget</b> of {drift.budget_nats:g}."
        )
    dropped = int(sum(value for _, value in run.series("dropped_images")))
    if dropped:
        metric = METRICS["dropped_images"]
        entries.append(f"<b>{metric.title}</b> in training: {dropped}. {marked(metric.caption)}")
    return entries
