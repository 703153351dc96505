"""The line of runs on the Train page, in a real browser."""

import json
import os

import pytest
from waited import expect

from imgalign.runs.status import process_birth
from ui.run_queue import RunQueue
from ui.runs import Runs

pytestmark = [
    pytest.mark.browser,
    # gradio counts its own calls with options of pandas that pandas is about to drop
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
]


def write_state(runs, name, state):
    """A run of this process, without one of its own."""
    folder = runs.folder / name
    folder.mkdir(parents=True, exist_ok=True)
    pid = os.getpid()
    status = {"state": state, "pid": pid, "birth": process_birth(pid), "step": 1, "total": 9}
    (folder / "status.json").write_text(json.dumps(status))


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "mine.yaml").write_text("# Mine.\nreward: {path: storybook}\n")
    runs = Runs(tmp_path / "runs")
    write_state(runs, "first", "running")
    monkeypatch.setattr(
        Runs, "launch", lambda self, _, *, name, **__: write_state(self, name, "running")
    )
    return runs


def names_become(page, *expected):
    page.wait_for_function(
        "(expected) => [...document.querySelectorAll('.mo-chip b')]"
        ".map((name) => name.textContent).join() === expected",
        arg=",".join(expected),
    )


def test_what_is_started_meanwhile_waits_can_change_places_and_starts_by_itself(
    page, runs, address
):
    page.goto(f"{address}/train")
    page.locator("#recipe input[value='mine']").check()
    page.locator("#cost", has_text="40 iterations of 64 images").wait_for()
    for name in ("second", "third", "fourth"):
        page.get_by_label("Name").fill(name)
        page.get_by_role("button", name="Start training").click()
        page.locator(".mo-chip[data-waits]", has_text=name).wait_for()
    names_become(page, "fourth", "third", "second", "first")
    page.locator(".mo-where", has_text="Number 3 of 3 in line, from mine").wait_for()
    expect(page.get_by_role("button", name="Later")).to_be_disabled()

    page.get_by_role("button", name="Earlier").press("Enter")
    names_become(page, "third", "fourth", "second", "first")
    page.get_by_role("button", name="Take out of line").press("Enter")
    names_become(page, "third", "second", "first")
    page.reload()
    names_become(page, "third", "second", "first")

    write_state(runs, "first", "finished")  # nobody has to press anything
    page.locator(".mo-chip[data-run=second][data-state=running]").wait_for()
    page.locator(".mo-chip[data-run=third]", has_text="next in line").click()
    page.get_by_role("button", name="Start now").click()
    page.locator(".mo-chip[data-run=third][data-state=running]").wait_for()
    assert RunQueue(runs).all() == []
