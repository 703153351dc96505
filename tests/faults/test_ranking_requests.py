"""Claims: whatever is sent to the ranking API is answered, with what it asks for or by a refusal of
one line that leaves the store as it was; a judgement that is stored is a valid one."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import fastapi
import pytest
from databases import new_database
from fault_counts import LONG, examples
from hypothesis import given
from hypothesis import strategies as st
from image_folders import image
from mutations import TEXTS, VALUES, changed, damaged
from provenances import provenance
from starlette.testclient import TestClient

from imgalign.images import png
from imgalign.preferences.accounts import Accounts
from imgalign.preferences.checking import check_store
from imgalign.preferences.store import Store
from ui.api import rank
from ui.api.responses import add_error_handlers
from ui.api.security import Guard

pytestmark = [*LONG, pytest.mark.database]

NAMES = ("Ada", "Eve", "ada ", "")
KEYS = tuple(f"key-000{number}" for number in range(6))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Many items of three images, and one of two."""
    with (
        new_database(tmp_path) as url,
        Store.open(url, images=tmp_path / "images") as store,
    ):
        ids = [store.add_image(png(image(each)), provenance(seed=each)) for each in range(3)]
        for number in range(40):
            some = ids[: 2 if number == 3 else 3]
            store.add_item(f"prompt {number}", some, source="test", overlap=2)
        yield store


@pytest.fixture
def client(store: Store) -> Iterator[TestClient]:
    """The routes of the Rank page behind their guard; a fault of ours raises here."""
    app = fastapi.FastAPI()
    app.include_router(rank.router(store, Accounts(store.database), project=None))
    add_error_handlers(app)
    guarded = Guard(app, host="127.0.0.1", allow_hosts=(), routes=["/api/.*"])
    with TestClient(guarded, base_url="http://127.0.0.1") as client:
        yield client


REQUESTS: dict[str, dict[str, Any]] = {
    "next": {"annotator": "Ada", "project": "default"},
    "submit": {
        "annotator": "Ada",
        "key": KEYS[0],
        "item": "",
        "ranking": [[0], [1, 2]],
        "verdict": "ranked",
        "reason": None,
        "client_ms": 12,
    },
    "undo": {"annotator": "Ada", "key": KEYS[0]},
    "votes": {"annotator": "Ada", "project": None, "before": KEYS[0]},
    "projects": {"annotator": "Ada"},
}
PATHS = ("images", "images/small", "texts", "texts/small", "guidelines")
RANKINGS = st.lists(st.lists(st.integers(-1, 4), max_size=3), max_size=4) | st.none()


@st.composite
def bodies(draw: st.DrawFn, items: tuple[str, ...]) -> tuple[str, bytes]:
    """A route and a body: as a page sends it, with other values, or with damaged bytes."""
    route = draw(
        st.sampled_from(["next", "submit", "submit", "submit", "undo", "votes", "projects"])
    )
    body = dict(REQUESTS[route])
    body["annotator"] = draw(st.sampled_from(NAMES[:2]))
    if "key" in body:
        body["key"] = draw(st.sampled_from(KEYS))
    if route == "submit":
        body["item"] = draw(st.sampled_from([*items, "0" * 64]))
        if draw(st.booleans()):
            body["ranking"] = draw(RANKINGS)
            body["verdict"] = draw(st.sampled_from(["ranked", "all_bad", "skipped"]))
            body["reason"] = draw(st.sampled_from([None, "unsafe", "cannot judge", "ugly"]))
    match draw(st.sampled_from(["as it is", "values", "bytes", "anything", "surrogate"])):
        case "values":
            other, _ = draw(changed(body))
            return route, as_ascii(other)
        case "bytes":
            return route, draw(damaged(as_ascii(body)))
        case "anything":
            return route, as_ascii(draw(VALUES))
        case "surrogate":
            return route, as_ascii(
                {**body, draw(st.sampled_from([*body, "x"])): "\ud800", "\udfff": 1}
            )
    return route, as_ascii(body)


def as_ascii(value: Any) -> bytes:
    """As JSON in ASCII, in which any text can be written, lone surrogates too."""
    return json.dumps(value).encode()


def stored(store: Store) -> list[Any]:
    return list(store.rankings(include_undone=True))


def send(client: TestClient, store: Store, route: str, body: bytes) -> None:
    """Ask, and check the answer and what it has done to the store."""
    before = stored(store)
    response = client.post(
        f"/api/rank/{route}", content=body, headers={"Content-Type": "application/json"}
    )
    answer = response.json()
    if response.status_code == 200:
        assert len(stored(store)) - len(before) in (0, 1)
        for ranking in stored(store):
            groups = ranking.ranking or ()
            if ranking.verdict == "ranked":
                assert sorted(sum(groups, ())) == list(range(len(ranking.sample_ids)))
            else:
                assert ranking.ranking is None
        return
    assert 400 <= response.status_code < 500, (response.status_code, answer)
    line = answer.get("error") or answer["detail"]
    assert isinstance(line, str)
    assert line.isprintable(), line
    assert len(line) < 1000
    assert stored(store) == before


def issued(client: TestClient) -> tuple[str, ...]:
    """The item on each annotator's screen, and those after it."""
    found = []
    for name in NAMES[:2]:
        screen = client.post("/api/rank/next", json={"annotator": name}).json()
        found += [screen["item"], *(each["item"] for each in screen["after"])]
    return tuple(each for each in found if each)


@examples(25)
@given(data=st.data())
def test_any_sequence_of_requests_is_answered_and_the_store_stays_whole(
    store, client, faults, data
):
    for _ in range(data.draw(st.integers(1, 6))):
        route, body = data.draw(bodies(issued(client)))
        with faults.inject("requests of rankings"):
            send(client, store, route, body)
    assert check_store(store).passed


@examples(40)
@given(
    path=st.sampled_from(["images", "images/small", "texts", "texts/small", "guidelines"]),
    data=st.data(),
)
def test_any_address_of_a_sample_is_answered(client, faults, path, data):
    name = data.draw(TEXTS)
    query = data.draw(st.dictionaries(st.sampled_from(["annotator", "project", "x"]), TEXTS))
    with faults.inject("addresses of samples"):
        response = client.get(f"/api/rank/{path}/{quote(name, safe='')}", params=query)
        assert response.status_code < 500
        if response.status_code >= 400 and response.headers["content-type"] == "application/json":
            answer = response.json()
            line = answer.get("error") or answer["detail"]
            assert line.isprintable()
