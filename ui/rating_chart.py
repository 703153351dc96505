"""Ratings over time as a chart, with its numbers as a table behind it."""

from collections.abc import Callable
from html import escape

from imgalign.preferences.history import History
from imgalign.preferences.wording import counted

WIDTH, HEIGHT, MARGIN = 720, 240, 44
"""In units of the drawing, which is as wide as the page."""
MOST_LINES = 8
"""Makers whose lines are told apart, those that are highest at the end; the table has all."""


def chart(found: History, number: Callable[[float], str], *, how: str) -> str:
    """How far each maker was above the reference, as HTML; empty with a single point.

    `number` writes one of the differences, and `how` says what the ratings are.
    """
    if len(found.num_rankings) < 2:
        return ""
    names = sorted(found.above, key=lambda name: -(found.above[name][-1] or 0.0))
    lines = [name for name in names if name != found.reference][:MOST_LINES]
    heights = [each for name in lines for each in found.above[name] if each is not None]
    low, high = min([0.0, *heights]), max([0.0, *heights])
    last = found.num_rankings[-1]

    def place(rankings: int, height: float) -> str:
        x = MARGIN + (WIDTH - 2 * MARGIN) * rankings / last
        y = HEIGHT - 28 - (HEIGHT - 44) * (height - low) / ((high - low) or 1.0)
        return f"{x:.1f},{y:.1f}"

    zero = f"{place(0, 0.0)} {place(last, 0.0)}"
    drawn = "".join(
        f'<polyline class="line-{n}" points="{_points(found, name, place)}"/>'
        for n, name in enumerate(lines)
    )
    scale = "".join(
        f'<text x="{MARGIN - 6}" y="{place(0, height).partition(",")[2]}" text-anchor="end">'
        f"{number(height)}</text>"
        for height in dict.fromkeys([low, 0.0, high])
    )
    below = (
        f'<text x="{MARGIN}" y="{HEIGHT - 6}">0</text>'
        f'<text x="{WIDTH - MARGIN}" y="{HEIGHT - 6}" text-anchor="end">'
        f"{counted(last, 'ranking')}</text>"
    )
    legend = "".join(
        f'<li><i class="line-{n}"></i>{escape(name)}</li>' for n, name in enumerate(lines)
    )
    reference = escape(found.reference)
    return (
        f'<figure class="history"><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="Ratings above that of {reference} after more and more rankings">'
        f'<polyline class="zero" points="{zero}"/>{drawn}{scale}{below}</svg>'
        f"<figcaption><ul>{legend}</ul><p>Rating above that of {reference}, which is the line at "
        f"0: {escape(how)}.</p></figcaption>"
        f"{_table(found, names, number)}</figure>"
    )


def _points(found: History, name: str, place: Callable[[int, float], str]) -> str:
    heights = zip(found.num_rankings, found.above[name], strict=True)
    return " ".join(place(rankings, height) for rankings, height in heights if height is not None)


def _table(found: History, names: list[str], number: Callable[[float], str]) -> str:
    head = "".join(
        f'<th scope="col">{rankings:,}<br><small>{when:%Y-%m-%d}</small></th>'
        for rankings, when in zip(found.num_rankings, found.at, strict=True)
    )
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(f"<td>{'' if v is None else number(v)}</td>" for v in found.above[name])
        + "</tr>"
        for name in names
    )
    return (
        "<details><summary>The same in numbers, after so many rankings</summary>"
        f'<div class="wide"><table><thead><tr><td></td>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div></details>"
    )
