"""Nothing that reaches an annotator says what made a sample, by whichever route of the app.

The routes are the app's own: one that answers an annotator is asked below, or left out by name with
a reason; a new one that is neither fails.
"""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fastapi
import pytest
from served_routes import example, pattern, reachable_routes
from starlette.testclient import TestClient
from texts import text_provenance

from imgalign.preferences.accounts import Accounts
from imgalign.preferences.store import Store
from ui.app import Settings, build_app

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
    with ThreadPoolExecutor(1) as thread:
        app = thread.submit(build_app, settings, store).result()
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
    everything = store.rankings(include_undone=True)
    ids = {image_id for ranking in everything for image_id in ranking.sample_ids}
    assert len(ids) == 4
    assert leaks(answers, (*secrets, *ids)) == []


def test_nothing_served_to_an_annotator_says_what_wrote_a_text(
    world: World, store: Store, secrets: tuple[str, ...]
) -> None:
    made = text_provenance(model="SECRET-MODEL", adapter="SECRET-RUN", seed=918273645)
    ids = [store.add_text(text, made) for text in ("a red cat", "a cat")]
    for number in range(2):
        store.add_item(f"a cat {number}", ids, source="SECRET-RUN", overlap=3)
    answers = ranked(world)
    assert any(each.text == "a red cat" for each in answers)
    assert leaks(answers, (*secrets, *ids)) == []


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
