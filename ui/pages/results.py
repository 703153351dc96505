"""The Results page: who won each blind comparison, and which maker people prefer over all."""

from collections.abc import Sequence
from html import escape
from typing import get_args

import gradio as gr

from imgalign.errors import ImgalignError
from imgalign.preferences.comparisons import compare_makers
from imgalign.preferences.coverage import judged_projects
from imgalign.preferences.makers import MakerRatings, Method, rate_makers
from imgalign.preferences.ratings import Wins
from imgalign.preferences.store import Store
from ui.comparing import cards, downloads
from ui.messages import PRIVATE
from ui.runs import Runs

ALL = ""
MOST_IN_MATRIX = 12
"""Makers whose wins against each other are shown; a table of more is not read."""
RIDGE = 0.1
"""Also rates what has never lost, or never won."""
MEANING = {
    "bradley-terry": "Difference of two ratings: the log-odds that people prefer the one; a tie is "
    "half a win each. Mean 0.",
    "plackett-luce": "The same, with ties as a result of their own. Mean 0.",
    "elo": "Points as in chess: 400 more are won 10 times out of 11. It goes through the "
    "judgements one by one, at most the latest 4,000.",
}
LATEST_BY_ELO = 4_000


def choices(store: Store) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """(label, value) of projects and of groups of annotators with rankings of images."""
    found = [each for each in judged_projects(store) if each.samples == "images"]
    projects = [(f"{each.project}: {each.rankings} rankings", each.project) for each in found]
    groups = sorted({group for each in found for group in each.groups if group})
    return [("all", ALL), *projects], [("everybody", ALL), *((name, name) for name in groups)]


def table(store: Store, project: str | None, group: str | None, method: Method) -> str:
    """The ratings as HTML, or why there are none."""
    try:
        found = rate_makers(
            store,
            method=method,
            project=project or None,
            group=group or None,
            ridge=0.0 if method == "elo" else RIDGE,
            latest=LATEST_BY_ELO if method == "elo" else None,
        )
    except ImgalignError as error:
        return (
            f'<p role="status">{escape(str(error))}.</p><p>On the <a href="generate">Generate</a> '
            "page draw a checkpoint beside its base and send the pairs to ranking; on the "
            '<a href="./">Rank</a> page nobody sees which is which.</p>'
        )
    return (
        f'<div class="results"><h3>All together</h3>{_ratings(found)}'
        f"<p>{escape(MEANING[method])} 95 % intervals over {found.ratings.num_clusters} prompts"
        f"{_annotators(found)}.{_shared(found)}{_excluded(found)}</p>{_matrix(found.wins)}</div>"
    )


def shown(store: Store, runs: Runs, project: str | None, group: str | None, method: Method) -> str:
    """Comparisons two by two, and the ratings of all, as HTML."""
    found = compare_makers(store, project=project or None, group=group or None)
    return cards(found, offered=lambda each: downloads(runs, each)) + table(
        store, project, group, method
    )


def build(page: gr.Blocks, store: Store, runs: Runs) -> None:
    """Draw the page inside the current Blocks."""
    with gr.Row(elem_classes="page", equal_height=False):
        with gr.Column(scale=0, min_width=320, elem_classes="side"):
            gr.HTML("<h2>Who is preferred</h2>", padding=False)
            project = gr.Dropdown(label="Project", choices=[("all", ALL)], value=ALL)
            group = gr.Dropdown(label="Rankings of", choices=[("everybody", ALL)], value=ALL)
            method = gr.Dropdown(
                label="Rating",
                choices=[(name.title(), name) for name in get_args(Method)],
                value="bradley-terry",
            )
        with gr.Column(scale=1, min_width=320):
            told = gr.HTML("<p>Reading the rankings …</p>", padding=False, elem_id="results")

    def open_page() -> tuple[gr.Dropdown, gr.Dropdown, str]:
        projects, groups = choices(store)
        return (
            gr.Dropdown(choices=projects, value=ALL),
            gr.Dropdown(choices=groups, value=ALL),
            shown(store, runs, ALL, ALL, "bradley-terry"),
        )

    def look(which: str | None, who: str | None, how: Method) -> str:
        return shown(store, runs, which, who, how)

    page.load(open_page, outputs=[project, group, told], **PRIVATE)
    for each in (project, group, method):
        each.input(look, [project, group, method], told, **PRIVATE)


def _ratings(found: MakerRatings) -> str:
    ratings = found.ratings
    order = sorted(range(len(ratings.items)), key=lambda place: -ratings.score[place])
    finite = [v for v in (*ratings.low, *ratings.high) if abs(v) < float("inf")]
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    head = "".join(f'<th scope="col">{each}</th>' for each in ("Made by", "Rating", "", "Pairs"))
    rows = "".join(
        f'<tr><th scope="row">{escape(ratings.items[place])}</th>'
        f"<td>{_number(ratings.score[place], found.method)}</td>"
        f"<td>{_range(ratings.low[place], ratings.score[place], ratings.high[place], low, high)}"
        f"</td><td>{ratings.num_comparisons[place]}</td></tr>"
        for place in order
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _range(low: float, score: float, high: float, lowest: float, highest: float) -> str:
    """A line from `low` to `high` with a point at `score`, on the scale of all of them."""

    def place(value: float) -> float:
        share = (value - lowest) / ((highest - lowest) or 1.0)
        return 100 * min(1.0, max(0.0, share))

    left, right = place(low), place(high)
    said = f"95 % interval {low:.2f} to {high:.2f}"
    return (
        f'<span class="range" role="img" aria-label="{said}" title="{said}">'
        f'<i style="left:{left:.1f}%;width:{max(right - left, 0.5):.1f}%"></i>'
        f'<b style="left:{place(score):.1f}%"></b></span>'
    )


def _matrix(wins: Wins) -> str:
    """Wins of each row against each column, ties half, in per cent of their pairs."""
    names = wins.items
    if len(names) > MOST_IN_MATRIX:
        return f"<p>Wins against each other are shown for at most {MOST_IN_MATRIX}.</p>"
    head = "".join(f'<th scope="col">{letter}</th>' for letter in _letters(names))
    rows = "".join(
        f'<tr><th scope="row">{letter}: {escape(name)}</th>'
        + "".join(f"<td>{_won(wins, i, j)}</td>" for j in range(len(names)))
        + "</tr>"
        for i, (letter, name) in enumerate(zip(_letters(names), names, strict=True))
    )
    return (
        "<h3>Against each other</h3><p>How often the row is preferred to the column, ties half, "
        "and of how many pairs.</p>"
        f'<div class="wide"><table><thead><tr><td></td>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _won(wins: Wins, i: int, j: int) -> str:
    pairs = wins.pairs[i][j]
    return f"{100 * wins.won[i][j] / pairs:.0f} % <small>{pairs}</small>" if pairs else ""


def _letters(names: Sequence[str]) -> list[str]:
    return [chr(ord("A") + place) for place in range(len(names))]


def _number(value: float, method: Method) -> str:
    return f"{value:.0f}" if method == "elo" else f"{value:+.2f}"


def _annotators(found: MakerRatings) -> str:
    number = found.ratings.num_annotators
    return f" and {number} annotators" if number > 1 else ""


def _shared(found: MakerRatings) -> str:
    number = found.num_shared
    return f" {number} images are identical for several of these: left out." if number else ""


def _excluded(found: MakerRatings) -> str:
    number = found.num_excluded
    return f" {number} rankings are of excluded annotators: left out." if number else ""
