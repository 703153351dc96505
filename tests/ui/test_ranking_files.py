"""Claims: a lead takes a project's rankings home and brings rankings in, whole or not at all, and
is told what came in or why nothing did; nobody else may."""

import gc
import io
import json
import threading
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus, urlencode

import pytest
import taken_files
from served_app import built
from starlette.testclient import TestClient
from submissions import judge
from texts import add_texts
from waiting import wait_for

from imgalign.errors import DatabaseError, InputError, StoreError
from imgalign.preferences.accounts import Accounts, Role
from imgalign.preferences.exchange import export_rankings, import_rankings
from imgalign.preferences.foreign.pair_folder import read_pair_folder
from imgalign.preferences.foreign.table import read_table
from imgalign.preferences.store import Store
from ui import ranking_files, ranking_import
from ui.api.responses import OUT_OF_ORDER
from ui.app import Settings
from ui.builds import Builds, Built

HERE = "http://127.0.0.1:7860"
PASSWORD = "four odd green words"
RANKINGS = "/api/people/rankings"
FILES = "/api/people/files"
NOT_YET = {"ready": False, "said": ""}


@pytest.fixture
def app(store: Store, tmp_path: Path) -> Any:
    settings = Settings(images=store.images.root, runs=tmp_path / "runs", pages=("rank", "people"))
    return built(settings, store)


@pytest.fixture
def client(app: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> TestClient:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    return TestClient(app, base_url=HERE)


@pytest.fixture
def judged(store: Store, add_items: Any) -> Store:
    add_items(2, overlap=2)
    store.add_annotator("ann")
    while (item := store.next_item("ann")) is not None:
        store.submit(judge(item, "ann"))
    return store


def asked(client: TestClient, kind: str, project: str = "default") -> str:
    """Ask for a file, and wait until it is written; the path under which it can be asked for."""
    return taken_files.asked(client, address_of(kind, project), FILES)


def taken(client: TestClient, kind: str, project: str = "default") -> tuple[str, bytes]:
    """The name and the content of a file."""
    return taken_files.taken(client, address_of(kind, project), FILES)


def address_of(kind: str, project: str) -> str:
    return f"{FILES}?{urlencode({'kind': kind, 'project': project})}"


def packed(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, each in files.items():
            archive.writestr(name, each)
    return content.getvalue()


@pytest.fixture
def brought(tmp_path: Path) -> Callable[[bytes], tuple[str, Store]]:
    """Import a zip into a store without anything; what is said, and the store."""

    def bring(content: bytes, name: str = "a.zip") -> tuple[str, Store]:
        (tmp_path / "sent").write_bytes(content)
        other = Store.open(f"sqlite:///{tmp_path / 'other.db'}", images=tmp_path / "others")
        return ranking_import.brought_in(other, tmp_path / "sent", name), other

    return bring


def test_a_project_with_images_comes_in_where_there_is_nothing_of_it(
    judged: Store, client: TestClient, brought: Any, tmp_path: Path
):
    name, content = taken(client, "rankings_and_images")
    assert name == "default-rankings_and_images.zip"
    said, other = brought(content)
    with other:
        assert said == "a.zip: 2 rankings are new, in project 'default'"
        assert list(other.rankings()) == list(judged.rankings())
        for ranking in other.rankings():
            for image in ranking.sample_ids:
                assert other.image_path(image).read_bytes() == judged.image_path(image).read_bytes()
    # the command reads what is unpacked
    zipfile.ZipFile(io.BytesIO(content)).extractall(tmp_path / "unpacked")
    with Store.open(f"sqlite:///{tmp_path / 'third.db'}", images=tmp_path / "thirds") as third:
        unpacked = tmp_path / "unpacked"
        lines = unpacked / "rankings.jsonl"
        assert import_rankings(third, lines, images=unpacked / "images") == 2


def test_rankings_alone_come_in_again_where_the_images_are(
    judged: Store, client: TestClient, tmp_path: Path
):
    name, content = taken(client, "rankings")
    assert name == "default-rankings.jsonl"
    export_rankings(judged, tmp_path / "whole.jsonl", project="default")
    assert content == (tmp_path / "whole.jsonl").read_bytes()
    again = client.post(RANKINGS + "?name=a.jsonl", content=content)
    assert again.json() == {"said": "a.jsonl: nothing is new; its rankings are here already"}


@pytest.mark.parametrize("kind", [kind for kind in ranking_files.NAMES if kind != "text_pairs"])
def test_every_kind_that_is_offered_is_written_and_its_pairs_are_read(
    judged: Store, client: TestClient, tmp_path: Path, kind: ranking_files.Kind
):
    assert kind in ranking_files.offered(judged, "default")
    name, content = taken(client, kind)
    if kind in ("rankings", "rankings_and_images"):
        return
    (tmp_path / name).write_bytes(content)
    place = tmp_path / name
    if place.suffix == ".zip":
        place = tmp_path / "unpacked"
        zipfile.ZipFile(tmp_path / name).extractall(place)
    read = read_pair_folder if kind == "pairs" else read_table
    found = read(place)
    lists = kind in ("image_reward_db", "hpd_v2")
    assert len(found.rankings) == (2 if lists else 12)  # six pairs of each four images
    assert found.left_out == ()


def test_what_a_format_has_no_place_for_is_said(judged: Store, client: TestClient):
    judged.add_annotator("bob")
    tie = judge(judged.next_item("bob"), "bob", ranking=((0, 1), (2,), (3,)))
    judged.submit(tie)
    judged.submit(judge(judged.next_item("bob"), "bob", ranking=None, verdict="all_bad"))
    said = client.get(asked(client, "hpd_v3")).json()["said"]
    assert said == (
        "17 rows of 3 rankings; left out, ties of two images, the format wants a better one: 1; "
        "left out, all bad, for which the format has no place: 1"
    )
    assert client.get(asked(client, "rankings")).json()["said"] == "4 rankings"


def test_what_cannot_be_written_is_said_by_the_project_and_not_by_a_path(
    judged: Store, client: TestClient
):
    answer = client.get(asked(client, "text_pairs"))
    assert answer.status_code == 422
    assert "expected rankings of texts, got 2 of images" in answer.json()["error"]
    judged.undo("ann", next(iter(judged.rankings())).key)
    judged.undo("ann", next(iter(judged.rankings())).key)
    for kind in ("pairs", "hpd_v3", "pick_a_pic"):
        path = asked(client, kind)
        error = client.get(path).json()["error"]
        assert "imgalign-" not in error
        assert client.get(path + "/content").json()["error"] == error
    missing = client.get(asked(client, "rankings", "x"))
    assert missing.json()["error"] == "project 'x': nothing is queued there; check its name"


def test_that_the_database_is_out_of_order_is_said_of_a_file_without_where_it_is(
    judged: Store, client: TestClient, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: Any) -> None:
        raise DatabaseError(f"{judged.database.name}: locked")

    monkeypatch.setattr("ui.api.people.written", fail)
    file = client.post(FILES, params={"project": "default", "kind": "rankings"}).json()["file"]
    wait_for(lambda: client.get(f"{FILES}/{file}").status_code != 200)
    answer = client.get(f"{FILES}/{file}")
    assert (answer.status_code, answer.json()) == (503, {"error": OUT_OF_ORDER[503]})


def test_only_the_latest_files_are_kept_and_one_is_written_at_a_time(
    judged: Store, client: TestClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    paths = [asked(client, "rankings") for _ in range(5)]
    assert [client.get(path).status_code for path in paths] == [422, 422, 200, 200, 200]
    assert len(list((tmp_path / "temporary").iterdir())) == 3
    going, go_on = threading.Event(), threading.Event()

    def slow(*_: Any) -> tuple[Path, str]:
        going.set()
        go_on.wait(30)
        raise RuntimeError("a bug")

    monkeypatch.setattr("ui.api.people.written", slow)
    monkeypatch.setattr("threading.excepthook", lambda _: None)
    file = client.post(address_of("rankings", "default")).json()["file"]
    path = f"{FILES}/{file}"
    assert going.wait(30)
    assert client.post(address_of("rankings", "default")).json()["file"] == file
    assert client.get(path).json() == NOT_YET
    assert "still being written" in client.get(path + "/content").json()["error"]
    second = client.post(FILES + "?kind=pairs&project=default")
    assert second.status_code == 422
    assert "another file is being written" in second.json()["error"]
    go_on.set()
    wait_for(lambda: client.get(path).status_code == 422)
    assert "its log says why" in client.get(path).json()["error"]


def test_files_go_with_the_app_that_wrote_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "files"))
    (tmp_path / "files").mkdir()
    builds = Builds()

    def write(folder: Path) -> Built:
        (folder / "made").touch()
        return Built(folder / "made", "made", "nothing")

    build = builds.build(builds.begin("rankings", write))
    wait_for(lambda: build.built is not None)
    assert list((tmp_path / "files").iterdir())
    del builds  # ResourceWarning, an error here, if that were left to the interpreter
    gc.collect()
    assert list((tmp_path / "files").iterdir()) == []


def test_pairs_of_texts_hold_the_texts_and_names_are_escaped(store: Store, client: TestClient):
    project = 'a "b" & <c>'
    add_texts(store, ["a red cat", "a cat"], project=project)
    store.add_annotator("ann")
    item = store.next_item("ann", project=project)
    store.submit(judge(item, "ann"))
    name, content = taken(client, "text_pairs", project)
    assert name == 'a "b" & <c>-text_pairs.jsonl'
    (line,) = content.decode().splitlines()
    row = json.loads(line)
    assert {row["chosen"], row["rejected"]} == {"a red cat", "a cat"}
    html = ranking_files.choices(store, project)
    address = f"{FILES}?kind=text_pairs&amp;project={quote_plus(project)}".removeprefix("/")
    assert f'data-take="{address}"' in html
    assert ranking_files.choices(store, "x") == ranking_files.choices(store, None) == ""


def changed(content: bytes, change: Callable[[dict[str, bytes]], dict[str, bytes]]) -> bytes:
    """A zip with other files."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return packed(change({name: archive.read(name) for name in archive.namelist()}))


def test_names_inside_of_an_archive_never_become_paths(
    judged: Store, client: TestClient, brought: Any, tmp_path: Path
):
    _, content = taken(client, "rankings_and_images")
    outside = changed(
        content,
        lambda files: (
            {
                f"../../../{'x' * (number % 2)}{name}": each
                for number, (name, each) in enumerate(files.items())
            }
            | {"../../outside.png": b"x", "/etc/passwd": b"x", "__MACOSX/._rankings.jsonl": b"x"}
        ),
    )
    before = {path for path in tmp_path.rglob("*") if "other" not in path.name}
    said, other = brought(outside)
    other.close()
    assert said == "a.zip: 2 rankings are new, in project 'default'"
    new = {path for path in tmp_path.rglob("*")} - before
    assert all(
        path.name == "sent" or path.relative_to(tmp_path).parts[0].startswith("other")
        for path in new
    )


def first_image(files: dict[str, bytes]) -> str:
    return next(name for name in files if name.endswith(".png"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: f | {first_image(f): b"x"}, "damaged or exchanged, its SHA-256 begins"),
        (
            lambda f: {name: each for name, each in f.items() if name != first_image(f)},
            "a.zip:2: image .* is not here",
        ),
        (lambda f: f | {"b.jsonl": b"{}"}, "expected one .jsonl file and its images, got 2"),
        (lambda f: {"b.png": b"x"}, "expected one .jsonl file and its images, got 0"),
        (lambda f: f | {"rankings.jsonl": b"[1]"}, "a.zip:1: expected"),
    ],
)
def test_an_archive_that_does_not_fit_is_refused_and_nothing_of_it_is_kept(
    judged: Store, client: TestClient, brought: Any, tmp_path: Path, change: Any, says: str
):
    _, content = taken(client, "rankings_and_images")
    with pytest.raises((InputError, StoreError), match=says):
        brought(changed(content, change))
    with Store.open(f"sqlite:///{tmp_path / 'other.db'}", images=tmp_path / "others") as other:
        assert list(other.rankings(include_undone=True)) == []
    assert list((tmp_path / "others").rglob("*.png")) == []
    kept = [each.name for each in (tmp_path / "temporary").iterdir()]
    assert len(kept) == 1  # the file that was taken


def test_archives_that_unpack_to_too_much_or_are_none_are_refused(
    judged: Store, client: TestClient, monkeypatch: pytest.MonkeyPatch
):
    _, content = taken(client, "rankings_and_images")
    send = RANKINGS + "?name=a.zip"
    for module, name in (
        ("ui.ranking_import", "MOST_MEMBERS"),
        ("ui.ranking_import", "MOST_BYTES"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(f"{module}.{name}", 1)
            assert "got more; unpack it" in client.post(send, content=content).json()["error"]
    for broken in (content[:-40], b"", b"PK\x03\x04" + b"x" * 100):
        answer = client.post(send, content=broken)
        assert answer.status_code == 422
        assert answer.json()["error"].startswith("a.zip: expected a zip archive")


def test_a_refusal_names_the_line_of_the_file_that_was_sent_and_keeps_nothing(
    judged: Store, client: TestClient, tmp_path: Path
):
    lines = taken(client, "rankings")[1].splitlines(keepends=True)
    added = lines[1].replace(json.loads(lines[1])["image_id"].encode(), b"0" * 64)
    refused = client.post(RANKINGS + "?name=my.jsonl", content=lines[0] + added)
    assert refused.status_code == 422
    assert refused.json()["error"] == (
        "my.jsonl:2: image 000000000000 is not here; send a zip with the images, as "
        "'All rankings, with images' writes it"
    )
    changed = b"".join(lines).replace(b'"verdict": "ranked"', b'"verdict": "all_bad"', 1)
    contradicts = client.post(RANKINGS + "?name=my.jsonl", content=changed)
    assert contradicts.status_code in (409, 422)
    assert contradicts.json()["error"].startswith("my.jsonl:")
    assert len(list((tmp_path / "temporary").iterdir())) == 1  # the file that was taken


def test_a_file_that_is_too_large_and_a_second_import_are_refused(
    store: Store, client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("ui.api.people.LARGEST_UPLOAD", 2**20)
    large = client.post(RANKINGS + "?name=a.jsonl", content=(b"x" * 2**19 for _ in range(3)))
    assert large.status_code == 422
    assert "expected at most 1 MB, got more; ask whoever started the app" in large.json()["error"]
    with ranking_import._ONE_AT_A_TIME, pytest.raises(InputError, match="another import"):
        ranking_import.brought_in(store, tmp_path / "a.jsonl", "a.jsonl")


def is_settled(browser: TestClient, file: str) -> bool:
    return browser.get(f"{FILES}/{file}").json() != NOT_YET


def test_with_accounts_leads_alone_take_and_bring_rankings(
    judged: Store, client: TestClient, app: Any
):
    people = Accounts(judged.database)
    roles: dict[str, Role] = {"Ida": "admin", "Lu": "lead", "Ann": "annotator"}
    for name, role in roles.items():
        people.add(name, PASSWORD, role=role, group="default")
    for name, status in ((None, 401), ("Ann", 403), ("Lu", 200), ("Ida", 200)):
        browser = TestClient(app, base_url=HERE)
        if name:
            known = {"name": name, "password": PASSWORD}
            assert browser.post("/api/login", json=known).status_code == 200
        begun = browser.post(FILES + "?kind=rankings&project=default")
        file = begun.json().get("file", "x")
        wait_for(partial(is_settled, browser, file))
        taken = browser.get(f"{FILES}/{file}/content")
        first = b'{"kind": "imgalign-rankings", "version": 1}\n'
        sent = browser.post(RANKINGS + "?name=a.jsonl", content=first)
        assert [each.status_code for each in (begun, taken, sent)] == [status] * 3, name
