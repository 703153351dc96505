"""Every attempt of a scripted attacker on the app, each by name; none gets anything.

The app serves all pages, on loopback to anybody and on a network to who has an account. An attempt
(attempts.py) is a request. It must be refused in one line that tells nothing of this machine, or,
where it says so, be answered without effect. Whoever adds a route finds it here: one that no
attempt covers fails the last test.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import fastapi
import gradio as gr
import pytest
from attempt import JSON, SCRIPT, Attempt
from attempts import AS_ANNOTATOR, ATTEMPTS, FORMULA, fill
from served_app import built
from served_routes import pattern, reachable_routes
from sqlalchemy import func, select
from starlette.testclient import TestClient
from submissions import judge
from texts import add_texts

from imgalign.errors import InputError
from imgalign.preferences import schema
from imgalign.preferences.accounts import Accounts
from imgalign.preferences.gold import mark_gold
from imgalign.preferences.issued import item_named
from imgalign.preferences.resets import Resets
from imgalign.preferences.store import Store
from ui.app import Settings
from ui.forms import Form
from ui.leaderboard import Asked, Leaderboard
from ui.messages import shown
from ui.pages import accounts, people, results
from ui.recipes import refuse_options
from ui.run_queue import RunQueue
from ui.runs import Runs

HERE = "http://127.0.0.1:7860"
PASSWORD = "four odd green words"
ROWS = ("annotators", "assignments", "images", "items", "rankings", "undos")
ACCOUNTS = ("accounts", "invitations", "openings", "password_resets", "queue_orders")
Add = Callable[..., list[str]]


@dataclass(frozen=True)
class World:
    """What the attacker, Mallory, and the victim, Ada, have."""

    client: TestClient
    store: Store
    app: fastapi.FastAPI
    own: dict[str, Any]
    theirs: dict[str, Any]
    upload: str
    """Begun by a lead, and empty."""
    links: dict[str, str] = field(default_factory=dict)

    def ask(self, method: str, path: str, **options: Any) -> Any:
        return self.client.request(method, path, follow_redirects=False, **options)

    def rows(self) -> dict[str, int]:
        with self.store.database.read() as connection:
            return {
                name: connection.execute(
                    select(func.count()).select_from(schema.metadata.tables[name])
                ).scalar_one()
                for name in (*ROWS, *ACCOUNTS)
            }


def judged(client: TestClient, who: str) -> dict[str, Any]:
    """What somebody is shown and judges."""
    given: dict[str, Any] = client.post("/api/rank/next", json={"annotator": who}).json()
    key = {"annotator": who, "key": f"{who.lower()}s-own-key", "item": given["item"]}
    sent = {**key, "ranking": [[0], [1], [2], [3]], "verdict": "ranked"}
    assert client.post("/api/rank/submit", json=sent).status_code == 200
    return given


def begun(client: TestClient) -> str:
    """An upload of images."""
    answer = client.post("/api/candidates/uploads")
    return str(answer.json()["upload"])


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    runs = tmp_path / "runs"
    (runs / "one" / "samples").mkdir(parents=True)
    return Settings(images=tmp_path / "images", runs=runs)


@pytest.fixture
def world(store: Store, add_items: Add, settings: Settings) -> Iterator[World]:
    """The app on loopback, where nobody needs an account."""
    add_items(4, overlap=2)
    app = built(settings, store)
    with TestClient(app, base_url=HERE, raise_server_exceptions=False) as client:
        own = client.post("/api/rank/next", json={"annotator": "Mallory"}).json()
        theirs = judged(client, "Ada")
        yield World(client, store, app, own, theirs, begun(client))


@pytest.fixture
def with_accounts(store: Store, add_items: Add, settings: Settings) -> Iterator[World]:
    """The app on a network, where Mallory and Ada are annotators, and Mallory has logged in."""
    add_items(4, overlap=2)
    add_items(1, project="closed")
    people = Accounts(store.database)
    people.add("Lea", PASSWORD, role="admin", group="default")
    links = {"invitation": people.invite(role="lead", group="default", by=None)}
    for name in ("Mallory", "Ada"):
        people.add(name, PASSWORD, role="annotator", group="default")
    app = built(replace(settings, host="0.0.0.0"), store)
    with TestClient(app, base_url=HERE, raise_server_exceptions=False) as client:
        client.post("/api/login", json={"name": "Lea", "password": PASSWORD})
        upload = begun(client)
        client.post("/api/login", json={"name": "Ada", "password": PASSWORD})
        theirs = judged(client, "Ada")
        client.post("/api/login", json={"name": "Mallory", "password": PASSWORD})
        own = client.post("/api/rank/next", json={"annotator": "Mallory"}).json()
        links["reset"] = Resets(store.database).link("Ada", by=None)
        yield World(client, store, app, own, theirs, upload, links)


def got_through(
    world: World, attempts: Sequence[Attempt], tmp_path: Path, *, or_status: tuple[int, ...] = ()
) -> list[str]:
    """The attempts that were not refused, or told something; `or_status` are refusals as well."""
    words = {
        "own": world.own["candidates"][0]["token"],
        "theirs": world.theirs["candidates"][0]["token"],
        "item": world.own["item"],
        "their_item": world.theirs["item"],
        "item_id": item_named(world.store, world.own["item"], "Mallory"),
        "upload": world.upload,
        **world.links,
    }
    with world.store.database.read() as connection:
        last = select(schema.items.c.item_id).order_by(schema.items.c.sequence.desc()).limit(1)
        words["never"] = connection.execute(last).scalar_one()
    through = []
    for each in attempts:
        options: dict[str, Any] = {"headers": each.headers}
        if each.content is not None:
            options["content"] = each.content
        elif each.body is not None:
            options["content"] = json.dumps(fill(each.body, words)).encode()
            options["headers"] = JSON | each.headers
        answer = world.ask(each.method, fill(each.path, words), **options)
        said = answer.text
        tells = str(tmp_path) in said or "Traceback" in said or "root:" in said
        if answer.status_code not in (*each.status, *or_status) or tells or "SECRET" in said:
            through.append(f"{each.name}: {each.path}: {answer.status_code} {said[:120]}")
    return through


def files_in(folder: Path) -> set[Path]:
    """All but those of the database, which SQLite makes and removes as it likes."""
    return {path for path in folder.rglob("*") if path.is_file() and "imgalign.db" not in path.name}


def test_no_attempt_gets_anything(world: World, tmp_path: Path):
    before, files = world.rows(), files_in(tmp_path)
    assert got_through(world, ATTEMPTS, tmp_path) == []
    assert (world.rows(), files_in(tmp_path)) == (before, files)
    names = [each.name for each in (*ATTEMPTS, *AS_ANNOTATOR)]
    assert [name for name in names if names.count(name) > 1] == []


def test_no_attempt_gets_anything_by_an_annotators_session(with_accounts: World, tmp_path: Path):
    before, files = with_accounts.rows(), files_in(tmp_path)
    # Their session ends with the last of ATTEMPTS.
    every = (*AS_ANNOTATOR, *ATTEMPTS)
    assert got_through(with_accounts, every, tmp_path, or_status=(403,)) == []
    assert (with_accounts.rows(), files_in(tmp_path)) == (before, files)
    ended = with_accounts.ask("POST", "/api/rank/next", json={"annotator": "Mallory"})
    assert ended.status_code == 401


@pytest.mark.parametrize(
    "name",
    [
        *("Robert'); DROP TABLE rankings;--", "' OR '1'='1", '"; SELECT 1', "%", "_", SCRIPT),
        *(FORMULA, "@SUM(A1)", "+1", "-1+1", "{{7*7}}", "${7*7}"),
    ],
)
def test_a_name_with_a_meaning_elsewhere_is_a_name(world: World, name: str):
    screen = world.ask("POST", "/api/rank/next", json={"annotator": name}).json()
    assert screen["done"] == 0  # nobody else's
    assert world.ask("POST", "/api/rank/votes", json={"annotator": name}).json()["votes"] == []
    for each in screen["candidates"]:
        assert world.ask("GET", f"/{each['url']}").headers["content-type"] == "image/png"
    assert world.rows()["rankings"] == 1


def test_nothing_that_people_typed_becomes_a_tag_on_a_page(world: World, tmp_path: Path):
    image = [each["token"] for each in world.own["candidates"]]
    assert image
    world.store.add_annotator("eve", name=SCRIPT, group=SCRIPT)
    for page in PAGES:
        assert SCRIPT not in world.ask("GET", page).text
    for method in ("bradley-terry", "elo"):
        asked = Asked(project=SCRIPT, group=SCRIPT, method=method, prompts=f"project {SCRIPT}")
        assert "<img" not in results.shown(Leaderboard(world.store, Runs(tmp_path)), asked)
    world.store.submit(judge(world.store.next_item("eve"), "eve"))
    assert "<img" not in "".join(people.tables(world.store, "default"))
    found = Accounts(world.store.database)
    found.add(SCRIPT, PASSWORD, role="admin", group=SCRIPT)
    assert "<img" not in accounts.table(found, found.all()[0])
    with pytest.raises(gr.Error) as told:  # gradio shows what it is told as HTML
        shown(lambda: found.disable(f"{SCRIPT} of nobody"))
    assert "<" not in told.value.message
    assets = Path(results.__file__).parents[1] / "assets"
    writing = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(")
    scripts = [*assets.glob("*.js"), *assets.glob("*.html")]
    assert [path.name for path in scripts if writing.search(path.read_text("utf-8"))] == []


@pytest.mark.parametrize("prompt", [SCRIPT, FORMULA, "@SUM(A1)", "{{7*7}}", "a\u202efox", "%s %n"])
def test_a_prompt_with_a_meaning_elsewhere_is_text_wherever_it_is_shown(
    store: Store, settings: Settings, prompt: str
):
    item = add_texts(store, [prompt, f"not {prompt}"], prompt=prompt)
    mark_gold(store, item, ((0,), (1,)))
    with TestClient(built(replace(settings, pages=("rank",)), store), base_url=HERE) as client:
        answer = client.post("/api/rank/next", json={"annotator": "Ada"})
        assert answer.headers["content-type"] == "application/json"
        assert answer.json()["prompt"] == prompt
        for each in answer.json()["candidates"]:
            text = client.get(f"/{each['url']}")
            assert text.headers["content-type"] == "text/plain; charset=utf-8"
            assert text.headers["x-content-type-options"] == "nosniff"
            assert prompt in text.text
    store.submit(judge(store.next_item("Ada"), "Ada"))
    for html in (*people.tables(store, "default"), people.candidates_of(store, item)):
        assert SCRIPT not in html
        assert "<script" not in html
    assert escape(prompt) in people.tables(store, "default")[1]


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


def test_without_more_being_asked_the_app_listens_on_loopback_only(store: Store):
    assert Settings().host == "127.0.0.1"
    with pytest.raises(InputError, match="without accounts"):
        built(Settings(host="0.0.0.0"), store)


PAGES = (
    *("/", "/candidates", "/people", "/learn", "/train", "/generate", "/results"),
    *("/enter", "/join", "/reset", "/password"),
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


def test_every_route_that_can_be_reached_is_attacked_above(world: World):
    reachable = {path for _, path in reachable_routes(world.app)}
    assert {
        "/api/rank/submit",
        "/api/runs/{name}/samples/{file}",
        "/gradio_api/queue/join",
    } <= reachable
    tried = {quote(each.path.partition("?")[0], "/%{}=:") for each in ATTEMPTS}
    missing = {
        path
        for path in reachable
        if not any(re.fullmatch(each, path) for each in COVERED)
        and not any(pattern(path).fullmatch(each) for each in tried)
    }
    assert missing == set()
