"""The form of the Candidates page: what it asks for, what it refuses, what it predicts."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from adapter_runs import make_run
from PIL import Image
from texts import add_texts

from imgalign.errors import InputError
from imgalign.preferences.store import Store
from ui import batch_request
from ui.batch_asked import Asked
from ui.batch_request import Form
from ui.batches import Batches
from ui.runs import Runs


def small_image(number: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), (number, 0, 0)).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def batches(tmp_path: Path) -> Batches:
    return Batches(Runs(tmp_path / "runs"))


@pytest.fixture
def ask(store: Store, batches: Batches, tmp_path: Path) -> Callable[..., Asked]:
    def asked(**changes: Any) -> Asked:
        form = Form(**({"prompts": "a fox\na cat"} | changes))
        runs = Runs(tmp_path / "runs")
        return batch_request.asked(form, store=store, runs=runs, batches=batches)

    return asked


def test_prompts_are_read_as_those_of_a_file(ask: Callable[..., Asked]):
    found = ask(prompts="a fox\n\n  a cat \na fox\n# a remark\n\\#1 hit", first_seed="7")
    assert found.prompts == ("a fox", "a cat", "#1 hit")
    assert (found.num_images, found.first_seed, found.model) == (12, 7, "storybook")
    assert found.title == "3 prompts, 12 images by storybook"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prompts": " \n"}, "prompts: write at least one, one per line"),
        ({"prompts": None}, "prompts: write at least one"),
        ({"prompts": "# only a remark"}, "prompts: expected at least one prompt"),
        ({"prompts": "a\x07b"}, "prompts, line 1: expected text, got the control character"),
        ({"per_prompt": 0}, "candidates of a prompt: expected a whole number from 1 to 9, got 0"),
        ({"per_prompt": 10}, "from 1 to 9, got 10"),
        ({"per_prompt": None}, "candidates of a prompt: expected a whole number"),
        ({"first_seed": "-1"}, "first seed: expected a whole number from 0"),
        ({"first_seed": str(2**53)}, "first seed: expected a whole number from 0"),
        ({"steps": 0}, "steps: expected a whole number from 1 to 200, got 0"),
        ({"guidance": 0.5}, "guidance: expected 1 (off) to 20, got 0.5"),
        ({"overlap": 99}, "annotators per set: expected a whole number from 1 to 50, got 99"),
        ({"project": " "}, "project: choose one, or write the name of a new one"),
        ({"project": "../etc"}, "project '../etc': expected letters, digits"),
        ({"project": "-rf"}, "project '-rf': expected letters, digits"),
        ({"project": "cats-compare"}, "choose another, such as cats"),
        ({"model": ""}, "made by: choose a model or a checkpoint"),
        ({"model": "./nowhere"}, "made by: ./nowhere: no such folder; name one that is there"),
        ({"prompts": "\n".join(f"fox {n}" for n in range(6000))}, "24,000 images: expected at"),
        ({"source": "images"}, "images: name a folder of this machine, or send images"),
        ({"source": "images", "place": "/nowhere"}, "expected a folder of images, got nothing"),
        ({"source": "images", "upload": "../../etc"}, "upload: not there any more"),
        ({"source": "texts"}, "texts: name a table of this machine"),
        ({"source": "texts", "place": "/nowhere.jsonl"}, "expected a table of texts, got nothing"),
        ({"source": "texts", "place": __file__}, "expected a table, .jsonl or .parquet, got '.py'"),
    ],
)
def test_what_cannot_be_is_one_line(ask: Callable[..., Asked], changes: Any, said: str):
    with pytest.raises(InputError) as refused:
        ask(**changes)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_project_of_another_kind_is_refused(
    ask: Callable[..., Asked], store: Store, add_items: Any, tmp_path: Path
):
    add_texts(store, ["a", "b"], project="words")
    add_items(1, project="Ada's häuser, 2")
    with pytest.raises(InputError, match="project words: expected one of images, got one of texts"):
        ask(project="words")
    assert ask(project="Ada's häuser, 2").project == "Ada's häuser, 2"  # it is there already
    table = tmp_path / "t.jsonl"
    table.write_text(json.dumps({"prompt": "a", "completions": ["b", "c"]}))
    with pytest.raises(InputError, match="expected one of texts, got one of images"):
        ask(source="texts", place=str(table), project="Ada's häuser, 2")
    assert ask(source="texts", place=str(table), project="words").place == str(table)
    assert batch_request.projects(store, "default") == ["default", "Ada's häuser, 2", "words"]


def test_a_folder_that_is_no_model_is_refused(ask: Callable[..., Asked], tmp_path: Path):
    with pytest.raises(InputError, match="expected a folder in diffusers' layout"):
        ask(model=str(tmp_path))


def test_images_of_a_folder_are_counted(
    ask: Callable[..., Asked], store: Store, batches: Batches, tmp_path: Path
):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "1.png").write_bytes(small_image(1))
    with pytest.raises(InputError, match="expected two or more images of a prompt"):
        ask(source="images", place=str(folder))
    alone = ask(source="images", place=str(folder), per_prompt=1)
    lines = {each.term: each.text for each in batch_request.outlook(alone, store, batches)}
    assert lines["Work"] == "1 image, one by one, to like or dislike"
    (folder / "2.png").write_bytes(small_image(2))
    found = ask(source="images", place=str(folder))
    lines = {each.term: each.text for each in batch_request.outlook(found, store, batches)}
    assert lines["Work"] == "2 images, up to 4 of a prompt together"
    assert found.title == "Images from mine"


def test_what_it_will_cost_is_said_before(
    ask: Callable[..., Asked], store: Store, batches: Batches
):
    found = ask(per_prompt=3, steps=10, overlap=2)
    lines = {each.term: each.text for each in batch_request.outlook(found, store, batches)}
    assert lines["Work"] == "2 prompts, 6 images, 60 sampling steps"
    assert lines["To rank"] == "4 sets of 3"
    alone = batch_request.outlook(ask(per_prompt=1, overlap=2), store, batches)
    assert "4 one by one, to like or dislike" in [each.text for each in alone]
    assert "on two cores" in lines["Time"]
    assert lines["Disk"].startswith("about 29 kB; ")  # of 64 x 64 pixels each
    unknown = batch_request.outlook(found, store, batches, at_once=True)
    assert any(each.text.endswith("are free") for each in unknown)


def test_prompts_that_are_longer_than_the_model_reads_are_said_before(ask: Callable[..., Asked]):
    long = "a red cat " * 60
    (said,) = batch_request.remarks(ask(prompts=f"a fox\n{long}"))
    assert said.startswith('1 prompt is longer than this model reads: of "a red cat ')
    assert "has no effect; shorten it" in said
    assert batch_request.remarks(ask()) == []
    assert batch_request.unread({"a": "b", "c": "d"})[0].endswith("shorten them")


def test_a_checkpoint_of_a_run_makes_them_with_the_model_of_its_run(
    ask: Callable[..., Asked], tiny_pipeline_folder: Path, tmp_path: Path
):
    run = make_run(tmp_path / "runs" / "first", tiny_pipeline_folder, steps=(1, 2))
    status = {"state": "finished", "pid": 1, "step": 2, "total": 2}
    (run / "status.json").write_text(json.dumps(status))
    makers = batch_request.makers(Runs(tmp_path / "runs"), "storybook")
    assert makers == [
        ("storybook", "storybook"),
        ("first, iteration 2", "first/step-000002"),
        ("first, iteration 1", "first/step-000001"),
    ]
    found = ask(model="first/step-000002")
    assert (found.model, found.maker) == ("", "first, iteration 2")
    assert found.adapter == str(run / "step-000002")
    long = "house " * 100
    assert len(batch_request.remarks(ask(model="first/step-000002", prompts=long))) == 1
    with pytest.raises(InputError, match="first/step-000009: no such checkpoint any more"):
        ask(model="first/step-000009")
