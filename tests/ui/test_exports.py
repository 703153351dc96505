"""A checkpoint is taken home from the app: a zip in the layout of another tool, with its card."""

import io
import json
import re
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from adapter_runs import make_full_run, make_run
from lora_loaders import comfyui_patches
from PIL import Image
from provenances import provenance
from safetensors.torch import load_file
from starlette.testclient import TestClient
from submissions import judge, on_screen
from taken_files import taken

from imgalign.cli.main import main
from imgalign.errors import InputError
from imgalign.images import png
from imgalign.preferences.accounts import Accounts, Role
from imgalign.preferences.comparisons import Comparison, compare_makers
from imgalign.preferences.outcomes import Maker
from imgalign.preferences.store import Store
from imgalign.runs.exporting import Layout
from imgalign.runs.trained import weights_hash
from imgalign.statistics import Estimate
from ui import exports
from ui.app import Settings, build_app
from ui.comparing import cards, downloads
from ui.exports import layouts, offered_layout, zipped_export
from ui.runs import Runs

HERE = "http://127.0.0.1:7860"
PASSWORD = "four odd green words"
FILES = "/api/exports"


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command runs in this process, where it is imported; downloads below start one."""

    def run(*arguments: str, database: str | None) -> None:
        assert database is None
        assert main(arguments) == 0

    monkeypatch.setattr("ui.exports._run", run)


@pytest.fixture
def runs(tmp_path: Path, tiny_pipeline_folder: Path) -> Runs:
    make_run(tmp_path / "runs" / "first", tiny_pipeline_folder)
    return Runs(tmp_path / "runs")


def checkpoint_of(runs: Runs, name: str = "first") -> str:
    return f"{name}/{runs.run(name).adapters[-1]}"


def contents(path: Path) -> dict[str, int]:
    with zipfile.ZipFile(path) as file:
        return {each.filename: each.CRC for each in file.infolist()}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("layout", ["kohya", "diffusers", "peft"])
def test_it_is_the_export_of_the_command_with_its_card(
    runs: Runs, layout: Layout, tmp_path: Path
) -> None:
    path, name, _ = zipped_export(runs, checkpoint_of(runs), layout, tmp_path)
    (tmp_path / "second").mkdir()
    second, again, _ = zipped_export(runs, checkpoint_of(runs), layout, tmp_path / "second")
    with zipfile.ZipFile(path) as file:
        names = file.namelist()
        assert file.testzip() is None
        card = file.read("README.md").decode()
    folder = runs.path("first") / "export" / name.removesuffix(".zip")
    assert names == sorted(each.relative_to(folder).as_posix() for each in folder.rglob("*"))
    assert any(each.endswith(".safetensors") for each in names)
    assert "## Training" in card
    assert str(runs.folder) not in card
    assert (again, contents(second)) == (name, contents(path))


def test_a_download_is_a_file_that_comfyui_reads_and_leaves_nothing_else_behind(
    runs: Runs,
    store: Store,
    settings: Settings,
    tiny_pipeline_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    app = build_app(settings, store)
    with TestClient(app, base_url=HERE) as client:
        name, content = taken(client, f"{FILES}/{checkpoint_of(runs)}/kohya", FILES)
        assert name == "first-step-000001-kohya.zip"
        wrong = client.post(f"{FILES}/{checkpoint_of(runs)}/merged")
        assert wrong.status_code == 422
        assert "export merged: expected kohya, diffusers, peft" in wrong.json()["error"]
    assert [path.name for path in temporary.rglob("*") if path.is_file()] == [name]
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        (weights,) = (name for name in file.namelist() if name.endswith(".safetensors"))
        file.extract(weights, tmp_path)
    config = json.loads((tiny_pipeline_folder / "unet" / "config.json").read_text())
    patches, left = comfyui_patches(load_file(tmp_path / weights), config)
    assert patches
    assert not left


def voted(store: Store, runs: Runs, model: Path) -> None:
    """Nine blind votes for the checkpoint of the run, and none for its base."""
    adapter = runs.folder / checkpoint_of(runs)
    sides = ({"adapter": str(adapter), "adapter_hash": weights_hash(adapter)}, {})
    store.add_annotator("ann")
    for number in range(9):
        ids = [
            store.add_image(
                png(Image.new("RGB", (8, 8), (number, k, 0))), provenance(model=str(model), **side)
            )
            for k, side in enumerate(sides)
        ]
        store.add_item(f"prompt {number}", ids, source="test", project="default-compare")
        item = store.next_item("ann", project="default-compare")
        store.submit(judge(item, ranking=on_screen(store, item, ((0,), (1,)))))


def test_the_verdict_of_blind_votes_goes_home_with_the_winner_and_stays_in_its_run(
    runs: Runs, store: Store, settings: Settings, url: str, tiny_pipeline_folder: Path
) -> None:
    voted(store, runs, tiny_pipeline_folder)
    people = Accounts(store.database)
    roles: dict[str, Role] = {"Root": "admin", "Lea": "lead", "Ada": "annotator"}
    for name, role in roles.items():
        people.add(name, PASSWORD, role=role, group="default")
    address = f"{FILES}/{checkpoint_of(runs)}/peft"
    kept = runs.path("first") / "evaluation" / "votes.json"
    with TestClient(build_app(replace(settings, database=url), store), base_url=HERE) as client:
        assert client.post(address).status_code == 401
        client.post("/api/login", json={"name": "Ada", "password": PASSWORD})
        assert client.post(address).status_code == 403
        assert not kept.exists()
        client.post("/api/login", json={"name": "Lea", "password": PASSWORD})
        _, content = taken(client, address, FILES)
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        card = file.read("README.md").decode()
    (shown,) = compare_makers(store)
    decision = shown.decision(one="the aligned checkpoint", other="its base")
    assert decision.startswith("Decided: the aligned checkpoint is preferred, by 9 prompts")
    assert f"  {decision}\n" in card
    assert "Annotators prefer the aligned image in 100 % of 9 blind votes" in card
    assert "Not evaluated." not in card
    assert json.loads(kept.read_text())["decision"] == decision


@pytest.mark.usefixtures("here")
def test_a_run_that_cannot_be_written_to_is_taken_home_too(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("ui.exports.os.access", lambda place, how: place != runs.path("first"))
    path, name, _ = zipped_export(runs, checkpoint_of(runs), "peft", tmp_path)
    assert name == "first-step-000001-peft.zip"
    assert "README.md" in contents(path)
    assert not (runs.path("first") / "export").exists()


def test_all_weights_are_no_download(tmp_path: Path, tiny_pipeline_folder: Path) -> None:
    make_full_run(tmp_path / "runs" / "whole", tiny_pipeline_folder)
    runs = Runs(tmp_path / "runs")
    assert layouts(runs.folder / checkpoint_of(runs, "whole")) == ()
    with pytest.raises(InputError, match="expected a LoRA, got all weights of whole/"):
        offered_layout(runs, checkpoint_of(runs, "whole"), "kohya")


@pytest.mark.parametrize(
    ("file", "offered"),
    [
        ("pytorch_lora_weights.safetensors", ["kohya", "diffusers", "peft"]),
        ("adapter_model.safetensors", ["peft"]),
        ("model.safetensors", []),  # of a language model, all weights
    ],
)
def test_what_is_offered_is_what_can_be_exported(tmp_path: Path, file: str, offered: Any) -> None:
    checkpoint = tmp_path / "is it 100%?" / "step-000006"
    checkpoint.mkdir(parents=True)
    (checkpoint / file).touch()
    assert [address for _, address in exports.downloads(checkpoint)] == [
        f"api/exports/is%20it%20100%25%3F/step-000006/{layout}" for layout in offered
    ]


def compared(runs: Runs, checkpoint: str, weights: str, *, strength: float = 1.0) -> Comparison:
    half = Estimate(value=0.9, low=0.6, high=1.0)
    return Comparison(
        one=Maker("m", weights, strength),
        other=Maker("m", None),
        name="m + <b>first</b>",
        other_name="m",
        path=str(runs.folder / checkpoint),
        other_path=None,
        wins=9,
        ties=0,
        losses=1,
        both_bad=0,
        simulated=False,
        prompts=10,
        annotators=1,
        rate=half,
        counted=10,
        sequence=half,
    )


@pytest.mark.parametrize(
    ("rate", "taken"), [(0.9, ["later"]), (0.1, ["first"]), (0.5, ["later", "first"])]
)
def test_of_two_checkpoints_the_preferred_one_is_taken_home_and_each_while_that_is_open(
    runs: Runs, tiny_pipeline_folder: Path, rate: float, taken: list[str]
) -> None:
    make_run(runs.folder / "later", tiny_pipeline_folder, steps=(2,))
    places = {name: checkpoint_of(runs, name) for name in ("later", "first")}
    later, first = (
        Maker("m", weights_hash(runs.folder / place), 0.6 if name == "first" else 1.0)
        for name, place in places.items()
    )
    share = Estimate(value=rate, low=rate - 0.1, high=rate + 0.1)
    found = replace(
        compared(runs, places["later"], str(later.weights)),
        other=first,
        other_path=str(runs.folder / places["first"]),
        rate=share,
        sequence=share,
    )
    shown = downloads(runs, found)
    assert re.findall(r"Take (\w+)/", shown) == taken
    assert {place in shown for name, place in places.items() if name in taken} == {True}
    assert not any(place in shown for name, place in places.items() if name not in taken)
    assert ("to be used at strength 0.6" in shown) == ("first" in taken)


def test_a_base_that_won_leaves_nothing_to_take_home(runs: Runs) -> None:
    checkpoint = checkpoint_of(runs)
    found = compared(runs, checkpoint, weights_hash(runs.folder / checkpoint))
    lost = Estimate(value=0.1, low=0.0, high=0.4)
    assert downloads(runs, replace(found, rate=lost, sequence=lost)) == ""


def test_a_winner_can_be_taken_home_while_its_weights_are_the_ones_that_won(runs: Runs) -> None:
    checkpoint = checkpoint_of(runs)
    weights = weights_hash(runs.folder / checkpoint)
    found = compared(runs, checkpoint, weights)
    assert f'data-take="api/exports/{checkpoint}/kohya"' in downloads(runs, found)
    assert "strength" not in downloads(runs, found)
    weak = compared(runs, checkpoint, weights, strength=0.6)
    assert "<span>to be used at strength 0.6</span>" in downloads(runs, weak)
    assert downloads(runs, compared(runs, checkpoint, "0" * 64)) == ""
    assert downloads(runs, compared(runs, "../elsewhere/step-000001", weights)) == ""
    assert f"Take {checkpoint} home for" in downloads(runs, found)
    shown = cards([found], offered=lambda each: downloads(runs, each))
    assert 'data-state="won"' in shown
    assert "<b>first" not in shown
    assert "Decided: m + &lt;b&gt;first&lt;/b&gt; is preferred, by 10 prompts" in shown
