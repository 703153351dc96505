"""Browsers may refuse to store anything: every page then works, and only forgets."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

import ui
from ui.heading import PAGES as ALL

BLOCK = """for (const name of ["localStorage", "sessionStorage"]) {
  Object.defineProperty(window, name, {
    get() { throw new DOMException(`${name} is denied here`, "SecurityError"); } });
}"""


@pytest.mark.browser
@pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated")
@pytest.mark.filterwarnings("ignore:The copy keyword is deprecated")
def test_no_page_needs_the_storage_of_the_browser(page: Any, address: str, here: Path) -> None:
    for name in ("one", "two"):
        folder = here / "runs" / name
        folder.mkdir(parents=True)
        (folder / "contract.json").write_text(json.dumps({"kind": "images"}))
    denied: list[str] = []
    page.on("pageerror", lambda e: denied.append(e.message) if "is denied" in e.message else None)
    page.add_init_script(BLOCK)
    for name, title in ALL.items():
        page.goto(f"{address}/{'' if name == 'rank' else name}")
        page.wait_for_function("(t) => document.title === `${t} - imgalign`", arg=title)
        page.wait_for_timeout(500)
    page.goto(f"{address}/learn")
    other = page.locator(".le-chip[aria-selected=false]")
    chosen = other.locator("b").text_content()
    other.click()
    page.locator(".le-fit h3", has_text=chosen).wait_for()
    assert denied == []


def test_every_use_of_storage_is_ready_to_be_refused() -> None:
    bare = {}
    for path in Path(ui.__file__).parent.rglob("*"):
        if path.suffix not in (".js", ".html", ".py"):
            continue
        lines = path.read_text("utf-8").splitlines()
        for number, line in enumerate(lines):
            near = " ".join(lines[max(0, number - 1) : number + 1])
            if re.search(r"\b(local|session)Storage\b", line) and "try {" not in near:
                bare[f"{path.name}:{number + 1}"] = line.strip()
    assert bare == {}
