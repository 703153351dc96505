"""Where a project stands, and the one thing to do next."""

from pathlib import Path

import pytest
from submissions import judge

from ui.batches import Batches
from ui.fits import Fits
from ui.runs import Runs
from ui.standing import Standings, standing


@pytest.fixture
def look(store, tmp_path: Path):
    runs = Runs(tmp_path / "runs")

    def at(project: str = "default"):
        found = standing(store, runs, Fits(runs), Batches(runs), project)
        return None if found is None else (found.line, found.next, found.page)

    return at


def rank_all(store, project="default"):
    store.add_annotator("ann")
    while item := store.next_item("ann", project=project):
        store.submit(judge(item))


def test_the_next_step_follows_the_work(look, store, add_items):
    assert look() is None
    add_items(3, num_images=2, overlap=1)
    assert look() == ("3 prompts, 6 images, 0 of 3 sets ranked", "Rank 3 sets", "./")
    store.add_annotator("ann")
    store.submit(judge(store.next_item("ann")))
    assert look() == ("3 prompts, 6 images, 1 of 3 sets ranked", "Rank the other 2", "./")
    rank_all(store)
    line, what, page = look()
    assert line == "3 prompts, 6 images, 3 of 3 sets ranked"
    assert what.startswith("All is ranked; make more")
    assert page == ""
    add_items(20, num_images=2, overlap=1)
    rank_all(store)
    assert look()[1:] == ("Fit a reward model to the rankings", "learn")
    assert look("cats") is None


def test_what_pages_ask_for_every_few_seconds_is_counted_when_something_moved(
    store, add_items, tmp_path
):
    runs, now = Runs(tmp_path / "runs"), [0.0]
    found = Standings(store, runs, Fits(runs), Batches(runs), clock=lambda: now[0])
    assert found.at("default", 1) is None
    add_items(1, num_images=2)
    assert found.at("default", 1) is None
    assert found.at("default", 2).line == "1 prompt, 2 images, 0 of 1 set ranked"
    add_items(2, num_images=2)
    assert found.at("default", 2).line.startswith("1 prompt")
    now[0] += 60
    assert found.at("default", 2).line.startswith("2 prompts")
