"""Images of the Generate page as files: their names tell prompt and seed, and no model."""

import hashlib
import io
import json
import zipfile
from pathlib import Path

import fastapi
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from provenances import provenance

from imgalign.preferences.accounts import Accounts
from imgalign.preferences.records import Provenance
from imgalign.preferences.store import Store
from ui.api import studio
from ui.api.responses import add_error_handlers
from ui.download import file_name
from ui.pulse import Pulse
from ui.runs import Runs
from ui.shelf import Shelf


def put(shelf: Shelf, shade: int, made: Provenance) -> str:
    return shelf.put(Image.new("RGB", (8, 8), (shade, 0, 0)), made)


def client(store: Store, shelf: Shelf, folder: Path) -> TestClient:
    app = fastapi.FastAPI()
    add_error_handlers(app)
    runs = Runs(folder)
    people, pulse = Accounts(store.database), Pulse(runs, (), store)
    app.include_router(studio.router(runs, shelf, people, pulse, server="x"))
    return TestClient(app)


SECRET = {"model": "SECRET-MODEL", "adapter": "runs/SECRET-RUN", "adapter_hash": "SECRET-HASH"}


@pytest.mark.parametrize(
    ("prompt", "begins"),
    [
        ("a red house", "a-red-house-seed7-"),
        ("../../etc/passwd", "etc-passwd-seed7-"),
        ("ein großer Fuchs, “rot”", "ein-großer-Fuchs-rot-seed7-"),
        ("!?", "image-seed7-"),
        ("x" * 300, f"{'x' * 48}-seed7-"),
    ],
)
def test_a_file_name_tells_prompt_and_seed_and_nothing_of_the_model(prompt: str, begins: str):
    shelf = Shelf()
    kept = shelf.get(put(shelf, 1, provenance(prompt=prompt, seed=7, **SECRET)))
    assert file_name(kept) == f"{begins}{hashlib.sha256(kept.png).hexdigest()[:6]}.png"


def test_an_image_of_a_rewrite_is_named_by_what_was_asked():
    shelf = Shelf()
    made = provenance(prompt="a red house in snow", original_prompt="a house", rewriter="r", seed=3)
    assert file_name(shelf.get(put(shelf, 1, made))).startswith("a-house-seed3-")


def test_one_image_comes_as_a_file_of_its_name(store: Store, tmp_path: Path):
    shelf = Shelf()
    image_id = put(shelf, 1, provenance(prompt="ein Fuß", seed=7, **SECRET))
    found = client(store, shelf, tmp_path).get(f"/api/generated/{image_id}/file")
    assert found.content == shelf.get(image_id).png
    assert found.headers["content-disposition"].startswith(
        "attachment; filename*=UTF-8''ein-Fu%C3%9F-seed7-"
    )
    assert "SECRET" not in str(found.headers)


def test_a_view_comes_as_a_zip_with_how_each_image_was_made(store: Store, tmp_path: Path):
    shelf = Shelf()
    first = provenance(prompt="a red house", seed=1, model="m")
    second = provenance(prompt="a red house", seed=1, **SECRET)
    ids = [put(shelf, 1, first), put(shelf, 2, second), put(shelf, 2, second)]
    found = client(store, shelf, tmp_path).get(
        "/api/generated-files", params={"ids": ",".join(ids)}
    )
    with zipfile.ZipFile(io.BytesIO(found.content)) as file:
        names = file.namelist()
        facts = json.loads(file.read("provenance.json"))
        assert not any("SECRET" in name for name in names)
        assert {file.read(name) for name in names if name.endswith(".png")} == {
            shelf.get(each).png for each in ids
        }
    assert sorted({each["file"] for each in facts}) == sorted(set(names) - {"provenance.json"})
    assert sorted((each["model"], each["adapter_hash"]) for each in facts)[0] == (
        "SECRET-MODEL",
        "SECRET-HASH",
    )
    assert all(each["seed"] == 1 and each["steps"] == first.steps for each in facts)


def test_an_image_that_is_not_kept_any_more_is_said(store: Store, tmp_path: Path):
    for path in ("/api/generated/gone/file", "/api/generated-files?ids=gone"):
        found = client(store, Shelf(), tmp_path).get(path)
        assert (found.status_code, "generate it again" in found.json()["error"]) == (422, True)
