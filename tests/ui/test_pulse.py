"""A page at rest costs next to nothing: nothing is read, asked of the store, sent or drawn, until
something has changed.
"""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from waited import expect

import ui.pulse
from imgalign.preferences.store import Store
from imgalign.runs.status import process_birth
from ui.batches import Batches
from ui.fits import Fits
from ui.pulse import Page, Pulse
from ui.runs import Runs

PAGES: tuple[Page, ...] = ("candidates", "learn", "train")
OF_THE_STORE: tuple[Page, ...] = ("people", "results")


def write_status(folder: Path, **facts: Any) -> None:
    """As a run does: whole, or not at all."""
    said = {"state": "running", "pid": os.getpid(), "step": 1, "total": 6, **facts}
    (folder / "status.tmp").write_text(json.dumps(said))
    (folder / "status.tmp").rename(folder / "status.json")


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that does nothing until it is ended."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.communicate()


@pytest.fixture
def runs(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> Runs:
    """A run that goes on, and one that was started by an app, both by living processes."""
    runs = Runs(tmp_path / "runs")
    for name in ("mine", "ours"):
        (runs.folder / name / "samples").mkdir(parents=True)
        (runs.folder / name / "metrics.jsonl").write_text("")
    write_status(runs.folder / "mine")
    write_status(runs.folder / "ours", pid=sleeper.pid)
    for folder in (".launches", ".fits", ".candidates"):
        (runs.folder / folder).mkdir()
        launch = {"pid": sleeper.pid, "birth": process_birth(sleeper.pid), "command": ["x"]}
        (runs.folder / folder / "ours.json").write_text(json.dumps(launch))
        (runs.folder / folder / "ours.log").write_text("begun\n")
    return runs


@pytest.fixture
def clock() -> list[float]:
    """The time, in its one place."""
    return [0.0]


@pytest.fixture
def pulse(runs: Runs, store: Store, clock: list[float]) -> Pulse:
    started = (runs.processes, Fits(runs).processes, Batches(runs).processes)
    return Pulse(runs, started, store, clock=lambda: clock[0])


def test_as_long_as_nothing_changes_nothing_is_read_and_no_statement_is_made(
    pulse: Pulse, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {page: pulse.of(page) for page in PAGES}
    done: list[str] = []
    for module in ("ui.processes", "imgalign.runs.status"):
        monkeypatch.setattr(f"{module}.read_json", lambda path: done.append(str(path)))
    engine = store.database._engine
    event.listen(engine, "before_cursor_execute", lambda *given: done.append(given[2]))
    for _ in range(3):
        assert {page: pulse.of(page) for page in PAGES} == before
    assert done == []


def append(path: Path) -> None:
    with path.open("a") as file:
        file.write("more\n")


CHANGES: dict[str, tuple[tuple[Page, ...], Callable[[Path], object]]] = {
    "an iteration": (
        ("candidates", "learn", "train"),
        lambda runs: append(runs / "mine/metrics.jsonl"),
    ),
    "a status": (("train",), lambda runs: write_status(runs / "mine", step=2)),
    "a checkpoint": (("train",), lambda runs: (runs / "mine" / "step-000006").mkdir()),
    "sample images": (("train",), lambda runs: append(runs / "mine" / "samples" / "step-6.png")),
    "a new run": (("train", "candidates"), lambda runs: (runs / "new").mkdir()),
    "a line of a run": (("train",), lambda runs: append(runs / ".launches" / "ours.log")),
    "a run that is stopped": (("train",), lambda runs: (runs / ".launches" / "ours.stop").touch()),
    "the line of runs": (("train",), lambda runs: append(runs / ".queue.json")),
    "a line of a fit": (("learn", "candidates"), lambda runs: append(runs / ".fits" / "ours.log")),
    "a fitted reward": (("learn",), lambda runs: append(runs / "mine" / "contract.json")),
    "a batch": (("candidates",), lambda runs: append(runs / ".candidates" / "batch-1.asked")),
    "an item": (("candidates",), lambda runs: append(runs / ".candidates" / "batch-1.items")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_page_draws_changes_its_mark(change: str, pulse: Pulse, runs: Runs) -> None:
    pages, do = CHANGES[change]
    before = {page: pulse.of(page) for page in pages}
    do(runs.folder)
    assert [page for page in pages if pulse.of(page) == before[page]] == []
    again = {page: pulse.of(page) for page in pages}
    assert again == {page: pulse.of(page) for page in pages}


def test_the_end_of_a_process_changes_the_marks_of_pages_that_tell_of_it(
    pulse: Pulse, sleeper: subprocess.Popen[bytes]
) -> None:
    before = {page: pulse.of(page) for page in PAGES}
    sleeper.communicate()
    after = {page: pulse.of(page) for page in PAGES}
    assert [page for page in PAGES if after[page] == before[page]] == []
    assert {page: pulse.of(page) for page in PAGES} == after


def test_what_others_rank_is_seen_a_little_later_where_it_is_told(
    pulse: Pulse, clock: list[float], add_items: Any
) -> None:
    pages = (*PAGES, *OF_THE_STORE)
    before = {page: pulse.of(page) for page in pages}
    add_items(1)
    assert {page: pulse.of(page) for page in pages} == before
    clock[0] += 8
    changed = [page for page in pages if pulse.of(page) != before[page]]
    assert changed == ["candidates", "learn", *OF_THE_STORE]


@pytest.mark.parametrize("page", OF_THE_STORE)
def test_a_page_whose_drawing_is_slow_rests_twenty_times_as_long(
    page: Page, pulse: Pulse, clock: list[float], add_items: Any
) -> None:
    with pulse.drawing(page):
        clock[0] += 2
    with pulse.drawing(page):  # of a smaller project
        clock[0] += 0.5
    drawn: list[float] = []
    mark, begun = pulse.of(page), clock[0]
    while clock[0] < begun + 130:
        clock[0] += 2
        add_items(1, prompts=[f"at {clock[0]}"])
        if pulse.of(page) != mark:
            mark = pulse.of(page)
            drawn.append(clock[0] - begun)
    assert drawn == [40, 80, 120]


@pytest.mark.parametrize("page", OF_THE_STORE)
def test_what_lies_outside_of_the_store_is_seen_within_some_minutes(
    page: Page, pulse: Pulse, clock: list[float]
) -> None:
    before = pulse.of(page)
    clock[0] += 8
    assert pulse.of(page) == before
    clock[0] += 60
    assert pulse.of(page) != before


@pytest.mark.browser
@pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated")
@pytest.mark.filterwarnings("ignore:The copy keyword is deprecated")
def test_a_page_at_rest_sends_no_event_and_draws_nothing_until_something_changes(
    page: Any, address: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ui.pulse, "ANYWAY_SECONDS", math.inf)
    folder = here / "runs" / "mine"
    folder.mkdir(parents=True)
    write_status(folder, state="stopped")
    (folder / "metrics.jsonl").write_text("")
    events: list[str] = []
    page.on("request", lambda sent: events.append(sent.url) if "/queue/" in sent.url else None)
    page.goto(f"{address}/train")
    expect(page.locator(".mo-state")).to_have_text("stopped")
    page.wait_for_function("() => document.querySelector('#recipe input:checked')?.value")
    page.wait_for_function("() => document.querySelector('[data-pulse]').dataset.mark")
    with page.expect_response("**/api/alive**"):  # what the first one asked for is there
        pass
    page.wait_for_function("() => !document.querySelector('.generating, .pending, .progress-text')")
    events.clear()
    page.evaluate("""() => {
      window.drawn = [];
      const tell = (all) => window.drawn.push(...all.map((each) => each.target.className));
      const all = { subtree: true, childList: true, characterData: true, attributes: true };
      new MutationObserver(tell).observe(document.body, all);
    }""")
    for _ in range(3):
        with page.expect_response("**/api/alive**"):
            pass
    assert events == []
    assert page.evaluate("window.drawn") == []
    write_status(folder, state="finished", step=6)
    expect(page.locator(".mo-state")).to_have_text("finished")
