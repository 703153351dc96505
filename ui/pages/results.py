"""The Results page: who won each blind comparison, and which maker people prefer over all."""

import json
from collections.abc import Sequence
from html import escape
from typing import Any, get_args

import gradio as gr

from imgalign.errors import ImgalignError
from imgalign.preferences.coverage import judged_projects, queued_projects
from imgalign.preferences.makers import APART, MakerRatings, Method
from imgalign.preferences.ratings import Ratings, Wins
from imgalign.preferences.store import Store
from imgalign.preferences.wording import counted, there_are
from ui.comparing import cards, downloads, without_votes
from ui.leaderboard import ALL, HELD_OUT, LISTED, OF_PROJECT, Asked, Leaderboard, Rated
from ui.links import said
from ui.messages import LAST, PRIVATE
from ui.pages.drawing import draw_by
from ui.pages.folding import form_heading
from ui.pulse import Pulse
from ui.rating_chart import chart
from ui.runs import Runs
from ui.theme import asset

MOST_IN_MATRIX = 12
"""Makers whose wins against each other are shown; a table of more is not read."""
MEANING = {
    "bradley-terry": "Difference of two ratings: the log-odds that people prefer the one; a tie is "
    "half a win each. Mean 0.",
    "plackett-luce": "The same, with ties as a result of their own. Mean 0.",
    "elo": "Points as in chess: 400 more are won 10 times out of 11. It goes through the "
    "judgements one by one, at most the latest 4,000.",
}
OVER_TIME: dict[Method, str] = {
    "bradley-terry": "Bradley-Terry fitted anew to the rankings until then",
    "plackett-luce": "Plackett-Luce with ties fitted anew to the rankings until then",
    "elo": "Elo as it stood after the rankings until then, in points",
}
Choices = list[tuple[str, str]]
# What was chosen stays over a reload of the tab; browsers may refuse storage.
KEEP = """(...asked) => {
  try { sessionStorage.setItem("imgalign.results", JSON.stringify(asked)); } catch {}
  return asked;
}"""
KEPT = """() => {
  try { return [sessionStorage.getItem("imgalign.results") ?? ""]; } catch { return [""]; }
}"""


def choices(store: Store) -> tuple[Choices, Choices, Choices]:
    """(label, value) of projects, of groups of annotators, and of sets of prompts.

    Projects and groups are those with rankings of images.
    """
    found = [each for each in judged_projects(store) if each.samples == "images"]
    projects = [
        (f"{each.project}: {counted(each.rankings, 'ranking')}", each.project) for each in found
    ]
    groups = sorted({group for each in found for group in each.groups if group})
    prompts = [
        ("all", ALL),
        ("held out: no run here has seen them", HELD_OUT),
        ("those of a list", LISTED),
        *((f"those of {name}", f"{OF_PROJECT}{name}") for name in queued_projects(store)),
    ]
    return [("all", ALL), *projects], [("everybody", ALL), *((g, g) for g in groups)], prompts


def shown(board: Leaderboard, asked: Asked) -> str:
    """Comparisons two by two, and the ratings of all, as HTML."""
    try:
        found = board.found(asked)
    except ImgalignError as error:
        return f'<div class="results"><p role="alert">{escape(said(error))}.</p></div>'
    compared = cards(found.comparisons, offered=lambda each: downloads(board.runs, each))
    bad = without_votes(found.both_bad)
    # What is said of nobody's votes would deny those that both were bad.
    return compared + bad + ("" if bad and found.rated.ratings is None else table(found.rated))


def table(rated: Rated) -> str:
    """The ratings as HTML, or why there are none."""
    if (found := rated.ratings) is None:
        return (
            '<div class="none-yet" role="status"><h3>Nobody is preferred yet</h3>'
            f"<p>{rated.reason}</p></div>"
        )
    several = len(found.parts) > 1
    ratings = "".join(
        (f"<h4>Group {number}</h4>" if several else "")
        + f"{_ratings(part, found.method)}<p>{_clusters(part)}</p>"
        for number, part in enumerate(found.parts, start=1)
    )
    return (
        f'<div class="results"><h3>All together</h3>{_apart(found)}{ratings}'
        f"{_suggestion(found)}"
        f"<p>{escape(MEANING[found.method])}{_shared(found)}{_excluded(found)}</p>"
        f"{_history(found)}{_matrix(found.wins)}</div>"
    )


def build(
    page: gr.Blocks, store: Store, runs: Runs, pulse: Pulse, *, only: str | None = None
) -> None:
    """Draw the page inside the current Blocks; `only` is what alone can be ranked in this app."""
    board = Leaderboard(store, runs, only=only)
    with gr.Row(elem_classes="page", equal_height=False):
        with gr.Column(scale=0, min_width=320, elem_classes="side"):
            form_heading("Who is preferred")
            project = gr.Dropdown(
                label="Project", choices=[("all", ALL)], value=ALL, elem_id="results-project"
            )
            group = gr.Dropdown(label="Rankings of", choices=[("everybody", ALL)], value=ALL)
            prompts = gr.Dropdown(label="Prompts", choices=[("all", ALL)], value=ALL)
            listed = gr.Textbox(
                label="List of prompts", info="One per line.", lines=5, max_lines=9, visible=False
            )
            ask = gr.Button("Show the results on these", visible=False)
            method = gr.Dropdown(
                label="Rating",
                choices=[(name.title(), name) for name in get_args(Method)],
                value="bradley-terry",
            )
        with gr.Column(scale=1, min_width=320):
            told = gr.HTML(
                "<p>Reading the rankings …</p>",
                js_on_load=asset("taking.js") + asset("drawn.js"),
                padding=False,
                elem_id="results",
                draws="results",
            )

    kept = gr.Textbox(visible=False)

    def open_page(before: str) -> tuple[Any, ...]:
        *places, lines, how = asked_before(before)
        offered = choices(store)
        there = [
            value if value in dict(each).values() else ALL
            for each, value in zip(offered, places, strict=True)
        ]
        lists = [gr.Dropdown(choices=c, value=v) for c, v in zip(offered, there, strict=True)]
        _, button = list_or_not(there[2])
        return *lists, how, gr.Textbox(value=lines, visible=there[2] == LISTED), button

    def look(
        which: str | None, who: str | None, on: str | None, lines: str | None, how: Method | None
    ) -> str:
        asked = Asked(
            project=which or ALL,
            group=who or ALL,
            prompts=on or ALL,
            listed=(lines or "") if on == LISTED else "",
            method=how or "bradley-terry",
        )
        with pulse.drawing("results"):
            return shown(board, asked)

    def list_or_not(on: str | None) -> tuple[gr.Textbox, gr.Button]:
        return gr.Textbox(visible=on == LISTED), gr.Button(visible=on == LISTED)

    outputs = [project, group, prompts, method, listed, ask]
    prompts.input(list_or_not, prompts, [listed, ask], **LAST)
    asked_by = [project, group, prompts, listed, method]
    chosen = [*(each.input for each in (project, group, prompts, method)), ask.click]
    again = draw_by(look, asked_by, [told], at=told, chosen=chosen, js=KEEP)
    page.load(open_page, kept, outputs, js=KEPT, **PRIVATE).then(**again)


def asked_before(kept: str) -> tuple[str, str, str, str, Method]:
    """What a browser kept of the form; anybody may have changed it since."""
    try:
        project, group, prompts, listed, method = json.loads(kept)
    except (ValueError, TypeError):
        project = group = prompts = listed = method = ""
    texts = [each if isinstance(each, str) else ALL for each in (project, group, prompts, listed)]
    methods: tuple[Method, ...] = get_args(Method)
    how: Method = next((each for each in methods if each == method), "bradley-terry")
    return texts[0], texts[1], texts[2], texts[3], how


def _ratings(ratings: Ratings, method: Method) -> str:
    order = sorted(range(len(ratings.items)), key=lambda place: -ratings.score[place])
    finite = [v for v in (*ratings.low, *ratings.high) if abs(v) < float("inf")]
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    head = "".join(f'<th scope="col">{each}</th>' for each in ("Made by", "Rating", "", "Pairs"))
    rows = "".join(
        f'<tr><th scope="row">{escape(ratings.items[place])}</th>'
        f"<td>{_number(ratings.score[place], method)}</td>"
        f"<td>{_range(ratings.low[place], ratings.score[place], ratings.high[place], low, high)}"
        f"</td><td>{ratings.num_comparisons[place]}</td></tr>"
        for place in order
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _clusters(ratings: Ratings) -> str:
    number = ratings.num_annotators
    annotators = f" and {number} annotators" if number > 1 else ""
    return f"95 % intervals over {counted(ratings.num_clusters, 'prompt')}{annotators}."


def _apart(found: MakerRatings) -> str:
    number = len(found.parts)
    if number < 2:
        return ""
    said = APART.format(number=number)
    return (
        f'<p role="alert" class="apart">{said[0].upper()}{said[1:]}. To join them, rank images of '
        'both side by side: the <a href="generate">Generate</a> page queues such pairs.</p>'
    )


def _suggestion(found: MakerRatings) -> str:
    """What to compare next, among three makers or more; of two there is nothing to choose."""
    largest = found.ratings
    if (least := largest.least_certain) is None or len(largest.items) < 3:
        return ""
    one, other = (found.wins.items.index(name) for name in (least.one, least.other))
    times = found.wins.pairs[one][other]
    often = "never compared directly" if not times else f"compared {_times(times)}"
    return (
        f"<p>Next, compare {escape(least.one)} with {escape(least.other)}: they were {often}, "
        "and the difference of their ratings is the least certain of all (standard "
        f'error {least.error:.2f}). The <a href="generate">Generate</a> page queues such pairs.</p>'
    )


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number:,} times"


def _history(found: MakerRatings) -> str:
    """Charts of the ratings over time, in the unit of the ratings."""
    digits = 0 if found.method == "elo" else 2

    def number(value: float) -> str:
        return f"{value:+.{digits}f}"

    drawn = "".join(chart(each, number, how=OVER_TIME[found.method]) for each in found.history)
    return f"<h3>Over time</h3>{drawn}" if drawn else ""


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


def _shared(found: MakerRatings) -> str:
    number = found.num_shared
    return (
        f" {there_are(number, 'image')} identical for several of these: left out." if number else ""
    )


def _excluded(found: MakerRatings) -> str:
    number = found.num_excluded
    of = f"{there_are(number, 'ranking')} of excluded annotators"
    return f" {of}: left out." if number else ""
