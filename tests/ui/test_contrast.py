"""Text stands out from what it is written on, in light and in dark, by the colours of the theme."""

import re

import pytest
from colours import contrast

from ui.theme import PAPER, TERRACOTTA, theme

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


@pytest.mark.parametrize("mode", ["light", "dark"])
@pytest.mark.parametrize("text", WRITTEN_ON)
def test_text_stands_out_from_what_it_is_written_on(text: str, mode: str) -> None:
    found = {on: contrast(colour(text, mode), colour(on, mode)) for on in WRITTEN_ON[text]}
    assert {on: ratio for on, ratio in found.items() if ratio < LEAST} == {}
