"""What tests do on the Generate page in a browser, and the runs that it offers."""

import json
from pathlib import Path
from typing import Any

from adapter_runs import make_full_run, make_run


def write_runs(folder: Path, model: Path) -> Path:
    """A finished run `full` of all weights, 10 iterations, and `lora`, with checkpoints at 10
    and 20.
    """
    make_full_run(folder / "full", model, steps=(10,))
    make_run(folder / "lora", model, steps=(10, 20))
    for name, step in (("full", 10), ("lora", 20)):
        status = {"state": "finished", "pid": 1, "step": step, "total": step}
        (folder / name / "status.json").write_text(json.dumps(status))
        (folder / name / "prompts.json").write_text('{"training": [], "held_out": []}')
    return folder


def open_page(page: Any, address: str) -> None:
    """Open the page and wait for its lists."""
    page.goto(f"{address}/generate")
    page.wait_for_function("() => document.querySelector('#checkpoint input')?.value")


def choose(page: Any, place: str, option: str) -> None:
    """Choose in a list, by the id of its element."""
    page.locator(f"#{place} input").click()
    page.get_by_role("option", name=option).click()
    page.get_by_role("option").first.wait_for(state="detached")


def generate(page: Any, **numbers: Any) -> None:
    """Fill fields by their labels and press the button."""
    for label, value in numbers.items():
        page.get_by_label(label.replace("_", " ").capitalize()).fill(str(value))
    page.get_by_role("button", name="Generate", exact=True).click()
