"""Lines of charts stand out from what they are drawn on, and from each other, for colour-blind
people too, in light and in dark.
"""

import re

import pytest
from colours import contrast, least_distance

from ui.rating_chart import MOST_LINES
from ui.theme import PAPER, TERRACOTTA, asset

GROUNDS = {"light": (PAPER.c100, PAPER.c50), "dark": (PAPER.c950, PAPER.c900)}
"""Of the page, and of a card on it (theme.py)."""
LEAST_CONTRAST = 3.0
"""Of what is no text: https://www.w3.org/TR/WCAG22/#non-text-contrast."""
LEAST_DISTANCE = 0.12
"""In OKLab: about six times what can just be told apart side by side."""


def lines_of_results(theme: str) -> list[str]:
    before = r"\.dark " if theme == "dark" else "^"
    rule = before + r"\.history \.line-(\d) \{ stroke: (#\w{6}); background: \2; \}"
    found = dict(re.findall(rule, asset("app.css"), re.MULTILINE))
    return [found[str(number)] for number in range(MOST_LINES)]


def lines_of_train(theme: str) -> list[str]:
    css = asset("monitor.css")
    part = css[css.index(".dark & {") :] if theme == "dark" else css
    one = re.search(r"--one: (#\w{6});", part)
    two = re.search(r"--two: var\(--primary-(\d+)\);", part)
    assert one
    assert two
    return [one[1], str(getattr(TERRACOTTA, f"c{two[1]}"))]


@pytest.mark.parametrize("theme", GROUNDS)
@pytest.mark.parametrize("lines", [lines_of_results, lines_of_train])
def test_lines_stand_out_from_the_page_and_from_each_other(theme, lines):
    colours = lines(theme)
    found = {(each, on): contrast(each, on) for each in colours for on in GROUNDS[theme]}
    assert {pair: ratio for pair, ratio in found.items() if ratio < LEAST_CONTRAST} == {}
    distance, which = least_distance(colours)
    assert distance >= LEAST_DISTANCE, which


def test_contrast_of_black_and_white_is_that_of_the_norm():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)
    assert least_distance(["#000000", "#ffffff"])[0] == pytest.approx(1, abs=1e-6)
