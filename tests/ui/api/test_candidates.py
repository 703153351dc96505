"""Routes of the Candidates page: small images of a batch, and what is sent in pieces."""

import io
import json
from dataclasses import asdict

import pytest
from PIL import Image
from starlette.testclient import TestClient

from imgalign.preferences.accounts import Accounts
from ui.api import candidates
from ui.app import Settings, build_app
from ui.batch_asked import Asked

HERE = "http://127.0.0.1:7860"


def small_image(number: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), (number, 0, 0)).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def client(store, tmp_path):
    app = build_app(Settings(images=tmp_path / "images", runs=tmp_path / "runs"), store)
    with TestClient(app, base_url=HERE) as client:
        yield client


@pytest.fixture
def batch(tmp_path, add_items):
    """A batch on disk that has queued one item of two."""
    first, _ = add_items(2, size=200)
    folder = tmp_path / "runs" / ".candidates"
    folder.mkdir(parents=True)
    asked = Asked(source="prompts", project="default", per_prompt=4, prompts=("a house",))
    (folder / "batch-1.asked").write_text(json.dumps(asdict(asked)))
    (folder / "batch-1.items").write_text(f"{first}\n")
    return "batch-1"


def test_only_images_that_a_batch_queued_are_shown_small(client, batch, store, add_items):
    from imgalign.preferences.stored import item_samples

    ids = add_items(2, size=200)  # the same again
    (mine, other) = item_samples(store, ids)
    answer = client.get(f"/api/candidates/{batch}/images/{mine.sample_ids[0]}")
    assert answer.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(answer.content)).size == (160, 160)
    for path in (
        f"{batch}/images/{other.sample_ids[0]}",
        f"{batch}/images/..%2F..%2Fimgalign.db",
        f"batch-9/images/{mine.sample_ids[0]}",
        f"..%2Fx/images/{mine.sample_ids[0]}",
    ):
        assert client.get(f"/api/candidates/{path}").status_code in (404, 422), path


def test_files_are_sent_one_by_one(client, tmp_path):
    upload = client.post("/api/candidates/uploads").json()["upload"]
    path = f"/api/candidates/uploads/{upload}"
    png = small_image(1)
    assert client.post(f"{path}?name=a%2F1.png", content=png).json() == {"images": 1, "total": 1}
    assert client.post(f"{path}?name=a%2F1.txt", content=b"a fox").json()["total"] == 1
    kept = tmp_path / "runs" / ".candidates" / "uploads" / upload
    assert (kept / "a_1.png").read_bytes() == png
    refused = client.post(f"{path}?name=x.html", content=b"<script>")
    assert refused.status_code == 422
    assert refused.json()["error"].startswith("x.html: expected an image")
    assert client.post(f"{path}x?name=1.png", content=png).status_code in (404, 413, 422)
    gone = client.post(f"/api/candidates/uploads/{'A' * 20}?name=1.png", content=png)
    assert (gone.status_code, gone.json()["error"][:21]) == (422, "upload: not there any")
    assert sorted(path.name for path in kept.iterdir()) == ["a_1.png", "a_1.txt"]


def test_what_is_too_large_is_refused_as_it_comes_in(client, tmp_path, monkeypatch):
    upload = client.post("/api/candidates/uploads").json()["upload"]
    path = f"/api/candidates/uploads/{upload}?name=1.png"
    monkeypatch.setattr(candidates, "limit_of", lambda name: 2**20)

    def in_pieces():
        for _ in range(2000):
            yield b"x" * 1024

    refused = client.post(path, content=in_pieces())
    assert (refused.status_code, refused.json()["error"][:29]) == (
        422,
        "1.png: expected at most 1 MB,",
    )
    lying = {"Content-Length": str(10**11)}
    assert client.post(path, content=b"x", headers=lying).status_code == 413
    assert list((tmp_path / "runs" / ".candidates" / "uploads" / upload).iterdir()) == []


def test_other_origins_and_machines_send_nothing(client, store, tmp_path):
    for origin in ("https://evil.example", "null"):
        headers = {"Origin": origin}
        answer = client.post("/api/candidates/uploads", headers=headers)
        assert answer.status_code == 403, origin
        upload = f"/api/candidates/uploads/{'A' * 20}?name=1.png"
        assert client.post(upload, content=b"x", headers=headers).status_code == 403, origin
    people = Accounts(store.database)
    people.add("Lea", "four odd green words", role="admin", group="default")
    people.add("Ann", "four odd green words", role="annotator", group="default")
    network = Settings(host="0.0.0.0", images=tmp_path / "images", runs=tmp_path / "runs")
    with TestClient(build_app(network, store), base_url="http://192.168.0.9") as other:
        for status in (401, 403):  # without a session, and with an annotator's
            begun = other.post("/api/candidates/uploads")
            assert begun.status_code == status
            upload = f"/api/candidates/uploads/{'A' * 20}?name=1.png"
            assert other.post(upload, content=b"x" * 300_000).status_code == status
            other.post("/api/login", json={"name": "Ann", "password": "four odd green words"})
