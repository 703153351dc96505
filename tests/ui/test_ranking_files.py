"""Claims: a lead takes a project's rankings home and brings rankings in, whole or not at all, and
is told what came in or why nothing did; nobody else may."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from submissions import judge
from texts import add_texts

from imgalign.errors import InputError
from imgalign.preferences.accounts import Accounts
from imgalign.preferences.exchange import export_rankings
from imgalign.preferences.foreign.table import read_table
from imgalign.preferences.store import Store
from ui import ranking_files
from ui.app import Settings, build_app

HERE = "http://127.0.0.1:7860"
PASSWORD = "four odd green words"
RANKINGS = "/api/people/rankings"


@pytest.fixture
def app(store: Store, tmp_path: Path) -> Any:
    settings = Settings(images=store.images.root, runs=tmp_path / "runs", pages=("rank", "people"))
    # In a thread of its own: playwright keeps an event loop running in the main one.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(build_app, settings, store).result()


@pytest.fixture
def client(app: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> TestClient:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    return TestClient(app, base_url=HERE)


@pytest.fixture
def judged(store: Store, add_items: Any) -> Store:
    add_items(2)
    store.add_annotator("ann")
    while (item := store.next_item("ann")) is not None:
        store.submit(judge(item, "ann"))
    return store


def test_what_is_taken_home_comes_in_again_in_another_database(
    judged: Store, client: TestClient, tmp_path: Path
):
    taken = client.get(RANKINGS + "/rankings?project=default")
    assert "default-rankings.jsonl" in taken.headers["content-disposition"]
    export_rankings(judged, tmp_path / "whole.jsonl", project="default")
    assert taken.content == (tmp_path / "whole.jsonl").read_bytes()
    again = client.post(RANKINGS + "?name=a.jsonl", content=taken.content)
    assert again.json() == {"said": "a.jsonl: nothing is new; its rankings are here already"}
    url = f"sqlite:///{tmp_path / 'other.db'}"
    with Store.open(url, images=judged.images.root) as other:
        (tmp_path / "sent.jsonl").write_bytes(taken.content)
        said = ranking_files.brought_in(other, tmp_path / "sent.jsonl", "a.jsonl")
        assert said == "a.jsonl: 2 rankings are new"
        assert list(other.rankings()) == list(judged.rankings())
    assert list((tmp_path / "temporary").iterdir()) == []


def test_pairs_of_images_are_a_table_in_the_images_folder(
    judged: Store, client: TestClient, tmp_path: Path
):
    taken = client.get(RANKINGS + "/image_pairs?project=default")
    table = judged.images.root / "pairs.jsonl"
    table.write_bytes(taken.content)
    found = read_table(table)
    assert (len(found.rankings), found.left_out) == (12, ())  # six pairs of each four images
    assert {each.ranks for each in found.rankings} == {(0, 1)}
    assert ranking_files.offered(judged, "default") == ["rankings", "image_pairs"]
    none = client.get(RANKINGS + "/text_pairs?project=default")
    assert none.status_code == 422
    assert "expected rankings of texts, got 2 of images" in none.json()["error"]
    assert list((tmp_path / "temporary").iterdir()) == []


def test_pairs_of_texts_hold_the_texts_and_names_are_escaped(store: Store, client: TestClient):
    add_texts(store, ["a red cat", "a cat"], project='a "b" & <c>')
    store.add_annotator("ann")
    item = store.next_item("ann", project='a "b" & <c>')
    store.submit(judge(item, "ann"))
    asked = {"project": 'a "b" & <c>'}
    (line,) = client.get(RANKINGS + "/text_pairs", params=asked).text.splitlines()
    row = json.loads(line)
    assert {row["chosen"], row["rejected"]} == {"a red cat", "a cat"}
    html = ranking_files.links(store, asked["project"])
    assert 'text_pairs?project=a+%22b%22+%26+%3Cc%3E"' in html
    assert ranking_files.links(store, "x") == ranking_files.links(store, None) == ""


def test_a_refusal_names_the_line_of_the_file_that_was_sent_and_keeps_nothing(
    judged: Store, client: TestClient, tmp_path: Path
):
    lines = client.get(RANKINGS + "/rankings?project=default").content.splitlines(keepends=True)
    added = lines[1].replace(json.loads(lines[1])["image_id"].encode(), b"0" * 64)
    refused = client.post(RANKINGS + "?name=my.jsonl", content=lines[0] + added)
    assert refused.status_code == 422
    assert refused.json()["error"] == (
        "my.jsonl:2: image 000000000000 is not here; import it with its images, by "
        "'imgalign data import --source-images' on this machine"
    )
    changed = b"".join(lines).replace(b'"verdict": "ranked"', b'"verdict": "all_bad"', 1)
    contradicts = client.post(RANKINGS + "?name=my.jsonl", content=changed)
    assert contradicts.status_code in (409, 422)
    assert contradicts.json()["error"].startswith("my.jsonl:")
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_file_that_is_too_large_and_a_second_import_are_refused(
    store: Store, client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("ui.api.people.LARGEST_UPLOAD", 2**20)
    large = client.post(RANKINGS + "?name=a.jsonl", content=(b"x" * 2**19 for _ in range(3)))
    assert large.status_code == 422
    assert "expected at most 1 MB, got more; import it by" in large.json()["error"]
    with ranking_files._ONE_AT_A_TIME, pytest.raises(InputError, match="another import"):
        ranking_files.brought_in(store, tmp_path / "a.jsonl", "a.jsonl")


def test_with_accounts_leads_alone_take_and_bring_rankings(
    judged: Store, client: TestClient, app: Any
):
    people = Accounts(judged.database)
    for name, role in (("Ida", "admin"), ("Lu", "lead"), ("Ann", "annotator")):
        people.add(name, PASSWORD, role=role, group="default")
    for name, status in ((None, 401), ("Ann", 403), ("Lu", 200), ("Ida", 200)):
        browser = TestClient(app, base_url=HERE)
        if name:
            known = {"name": name, "password": PASSWORD}
            assert browser.post("/api/login", json=known).status_code == 200
        taken = browser.get(RANKINGS + "/rankings?project=default")
        first = b'{"kind": "imgalign-rankings", "version": 1}\n'
        sent = browser.post(RANKINGS + "?name=a.jsonl", content=first)
        assert (taken.status_code, sent.status_code) == (status, status), name
