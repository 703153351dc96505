"""Each project has its line on the Candidates page, whether a batch was made for it or not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from submissions import judge

from imgalign.preferences.accounts import Accounts
from imgalign.preferences.store import Store
from ui.batch_asked import Asked
from ui.batches import Batch, Batches
from ui.fits import Fits
from ui.pages.candidates_view import OF_PROJECT, Work, view
from ui.pulse import Pulse
from ui.runs import Runs
from ui.standing import Standings


@pytest.fixture
def work(store: Store, tmp_path: Path) -> Work:
    runs, now = Runs(tmp_path / "runs"), iter(range(0, 10_000, 60))
    batches = Batches(runs)
    standings = Standings(store, runs, Fits(runs), batches, clock=lambda: next(now))
    people, pulse = Accounts(store.database), Pulse(runs, (), store)
    return Work(store, runs, batches, standings, "storybook", "default", people, pulse)


def line_of(value: dict[str, Any]) -> str:
    told = value["standing"]
    return f"{told['project']}: {told['line']}"


def test_projects_without_a_batch_lead_to_their_lines(
    work: Work, store: Store, add_items: Callable[..., list[str]]
) -> None:
    assert view(work, None)["projects"] == []
    for project, count in (("alpha", 2), ("beta", 3), ("x-compare", 1)):
        add_items(count, project=project, num_images=2, overlap=1)
    value = view(work, None)  # nothing is in the app's own project
    assert line_of(value).startswith("alpha: 2 prompts")
    assert value["projects"] == ["beta", "x-compare"]
    value = view(work, f"{OF_PROJECT}beta")
    assert line_of(value).startswith("beta: 3 prompts, 6 images, 0 of 3 sets ranked")
    assert value["standing"]["page"] == "./?project=beta"
    assert value["projects"] == ["alpha", "x-compare"]
    assert value["detail"] is None
    # Its own line tells of its comparisons.
    add_items(1, project="beta-compare", num_images=2)
    assert view(work, None)["projects"] == ["beta", "x-compare"]
    add_items(1, num_images=2)
    assert line_of(view(work, None)).startswith("default: 1 prompt")
    assert line_of(view(work, f"{OF_PROJECT}gone")).startswith("default: 1 prompt")


def test_a_project_that_is_chosen_brings_its_newest_batch(
    work: Work, add_items: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for project in ("alpha", "beta", "gamma"):
        add_items(1, project=project, num_images=2)

    def batch(name: str, project: str) -> Batch:
        asked = Asked(source="prompts", project=project, per_prompt=4)
        return Batch(name=name, asked=asked, state="made", message="", share=None, item_ids=())

    made = [batch("b2", "beta"), batch("a2", "alpha"), batch("a1", "alpha")]
    monkeypatch.setattr(work.batches, "all", lambda: made)
    monkeypatch.setattr(work.batches, "log", lambda name: "")

    def seen(chosen: str | None) -> tuple[str, str | None, list[str]]:
        value = view(work, chosen)
        assert [each["name"] for each in value["batches"]] == ["b2", "a2", "a1"]
        detail = value["detail"]
        return value["standing"]["project"], detail and detail["name"], value["projects"]

    assert seen(None) == ("beta", "b2", ["alpha", "gamma"])
    assert seen("a1") == ("alpha", "a1", ["beta", "gamma"])
    assert seen(f"{OF_PROJECT}alpha") == ("alpha", "a2", ["beta", "gamma"])
    assert seen(f"{OF_PROJECT}gamma") == ("gamma", None, ["alpha", "beta"])


def test_a_batch_that_waits_says_its_place_and_when_it_begins(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Asked(source="prompts", project="cats", per_prompt=4)
    waits = [
        Batch(name=name, asked=asked, state="waiting", message="it waits", share=None, item_ids=())
        for name in ("b1", "b2", "b3")
    ]
    begins = {"b1": 75.0, "b2": None, "b3": 0.0}
    monkeypatch.setattr(work.batches, "all", lambda: waits)
    monkeypatch.setattr(work.batches, "log", lambda name: "")
    monkeypatch.setattr(work.batches, "waiting", lambda: ["b2", "b1"])
    monkeypatch.setattr(work.batches, "begins_in", begins.get)

    def seen(name: str) -> tuple[str, Any]:
        detail = view(work, name)["detail"]
        return detail["said"], detail["line"]

    assert seen("b1") == ("It waits, in about 75 s", [2, 2])
    assert seen("b2") == ("It waits", [1, 2])
    assert seen("b3") == ("It waits", False)  # for another app
    assert [each["line"] for each in view(work, None)["batches"]] == [[2, 2], [1, 2], False]


def test_of_projects_that_are_not_chosen_nothing_is_counted(
    work: Work,
    store: Store,
    add_items: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for project in ("alpha", "beta", "gamma"):
        add_items(2, project=project, num_images=2, overlap=1)
    store.add_annotator("ann")
    store.submit(judge(store.next_item("ann", project="beta")))
    asked: list[str] = []
    known = work.standings.at

    def noted(project: str, *rest: Any, **more: Any) -> Any:
        asked.append(project)
        return known(project, *rest, **more)

    monkeypatch.setattr(work.standings, "at", noted)
    view(work, f"{OF_PROJECT}beta")
    assert asked == ["beta"]
