import asyncio
import re
import signal
import socket
import time
import urllib.request
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from gradio.queueing import Queue
from starlette.testclient import TestClient
from texts import add_texts

from imgalign.cli.main import main
from imgalign.errors import InputError
from imgalign.preferences.issued import item_named
from ui import app, theme
from ui.app import Settings, build_app, launch
from ui.pages import generate, rank
from ui.theme import asset

HERE = "http://127.0.0.1:7860"


@pytest.fixture
def client(store, tmp_path):
    app = build_app(Settings(images=tmp_path / "images", runs=tmp_path / "runs"), store)
    with TestClient(app, base_url=HERE) as client:
        yield client


def post(client, path, **body):
    return client.post(f"/api/rank/{path}", json={"annotator": "Ada", **body})


def ranking_of(shown, **changes):
    ranking = [[position] for position in range(len(shown["candidates"]))]
    body = {"key": "key-0001", "item": shown["item"], "ranking": ranking, "verdict": "ranked"}
    return body | changes


def test_an_image_is_the_original_pixel_for_pixel(client, store, add_items):
    add_items(1)
    shown = post(client, "next").json()
    first = shown["candidates"][0]
    response = client.get(f"/{first['url']}")
    assert response.content == store.image_for_token(first["token"], "Ada").read_bytes()
    assert response.headers["content-type"] == "image/png"
    assert response.headers["cache-control"].startswith("private")
    assert not {"etag", "last-modified", "content-disposition"} & set(response.headers)


def test_a_text_is_served_byte_for_byte_as_plain_text_and_to_its_annotator_only(client, store):
    typed = {"<script>alert(1)</script>\r\n", "naïve 🦊  "}
    add_texts(store, sorted(typed))
    candidates = post(client, "next").json()["candidates"]
    answers = [client.get(f"/{each['url']}") for each in candidates]
    assert {answer.content.decode("utf-8") for answer in answers} == typed
    for answer in answers:
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"].startswith("private")
    store.add_annotator("Eve")
    token = candidates[0]["token"]
    for path in (
        f"texts/{token}?annotator=Eve",
        "texts/none?annotator=Ada",
        f"images/{token}?annotator=Ada",
    ):
        assert client.get(f"/api/rank/{path}").status_code == 409, path
    assert client.get(f"/api/rank/texts/{token}").status_code == 422
    assert client.get(f"/api/rank/texts/..%2F..%2F{token}?annotator=Ada").status_code in (404, 409)


def test_an_image_is_served_to_its_annotator_only(client, store, add_items):
    add_items(1)
    token = post(client, "next").json()["candidates"][0]["token"]
    store.add_annotator("Eve")
    assert client.get(f"/api/rank/images/{token}?annotator=Eve").status_code == 409


def test_a_refused_ranking_answers_with_one_line_and_stores_nothing(client, store, add_items):
    add_items(1)
    shown = post(client, "next").json()
    for changes, status in (
        ({"ranking": [[0], [0], [1], [2]]}, 422),
        ({"verdict": "liked"}, 422),
        ({"ranking": "all of them"}, 422),
        ({"order": [3, 2, 1, 0]}, 422),
        ({"surprise": 1}, 422),
        ({"client_ms": -5}, 422),
        ({"item": "somebody else's"}, 410),
    ):
        response = post(client, "submit", **ranking_of(shown, **changes))
        assert response.status_code == status, changes
        assert "\n" not in response.json()["error"]
    assert list(store.rankings()) == []


def test_only_the_pages_that_are_asked_for_are_served(store, tmp_path):
    settings = Settings(pages=("rank",), images=tmp_path, runs=tmp_path)
    with TestClient(build_app(settings, store), base_url=HERE) as client:
        config = client.get("/config").json()
        assert [page[0] for page in config["pages"]] == [""]
        assert config["dependencies"] == []
        assert client.get("/api/generated/any").status_code == 404
    everything = ("candidates", "rank", "people", "learn", "train", "generate", "results")
    assert Settings().served == Settings(host="0.0.0.0").served == everything
    assert (Settings().root, Settings(pages=("learn", "train")).root) == ("rank", "learn")


def test_nothing_is_built_for_a_network_without_accounts(store, tmp_path):
    settings = Settings(host="0.0.0.0", pages=("rank",), images=tmp_path, runs=tmp_path)
    with pytest.raises(InputError, match="without accounts the app listens on this machine only"):
        build_app(settings, store)


@pytest.mark.parametrize("pages", [(), ("rank", "admin")])
def test_an_unknown_page_is_an_error(pages):
    with pytest.raises(InputError, match="pages"):
        Settings(pages=pages)


def test_a_port_that_is_taken_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(InputError, match=f"127.0.0.1:{port}: cannot listen there"):
            launch(Settings(port=port), on_listening=pytest.fail)
    assert not (tmp_path / "imgalign.db").exists()


def test_the_address_is_told_once_it_answers_with_its_true_port(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told: list[str] = []
    unguarded: list[str] = []

    def connect(address: str) -> None:
        told.append(address)
        port = int(address.removeprefix("http://127.0.0.1:"))
        socket.create_connection(("127.0.0.1", port), timeout=5).close()

    monkeypatch.setattr("ui.app.build_app", lambda settings, store: settings)
    monkeypatch.setattr("ui.app.Server.run", lambda self, sockets: None)
    settings = Settings(port=0, pages=("rank",))
    launch(settings, on_listening=connect, on_unguarded=lambda: unguarded.append(""))
    assert unguarded == [""]  # nobody has to log in, which is said
    asked = replace(settings, accounts=True)
    launch(asked, on_unguarded=pytest.fail, on_set_up=unguarded.append)
    assert "/join#" in unguarded[1]
    assert len(told) == 1
    assert not told[0].endswith(":0")
    assert Settings(host="::1").address == "http://[::1]:7860"


def test_the_second_part_of_an_answer_does_not_wait_for_the_browser():
    async def of_the_server() -> int:
        options = asyncio.get_running_loop().create_future()

        async def connected(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            own = writer.get_extra_info("socket")
            options.set_result(own.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        listening = app._listen("127.0.0.1", 0)
        async with await asyncio.start_server(connected, sock=listening):
            _, writer = await asyncio.open_connection(*listening.getsockname())
            delay = await options
            writer.close()
        return int(delay)

    assert asyncio.run(of_the_server()) == 1


def test_the_rank_page_works_on_the_project_of_the_settings(store, add_items, tmp_path):
    add_items(1)
    (only,) = add_items(1, project="cats", num_images=2)
    settings = Settings(images=tmp_path / "images", runs=tmp_path / "runs", project="cats")
    with TestClient(build_app(settings, store), base_url=HERE) as client:
        assert item_named(store, post(client, "next").json()["item"], "Ada") == only


def test_on_this_machine_any_project_can_be_ranked_unless_one_is_named(store, add_items, tmp_path):
    add_items(1)
    (other,) = add_items(1, project="cats", num_images=2)
    folders = {"images": tmp_path / "images", "runs": tmp_path / "runs"}
    with TestClient(build_app(Settings(**folders), store), base_url=HERE) as client:
        shown = post(client, "next", project="cats").json()
        assert item_named(store, shown["item"], "Ada") == other
        assert post(client, "next").json()["project"] == "default"
        assert post(client, "next", project="birds").status_code == 422
        names = [each["name"] for each in post(client, "projects").json()["projects"]]
        assert names == ["cats", "default"]
        assert post(client, "votes", project="cats").json()["votes"] == []
        unknown = client.post("/api/rank/projects", json={"annotator": "nobody yet"})
        assert unknown.json() == {"projects": []}
    only = Settings(**folders, project="default")
    with TestClient(build_app(only, store), base_url=HERE) as client:
        for path in ("next", "votes"):
            assert post(client, path, project="cats").status_code == 422, path
        names = [each["name"] for each in post(client, "projects").json()["projects"]]
        assert names == ["default"]


def test_ctrl_c_ends_the_app_while_a_page_is_open(process):
    process.start()
    process.wait_until_ready()
    waiting = urllib.request.urlopen(f"{process.address}/gradio_api/heartbeat/abc", timeout=30)
    status = process.end(signal.SIGINT)
    waiting.close()
    assert status == 130, (process.folder / "server.log").read_text()


def test_nothing_is_fetched_from_the_internet(client):
    """No script, style, font or image of the page has an address elsewhere."""
    html = client.get("/").text
    sources = [part.split('"')[0] for part in html.split('src="')[1:]]
    assert [source for source in sources if source.startswith(("http", "//"))] == []
    assert "fonts.googleapis" not in html
    assert "fonts.googleapis" not in client.get("/theme.css").text
    assert '"analytics_enabled":false' in html.replace(" ", "")


def test_endpoints_are_private_and_histories_off(client):
    config = client.get("/config").json()
    assert {d["api_visibility"] for d in config["dependencies"]} <= {"private"}
    assert client.get("/monitoring").status_code in (403, 404)
    assert config.get("run_history") in (False, None)


def test_what_scripts_of_components_share_has_one_home_and_comes_once():
    folder = Path(theme.__file__).parent / "assets"
    for path in folder.glob("*.js"):
        text = asset(path.name)
        assert text.count("const make = ") == (path.name in {"dom.js", *theme.SHARING}), path.name
    assert {path.name for path in folder.glob("*.js")} >= set(theme.SHARING)


def test_no_two_scripts_of_a_component_give_one_name_to_two_things():
    folder = Path(theme.__file__).parent / "assets"
    of_several = {*(f"{name}.js" for page in (rank, generate) for name in page.SCRIPTS)}
    components = [page.SCRIPTS for page in (rank, generate)]
    components += [(each.stem,) for each in folder.glob("*.js") if each.name not in of_several]
    for names in components:
        text = "".join(asset(f"{name}.js") for name in names)
        made = re.findall(r"^(?:const|let|class|function) ([^=(;]+)", text, re.MULTILINE)
        found = Counter(name for each in made for name in re.findall(r"\w+", each))
        assert [name for name, times in found.items() if times > 1] == [], names


def test_the_command_serves_the_pages_that_it_names(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = []
    monkeypatch.setattr("ui.app.launch", lambda settings, **options: given.append(settings.served))
    assert main(["ui", "--page", "rank", "--page", "people"]) == 0
    assert main(["ui"]) == 0
    assert given == [("rank", "people"), Settings().served]
    assert main(["ui", "--page", "admin"]) == 2
    assert "pages: expected some of candidates, rank" in capsys.readouterr().err


def test_at_rest_the_server_looks_for_events_fifty_times_a_second_and_not_a_thousand(client):
    (blocks,) = [
        route.app.get_blocks()
        for route in client.app.routes
        if hasattr(getattr(route, "app", None), "get_blocks")
    ]
    looks = []

    class Counted(Queue):
        def __len__(self) -> int:
            looks.append(time.monotonic())
            return super().__len__()

    blocks._queue.__class__ = Counted
    time.sleep(1.0)
    assert 5 <= len(looks) <= 60
