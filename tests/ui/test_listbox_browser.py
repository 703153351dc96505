"""Rows of options, `listbox.js`, by keyboard in a real browser."""

from importlib.resources import files
from typing import Any

import pytest

from ui.theme import CHOOSING, asset

ROW = """<button>before</button><div id="row" role="listbox"></div><button>after</button>"""
DRAW = """const chips = (names, chosen) => names.map((name) => {
  const chip = document.createElement("button");
  chip.textContent = name;
  chip.dataset.run = name;
  chip.setAttribute("role", "option");
  chip.setAttribute("aria-selected", String(name === chosen));
  return chip;
});
window.draw = listbox(document.querySelector("#row"), "run");
window.show = (names, chosen) => draw(chips(names, chosen));
window.clicked = [];
document.querySelector("#row").addEventListener("click", (e) => clicked.push(e.target.dataset.run));
"""


@pytest.fixture
def row(page: Any) -> Any:
    """A page with a row of three, of which the second is chosen."""
    page.set_content(ROW)
    page.evaluate(f"(() => {{ {asset('listbox.js')}{DRAW} }})()")
    page.evaluate("show(['a', 'b', 'c'], 'b')")
    page.get_by_text("before").focus()
    return page


def focused(row: Any, keys: str) -> list[str]:
    """What has the focus after each key."""
    found = []
    for key in keys.split():
        row.keyboard.press(key)
        found.append(row.evaluate("document.activeElement.textContent"))
    return found


@pytest.mark.browser
def test_a_row_is_one_stop_of_tab_at_what_is_chosen(row: Any) -> None:
    assert focused(row, "Tab ArrowRight Tab Shift+Tab Shift+Tab") == [
        *("b", "c", "after", "b", "before")
    ]


@pytest.mark.browser
def test_arrows_home_and_end_move_within_a_row_and_only_enter_and_space_choose(row: Any) -> None:
    keys = "Tab ArrowDown ArrowRight Home ArrowLeft ArrowUp End"
    assert focused(row, keys) == ["b", "c", "c", "a", "a", "a", "c"]
    assert row.evaluate("clicked") == []
    focused(row, "Enter Home Space")
    assert row.evaluate("clicked") == ["c", "a"]


@pytest.mark.browser
def test_a_row_that_is_drawn_anew_keeps_the_focus_and_takes_none(row: Any) -> None:
    row.evaluate("show(['new', 'a', 'b', 'c'], 'b')")
    assert row.evaluate("document.activeElement.textContent") == "before"
    focused(row, "Tab ArrowLeft")
    row.evaluate("show(['newer', 'new', 'a', 'b'], 'new')")
    assert row.evaluate("document.activeElement.textContent") == "a"
    row.evaluate("show(['newer', 'new'], 'new')")  # what had it is gone
    assert focused(row, "ArrowLeft Tab") == ["newer", "after"]
    row.evaluate("show([], null)")
    assert focused(row, "Shift+Tab") == ["before"]


def test_every_row_of_options_has_these_keys() -> None:
    assets = files("ui") / "assets"
    rows = {
        path.name.replace(".html", ".js")
        for path in assets.iterdir()
        if path.name.endswith(".html") and 'role="listbox"' in path.read_text("utf-8")
    }
    assert rows == set(CHOOSING)
    for name in CHOOSING:
        script = (assets / name).read_text("utf-8")
        assert script.count("listbox(q(") == script.count('setAttribute("role", "option")') == 1
