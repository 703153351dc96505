"""Where a project stands, and the one thing to do next."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from provenances import provenance
from submissions import judge, on_screen

from imgalign.images import png
from imgalign.preferences.coverage import project_standings
from imgalign.runs.checkpoint import save_checkpoint
from imgalign.runs.trained import weights_hash
from ui.batches import Batches
from ui.fits import Fits
from ui.runs import Runs
from ui.standing import Standings


@pytest.fixture
def standings(store, tmp_path: Path):
    """Which count anew each time."""
    runs, now = Runs(tmp_path / "runs"), iter(range(0, 10_000, 60))
    return Standings(store, runs, Fits(runs), Batches(runs), clock=lambda: next(now))


@pytest.fixture
def look(standings):
    def at(project: str = "default"):
        found = standings.at(project, 1)
        return None if found is None else (found.line, found.next, found.page)

    return at


KNOWN = project_standings


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


@pytest.fixture
def run(tmp_path: Path) -> dict[str, Any]:
    """The maker of images of a finished run's checkpoint."""
    weights = b"of this run"
    folder = save_checkpoint(
        tmp_path / "runs" / "dpo",
        6,
        write=lambda to: void((to / "pytorch_lora_weights.safetensors").write_bytes(weights)),
    )
    status = {"state": "finished", "pid": 1, "step": 6, "total": 6, "message": ""}
    (folder.parent / "status.json").write_text(json.dumps(status))
    return {"adapter": str(folder), "adapter_hash": weights_hash(folder)}


def void(_: object) -> None: ...


@pytest.fixture
def compare(store):
    """Compare two makers on a new prompt; `better` is the one that is preferred."""
    store.add_annotator("ann")
    numbers = iter(range(1000))

    def vote(makers: list[dict[str, Any]], better: int, project: str = "default-compare") -> str:
        number = next(numbers)
        ids = [
            store.add_image(png(Image.new("RGB", (8, 8), (number, k, 0))), provenance(**maker))
            for k, maker in enumerate(makers)
        ]
        store.add_item(f"prompt {number}", ids, source="test", project=project)
        item = store.next_item("ann", project=project)
        order = ((better,), (1 - better,))
        store.submit(judge(item, key=item.item_id, ranking=on_screen(store, item, order)))
        return item.item_id

    return vote


def test_what_people_prefer_of_the_newest_run_is_said(look, store, add_items, run, compare):
    add_items(21, num_images=2, overlap=1)
    rank_all(store)
    assert look()[0] == "21 prompts, 42 images, 21 of 21 sets ranked"
    for _ in range(3):
        compare([run, {}], 0)
    compare([run, {}], 1)
    assert look()[0].endswith("21 of 21 sets ranked, dpo at 75 %, not decided")
    assert look()[1:] == ("Fit a reward model to the rankings", "learn")
    for _ in range(16):
        compare([{}, run], 1)
    assert look()[0].endswith(", dpo won 95 %")
    assert look()[1:] == ("See who won", "results")
    assert look("default-compare")[0].endswith(", dpo won 95 %")
    # Against another checkpoint, or by one that is not here: of these it is not said.
    compare([{"adapter": "runs/x/step-000001", "adapter_hash": "x"}, run], 0)
    compare([{"adapter": run["adapter"], "adapter_hash": "of a run that had the name"}, {}], 0)
    assert look()[0].endswith(", dpo won 95 %")
    add_items(1, project="dogs")
    assert "dpo" not in look("dogs")[0]


def test_judgements_are_counted_again_only_where_there_are_new_ones(
    look, store, add_items, run, compare, monkeypatch
):
    add_items(1, num_images=2, overlap=1)
    key = compare([run, {}], 0)
    read = []
    monkeypatch.setattr("ui.standing.project_standings", lambda *of: read.append(of) or KNOWN(*of))
    assert look()[0].endswith("dpo at 100 %, not decided")
    assert look() == look()
    assert len(read) == 1
    # Taken back and given anew between two looks: the sums are as they were.
    store.undo("ann", key)
    item = store.next_item("ann", project="default-compare")
    order = on_screen(store, item, ((1,), (0,)))
    store.submit(judge(item, key="again", ranking=order))
    assert look()[0].endswith("dpo at 0 %, not decided")
    add_items(2, num_images=2, overlap=1)
    assert look()[0].startswith("2 prompts")
    assert len(read) == 3
