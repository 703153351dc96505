"""The Generate page compares several checkpoints, takes turns, and says what it is doing."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from adapter_runs import make_full_run, make_run

from imgalign.diffusion.generate import ImageGenerator
from imgalign.errors import InputError
from imgalign.images import png
from imgalign.preferences.makers import read_makers
from imgalign.preferences.records import SamplerSettings
from imgalign.preferences.store import Store
from ui import generation, image_request, sending
from ui.runs import Runs
from ui.shelf import Shelf
from ui.turns import Turns

LORA, LATER, FULL = "lora/step-000010", "lora/step-000020", "full/step-000010"


@pytest.fixture(scope="module")
def runs(tiny_pipeline_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    make_run(folder / "lora", tiny_pipeline_folder, steps=(10, 20))
    make_full_run(folder / "full", tiny_pipeline_folder, steps=(10,))
    return folder


def views_of(
    runs: Path, model: Path, shelf: Shelf, *chosen: str, loaded: Any = None, **form: Any
) -> list[dict[str, Any]]:
    first, *more = chosen or ("",)
    settings = {"count": 2, "steps": 3, "guidance": 1.0, **form}
    request = image_request.requested(first, "a red house\na blue boat", 5, more=more, **settings)
    found = generation.generate(
        request,
        model=str(model),
        runs=Runs(runs),
        shelf=shelf,
        loaded=loaded or generation.LoadedModels(),
    )
    return [json.loads(json.dumps(view)) for view in found]


@pytest.fixture(scope="module")
def compared(runs: Path, tiny_pipeline_folder: Path) -> tuple[Shelf, list[dict[str, Any]]]:
    """A shelf, and the views of two checkpoints of a LoRA and one of all weights."""
    shelf = Shelf()
    return shelf, views_of(runs, tiny_pipeline_folder, shelf, LORA, FULL, LATER)


def test_each_checkpoint_is_a_row_from_the_same_noise(
    compared: Any, runs: Path, tiny_pipeline_folder: Path
):
    shelf, views = compared
    value = views[-1]
    assert (value["done"], value["total"]) == (16, 16)
    assert [(row["name"], row["checkpoint"]) for row in value["rows"]] == [
        *[("Base", ""), ("lora, iteration 10", LORA)],
        *[("full, iteration 10", FULL), ("lora, iteration 20", LATER)],
    ]
    cells = [cell for group in value["groups"] for cell in group["seeds"]]
    pngs = {
        row["key"]: [shelf.get(cell[row["key"]]).png for cell in cells] for row in value["rows"]
    }
    for row in value["rows"]:
        weights = runs / row["checkpoint"] if row["checkpoint"] else None
        alone = ImageGenerator(str(tiny_pipeline_folder), weights).generate(
            ["a red house", "a red house", "a blue boat", "a blue boat"],
            seeds=[5, 6, 5, 6],
            settings=SamplerSettings(num_inference_steps=3),
        )
        assert [png(made.image) for made in alone] == pngs[row["key"]]
    assert len({tuple(images) for images in pngs.values()}) == 4
    assert generation.restore(shelf, json.dumps(value)) == value


def test_before_the_first_image_the_page_says_what_it_does_and_then_how_long_it_takes(
    runs: Path, tiny_pipeline_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(generation, "SECONDS_BETWEEN_VIEWS", 0.0)
    views = views_of(runs, tiny_pipeline_folder, Shelf(), LORA)
    before = [view["doing"] for view in views if not view["done"]]
    assert before == [
        "Loading the base model",
        "Drawing with the base model",
        *(f"Drawing with the base model, step {step} of 3 of 4 images" for step in (1, 2, 3)),
    ]
    shares = [view["share"] for view in views]
    assert shares == sorted(shares)
    assert shares[2:5] == pytest.approx([4 / 8 * step / 3 for step in (1, 2, 3)])
    assert all(view["seconds_left"] is None for view in views if not view["done"])
    assert all(view["seconds_left"] >= 0 for view in views if view["done"])
    assert views[-1]["seconds_left"] == 0
    assert "Drawing with lora, iteration 10, step 2 of 3 of 4 images" in [
        view["doing"] for view in views
    ]


def test_a_second_page_says_at_once_that_another_is_drawing_and_comes_next(
    runs: Path, tiny_pipeline_folder: Path
):
    loaded, views = generation.LoadedModels(), []
    with loaded.turns.turn(lambda ahead: None):
        request = image_request.requested("", "a fox", 5, 1, 3, 1.0)
        found = generation.generate(
            request,
            model=str(tiny_pipeline_folder),
            runs=Runs(runs),
            shelf=Shelf(),
            loaded=loaded,
        )
        views.append(next(found))
    views += found
    assert views[0]["doing"] == "Another page is drawing; yours comes next"
    assert views[-1]["done"] == 1


def test_those_who_wait_are_served_in_order_and_one_who_leaves_holds_nobody_up():
    turns, served, seen = Turns(), [], []
    waiting, leave = threading.Barrier(2), threading.Event()

    def take(name: str) -> None:
        told = []

        def wait(ahead: int) -> None:
            if not told:
                told.append(ahead)
                seen.append((name, ahead))
                waiting.wait()
            if name == "second" and leave.is_set():
                raise generation.Stopped

        try:
            with turns.turn(wait):
                served.append(name)
        except generation.Stopped:
            served.append("left")

    threads = []
    with turns.turn(lambda ahead: None):
        for name in ("first", "second", "third"):
            threads.append(threading.Thread(target=take, args=(name,)))
            threads[-1].start()
            waiting.wait()
        leave.set()
        threads[1].join(20)
        assert served == ["left"]
    for thread in threads:
        thread.join(20)
    assert seen == [("first", 1), ("second", 2), ("third", 3)]
    assert served == ["left", "first", "third"]


def test_a_page_that_stops_ends_the_work_within_a_step_and_lets_the_next_draw(
    runs: Path, tiny_pipeline_folder: Path
):
    loaded, shelf = generation.LoadedModels(), Shelf()
    request = image_request.requested("", "a fox", 5, 100, 200, 1.0)
    found = generation.generate(
        request, model=str(tiny_pipeline_folder), runs=Runs(runs), shelf=shelf, loaded=loaded
    )
    while "step" not in next(found)["doing"]:
        pass
    found.close()
    assert views_of(runs, tiny_pipeline_folder, shelf, loaded=loaded)[-1]["done"] == 4


def test_one_checkpoint_is_compared_at_several_strengths_which_are_told_apart(
    runs: Path, tiny_pipeline_folder: Path, store: Store
):
    shelf = Shelf()
    strengths = [1.0, 0.6, 0.0]
    value = views_of(
        runs, tiny_pipeline_folder, shelf, LORA, LORA, LORA, strengths=strengths, count=1
    )[-1]
    names = ["Base", *(f"lora, iteration 10{at}" for at in ("", " at 0.6", " at 0"))]
    assert [row["name"] for row in value["rows"]] == names
    keys = [row["key"] for row in value["rows"]]
    cell = value["groups"][0]["seeds"][0]
    kept = [shelf.get(cell[key]) for key in keys]
    assert kept[0].png == kept[3].png  # at 0 it is the base
    assert len({each.png for each in kept}) == 3
    assert [each.provenance.strength for each in kept] == [1.0, 1.0, 0.6, 1.0]
    sent = sending.send(store, shelf, value, how=sending.PAIRS, overlap=1, project="tests")
    assert sent.new == 4  # two prompts, of each the base and two that are not the base
    found = {str(name).rpartition("/")[2] for name in read_makers(store).names.values()}
    assert found == {tiny_pipeline_folder.name, "step-000010", "step-000010 at 0.6"}


@pytest.mark.parametrize(
    ("chosen", "strengths", "message"),
    [
        ((LORA, LORA), (0.5, 0.5), "lora, iteration 10 at 0.5 is chosen twice"),
        ((FULL,), (0.5,), "full, iteration 10 at 0.5: strength: expected 1, got 0.5: .* has all"),
        ((LORA,), (2.5,), "lora, iteration 10 at 2.5: strength: expected 0 to 2, got 2.5"),
    ],
)
def test_a_strength_that_cannot_be_is_said(
    runs: Path,
    tiny_pipeline_folder: Path,
    chosen: tuple[str, ...],
    strengths: tuple[float, ...],
    message: str,
):
    with pytest.raises(InputError, match=message):
        views_of(runs, tiny_pipeline_folder, Shelf(), *chosen, strengths=strengths)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ((LORA, LORA), "lora, iteration 10 is chosen twice"),
        ((LORA, LATER, FULL, "more/step-000010"), "at most 3 checkpoints, got 4"),
        ((LORA, "gone/step-000010"), "no such run"),
        ((LORA, "lora/step-000030"), "no such checkpoint any more"),
    ],
)
def test_what_cannot_be_compared_is_said(
    runs: Path, tiny_pipeline_folder: Path, chosen: tuple[str, ...], message: str
):
    with pytest.raises(InputError, match=message):
        views_of(runs, tiny_pipeline_folder, Shelf(), *chosen)


def test_checkpoints_of_two_models_share_no_base(tmp_path: Path, tiny_pipeline_folder: Path):
    other = tmp_path / "other"
    other.symlink_to(tiny_pipeline_folder)
    make_run(tmp_path / "runs" / "one", tiny_pipeline_folder, steps=(10,))
    make_run(tmp_path / "runs" / "two", other, steps=(10,))
    with pytest.raises(InputError, match=r"two, iteration 10 was trained from .*other, and one"):
        views_of(
            tmp_path / "runs", tiny_pipeline_folder, Shelf(), "one/step-000010", "two/step-000010"
        )


def test_rows_of_checkpoints_count_among_the_most_at_a_time():
    form = ("a/step-000010", "a house", 0, 32, 20, 1.0)
    assert image_request.requested(*form, more=["b/step-000010", "c/step-000010", ""])
    with pytest.raises(InputError, match="160 images: expected at most 128"):
        image_request.requested(
            "a/step-000010", "a house", 0, 40, 20, 1.0, more=["b/step-000010", "c/step-000010"]
        )


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (sending.PAIRS, [{"", LORA}, {"", FULL}, {"", LATER}]),
        (sending.CHECKPOINTS, [{LORA, FULL}, {LORA, LATER}, {FULL, LATER}]),
        (sending.TOGETHER, [{"", LORA, FULL, LATER}]),
    ],
)
def test_any_number_of_rows_is_sent_in_pairs_or_together(
    compared: Any, runs: Path, store: Store, how: str, expected: list[set[str]]
):
    shelf, views = compared
    sent = sending.send(store, shelf, views[-1], how=how, overlap=1)
    assert (sent.new, sent.known) == (4 * len(expected), 0)
    store.add_annotator("Ada")
    held: list[str] = []
    found = []
    while item := store.next_item("Ada", holding=held):
        held.append(item.item_id)
        made = [store.provenance(store.image_for_token(token, "Ada").stem) for token in item.tokens]
        assert len({each.seed for each in made}) == 1
        names = {
            "" if each.adapter is None else str(Path(each.adapter).relative_to(runs))
            for each in made
        }
        found.append(names)
    assert sorted(map(sorted, found)) == sorted(map(sorted, expected * 4))


def test_sending_again_stores_nothing_twice_and_says_so(compared: Any, store: Store):
    shelf, views = compared
    first, again, larger = (
        sending.send(store, shelf, views[-1], how=how, overlap=1, project="tests")
        for how in (sending.PAIRS, sending.PAIRS, sending.TOGETHER)
    )
    assert first.line() == "Stored 12 items in the project tests"
    assert again.line() == "Nothing was sent again: 12 items are in the project tests"
    assert (larger.new, larger.known) == (4, 0)
    store.add_annotator("Ada")
    assert store.counts("Ada", project="tests").left == 16
    assert store.counts("Ada").left == 0


def test_two_who_press_send_at_once_store_it_once(compared: Any, store: Store):
    shelf, views = compared
    sent: list[sending.Sent] = []

    def press() -> None:
        sent.append(sending.send(store, shelf, views[-1], how=sending.PAIRS, overlap=1))

    threads = [threading.Thread(target=press) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted((each.new, each.known) for each in sent) == [(0, 12), (0, 12), (12, 0)]


def test_comparisons_are_proposed_a_project_of_their_own(store: Store):
    proposed = [sending.proposed_project(how, "cats") for how in (sending.PAIRS, sending.TOGETHER)]
    assert proposed == ["cats-compare", "cats"]
    assert sending.proposed_project(sending.CHECKPOINTS, "cats-compare") == "cats-compare"
    assert sending.projects(store, "cats") == ["cats", "cats-compare"]


def test_images_of_base_and_checkpoint_are_only_mixed_where_somebody_asks_for_it():
    base = {"key": "a", "checkpoint": None, "rewritten": False}
    run = {"key": "b", "checkpoint": "runs/first/step-000010", "rewritten": False}
    other = run | {"key": "c", "checkpoint": "runs/second/step-000010"}
    pairs, together = sending.PAIRS, sending.TOGETHER
    assert sending.way_for([base, run], together) == pairs
    assert sending.way_for([base], together) == sending.way_for([base], pairs) == together
    assert sending.way_for([base, run, other], sending.CHECKPOINTS) == sending.CHECKPOINTS
    assert sending.way_for([base, run], sending.CHECKPOINTS) == pairs
    assert sending.way_for([base, run], sending.REWRITES) == pairs


def test_a_project_needs_a_name_and_its_own_length(compared: Any, store: Store):
    shelf, views = compared
    for project, message in ((" ", "project: choose one"), ("x" * 300, "project: .* 200")):
        with pytest.raises(InputError, match=message):
            sending.send(store, shelf, views[-1], how=sending.PAIRS, overlap=1, project=project)
