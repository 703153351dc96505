"""What a stranger can send, on loopback and on a network."""

import pytest
from served_app import built
from starlette.testclient import TestClient

from imgalign.errors import InputError
from imgalign.preferences.accounts import Accounts
from ui.api.security import LARGEST_BODY
from ui.app import Settings
from ui.heading import PAGES

HERE = "http://127.0.0.1:7860"


@pytest.fixture
def open_app(store, tmp_path):
    """A client of an app with these settings."""
    clients = []

    def opened(**changes):
        settings = Settings(images=tmp_path / "images", runs=tmp_path / "runs", **changes)
        app = built(settings, store)
        clients.append(TestClient(app, base_url=HERE))
        return clients[-1].__enter__()

    yield opened
    for client in clients:
        client.__exit__(None, None, None)


def ask(client, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post("/api/rank/next", json={"annotator": "Ada"}, headers=headers)


def test_on_loopback_only_its_own_names_are_answered(open_app):
    client = open_app()
    for name in ("127.0.0.1:7860", "localhost:7860", "LOCALHOST", "[::1]:7860"):
        assert client.get("/config", headers={"Host": name}).status_code == 200, name
    for name in ("rebound.example:7860", "192.168.0.9", "127.0.0.1.rebound.example", ""):
        refused = client.get("/config", headers={"Host": name})
        assert refused.status_code == 403, name
        assert "--allow-host" in refused.json()["error"]


def test_on_a_network_a_name_must_be_allowed_and_an_address_always_is(open_app, store):
    Accounts(store.database).add("Lea", "four odd green words", role="admin", group="default")
    client = open_app(host="0.0.0.0", allow_hosts=("studio.local",), pages=("rank",))
    for name in ("studio.local:7860", "Studio.Local", "192.168.0.9:7860", "[fe80::1]:7860"):
        assert client.get("/enter", headers={"Host": name}).status_code == 200, name
    for name in ("rebound.example", "studio.local.rebound.example", "local"):
        assert client.get("/enter", headers={"Host": name}).status_code == 403, name


def test_a_name_that_a_proxy_forwards_is_checked_as_well(open_app):
    client = open_app(allow_hosts=("studio.example",))
    assert ask(client, X_Forwarded_Host="studio.example").status_code == 200
    assert ask(client, X_Forwarded_Host="rebound.example").status_code == 403


def test_requests_of_other_origins_are_refused_whatever_they_ask(open_app):
    client = open_app(allow_hosts=("studio.example",))
    for origin in ("https://evil.example", "http://127.0.0.1:3000", "null", ""):
        assert ask(client, Origin=origin).status_code == 403, origin
        assert client.get("/config", headers={"Origin": origin}).status_code == 403, origin
        assert client.options("/config", headers={"Origin": origin}).status_code == 403, origin
    for origin in (HERE, "https://studio.example"):
        assert ask(client, Origin=origin).status_code == 200, origin


@pytest.mark.parametrize("pages", [("rank",), tuple(PAGES)])
def test_what_no_page_needs_of_gradio_is_not_there(open_app, pages):
    client = open_app(pages=pages)
    files = {"files": ("a.bin", b"x" * 1000)}
    assert client.post("/gradio_api/upload", files=files).status_code == 404
    for path in (
        "/gradio_api/file=imgalign.db",
        "/gradio_api/file/imgalign.db",
        "/gradio_api/proxy=https://example.com",
        "/gradio_api/info",
        "/gradio_api/runs",
        "/gradio_api/upload_progress?upload_id=1",
        "/gradio_api/deep_link?session_hash=1",
        "/monitoring",
        "/login",
    ):
        assert client.get(path).status_code == 404, path
    for path in ("/gradio_api/run/predict", "/gradio_api/component_server"):
        assert client.post(path, json={}).status_code == 404, path


def test_the_rank_page_alone_has_no_event_queue(open_app):
    client = open_app(pages=("rank",))
    assert client.post("/gradio_api/queue/join", json={"data": []}).status_code == 404
    assert client.get("/gradio_api/heartbeat/abc").status_code == 404
    assert client.get("/train").status_code == 404


def test_a_body_larger_than_any_page_sends_is_refused(open_app):
    client = open_app()
    announced = client.post("/api/rank/next", content=b'"' + b"x" * LARGEST_BODY + b'"')
    assert announced.status_code == 413

    def in_pieces():
        for _ in range(LARGEST_BODY // 1024 + 2):
            yield b"x" * 1024

    assert client.post("/api/rank/next", content=in_pieces()).status_code == 413
    assert client.post("/gradio_api/queue/join", content=in_pieces()).status_code == 413
    lying = {"Content-Length": "9" * 5000}
    assert client.post("/api/rank/next", content=b"{}", headers=lying).status_code == 413
    assert ask(client).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"annotator": "\\ud800"}',
        b'{"annotator": "A\\u0000da"}',
        b'{"annotator": "Ada", "a\\nb": 1}',
        b'{"annotator": "Ada", "\\ud800": 1}',
        b'{"annotator": "Ada", "' + b"x" * 100_000 + b'": 1}',
        b'{"annotator": ' + b"9" * 5000 + b"}",
        b"\xff\xfe",
        b"",
    ],
)
def test_a_body_that_is_no_request_is_refused_in_one_line(open_app, body):
    client = open_app()
    response = client.post(
        "/api/rank/next", content=body, headers={"Content-Type": "application/json"}
    )
    assert response.status_code in (400, 422)
    answer = response.json()
    line = str(answer.get("error") or answer["detail"])
    assert line.isprintable()
    assert len(line) < 500


def test_one_machine_cannot_invent_annotators_without_end(open_app, add_items):
    add_items(1)
    client = open_app()
    codes = [
        client.post("/api/rank/next", json={"annotator": f"stranger {n}"}).status_code
        for n in range(60)
    ]
    assert codes[0] == 200
    assert codes[-1] == 409
    refused = client.post("/api/rank/next", json={"annotator": "stranger 61"}).json()["error"]
    assert "new names" in refused
    assert client.post("/api/rank/next", json={"annotator": "stranger 0"}).status_code == 200


@pytest.mark.parametrize("path", ["/studio/", "studio", "//studio", "/a b", "/studio?x", "/"])
def test_a_root_path_is_a_plain_path(path):
    with pytest.raises(InputError, match="root path"):
        Settings(root_path=path)


@pytest.mark.parametrize("name", ["studio.local:7860", "http://studio.local", "*", ""])
def test_an_allowed_host_is_a_name(name):
    with pytest.raises(InputError, match="allowed host"):
        Settings(allow_hosts=(name,))


def test_a_model_or_a_folder_of_runs_that_cannot_be_is_refused_at_the_start(tmp_path):
    file = tmp_path / "file"
    file.write_text("text")
    with pytest.raises(InputError, match="expected a folder of runs"):
        Settings(runs=file)
    with pytest.raises(InputError, match="no such folder"):
        Settings(model="/nope")
    with pytest.raises(InputError, match="no such folder"):
        Settings(model="./nope")
    assert Settings(model="owner/name").model == "owner/name"
    assert Settings(model="/nope", pages=("rank",)).served == ("rank",)
