"""Text stands out from what it is written on, in light and in dark, by the colours of the theme."""

import re

import pytest
from colours import contrast
from source_tree import ROOT

from ui.theme import PAPER, TERRACOTTA, theme

ASSETS = ROOT / "ui" / "assets"
LEAST = 4.5
"""https://www.w3.org/TR/WCAG22/#contrast-minimum."""
PAGES = ("body_background_fill", "background_fill_primary", "block_background_fill")
WRITTEN_ON = {
    "body_text_color": PAGES,
    "body_text_color_subdued": PAGES,
    "block_title_text_color": PAGES,
    "block_label_text_color": PAGES,
    "block_info_text_color": PAGES,
    "link_text_color": PAGES,
    "link_text_color_hover": PAGES,
    "input_placeholder_color": ("input_background_fill",),
    "button_primary_text_color": (
        "button_primary_background_fill",
        "button_primary_background_fill_hover",
    ),
    "button_secondary_text_color": (
        "button_secondary_background_fill",
        "button_secondary_background_fill_hover",
    ),
}


def colour(name: str, mode: str) -> str:
    """As six hexadecimal digits."""
    value = getattr(theme(), f"{name}_dark" if mode == "dark" else name)
    if (found := re.fullmatch(r"\*(primary|neutral)_(\d+)", value)) is not None:
        hue = {"primary": TERRACOTTA, "neutral": PAPER}[found[1]]
        value = getattr(hue, f"c{found[2]}")
    value = {"white": "#ffffff"}.get(value, value)
    assert re.fullmatch(r"#[0-9a-f]{6}", value), (name, value)
    return str(value)


STATES = re.compile(
    r"background: rgb\((\d+) (\d+) (\d+) / ([\d.]+)\); color: (#[0-9a-f]{6})[^\n]*\n"
    r"\.dark & [^\n]*color: (#[0-9a-f]{6})"
)
"""A pill of a colour over the page: what it is written on is mixed of both."""


def pills() -> list[tuple[str, str, tuple[str, ...]]]:
    """Of all style sheets: which one, the mode and text colour, and the parts of the background."""
    return [
        (f"{path.name}, {mode}", text, tuple(found[:4]))
        for path in sorted(ASSETS.glob("*.css"))
        for found in STATES.findall(path.read_text("utf-8"))
        for mode, text in (("light", found[4]), ("dark", found[5]))
    ]


@pytest.mark.parametrize(("where", "text", "over"), pills())
def test_a_state_stands_out_from_its_pill(where: str, text: str, over: tuple[str, ...]) -> None:
    *own, share = map(float, over)
    for on in PAGES:
        below = colour(on, where.rpartition(" ")[2])
        mixed = [
            round(share * each + (1 - share) * int(below[place : place + 2], 16))
            for each, place in zip(own, (1, 3, 5), strict=True)
        ]
        ratio = contrast(text, "#" + "".join(f"{each:02x}" for each in mixed))
        assert ratio >= LEAST, (on, ratio)


def test_all_pills_are_found() -> None:
    assert len({where.partition(",")[0] for where, *_ in pills()}) >= 3


@pytest.mark.parametrize("mode", ["light", "dark"])
@pytest.mark.parametrize("text", WRITTEN_ON)
def test_text_stands_out_from_what_it_is_written_on(text: str, mode: str) -> None:
    found = {on: contrast(colour(text, mode), colour(on, mode)) for on in WRITTEN_ON[text]}
    assert {on: ratio for on, ratio in found.items() if ratio < LEAST} == {}
