"""The Learn page: what it offers, what it starts, and what it says of a fitted reward model."""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from reported_runs import fitted_reward
from submissions import judge, on_screen

from imgalign.errors import ConfigError, InputError
from imgalign.preferences.coverage import ProjectRankings, judged_projects
from imgalign.preferences.fit_report import Judged, read_fit_report
from imgalign.preferences.store import Store
from ui.app import Settings, build_app
from ui.fits import Fits, check_fit
from ui.pages import learn
from ui.runs import Runs

FIT = """
import sys, time
from pathlib import Path
out = Path(next(each for each in sys.argv if each.startswith("--out=")).removeprefix("--out="))
if "fail=yes" in sys.argv:
    print("error: reward fit: 2 prompts in 2 rankings leave no preference for test; rank more")
    sys.exit(2)
print("encoding: 40 %")
print("epoch 3/12  train loss 1.2", flush=True)
while "wait=yes" in sys.argv:
    time.sleep(0.05)
out.mkdir(parents=True)
(out / "contract.json").write_text("{}")
"""


@pytest.fixture
def fits(tmp_path: Path):
    program = tmp_path / "fit.py"
    program.write_text(FIT)
    fits = Fits(Runs(tmp_path / "runs"), command=(sys.executable, str(program)))
    yield fits
    for fit in fits.all():
        if fit.stoppable:
            fits.stop(fit.name)


@pytest.fixture
def ranked(store: Store, add_items: Callable[..., list[str]]) -> Callable[..., None]:
    """Let somebody rank so many items of a project."""

    def rank(count: int, *, project: str = "default", who: str = "ann", group: str = "g") -> None:
        store.add_annotator(who, group=group)
        add_items(count, project=project, num_images=3)
        for _ in range(count):
            item = store.next_item(who, project=project)
            order = on_screen(store, item, ((2,), (0,), (1,)), who)
            store.submit(judge(item, who, ranking=order))

    return rank


def wait_for(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 60
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return value


PROJECT = ProjectRankings(
    project="cats & dogs", samples="images", rankings=9, prompts=9, groups=("warm",)
)


# --- what can be learned from


def test_every_project_with_judgements_can_be_learned_from(store: Store, ranked: Any) -> None:
    assert learn.projects_of(store) == []
    with pytest.raises(InputError, match="there are none yet; rank some images"):
        learn.chosen_project(store, None)
    ranked(3, project="cats", who="ann", group="warm")
    ranked(2, project="dogs", who="bob", group="cool")
    item = store.next_item("ann", project="dogs")
    store.submit(
        judge(item, "ann", ranking=None, verdict="skipped", reason="too dark")
    )  # says nothing
    assert judged_projects(store) == [
        ProjectRankings(project="cats", samples="images", rankings=3, prompts=3, groups=("warm",)),
        ProjectRankings(project="dogs", samples="images", rankings=2, prompts=2, groups=("cool",)),
    ]
    (first, value), _ = learn.projects_of(store)
    assert first == "cats: 3 rankings of images"
    chosen = learn.chosen_project(store, value)
    assert learn.groups_of(chosen) == [("everybody", ""), ("warm", "warm")]
    with pytest.raises(InputError, match="choose a project"):
        learn.chosen_project(store, "images/birds")


# --- a fit


def test_a_fit_is_started_watched_and_found_again(fits: Fits, tmp_path: Path) -> None:
    fits.launch(PROJECT, group="warm", name="taste", overrides=["wait=yes"])
    fit = wait_for(
        lambda: (f := fits.fit("taste")).share is not None and "epoch" in f.message and f
    )
    assert (fit.state, fit.share, fit.stoppable) == ("fitting", 3 / 12, True)
    assert str(fit.learned_from) == "project cats & dogs, group warm"
    with pytest.raises(InputError, match="there is something of that name"):
        fits.launch(PROJECT, group="", name="taste")
    # A new app finds it, and can stop it.
    later = Fits(Runs(tmp_path / "runs"))
    assert [each.name for each in later.all()] == ["taste"]
    later.stop("taste")
    wait_for(lambda: not fits.fit("taste").stoppable)
    stopped = fits.fit("taste")
    assert stopped.state == "stopped"
    assert stopped.message == "stopped before it was done; nothing of it is kept"
    fits.forget("taste")
    assert fits.all() == []


def test_a_fit_that_fails_says_why_and_can_be_removed(fits: Fits) -> None:
    fits.launch(PROJECT, group="", name="taste", overrides=["fail=yes"])
    fit = wait_for(lambda: (f := fits.fit("taste")).state == "failed" and f)
    assert fit.message.startswith("error: reward fit: 2 prompts in 2 rankings leave no preference")
    assert fits.free_name(PROJECT) == "reward"
    fits.forget("taste")
    assert fits.all() == []
    assert not list((fits.runs.folder / ".fits").iterdir())


def test_only_what_failed_can_be_removed(fits: Fits) -> None:
    fits.launch(PROJECT, group="", name="taste")
    wait_for(lambda: fits.fit("taste").state == "fitted")
    with pytest.raises(InputError, match="not a fit that failed or was stopped; it stays"):
        fits.forget("taste")
    # Its report is not there: that is said, and the page goes on.
    assert "report.json: missing" in fits.fit("taste").message
    assert fits.free_name(PROJECT) == "reward"
    assert fits.free_name(replace(PROJECT, samples="texts")) == "text-reward"


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("../x", [], "expected letters, digits"),
        ("-x", [], "expected letters, digits"),
        ("x", ["--database=sqlite:///theirs.db"], "expected section.key=value"),
        ("x", ["--out", "=y"], "expected section.key=value"),
    ],
)
def test_nothing_of_the_form_is_an_option_of_the_command(
    fits: Fits, name: str, overrides: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        fits.launch(PROJECT, group="", name=name, overrides=overrides)
    assert fits.all() == []


def test_a_fit_that_cannot_work_is_refused_before_it_is_started(
    store: Store, ranked: Any, fits: Fits
) -> None:
    ranked(2)
    (project,) = judged_projects(store)
    with pytest.raises(InputError, match="2 prompts in 2 rankings leave no preference for"):
        learn.launch(fits, store, "images/default", "", "", "")
    with pytest.raises(ConfigError, match="epochz"):
        check_fit(store, project, group="", overrides=["epochz=3"])
    with pytest.raises(InputError, match="group 'cold'"):
        check_fit(store, project, group="cold", overrides=[])
    assert fits.all() == []
    ranked(12, project="more", who="bob")
    with pytest.raises(InputError, match="use split_seed=1 or rank more"):
        learn.launch(fits, store, "images/more", None, None, None)
    assert learn.launch(fits, store, "images/more", None, None, " split_seed=1\n\n") == "reward"
    wait_for(lambda: fits.fit("reward").state == "fitted")


def test_likes_and_dislikes_are_told_apart_and_where_they_are_learned_from(
    store: Store, add_items: Any, fits: Fits
) -> None:
    store.add_annotator("ann")
    add_items(24, num_images=1, overlap=1)
    while item := store.next_item("ann"):
        store.submit(judge(item))
    assert learn.projects_of(store) == [
        ("default: 24 likes and dislikes of images", "images/default")
    ]
    with pytest.raises(InputError, match=r"likes and dislikes of single ones.* on Train"):
        learn.launch(fits, store, "images/default", "", "", "")


# --- how good it is


def reward_with(folder: Path, **changes: Any) -> None:
    """A fitted reward model whose report differs in this."""
    folder.parent.mkdir(exist_ok=True)
    fitted_reward(folder)
    report = json.loads((folder / "report.json").read_text())
    for name, value in changes.items():
        report[name] = value
    (folder / "report.json").write_text(json.dumps(report))
    (folder / "contract.json").write_text("{}")


def test_a_report_is_bars_with_intervals_from_chance_to_the_best_possible(tmp_path: Path) -> None:
    report = read_fit_report(fitted_reward(tmp_path / "reward"))
    found = learn.bars(report.test)
    assert [(each["name"], each["value"]) for each in found] == [
        ("chance", 0.5),
        ("zero-shot CLIP", 0.6),
        ("this reward", 0.81),
        ("annotators with each other", 0.9),
        ("best possible (Bayes-optimal)", 0.95),
    ]
    assert [each["own"] for each in found] == [False, False, True, False, False]
    assert found[2]["interval"] == (0.68, 0.92)


@pytest.mark.parametrize(
    ("interval", "gain", "said"),
    [
        ((0.68, 0.92), (0.05, 0.3), "(68 to 92 with 95 % confidence). It is good enough to align"),
        ((0.68, 0.92), (-0.01, 0.3), "It is not surely better than zero-shot CLIP"),
        ((0.48, 0.92), (0.05, 0.3), "not surely better than chance: rank more prompts"),
        (None, None, "too few of them for an interval. Rank more prompts."),
    ],
)
def test_the_verdict_says_no_more_than_the_intervals(
    tmp_path: Path, interval: Any, gain: Any, said: str
) -> None:
    report = read_fit_report(fitted_reward(tmp_path / "reward"))
    assert report.test.gain is not None
    test = replace(
        report.test,
        accuracy=replace(report.test.accuracy, by_prompt=interval),
        gain=replace(report.test.gain, by_prompt=gain),
    )
    verdict = learn.verdict(replace(report, test=test))
    assert verdict.startswith("It agrees with people on 81 of 100 pairs of prompts")
    assert said in verdict


def test_images_are_served_where_a_report_names_them_and_nowhere_else(
    store: Store, ranked: Any, tmp_path: Path
) -> None:
    ranked(1)
    (ranking,) = store.rankings()
    named, other, _ = ranking.sample_ids
    pair = {"prompt": "a house", "better": named, "worse": named, "probability": 0.1}
    reward_with(tmp_path / "runs" / "taste", disagreements=[pair])
    (tmp_path / "runs" / "taste" / "reliability.png").write_bytes(b"png")
    app = build_app(Settings(images=tmp_path / "images", runs=tmp_path / "runs"), store)
    with TestClient(app, base_url="http://127.0.0.1:7860") as client:
        found = client.get(f"/api/rewards/taste/images/{named}")
        assert found.content == store.image_path(named).read_bytes()
        assert client.get("/api/rewards/taste/picture").content == b"png"
        for path in (
            f"taste/images/{other}",
            f"other/images/{named}",
            f"..%2ftaste/images/{named}",
            "taste/images/..%2f..%2fcontract.json",
            "other/picture",
        ):
            assert client.get(f"/api/rewards/{path}").status_code in (404, 422)


def test_the_page_shows_the_newest_reward_unless_another_is_chosen(
    store: Store, fits: Fits, tmp_path: Path
) -> None:
    assert learn.view(fits, store, None) == {"fits": [], "detail": None, "judged": 0}
    pair = Judged(prompt="a cat", better="b" * 64, worse="w" * 64, probability=0.2)
    reward_with(
        tmp_path / "runs" / "old",
        disagreements=[{**vars_of(pair), "prompt": "<b>a cat</b>"}],
    )
    reward_with(tmp_path / "runs" / "new", counts={"ranked": 9, "all_bad": 0, "skipped": 3})
    (tmp_path / "runs" / "old" / "contract.json").touch()
    value = learn.view(fits, store, "new")
    assert {each["name"] for each in value["fits"]} == {"old", "new"}
    assert value["detail"]["name"] == "new"
    assert "left out: 3 skipped" in value["detail"]["facts"][0]
    chosen = learn.view(fits, store, "old")["detail"]
    assert chosen["disagreements"][0]["probability"] == 0.2
    json.dumps(value)  # it goes to the browser


def vars_of(pair: Judged) -> dict[str, Any]:
    return {name: getattr(pair, name) for name in ("prompt", "better", "worse", "probability")}
