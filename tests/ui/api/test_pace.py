"""How fast an annotator may ask for sets and send judgements, over HTTP."""

import pytest
from served_app import built
from served_routes import served_routes
from starlette.testclient import TestClient

from ui.api import rank
from ui.api.pace import SECONDS_TO_WAIT, Pace
from ui.app import Settings


@pytest.fixture
def client(store, tmp_path, monkeypatch):
    """Three requests of each kind at once, and in this test's time no more."""
    monkeypatch.setattr(rank, "REQUESTS_AT_ONCE", 3)
    monkeypatch.setattr(rank, "REQUESTS_PER_SECOND", 1e-6)
    monkeypatch.setattr(rank, "VOTES_AT_ONCE", 3)
    monkeypatch.setattr(rank, "VOTES_PER_SECOND", 1e-6)
    settings = Settings(images=tmp_path / "images", runs=tmp_path / "runs", pages=("rank",))
    app = built(settings, store)
    with TestClient(app, base_url="http://127.0.0.1:7860") as client:
        yield client


def answer_of(screen, name, key):
    ranking = [[position] for position in range(len(screen["candidates"]))]
    sent = {"annotator": name, "key": key, "item": screen["item"]}
    return {**sent, "ranking": ranking, "verdict": "ranked"}


def test_who_asks_or_judges_too_fast_is_told_when_to_go_on_and_nobody_else_is(
    client, store, add_items
):
    add_items(5)
    for number in range(3):
        screen = client.post("/api/rank/next", json={"annotator": "Ada"}).json()
        sent = answer_of(screen, "Ada", f"key-000{number}")
        assert client.post("/api/rank/submit", json=sent).status_code == 200
    late = answer_of(screen, "Ada", "key-late")
    for path, body in (("next", {"annotator": " ADA "}), ("submit", late)):
        refused = client.post(f"/api/rank/{path}", json=body)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        (line,) = refused.json()["error"].splitlines()
        assert line.startswith(f"{path}: more than")
        assert line.endswith("send it again in 1 second")
    assert len(store.history("Ada")) == 3
    assert client.post("/api/rank/next", json={"annotator": "Bob"}).status_code == 200
    undone = client.post("/api/rank/undo", json={"annotator": "Ada", "key": "key-0002"})
    assert undone.status_code == 200


WRITING = {
    "next": {},
    "submit": {"key": "key-0001", "item": "any", "ranking": None, "verdict": "all_bad"},
    "undo": {"key": "key-0001"},
}
READING_MUCH = {"votes": {}, "projects": {}}


def test_every_writing_route_is_limited_and_so_is_whatever_else_takes_a_body(
    client, store, add_items
):
    add_items(1)
    store.add_annotator("Ada")
    found = {path for method, path in served_routes(client.app.routes) if method == "POST"}
    table = WRITING | READING_MUCH
    assert {path for path in found if path.startswith("/api/rank/")} == {
        f"/api/rank/{name}" for name in table
    }
    refused = {}
    for name, body in table.items():
        for as_written in ("Ada", " ADA ", "ada", "Ada"):
            sent = {"annotator": as_written, **body}
            refused[name] = client.post(f"/api/rank/{name}", json=sent)
    for name, answer in refused.items():
        assert answer.status_code == 429, name
        assert name not in WRITING or answer.headers["retry-after"] == "1"


@pytest.mark.parametrize(
    ("per_second", "seconds", "is_refused"),
    [
        (2, 600, False),  # a fast annotator, all day
        (19, 600, False),
        (30, 15, False),  # a key that is held down
        (40, 15, True),
        (200, 2, True),  # a script
    ],
)
def test_only_a_pace_that_no_person_keeps_is_refused(per_second, seconds, is_refused):
    now = [0.0]
    pace = Pace(
        burst=rank.REQUESTS_AT_ONCE, per_second=rank.REQUESTS_PER_SECOND, clock=lambda: now[0]
    )
    allowed = []
    for number in range(per_second * seconds):
        now[0] = number / per_second
        allowed.append(pace.allows("Ada"))
    assert (not all(allowed)) == is_refused
    now[0] += SECONDS_TO_WAIT
    assert pace.allows("Ada")
