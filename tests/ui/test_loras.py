"""Claims: a LoRA that somebody was sent is kept where it fits the model, and drawn with as a
checkpoint is, also after a restart; a file that does not is one line, and nothing of it stays."""

import io
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_runs import make_run
from lora_files import ATTENTION, diffusers, kohya, random_matrices, write, write_peft_folder
from safetensors.torch import save
from served_app import built
from starlette.testclient import TestClient

from imgalign.diffusion.export import export_weights
from imgalign.diffusion.loading import load_pipeline
from imgalign.errors import InputError
from imgalign.preferences.store import Store
from ui import generation, image_request, loras
from ui.app import Settings
from ui.download import zip_folder
from ui.loras import Loras
from ui.runs import Runs
from ui.shelf import Shelf

HERE = "http://127.0.0.1:7860"


@pytest.fixture(scope="module")
def unet(tiny_pipeline_folder: Path) -> Any:
    return load_pipeline(str(tiny_pipeline_folder), device=torch.device("cpu")).unet


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path / "runs")


@pytest.fixture
def kept(runs: Runs, tiny_pipeline_folder: Path) -> Loras:
    return Loras(runs, str(tiny_pipeline_folder))


def take(kept: Loras, name: str, content: bytes) -> str:
    folder = kept.begin()
    try:
        (folder / "sent").write_bytes(content)
        return kept.take(folder / "sent", name)
    finally:
        shutil.rmtree(folder)


def zipped(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def drawn(runs: Runs, model: str, chosen: str, shelf: Shelf) -> list[bytes]:
    """The image of the base, and that of what is chosen."""
    request = image_request.requested(chosen, "a red house", 5, 1, 3, 1.0)
    loaded = generation.LoadedModels()
    *_, view = generation.generate(request, model=model, runs=runs, shelf=shelf, loaded=loaded)
    (cell,) = view["groups"][0]["seeds"]
    return [shelf.get(cell[key]).png for key in ("base", "aligned")]


@pytest.mark.parametrize("layout", ["diffusers", "kohya", "peft"])
def test_what_an_export_holds_draws_as_the_checkpoint_does(
    layout: Any, runs: Runs, kept: Loras, tiny_pipeline_folder: Path, tmp_path: Path
):
    make_run(runs.folder / "first", tiny_pipeline_folder)
    (runs.folder / "first" / "status.json").write_text(
        json.dumps({"state": "finished", "pid": 1, "step": 1, "total": 1})
    )
    made = export_weights(
        runs.folder / "first", layout, card=lambda _: "a card", out=tmp_path / "made"
    )
    zip_folder(tmp_path / "made.zip", made.folder)
    sent = (tmp_path / "made.zip").read_bytes()
    assert take(kept, f"style-{layout}.zip", sent) == f"style-{layout}"
    assert take(kept, "under another name.zip", sent) == f"style-{layout}"  # the answer was lost
    assert kept.names() == [f"style-{layout}"]
    # A restart: all of it is on the disk.
    again, shelf = Runs(runs.folder), Shelf()
    value = dict(Loras(again, "another model").offered())[f"style-{layout}"]
    base, image = drawn(again, "another model", value, shelf)
    assert drawn(again, "storybook", "first/step-000001", shelf) == [base, image]
    assert base != image


def test_a_file_of_matrices_is_taken_as_it_is_and_removed_again(kept: Loras, runs: Runs, unet: Any):
    matrices = random_matrices(unet, ATTENTION)
    assert take(kept, "a/../my style.safetensors", save(diffusers(matrices))) == "a_my style"
    assert take(kept, "second.safetensors", save(kohya(matrices))) == "second"
    assert dict(kept.offered()).keys() >= {"a_my style", "second"}
    assert runs.names() == []  # no run is called so
    kept.remove("second")
    assert kept.names() == ["a_my style"]
    with pytest.raises(InputError, match="second: no such LoRA any more"):
        kept.remove("second")
    with pytest.raises(InputError, match="no such LoRA any more"):
        generation.plan(
            image_request.requested(".loras/second", "a", 1, 1, 1, 1.0), model="m", runs=runs
        )


@pytest.mark.parametrize("name", ["..", "../x", "", ".", ".new-0", "a/b", "/etc"])
def test_only_what_was_kept_is_found_or_removed(kept: Loras, name: str):
    kept.begin()
    with pytest.raises(InputError, match="no such LoRA"):
        kept.remove(name)
    assert len(list(kept.folder.iterdir())) == 1


def test_what_does_not_fit_says_what_was_expected_and_leaves_nothing(
    kept: Loras, unet: Any, tmp_path: Path
):
    matrices = random_matrices(unet, ATTENTION)
    name, (down, up) = next(iter(matrices.items()))
    larger = {**matrices, name: (torch.zeros(2, 7), up)}
    elsewhere = {f"elsewhere.{name}": (down, up)}
    peft = write_peft_folder(tmp_path / "peft", matrices)
    good = save(diffusers(matrices))
    of_peft = (peft / "adapter_model.safetensors").read_bytes()
    for sent, content, said in (
        ("a.safetensors", save(diffusers(larger)), r"size mismatch at .*: expected matrices of"),
        ("a.safetensors", save(diffusers(elsewhere)), "2 of the adapter's 2 matrices have no plac"),
        ("a.safetensors", save({"x": down}), "expected LoRA matrices only, got x as well"),
        ("a.safetensors", b"\x80\x04\x95pickle", "cannot read"),
        ("a.safetensors", of_peft, "expected adapter_config.json beside it"),
        (
            "a.zip",
            zipped(**{"x.safetensors": of_peft, "adapter_config.json": b"{"}),
            "expected json",
        ),
        ("a.zip", zipped(**{"a.safetensors": good, "b.safetensors": good}), "got 2"),
        ("a.zip", zipped(**{"a.bin": good}), "expected one .safetensors file in it.*got 0"),
        ("a.zip", b"PK none", "expected a zip archive that can be read"),
        ("a.bin", good, "expected a LoRA as a .safetensors file"),
        ("safetensors", good, "expected a LoRA as a .safetensors file"),
    ):
        with pytest.raises(InputError, match=said) as raised:
            take(kept, sent, content)
        assert str(raised.value).startswith(f"{sent}: ")
        assert "\n" not in str(raised.value)
        assert str(tmp_path) not in str(raised.value).replace(kept.model, "")
        assert list(kept.folder.iterdir()) == []


def test_names_sizes_and_numbers_are_bounded(
    kept: Loras, unet: Any, monkeypatch: pytest.MonkeyPatch
):
    first = save(diffusers(random_matrices(unet, ATTENTION)))
    other = save(diffusers(random_matrices(unet, ("to_q",))))
    take(kept, "a.safetensors", first)
    with pytest.raises(InputError, match="there is another LoRA of that name; rename the file"):
        take(kept, "a.safetensors", other)
    monkeypatch.setattr(loras, "MOST", 1)
    with pytest.raises(InputError, match="expected at most 1 LoRAs of 8 GB in all, got more"):
        take(kept, "b.safetensors", other)
    monkeypatch.setattr(loras, "LARGEST", 1000)
    with pytest.raises(InputError, match="expected at most 0 MB, got more; send a smaller one"):
        take(kept, "b.zip", zipped(**{"b.safetensors": other}))
    assert kept.names() == ["a"]


def test_it_is_sent_in_a_browsers_request_and_leads_to_nothing_where_it_is_refused(
    store: Store, runs: Runs, unet: Any, tiny_pipeline_folder: Path, tmp_path: Path
):
    settings = Settings(images=store.images.root, runs=runs.folder, model=str(tiny_pipeline_folder))
    content = save(diffusers(random_matrices(unet, ATTENTION)))
    with TestClient(built(settings, store), base_url=HERE) as client:
        answer = client.post("/api/loras?name=<b>style.safetensors", content=content)
        assert answer.json() == {"name": "_b_style"}
        answer = client.post("/api/loras?name=style.safetensors", content=content[:-1])
        assert answer.status_code == 422
        assert "style.safetensors: expected a LoRA of the model" in answer.json()["error"]
    assert [path.name for path in (runs.folder / ".loras").iterdir()] == ["_b_style"]


def test_a_lora_that_is_damaged_meanwhile_is_one_line(kept: Loras, runs: Runs, unet: Any):
    take(kept, "a.safetensors", save(diffusers(random_matrices(unet, ATTENTION))))
    write(kept.folder / "a" / "lora.json", {"x": torch.zeros(1)})
    request = image_request.requested(".loras/a", "a", 1, 1, 1, 1.0)
    with pytest.raises(InputError, match="a: damaged; remove it, and send its file again"):
        generation.plan(request, model="m", runs=runs)
