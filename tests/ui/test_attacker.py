"""Every attempt of a scripted attacker on the app, each by name; none gets anything.

The app serves all pages on loopback. An attempt is a request. It must be refused in one line that
tells nothing of this machine, or, where it says so, be answered without effect. Whoever adds a
route finds it here: one that no attempt covers fails the last test.
"""

import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import fastapi
import pytest
from sqlalchemy import func, select
from starlette.testclient import TestClient
from submissions import judge

from imgalign.errors import InputError
from imgalign.preferences import schema
from imgalign.preferences.store import Store
from ui.api.security import LARGEST_BODY
from ui.app import Settings, build_app
from ui.forms import Form
from ui.pages import people, results
from ui.recipes import refuse_options
from ui.run_queue import RunQueue
from ui.runs import Runs

HERE = "http://127.0.0.1:7860"
JSON = {"Content-Type": "application/json"}
SCRIPT = "<img src=x onerror=alert(1)><script>alert(1)</script>"
ROWS = ("annotators", "assignments", "images", "items", "rankings", "undos")
Add = Callable[..., list[str]]


@dataclass(frozen=True)
class World:
    """What the attacker, Mallory, and the victim, Ada, have."""

    client: TestClient
    store: Store
    app: fastapi.FastAPI
    own: dict[str, Any]
    theirs: dict[str, Any]

    def ask(self, method: str, path: str, **options: Any) -> Any:
        return self.client.request(method, path, follow_redirects=False, **options)

    def rows(self) -> dict[str, int]:
        with self.store.database.read() as connection:
            return {
                name: connection.execute(
                    select(func.count()).select_from(schema.metadata.tables[name])
                ).scalar_one()
                for name in ROWS
            }


@pytest.fixture
def world(store: Store, add_items: Add, tmp_path: Path) -> Iterator[World]:
    add_items(4, overlap=2)
    runs = tmp_path / "runs"
    (runs / "one" / "samples").mkdir(parents=True)
    settings = Settings(images=tmp_path / "images", runs=runs)
    # In a thread of its own: playwright keeps an event loop running in the main one.
    with ThreadPoolExecutor(1) as thread:
        app = thread.submit(build_app, settings, store).result()
    with TestClient(app, base_url=HERE, raise_server_exceptions=False) as client:
        own, theirs = (
            client.post("/api/rank/next", json={"annotator": who}).json()
            for who in ("Mallory", "Ada")
        )
        key = {"annotator": "Ada", "key": "adas-own-key", "item": theirs["item"]}
        sent = {**key, "ranking": [[0], [1], [2], [3]], "verdict": "ranked"}
        assert client.post("/api/rank/submit", json=sent).status_code == 200
        yield World(client, store, app, own, theirs)


@dataclass(frozen=True)
class Attempt:
    """One request; `{own}` and `{theirs}` are tokens, `{item}` and `{their_item}` items."""

    name: str
    method: str
    path: str
    body: Any = None
    content: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    status: tuple[int, ...] = (400, 403, 404, 405, 409, 413, 415, 422)


def submit(name: str, **changes: Any) -> Attempt:
    body = {
        "annotator": "Mallory",
        "key": "mallorys-key",
        "item": "{item}",
        "ranking": [[0], [1], [2], [3]],
        "verdict": "ranked",
    }
    return Attempt(name, "POST", "/api/rank/submit", body | changes)


def raw(name: str, content: bytes, path: str = "/api/rank/next") -> Attempt:
    return Attempt(name, "POST", path, content=content, headers=JSON)


OUT = ("../", "../imgalign.db", "../../etc/passwd", "/etc/passwd", ".hidden", "a\\b", "one\x00.png")
FILES = [
    Attempt(f"{what} {out!r}{' twice' if twice else ''}", "GET", path.format(quote(quoted, "")))
    for what, path in {
        "run": "/api/runs/{}/samples/step-1.png",
        "sample": "/api/runs/one/samples/{}",
        "picture of a reward": "/api/rewards/{}/picture",
        "image of a reward": "/api/rewards/one/images/{}",
        "image of another reward": "/api/rewards/{}/images/0",
        "run of an export": "/api/exports/{}/step-000001/kohya",
        "checkpoint of an export": "/api/exports/one/{}/kohya",
        "layout of an export": "/api/exports/one/step-000001/{}",
        "generated image": "/api/generated/{}",
        "file of a generated image": "/api/generated/{}/file",
        "files": "/api/generated-files?ids={}",
        "item of a lead": "/api/people/items/{}/0",
        "candidate of a lead": "/api/people/items/" + "0" * 64 + "/{}",
        "candidates of a batch": "/api/candidates/{}/images/" + "0" * 64,
        "candidate": "/api/candidates/batch-1/images/{}",
        "token": "/api/rank/images/{}?annotator=Mallory",
        "small token": "/api/rank/images/small/{}?annotator=Mallory",
        "text": "/api/rank/texts/{}?annotator=Mallory",
        "small text": "/api/rank/texts/small/{}?annotator=Mallory",
        "page": "/{}",
        "file of gradio": "/static/{}",
        "asset of gradio": "/assets/{}",
        "svelte file of gradio": "/svelte/{}",
    }.items()
    for out in OUT
    for twice in (False, True)
    for quoted in ([quote(out, "")] if twice else [out])
]
TOKENS = [
    Attempt(
        "Ada's token under one's own name", "GET", "/api/rank/images/{theirs}?annotator=Mallory"
    ),
    Attempt("Ada's token, small", "GET", "/api/rank/images/small/{theirs}?annotator=Mallory"),
    Attempt("one's own token, altered", "GET", "/api/rank/images/{own}A?annotator=Mallory"),
    Attempt("a token of an image as a text", "GET", "/api/rank/texts/{own}?annotator=Mallory"),
    Attempt("a token without a name", "GET", "/api/rank/images/{own}"),
    Attempt(
        "a token and two names", "GET", "/api/rank/images/{theirs}?annotator=Ada&annotator=Mallory"
    ),
    Attempt("Ada's key", "POST", "/api/rank/undo", {"annotator": "Mallory", "key": "adas-own-key"}),
    Attempt("a key of nobody", "POST", "/api/rank/undo", {"annotator": "Mallory", "key": "x" * 20}),
    Attempt(
        "a page of votes from Ada's key",
        "POST",
        "/api/rank/votes",
        {"annotator": "Mallory", "before": "adas-own-key"},
    ),
    submit("an item never issued", item="{never}"),
    submit("an item that is none", item="0" * 64),
    submit("too many candidates", ranking=[[0], [1], [2], [3], [4]]),
    submit("a candidate twice", ranking=[[0], [0], [1], [2]]),
    submit("negative places", ranking=[[-1], [0], [1], [2]]),
    submit("places as text", ranking=[["0"], [1], [2], [3]]),
    submit("another display order", display_order=[3, 2, 1, 0]),
    submit("another time", created_at="1970-01-01"),
    submit("another verdict", verdict="gold"),
    submit("a reason of one's own", verdict="skipped", ranking=None, reason=SCRIPT),
    submit("a formula as a reason", verdict="skipped", ranking=None, reason="=cmd|'/c calc'!A0"),
    submit("a number beyond all", client_ms=10**400),
    submit("a short key", key="k"),
    submit("a long key", key="k" * 65),
    submit("a null byte in a key", key="mallorys\x00key"),
]
NAMES = [
    Attempt(f"a name with {what}", "POST", "/api/rank/next", {"annotator": name})
    for what, name in {
        "nothing": "",
        "61 characters": "x" * 61,
        "a null byte": "A\x00da",
        "only invisible characters": "\u200b\u200d",
        "a list": ["Ada"],
        "an operator": {"$ne": ""},
        "a number": 7,
    }.items()
]
BODIES = [
    raw("depth", b"[" * 100_000),
    raw("depth of objects", b'{"a":' * 40_000 + b"1" + b"}" * 40_000),
    raw("a long number", b'{"annotator": ' + b"9" * 5000 + b"}"),
    raw("a large exponent", b'{"annotator": 1e999999}'),
    raw("not a number", b'{"annotator": NaN}'),
    raw("half a surrogate", b'{"annotator": "\\ud800"}'),
    raw("bytes that are no UTF-8", b"\xff\xfe"),
    raw("nothing", b""),
    raw("too much", b'"' + b"x" * LARGEST_BODY + b'"'),
    raw("too much for gradio", b"x" * (LARGEST_BODY + 1), "/gradio_api/queue/join"),
    raw(
        "the name of a file",
        b'{"data": [{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}], "fn_index": 0}',
        "/gradio_api/queue/join",
    ),
    Attempt(
        "a false length",
        "POST",
        "/api/rank/next",
        content=b"{}",
        headers=JSON | {"Content-Length": "9" * 40},
    ),
    Attempt(
        "a form",
        "POST",
        "/api/rank/next",
        content=b"annotator=Eve",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    ),
    Attempt(
        "plain text",
        "POST",
        "/api/rank/next",
        content=b'{"annotator": "Eve"}',
        headers={"Content-Type": "text/plain"},
    ),
]
SITES = [
    Attempt(f"{name}: {path}", method, path, body, headers=headers)
    for method, path, body in (
        ("POST", "/api/rank/next", {"annotator": "Eve"}),
        ("POST", "/gradio_api/queue/join", {"data": []}),
        ("GET", "/api/rank/guidelines", None),
        ("GET", "/api/rank/queued", None),
        ("GET", "/api/people/items/0/0", None),
        ("GET", "/config", None),
        ("GET", "/train", None),
        ("GET", "/api/alive", None),
    )
    for name, headers in {
        "another origin": {"Origin": "https://evil.example"},
        "an origin of a file": {"Origin": "null"},
        "another port": {"Origin": "http://127.0.0.1:3000"},
        "embedded elsewhere": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
        "embedded at another port": {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"},
        "framed elsewhere": {
            "Sec-Fetch-Site": "cross-site",
            "Sec-Fetch-Mode": "navigate",
            "Sec-Fetch-Dest": "iframe",
        },
        "a rebound name": {"Host": "rebound.example:7860"},
        "a name that ends as ours": {"Host": "127.0.0.1.rebound.example"},
        "no name": {"Host": ""},
        "a forwarded name": {"X-Forwarded-Host": "rebound.example"},
    }.items()
]
GRADIO = [
    Attempt(f"{method} {path}", method, path, {} if method == "POST" else None)
    for method, path in (
        ("GET", "/gradio_api/file=/etc/passwd"),
        ("GET", "/gradio_api/file/imgalign.db"),
        ("GET", "/gradio_api/proxy=https://example.com"),
        ("GET", "/gradio_api/stream/a/b/c/playlist.m3u8"),
        ("GET", "/gradio_api/info"),
        ("GET", "/gradio_api/openapi.json"),
        ("GET", "/openapi.json"),
        ("GET", "/docs"),
        ("GET", "/gradio_api/deep_link?session_hash=1"),
        ("GET", "/gradio_api/upload_progress?upload_id=1"),
        ("GET", "/gradio_api/runs"),
        ("GET", "/monitoring"),
        ("GET", "/monitoring/summary"),
        ("GET", "/monitoring/a-key"),
        ("GET", "/pwa_icon"),
        ("GET", "/pwa_icon/512"),
        ("GET", "/logout"),
        ("GET", "/config/"),
        ("POST", "/login"),
        ("POST", "/login/"),
        ("POST", "/gradio_api/upload"),
        ("POST", "/gradio_api/run/predict"),
        ("POST", "/gradio_api/api/predict"),
        ("POST", "/gradio_api/call/look"),
        ("GET", "/gradio_api/call/look/event"),
        ("POST", "/gradio_api/component_server"),
        ("POST", "/gradio_api/stream/event"),
        ("POST", "/gradio_api/stream/event/close"),
        ("POST", "/gradio_api/mcp/"),
        ("DELETE", "/api/rank/next"),
        ("PUT", "/api/rank/submit"),
        ("TRACE", "/api/rank/next"),
    )
]
LEADS = [
    Attempt(what, "GET", path, status=(404, 409, 422))
    for what, path in {
        "a candidate before the first": "/api/people/items/{item}/-1",
        "a candidate after the last": "/api/people/items/{item}/4",
        "a candidate that is no number": "/api/people/items/{item}/0%20OR%201",
        "an item by SQL": "/api/people/items/x'%20OR%20'1'='1/0",
        "guidelines of a project that there is not": "/api/rank/guidelines?project=x'%20OR%201=1",
        "guidelines without a name": "/api/rank/guidelines?project=",
        "guidelines of a null byte": "/api/rank/guidelines?project=%00",
    }.items()
]
UPLOADS = [
    Attempt(f"upload into {upload!r}", "POST", f"/api/candidates/uploads/{upload}?name=a.png")
    for upload in ("A" * 20, "A" * 19, "..%2F..%2Fimages", "x%00" + "A" * 17)
]
SESSIONS = [
    Attempt(what, "POST", f"/api/{path}", body, status=status)
    for what, path, body, status in (
        ("login by SQL", "login", {"name": "' OR 1=1 --", "password": "' OR 1=1 --"}, (401,)),
        ("login of an annotator", "login", {"name": "Ada", "password": ""}, (401,)),
        ("login as several", "login", {"name": ["Ada"], "password": "x"}, (422,)),
        ("login with more", "login", {"name": "Ada", "password": "x", "role": "admin"}, (422,)),
        ("login with a book", "login", {"name": "Ada", "password": "x" * 201}, (422,)),
        ("guessed invitation", "invitation", {"token": "x"}, (404,)),
        ("no invitation", "join", {"token": "", "name": "M", "password": "of my own 42"}, (409,)),
        ("projects of several", "rank/projects", {"annotator": ["Ada", "Mallory"]}, (422,)),
        ("somebody's session", "logout", {"account": "Ada"}, (200,)),
    )
]
ATTEMPTS = [*FILES, *TOKENS, *NAMES, *BODIES, *SITES, *GRADIO, *LEADS, *UPLOADS, *SESSIONS]


def fill(value: Any, words: dict[str, str]) -> Any:
    if isinstance(value, str):
        return re.sub(r"\{(\w+)\}", lambda found: words.get(found[1], found[0]), value)
    if isinstance(value, dict):
        return {key: fill(each, words) for key, each in value.items()}
    return value


def test_no_attempt_gets_anything(world: World, tmp_path: Path):
    before = world.rows()
    words = {
        "own": world.own["candidates"][0]["token"],
        "theirs": world.theirs["candidates"][0]["token"],
        "item": world.own["item"],
    }
    with world.store.database.read() as connection:
        last = select(schema.items.c.item_id).order_by(schema.items.c.sequence.desc()).limit(1)
        words["never"] = connection.execute(last).scalar_one()
    through = {}
    for each in ATTEMPTS:
        options: dict[str, Any] = {"headers": each.headers}
        if each.content is not None:
            options["content"] = each.content
        elif each.body is not None:
            options["content"] = json.dumps(fill(each.body, words)).encode()
            options["headers"] = JSON | each.headers
        answer = world.ask(each.method, fill(each.path, words), **options)
        said = answer.text
        tells = str(tmp_path) in said or "Traceback" in said or "root:" in said
        if answer.status_code not in each.status or tells or "SECRET" in said:
            through[each.name] = (each.path, answer.status_code, said[:120])
    assert not through, "\n".join(f"{name}: {how}" for name, how in through.items())
    assert world.rows() == before
    names = [each.name for each in ATTEMPTS]
    assert [name for name in names if names.count(name) > 1] == []


@pytest.mark.parametrize(
    "name", ["Robert'); DROP TABLE rankings;--", "' OR '1'='1", '"; SELECT 1', "%", "_", SCRIPT]
)
def test_a_name_with_a_meaning_elsewhere_is_a_name(world: World, name: str):
    screen = world.ask("POST", "/api/rank/next", json={"annotator": name}).json()
    assert screen["done"] == 0  # nobody else's
    assert world.ask("POST", "/api/rank/votes", json={"annotator": name}).json()["votes"] == []
    for shown in screen["candidates"]:
        assert world.ask("GET", f"/{shown['url']}").headers["content-type"] == "image/png"
    assert world.rows()["rankings"] == 1


def test_nothing_that_people_typed_becomes_a_tag_on_a_page(world: World):
    image = [each["token"] for each in world.own["candidates"]]
    assert image
    world.store.add_annotator("eve", name=SCRIPT, group=SCRIPT)
    for page in PAGES:
        assert SCRIPT not in world.ask("GET", page).text
    for method in ("bradley-terry", "elo"):
        assert "<img" not in results.table(world.store, SCRIPT, SCRIPT, method)
    world.store.submit(judge(world.store.next_item("eve"), "eve"))
    assert "<img" not in "".join(people.tables(world.store, "default"))
    assets = Path(results.__file__).parents[1] / "assets"
    writing = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(")
    scripts = [*assets.glob("*.js"), *assets.glob("*.html")]
    assert [path.name for path in scripts if writing.search(path.read_text("utf-8"))] == []


@pytest.mark.parametrize(
    "line",
    ["--out=/tmp/x", "--out", "-c", "a.b", "a.b=1\n--out=x", "a-b=1", "=1", "a b=1", "!!python=1;"],
)
def test_an_override_that_is_none_starts_nothing(tmp_path: Path, line: str):
    runs = Runs(tmp_path)
    with pytest.raises(InputError, match=r"expected section\.key=value"):
        refuse_options([line])
    with pytest.raises(InputError, match=r"expected section\.key=value"):
        runs.launch(Path("storybook_dpo.yaml"), name="mine", overrides=[line])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["../x", "--out", "-x", ".x", "a/b", "a\nb", "a\x00b", "x" * 65, " x", "$(id)", "a;b"]
)
def test_a_run_is_started_under_a_plain_name_only(tmp_path: Path, name: str):
    runs = Runs(tmp_path)
    with pytest.raises(InputError, match="run name"):
        runs.launch(Path("storybook_dpo.yaml"), name=name)
    line = RunQueue(runs)
    with pytest.raises(InputError, match="run name"):
        line.add(name, Form(recipe="storybook_dpo"))
    for act in (line.remove, line.start_now, lambda name: line.move(name, -1)):
        with pytest.raises(InputError, match="does not wait"):
            act(name)
    assert list(tmp_path.iterdir()) == []


def test_without_more_being_asked_the_app_listens_on_loopback_only():
    assert Settings().host == "127.0.0.1"
    assert Settings(host="0.0.0.0").served == ("rank",)


PAGES = (
    *("/", "/candidates", "/people", "/learn", "/train", "/generate", "/results"),
    *("/enter", "/join"),
)
COVERED = [
    r"/api/candidates/uploads",  # an empty folder under a name of the app's own
    r"/api/account",  # who asks, by their own session
    *(re.escape(each) for page in PAGES for each in (page, f"{page.rstrip('/')}/")),
    r"/(static|assets|svelte)/\{path:path\}",
    r"/(config|theme\.css|favicon\.ico|robots\.txt|manifest\.json)",  # the same for everybody
    # What pages with events need; their inputs are checked by what they call.
    r"/gradio_api/(queue/(join|data)|cancel|reset|startup-events)/?",
    r"/gradio_api/heartbeat/\{session_hash\}",
]


def served_paths(routes: Any, prefix: str = "") -> Iterator[str]:
    for route in routes:
        router = getattr(route, "original_router", None)
        path = prefix + (getattr(route, "path", None) or "")
        if router is not None:
            context = getattr(route, "include_context", None)
            yield from served_paths(router.routes, prefix + (getattr(context, "prefix", "") or ""))
        elif inner := getattr(route, "routes", None):
            yield from served_paths(inner, path.rstrip("/"))
        else:
            yield path


def test_every_route_that_can_be_reached_is_attacked_above(world: World):
    guard = next(each for each in world.app.user_middleware if "Guard" in str(each.cls))
    routes: Any = guard.kwargs["routes"]
    reachable = re.compile("|".join(f"(?:{each})" for each in routes))
    found = {path for path in served_paths(world.app.routes) if path}
    assert {
        "/api/rank/submit",
        "/api/runs/{name}/samples/{file}",
        "/gradio_api/queue/join",
    } <= found
    attacked = [
        re.compile(re.sub(r"\\\{[^/]*?\\\}", "[^/]+", re.escape(path)) + "/?") for path in found
    ]
    tried = {quote(each.path.partition("?")[0], "/%{}=:") for each in ATTEMPTS}
    missing = {
        path
        for path, pattern in zip(found, attacked, strict=True)
        if reachable.fullmatch(re.sub(r"\{[^/]*\}", "x", path))
        and not any(re.fullmatch(each, path) for each in COVERED)
        and not any(pattern.fullmatch(each) for each in tried)
    }
    assert missing == set()
