"""The People page as HTML: progress, the annotators, alpha and kappa in words, gold and attention
items.

What people typed is escaped here; the page puts it in as it is.
"""

from collections.abc import Sequence
from html import escape

from imgalign.preferences.attention import AttentionItem
from imgalign.preferences.gold import LETTERS, GoldItem, written_order
from imgalign.preferences.people import People, Person
from imgalign.preferences.progress import HOURS, ProjectProgress
from imgalign.preferences.quality import Share
from imgalign.preferences.queue_order import Valued
from imgalign.preferences.reliability import Reliability
from imgalign.preferences.stored import ItemSamples
from imgalign.preferences.wording import counted
from ui.outlook import duration

FEW = 10
"""Observations below which nobody is warned of a share."""
MEANING = {
    "Annotator": "",
    "Votes": "Judgements that are no skips",
    "Seconds": "Median time of a vote",
    "Gold": "Gold items answered as expected",
    "Attention": "Attention items whose one image that belongs was ranked best",
    "Consistency": "Pairs judged twice, in two sets, that got the same order",
    "First place": "How often the first on the screen is ranked best; the mark is chance",
    "Agreement": "Pairs ordered as by another annotator, ties left out; the mark is chance",
    "": "",
}
"""Columns of the table, and what each shows."""
BELONGS = (' class="own"', "Belongs to the prompt", "belongs")
OTHER = ("", "Of another prompt", "")
"""How an image of an attention item is marked, described and labelled."""


def people_table(found: People) -> str:
    """Everybody who judged in a project, with intervals and a button each; or what is missing."""
    if not found.people:
        return (
            '<div class="results people"><p role="status">Nobody has judged anything in this '
            'project yet. Rank some sets on the <a href="./">Rank</a> page, or invite annotators. '
            "Others rank there too, each under a name of their own.</p></div>"
        )
    columns = [name for name in MEANING if name not in _unseen(found)]
    head = "".join(
        f'<th scope="col" title="{escape(MEANING[name])}">{name}</th>' for name in columns
    )
    rows = "".join(_row(each, columns) for each in found.people)
    older = (
        f"<p>Of the latest {found.num_read:,} judgements; {found.num_older:,} are older.</p>"
        if found.num_older
        else ""
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return (
        f'<div class="results people">{_reliability(found.alpha, found.kappa)}'
        f'<div class="wide">{table}</div>'
        "<p>Lines are 95 % intervals. Those who are excluded keep their judgements on record; "
        f"nothing counts them until they are included again, and they are not told.</p>{older}"
        "</div>"
    )


def progress_shown(found: ProjectProgress) -> str:
    """How far all who rank a project are together; what is missing where that cannot be told."""
    of = f"<b>{found.complete:,} of {counted(found.items, 'set')}</b> with all their rankings"
    if not found.left:
        return f'<div class="results people"><p class="team">{of}</p></div>'
    said = [f"{counted(found.left, 'ranking')} to come."]
    if found.out_of_reach:
        need = "needs" if found.out_of_reach == 1 else "need"
        said.append(
            f"{found.out_of_reach:,} of them {need} more annotators than have judged here: invite "
            "some."
        )
    if found.recent:
        said.append(f"{_pace(found.per_hour)} an hour in the last {HOURS} hours")
        said[-1] += (
            f": about {duration(3600 * found.hours_left)} left." if found.hours_left else "."
        )
    else:
        said.append(f"None in the last {HOURS} hours, so that the time left is unknown.")
    return f'<div class="results people"><p class="team">{of}</p><p>{" ".join(said)}</p></div>'


def valued_shown(found: Valued) -> str:
    """Of how many sets it is known what they tell, as HTML, where what tells most comes first."""
    if found.valued:
        said = (
            f"{found.valued:,} of {counted(found.open_items, 'set')} valued: what tells most of "
            "these is ranked next, the others come after them."
        )
    else:
        said = (
            f"0 of {counted(found.open_items, 'set')} valued: the oldest comes first until a "
            'reward is fitted on the <a href="learn">Learn</a> page.'
        )
    return f'<div class="results people"><p class="valued">{said}</p></div>'


def _pace(per_hour: float) -> str:
    return f"{per_hour:,.0f}" if per_hour >= 10 else f"{per_hour:.1f}".removesuffix(".0")


def gold_table(gold: tuple[GoldItem, ...]) -> str:
    """The gold items of a project, with a button each."""
    if not gold:
        return (
            '<div class="results people"><p role="status">No gold items yet. Take sets whose '
            "answer is plain, and see who gives it; annotators are never told which they are."
            "</p></div>"
        )
    rows = "".join(
        f'<tr><th scope="row">{escape(each.prompt)}</th>'
        f'<td data-label="Expected order">{escape(written_order(each.expected))}</td>'
        f'<td data-label="Annotators">{each.overlap}</td>'
        '<td data-label=""><button type="button" class="btn" data-do="gold_remove" '
        f'data-of="{each.item_id}" aria-label="Gold no more: {escape(each.prompt)}">'
        "Remove</button></td></tr>"
        for each in gold
    )
    head = "".join(
        f'<th scope="col">{name}</th>' for name in ("Prompt", "Expected order", "Annotators", "")
    )
    return (
        '<div class="results people"><div class="wide"><table class="gold"><thead><tr>'
        f"{head}</tr></thead><tbody>{rows}</tbody></table></div></div>"
    )


def attention_table(items: tuple[AttentionItem, ...]) -> str:
    """The attention items of a project with their images, the first of which belongs to the prompt,
    how they were answered, and a button each.
    """
    if not items:
        return (
            '<div class="results people"><p role="status">No attention items yet. They are sets '
            "that anybody who looks gets right; annotators are never told which they are.</p></div>"
        )
    columns = ("Prompt", "Images", "Judged", "Right", "")
    head = "".join(f'<th scope="col">{name}</th>' for name in columns)
    rows = "".join(_attention_row(each) for each in items)
    return (
        '<div class="results people"><div class="wide"><table class="gold"><thead><tr>'
        f"{head}</tr></thead><tbody>{rows}</tbody></table></div><p>Of those who are not excluded. "
        "Withdraw an item that few get right: it may be unfair. Its judgements stay on record and "
        "tell nothing of who gave them until it is brought back.</p></div>"
    )


def _attention_row(item: AttentionItem) -> str:
    prompt, withdrawn = escape(item.prompt), item.withdrawn_since is not None
    images = "".join(
        f'<figure{mark}><img src="api/people/items/{item.item_id}/{place}" loading="lazy" '
        f'alt="{said}"><figcaption>{below}</figcaption></figure>'
        for place in range(item.num_images)
        for mark, said, below in [OTHER if place else BELONGS]
    )
    since = f"<small>withdrawn since {item.withdrawn_since:%Y-%m-%d}</small>" if withdrawn else ""
    of = f'data-of="{item.item_id}"'
    if withdrawn:
        todo = (
            f'<button type="button" class="btn" data-do="attention_back" {of} '
            f'aria-label="Bring back: {prompt}">Bring back</button>'
        )
    else:
        todo = (
            f'<button type="button" class="btn" data-ask="" aria-label="Withdraw: {prompt}">'
            "Withdraw …</button><span hidden>Nobody is asked it any more. "
            f'<button type="button" class="btn" data-do="attention_withdraw" {of}>Withdraw it'
            '</button> <button type="button" class="btn" data-keep="">Keep it</button></span>'
        )
    row = ' data-excluded=""' if withdrawn else ""
    right = f"{item.right} <small>{item.right / item.judged:.0%}</small>" if item.judged else ""
    return (
        f'<tr{row}><th scope="row">{prompt}{since}</th>'
        f'<td data-label="Images"><div class="lettered small">{images}</div></td>'
        f'<td data-label="Judged">{item.judged}</td><td data-label="Right">{right}</td>'
        f'<td data-label="">{todo}</td></tr>'
    )


def candidates_shown(item: ItemSamples | None, texts: list[str]) -> str:
    """The candidates of a set with their letters; `texts` are those of a set of texts."""
    if item is None:
        return '<div class="lettered"></div>'
    cards = []
    for place in range(len(item.sample_ids)):
        letter = LETTERS[place]
        shown = (
            f'<img src="api/people/items/{item.item_id}/{place}" alt="Candidate {letter}">'
            if item.samples == "images"
            else f"<p>{escape(texts[place])}</p>"
        )
        cards.append(f"<figure>{shown}<figcaption>{letter}</figcaption></figure>")
    return f'<div class="lettered">{"".join(cards)}</div>'


def _reliability(alpha: Reliability, kappa: Reliability) -> str:
    if alpha.value is None and alpha.num_pairs:
        return "<p>All pairs that two annotators have judged are ties: agreement is unknown.</p>"
    if alpha.value is None:
        said = (
            "No two annotators have ordered the same pair, so that nothing is known of their "
            "agreement. Ask for two or more annotators per set where sets are made, on the "
            '<a href="candidates">Candidates</a> page.'
        )
        return f"<p>{said}</p>"
    return (
        f'<p class="alpha">{_number(alpha)} Krippendorff\'s alpha</p>'
        f'<p class="alpha">{_number(kappa)} Fleiss\' kappa of better, worse and tie</p>'
        f"<p>{_reading(alpha)} Of {counted(alpha.num_pairs, 'pair')} of "
        f"{counted(alpha.num_prompts, 'prompt')} that two or more annotators ordered; the "
        "intervals are over prompts.</p>"
    )


def _number(found: Reliability) -> str:
    assert found.value is not None
    interval = "" if found.low is None else f" <small>{found.low:.2f} to {found.high:.2f}</small>"
    return f"<b>{found.value:.2f}</b>{interval}"


def _reading(alpha: Reliability) -> str:
    """What an alpha means, by its interval where there is one."""
    assert alpha.value is not None
    low = alpha.value if alpha.low is None else alpha.low
    high = alpha.value if alpha.high is None else alpha.high
    scale = "1 is perfect agreement and 0 is chance."
    if high < 0:
        return f"{scale} Annotators contradict each other: do they read the guidelines alike?"
    if low <= 0:
        return f"{scale} This cannot be told from chance: more sets that several judge would help."
    if high < 0.2:
        return f"{scale} Annotators agree little: a reward model has little in common to learn."
    return (
        f"{scale} In published sets of image preferences two people agree on 65 to 78 % of pairs, "
        "which is an alpha of 0.3 to 0.55: look for who is far below the others rather than for a "
        "fixed mark."
    )


def _unseen(found: People) -> set[str]:
    """Columns in which nobody has anything."""
    shares = {
        "Gold": [each.quality.gold for each in found.people],
        "Attention": [each.quality.attention for each in found.people],
        "Consistency": [each.quality.self_consistency for each in found.people],
    }
    return {name for name, own in shares.items() if not any(share.count for share in own)}


def _row(person: Person, columns: Sequence[str]) -> str:
    own, name = person.quality, escape(person.annotator.name)
    excluded = person.excluded_since is not None
    state = f"<small>excluded since {person.excluded_since:%Y-%m-%d}</small>" if excluded else ""
    kind = "<small>simulated</small>" if person.annotator.simulated else ""
    kind += "<small>not qualified</small>" if person.held else ""
    timed = own.median_seconds is not None
    seconds = f"{own.median_seconds:.1f}" if timed else '<span class="none">none yet</span>'
    skipped = f" <small>{own.num_skipped} skipped</small>" if own.num_skipped else ""
    todo = [("person_include", "Include") if excluded else ("person_exclude", "Exclude")]
    todo += [("person_admit", "Admit")] if person.held else []
    buttons = " ".join(
        f'<button type="button" class="btn" data-do="{do}" '
        f'data-of="{escape(person.annotator.annotator_id)}" aria-label="{word} {name}">'
        f"{word}</button>"
        for do, word in todo
    )
    biased = "position bias" if own.position_bias else ""
    contrary = "below chance" if own.agreement.high < 0.5 else ""
    cells = {
        "Votes": f"{own.num_votes:,}{skipped}",
        "Seconds": seconds,
        "Gold": _share(own.gold),
        "Attention": _share(own.attention),
        "Consistency": _share(own.self_consistency),
        "First place": _share(own.first_place, chance=own.chance, warning=biased),
        "Agreement": _share(own.agreement, chance=0.5, warning=contrary),
        "": buttons,
    }
    row = ' data-excluded=""' if excluded else ""
    return (
        f'<tr{row}><th scope="row">{name}{kind}{state}</th>'
        + "".join(
            f'<td data-label="{name}">{cell}</td>'
            for name, cell in cells.items()
            if name in columns
        )
        + "</tr>"
    )


def _share(share: Share, *, chance: float | None = None, warning: str = "") -> str:
    """A share with its interval as a line, and of how many; `warning` is shown if of enough."""
    if share.value is None:
        return '<span class="none">none yet</span>'
    value, low, high = (100 * each for each in (share.value, share.low, share.high))
    said = f"95 % interval {low:.0f} % to {high:.0f} %"
    mark = "" if chance is None else f'<u style="left:{100 * chance:.1f}%"></u>'
    if chance is not None:
        said += f", {100 * chance:.0f} % by chance"
    warned = f"<em>{warning}</em>" if warning and share.count >= FEW else ""
    return (
        f"{value:.0f} % <small>of {share.count:,}</small>"
        f'<span class="range" role="img" aria-label="{said}" title="{said}">{mark}'
        f'<i style="left:{low:.1f}%;width:{max(high - low, 0.5):.1f}%"></i>'
        f'<b style="left:{value:.1f}%"></b></span>{warned}'
    )
