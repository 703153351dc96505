"""Nothing that reaches an annotator says what made a sample, by whichever route of the app: neither
in words nor by a digest of them, of which somebody who guesses could tell that the guess is right.

The routes are the app's own: one that answers an annotator is asked below, or left out by name with
a reason; a new one that is neither fails.
"""

import hashlib
import json
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import fastapi
import pytest
from served_app import built
from served_routes import example, pattern, reachable_routes
from sqlalchemy import select, update
from starlette.testclient import TestClient
from texts import text_provenance

from imgalign.errors import DatabaseError, StorageFullError
from imgalign.preferences import schema
from imgalign.preferences.accounts import Accounts
from imgalign.preferences.store import Store
from imgalign.runs.status import STATUS
from ui.api.responses import OUT_OF_ORDER
from ui.app import Settings

HERE = "http://127.0.0.1:7860"
PASSWORD = "four odd green words"
ENTRANCES = ("enter", "join", "reset", "password")
LEFT_OUT = {
    "/static/{path:path}": "a file of gradio, the same for everybody",
    "/assets/{path:path}": "a file of gradio, the same for everybody",
    "/svelte/{path:path}": "a file of gradio, the same for everybody",
}
"""Routes that answer an annotator and are not asked here, with the reason."""


@dataclass(frozen=True)
class World:
    """An app that somebody ranks in, as Ada."""

    app: fastapi.FastAPI
    client: TestClient
    accounts: bool


@pytest.fixture(params=["without accounts", "with accounts"])
def world(request: pytest.FixtureRequest, store: Store, tmp_path: Path) -> Iterator[World]:
    """The Rank page alone where nobody needs an account, else all pages on a network."""
    accounts = request.param == "with accounts"
    guidelines = tmp_path / "guidelines.txt"
    guidelines.write_text("Hands first.")
    run = tmp_path / "runs" / "SECRET-RUN"
    run.mkdir(parents=True)
    (run / STATUS).write_text("{}")
    settings = Settings(
        images=tmp_path / "images",
        runs=tmp_path / "runs",
        guidelines=guidelines,
        host="0.0.0.0" if accounts else "127.0.0.1",
        pages=None if accounts else ("rank",),
    )
    if accounts:
        people = Accounts(store.database)
        people.add("SECRET-RUN", PASSWORD, role="admin", group="default")
        people.add("Ada", PASSWORD, role="annotator", group="default")
    app = built(settings, store)
    with TestClient(app, base_url=HERE, follow_redirects=False) as client:
        client.headers["Accept-Encoding"] = "identity"
        yield World(app, client, accounts)


def ranked(world: World) -> list[Any]:
    """All answers that somebody gets who logs in, ranks, and asks for all that is there."""
    client = world.client

    def post(path: str, **body: Any) -> Any:
        return client.post(f"/api/{path}", json=body)

    def rank(path: str, **body: Any) -> Any:
        return post(f"rank/{path}", annotator="Ada", **body)

    entered = [
        *(client.get(f"/{page}{end}") for page in ENTRANCES for end in ("", "/")),
        client.get("/api/account"),
        post("invitation", token="none"),
        post("join", token="none", name="Eve", password=PASSWORD),
        post("reset-link", token="none"),
        post("reset", token="none", password=PASSWORD),
        post("login", name="Ada", password="not this one"),
        post("login", name="Ada", password=PASSWORD),
        post("password", old="not this one", password=PASSWORD),
        client.get("/api/account"),
    ]
    shown = rank("next")
    screen = shown.json()
    order = [[place] for place in range(len(screen["candidates"]))]
    answer = {"key": "key-0001", "item": screen["item"], "verdict": "ranked"}
    samples = [each["url"] for each in screen["candidates"]] + screen["next"]
    small = [
        url.replace(f"/{kind}/", f"/{kind}/small/")
        for url in samples
        for kind in KINDS
        if kind in url
    ]
    files = ("theme.css", "config", "favicon.ico", "robots.txt", "manifest.json")
    return [
        *entered,
        *(client.get(f"/{file}") for file in ("", *files)),
        shown,
        *(client.get(f"/{url}") for url in (*samples, *small)),
        rank("submit", **answer, ranking=[[1]]),
        rank("submit", **answer, ranking=order),
        rank("submit", **answer | {"key": "key-0002"}, ranking=order),
        rank("next"),
        rank("votes"),
        rank("undo", key="key-0001"),
        rank("undo", key="key-0009"),
        rank("projects"),
        client.get("/api/rank/queued"),
        *(client.get(f"/api/rank/guidelines{of}") for of in ("", "?project=default")),
        *(client.get(f"/api/rank/{kind}/none?annotator=Ada") for kind in KINDS),
        *(client.get(f"/api/rank/{kind}/small/none?annotator=Ada") for kind in KINDS),
        post("logout"),
    ]


KINDS = ("images", "texts")
IDS = {
    "items": "item_id",
    "images": "image_id",
    "texts": "text_id",
    "provenances": "digest",
    "text_provenances": "digest",
}
"""What the store computes from what it is given, by table."""
ALGORITHMS = ("md5", "sha1", "sha256")
BEGINNING = 12
"""Characters of a digest that tell as much as all of it; messages shorten ids to as many."""


def ids_of(store: Store) -> list[str]:
    """The beginnings of all ids in the store that are digests."""
    with store.database.read() as connection:
        return [
            each[:BEGINNING]
            for table, column in IDS.items()
            for each in connection.execute(
                select(schema.metadata.tables[table].c[column])
            ).scalars()
        ]


def digests_of(contents: Iterable[bytes]) -> list[str]:
    """Beginnings of the digests of these, as a server might write them."""
    made = [hashlib.new(name, each).digest() for each in contents for name in ALGORITHMS]
    return [beginning for each in made for beginning in written(each)]


def written(digest: bytes) -> list[str]:
    """The beginnings of a digest in the ways in which it can be written."""
    ways = digest.hex(), b64encode(digest).decode(), urlsafe_b64encode(digest).decode()
    return [each[:BEGINNING] for each in ways]


def samples_of(answers: list[Any]) -> dict[str, bytes]:
    """The images and texts among answers, whole and small, by their addresses."""
    return {
        str(each.request.url).removeprefix(f"{HERE}/"): each.content
        for each in answers
        if each.status_code == 200
        and each.request.url.path.startswith(tuple(f"/api/rank/{kind}/" for kind in KINDS))
    }


def leaks(answers: list[Any], secrets: tuple[str, ...]) -> list[tuple[str, str]]:
    """The addresses of answers that hold a secret, in what they say or in their headers."""
    told = [
        (str(each.request.url), json.dumps(dict(each.headers)).encode() + each.content)
        for each in answers
    ]
    return [
        (url, secret)
        for url, content in told
        for secret in secrets
        if secret.encode() in content or secret in url
    ]


def test_nothing_served_to_an_annotator_says_what_made_an_image(
    world: World, store: Store, add_items: Callable[..., Any], secrets: tuple[str, ...]
) -> None:
    add_items(2, parameters="SECRET-MODEL, seed 918273645", Software="SECRET-RUN")
    answers = ranked(world)
    assert [each.status_code for each in answers].count(200) >= 3 + 1 + 8 + 8 + 3
    ids = ids_of(store)
    assert len(ids) == 2 + 8 + 8
    originals = [path.read_bytes() for path in store.images.root.rglob("*.png")]
    hashes = digests_of([*originals, *samples_of(answers).values()])
    assert len(hashes) == (8 + 8 + 8) * 3 * 3
    assert leaks(answers, (*secrets, *ids, *hashes)) == []


def test_nothing_served_to_an_annotator_says_what_wrote_a_text(
    world: World, store: Store, secrets: tuple[str, ...]
) -> None:
    made = text_provenance(model="SECRET-MODEL", adapter="SECRET-RUN", seed=918273645)
    ids = [store.add_text(text, made) for text in ("a red cat", "a cat")]
    for number in range(2):
        store.add_item(f"a cat {number}", ids, source="SECRET-RUN", overlap=3)
    answers = ranked(world)
    assert any(each.text == "a red cat" for each in answers)
    hashes = digests_of(samples_of(answers).values())
    assert leaks(answers, (*secrets, *ids_of(store), *hashes)) == []


def guessed(samples: list[bytes], *, prompt: str) -> set[str]:
    """Ids that items of these may have, by whatever may have made them, in any order."""
    ids = [hashlib.sha256(each).hexdigest() for each in samples]
    return set(ids) | {
        hashlib.sha256(json.dumps([project, prompt, source, *order]).encode()).hexdigest()
        for project in ("default", "default-compare")
        for source in ("candidates", "runs/first step-000100 vs base", "SECRET-RUN")
        for order in permutations(ids)
    }


@pytest.mark.parametrize("samples", KINDS)
def test_who_has_the_samples_and_guesses_what_made_them_finds_no_guess_confirmed(
    world: World, store: Store, add_items: Callable[..., Any], samples: str
) -> None:
    if samples == "images":
        items = add_items(3)
    else:
        texts = [store.add_text(f"cat {each}", text_provenance()) for each in range(4)]
        items = [store.add_item(f"a cat {n}", texts, source="SECRET-RUN") for n in range(3)]
    answers = ranked(world)
    given = samples_of(answers)
    screen = next(each.json() for each in answers if each.url.path == "/api/rank/next")
    guesses = {
        guess
        for shown in (screen, *screen["after"])
        for guess in guessed(
            [given[each["url"]] for each in shown["candidates"]], prompt=shown["prompt"]
        )
    }
    assert set(items) < guesses
    found = {way for each in guesses for way in written(bytes.fromhex(each))}
    assert leaks(answers, tuple(found)) == []


def test_that_a_sample_is_lost_or_damaged_is_said_without_its_id(
    world: World, store: Store, add_items: Callable[..., Any], secrets: tuple[str, ...]
) -> None:
    add_items(1, num_images=2)
    texts = [store.add_text(text, text_provenance()) for text in ("a red cat", "a cat")]
    store.add_item("a cat", texts, source="SECRET-RUN")
    client = world.client
    if world.accounts:
        client.post("/api/login", json={"name": "Ada", "password": PASSWORD})
    screen = client.post("/api/rank/next", json={"annotator": "Ada"}).json()
    gone, damaged = sorted(store.images.root.rglob("*.png"))
    gone.unlink()
    damaged.write_bytes(damaged.read_bytes() + b"!")
    with store.database.write() as connection:
        connection.execute(update(schema.texts).values(text="exchanged"))
    answers = [
        client.get(f"/{url.replace(f'/{kind}/', f'/{kind}/{small}')}")
        for kind in KINDS
        for url in (*(each["url"] for each in screen["candidates"]), *screen["next"])
        if f"/{kind}/" in url
        for small in ("", "small/")
    ]
    assert [each.status_code for each in answers] == [409] * 8
    assert leaks(answers, (*secrets, *ids_of(store))) == []
    assert all("missing or damaged" in each.json()["error"] for each in answers)


@dataclass(frozen=True, kw_only=True)
class Outage:
    """Of the database: the reason for the log, and status and words for whoever asked."""

    error: type[Exception]
    reason: str
    status: int
    told: str

    def fail(self, *_: Any, **__: Any) -> None:
        raise self.error(self.reason)


@pytest.fixture(params=[(DatabaseError, 503, "its log"), (StorageFullError, 507, "full")])
def outage(request: pytest.FixtureRequest, store: Store) -> Outage:
    error, status, told = request.param
    name = store.database.name
    return Outage(error=error, reason=f"{name}: locked; see {name}-wal", status=status, told=told)


def test_that_the_database_is_out_of_order_is_said_without_its_name_which_is_logged(
    world: World,
    outage: Outage,
    secrets: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if world.accounts:
        world.client.post("/api/login", json={"name": "Ada", "password": PASSWORD})
    monkeypatch.setattr(Store, "next_item", outage.fail)
    answer = world.client.post("/api/rank/next", json={"annotator": "Ada"})
    assert answer.status_code == outage.status
    assert outage.told in answer.json()["error"]
    assert leaks([answer], secrets) == []
    assert outage.reason in caplog.text


def test_before_and_while_somebody_logs_in_an_outage_is_no_wrong_password_and_names_nothing(
    world: World,
    store: Store,
    outage: Outage,
    secrets: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = world.client
    login = {"name": "Ada", "password": PASSWORD}
    if world.accounts:
        assert client.post("/api/login", json=login).status_code == 200

    def asked() -> list[Any]:
        return [
            client.post("/api/login", json=login),
            client.post("/api/password", json={"old": PASSWORD, "password": PASSWORD}),
            client.post("/api/rank/next", json={"annotator": "Ada"}),
            client.get("/", headers={"Accept": "text/html"}),
        ]

    with monkeypatch.context() as gone:
        for name in ("login", "change_password"):
            gone.setattr(Accounts, name, outage.fail)
        answers = asked()[: 2 if world.accounts else 1]
    with monkeypatch.context() as gone:
        for name in ("read", "write"):  # so that nobody can tell who is asking
            gone.setattr(store.database, name, outage.fail)
        answers += asked()
    assert {each.status_code for each in answers} == {outage.status}
    assert leaks(answers, (*secrets, store.database.name)) == []
    assert caplog.text.count(outage.reason) == len(answers)
    page = answers.pop()
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["cache-control"] == "no-store"
    assert "continues by itself" in page.text
    assert {each.json()["error"] for each in answers} == {OUT_OF_ORDER[outage.status]}
    assert client.get("/", headers={"Accept": "text/html"}).status_code == 200


def test_every_route_that_answers_an_annotator_is_asked_above_or_left_out_with_a_reason(
    world: World, add_items: Callable[..., Any]
) -> None:
    add_items(2)
    asked = {(each.request.method, each.request.url.path) for each in ranked(world)}
    reachable = reachable_routes(world.app)
    assert {("GET", "/api/rank/images/{token}"), ("POST", "/api/rank/submit")} <= reachable
    if world.accounts:
        login = {"name": "Ada", "password": PASSWORD}
        assert world.client.post("/api/login", json=login).status_code == 200
        reachable -= refused(world.client, reachable)
        assert ("GET", "/api/alive") not in reachable
    missing = {
        (method, path)
        for method, path in reachable
        if path not in LEFT_OUT
        and not any(how == method and pattern(path).fullmatch(url) for how, url in asked)
    }
    assert missing == set()
    assert {path for _, path in reachable} >= set(LEFT_OUT)


def refused(client: TestClient, routes: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Those that are not for whoever has this session, which ends here."""
    others = set()
    for method, path in sorted(routes, key=lambda each: each[1] == "/api/logout"):
        body = {} if method == "POST" else None
        if client.request(method, example(path), json=body).status_code == 403:
            others.add((method, path))
    return others
