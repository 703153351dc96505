"""Where a project stands, and the one thing to do next."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from provenances import provenance
from reported_runs import fitted_reward
from submissions import judge, on_screen

from imgalign.images import png
from imgalign.preferences.coverage import project_standings
from imgalign.preferences.fit_report import LearnedFrom
from imgalign.runs.checkpoint import save_checkpoint
from imgalign.runs.status import RunStatus
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
    def at(project: str = "default", *, admin: bool = True):
        found = standings.at(project, 1, admin=admin)
        return None if found is None else (found.line, found.next, found.page)

    return at


KNOWN = project_standings


def rank_all(store, project="default"):
    store.add_annotator("ann")
    while item := store.next_item("ann", project=project):
        store.submit(judge(item))


def skip(store, project="default", who="ann"):
    store.add_annotator(who)
    item = store.next_item(who, project=project)
    store.submit(judge(item, who, verdict="skipped", ranking=None, reason="broken image"))


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
    assert look(admin=False)[1:] == ("All is ranked: an admin can fit a reward model to it.", "")
    assert look("cats") is None


def test_a_skipped_set_holds_nothing_up(look, store, add_items):
    add_items(24, num_images=2, overlap=1)
    skip(store)
    line = "24 prompts, 48 images, 0 of 24 sets ranked, 1 skipped"
    assert look() == (line, "Rank the other 23", "./")
    rank_all(store)
    line = "24 prompts, 48 images, 23 of 24 sets ranked, 1 skipped"
    assert look() == (line, "Fit a reward model to the rankings", "learn")
    assert look(admin=False)[1].startswith("All is ranked or skipped: an admin can")
    # Somebody else who ranks there may rank it, which holds nothing up either.
    add_items(25, num_images=2, overlap=1)
    store.add_annotator("bob")
    while store.counts("bob").left > 1:
        store.submit(judge(store.next_item("bob"), "bob"))
    skip(store, who="bob")
    line = "25 prompts, 50 images, 24 of 25 sets ranked, 1 skipped (others may still rank it)"
    assert look() == (line, "Fit a reward model to the rankings", "learn")


def test_where_all_was_skipped_more_is_to_be_made(look, store, add_items):
    add_items(2, num_images=2, overlap=1)
    skip(store)
    skip(store)
    line, what, page = look()
    assert line.endswith("0 of 2 sets ranked, 2 skipped")
    assert what.startswith("All is ranked or skipped; make more")
    assert page == ""


def test_likes_and_dislikes_need_no_reward_model(look, store, add_items):
    add_items(3, num_images=1, overlap=1)
    rank_all(store)
    assert look()[0] == "3 prompts, 3 images, 3 of 3 sets judged"
    assert (
        look()[1]
        == "All is judged; make more, for a model learns from 20 likes and dislikes or more."
    )
    add_items(24, num_images=1, overlap=1)
    rank_all(store)
    assert look()[1:] == ("Align a model with the likes and dislikes", "train")
    assert look(admin=False)[1:] == (
        "All is judged: an admin can align a model with the likes.",
        "",
    )
    # Rankings beside them are what a reward model learns from.
    add_items(21, num_images=2, overlap=1, prompts=[f"prompt {n}" for n in range(21)])
    rank_all(store)
    assert look()[1:] == ("Fit a reward model to the rankings", "learn")


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
def make_run(tmp_path: Path):
    """A finished run, with what it learned from if that is given, and the maker of its images."""

    def make(name: str, settings: dict[str, Any] | None = None) -> dict[str, Any]:
        folder = save_checkpoint(
            tmp_path / "runs" / name,
            6,
            write=lambda to: void(
                (to / "pytorch_lora_weights.safetensors").write_bytes(name.encode())
            ),
        )
        status = {"state": "finished", "pid": 1, "step": 6, "total": 6, "message": ""}
        (folder.parent / "status.json").write_text(json.dumps(status))
        if settings is not None:
            (folder.parent / "config.yaml").write_text(json.dumps(settings))
        return {"adapter": str(folder), "adapter_hash": weights_hash(folder)}

    return make


@pytest.fixture
def run(make_run) -> dict[str, Any]:
    return make_run("dpo")


def of_project(project: str | None) -> dict[str, Any]:
    return {"data": {"from": "rankings", "project": project}}


def of_generate(run: str) -> str:
    return f"generate?checkpoint={run}/step-000006"


def void(_: object) -> None: ...


@pytest.fixture
def compare(store):
    """Compare two makers on a new prompt; `better` is the one that is preferred, None so far."""
    store.add_annotator("ann")
    numbers = iter(range(1000))

    def vote(
        makers: list[dict[str, Any]], better: int | None, project: str = "default-compare"
    ) -> str:
        number = next(numbers)
        ids = [
            store.add_image(png(Image.new("RGB", (8, 8), (number, k, 0))), provenance(**maker))
            for k, maker in enumerate(makers)
        ]
        store.add_item(f"prompt {number}", ids, source="test", project=project)
        if better is None:
            return ""
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
    assert look()[1:] == ("Rank more pairs of dpo and its base: draw them", of_generate("dpo"))
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


def test_more_pairs_are_drawn_at_the_strength_that_was_compared(
    look, store, add_items, run, compare
):
    add_items(1, num_images=2, overlap=1)
    compare([run | {"strength": 0.6}, {}], 0)
    assert look()[1].startswith("Rank more pairs of dpo and its base")
    assert look()[2] == of_generate("dpo") + "&strength=0.6"


def test_judgements_are_counted_again_only_where_there_are_new_ones(
    look, store, add_items, run, compare, monkeypatch
):
    add_items(1, num_images=2, overlap=1)
    key = compare([run, {}], 0)
    read = []
    monkeypatch.setattr("ui.standing.project_standings", lambda *of: read.append(of) or KNOWN(*of))
    assert look()[0].endswith("dpo at 100 %, not decided")
    assert look() == look()
    assert len(read) == 2  # the project, and its comparisons
    # Taken back and given anew between two looks: the sums are as they were.
    store.undo("ann", key)
    item = store.next_item("ann", project="default-compare")
    order = on_screen(store, item, ((1,), (0,)))
    store.submit(judge(item, key="again", ranking=order))
    assert look()[0].endswith("dpo at 0 %, not decided")
    add_items(2, num_images=2, overlap=1)
    assert look()[0].startswith("2 prompts")
    assert len(read) == 6


# --- what follows a run


def test_a_finished_run_is_compared_before_anything_else_is_begun(look, store, add_items, make_run):
    add_items(21, num_images=2, overlap=1)
    rank_all(store)
    assert look()[1:] == ("Fit a reward model to the rankings", "learn")
    run = make_run("dpo", of_project(None))
    # Not marked best, which is what is compared.
    shutil.copytree(run["adapter"], Path(run["adapter"]).with_name("step-000012"))
    Path(run["adapter"]).parent.joinpath("best.json").write_text('{"checkpoint": "step-000006"}')
    assert look()[1:] == ("Compare dpo with its base", of_generate("dpo"))


def test_pairs_that_wait_are_said_and_ranked_next(
    look, standings, store, add_items, make_run, compare
):
    add_items(21, num_images=2, overlap=1)
    rank_all(store)
    run = make_run("dpo", of_project("default"))
    compare([run, {}], None)
    line, what, page = look()
    assert line.endswith("21 of 21 sets ranked, 1 pair to compare waits in default-compare")
    assert (what, page) == ("Rank the 1 pair that waits", "./")
    assert standings.at("default", 1).ranks == "default-compare"
    # One that has ended since was not compared yet.
    make_run("later", of_project("default"))
    assert look()[1:] == ("Compare later with its base", of_generate("later"))


def test_skipped_pairs_wait_for_nobody(look, store, add_items, make_run, compare):
    add_items(21, num_images=2, overlap=1)
    rank_all(store)
    run = make_run("dpo", of_project("default"))
    compare([run, {}], None)
    skip(store, "default-compare")
    line, what, page = look()
    assert line.endswith("21 of 21 sets ranked, 1 pair skipped in default-compare")
    assert what == "All pairs were skipped: draw others of dpo and its base"
    assert page == of_generate("dpo")
    for _ in range(16):
        compare([{}, run], 1)
    assert look()[1:] == ("See who won", "results")


def test_a_project_is_not_told_of_the_runs_of_another(look, store, add_items, make_run):
    for project in ("cats", "dogs"):
        add_items(21, num_images=2, overlap=1, project=project)
    rank_all(store, "cats")
    make_run("of-cats", of_project("cats"))
    make_run("of-all", of_project(None))
    make_run("by-a-reward", {"data": {"from": "rollouts"}, "reward": {"path": "elsewhere"}})
    rank_all(store, "dogs")  # after the run that learned from all there was
    assert look("cats")[1] == "Compare of-all with its base"
    assert look("dogs")[1:] == ("Fit a reward model to the rankings", "learn")


def test_what_runs_is_watched(look, store, add_items, tmp_path):
    add_items(2, num_images=2, overlap=1)
    folder = tmp_path / "runs" / "now"
    folder.mkdir(parents=True)
    status = asdict(RunStatus.of_this_process("running", 1, 6))
    (folder / "status.json").write_text(json.dumps(status))
    (folder / "config.yaml").write_text(json.dumps(of_project("default")))
    assert look()[1:] == ("now is training: watch it", "train")


@pytest.mark.parametrize("learned_from", [{"group": "cosy", "project": "default"}, {}])
def test_a_reward_of_a_group_or_of_a_terminal_counts_as_its_report_says(
    look, store, add_items, make_run, tmp_path, learned_from
):
    add_items(21, num_images=2, overlap=1)
    rank_all(store)
    (tmp_path / "runs").mkdir()
    folder = fitted_reward(tmp_path / "runs" / "reward")
    (folder / "contract.json").write_text("{}")
    assert look()[1:] == ("Fit a reward model to the rankings", "learn")  # it does not say
    report = json.loads((folder / "report.json").read_text())
    said = asdict(LearnedFrom(**learned_from))
    (folder / "report.json").write_text(json.dumps(report | {"learned_from": said}))
    assert look()[0].endswith("21 of 21 sets ranked, reward 81 %")
    assert look()[1:] == ("Align a model with it", "train")
    assert look(admin=False)[1:] == ("An admin can align a model with it.", "")
    add_items(21, num_images=2, overlap=1, project="dogs")
    rank_all(store, "dogs")
    assert "reward" not in look("dogs")[0]
    make_run("grpo", {"reward": {"path": str(folder)}})
    assert look()[1:] == ("Compare grpo with its base", of_generate("grpo"))
    assert look("dogs")[1:] == ("Fit a reward model to the rankings", "learn")
