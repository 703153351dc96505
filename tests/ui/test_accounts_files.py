"""Claims: with accounts, a file that a lead brings in neither adds a vote of somebody who has an
account nor takes one back."""

import json
from pathlib import Path

import pytest
from served_app import built
from starlette.testclient import TestClient
from submissions import judge
from texts import add_texts

from imgalign.preferences.accounts import Accounts, Role
from imgalign.preferences.exchange import export_rankings, import_rankings
from imgalign.preferences.store import Store
from ui.app import Settings

HERE = "http://127.0.0.1:7860"
PASSWORD = "four odd green words"
RANKINGS = "/api/people/rankings"


@pytest.fixture
def client(store: Store, tmp_path: Path) -> TestClient:
    settings = Settings(images=store.images.root, runs=tmp_path / "runs", pages=("rank", "people"))
    return TestClient(built(settings, store), base_url=HERE)


@pytest.fixture
def forged(tmp_path: Path) -> Path:
    """An export of somebody's own store, with a vote in the name of Ada."""
    file = tmp_path / "forged.jsonl"
    with Store.open(f"sqlite:///{tmp_path / 'own.db'}", images=tmp_path / "own") as own:
        add_texts(own, ["purr", "woof"])
        own.add_annotator("ADA")
        own.submit(judge(own.next_item("ADA"), "ADA"))
        export_rankings(own, file)
    return file


def everything(store: Store, tmp_path: Path) -> bytes:
    """All that an export holds."""
    export_rankings(store, tmp_path / "everything.jsonl")
    return (tmp_path / "everything.jsonl").read_bytes()


def test_a_lead_brings_in_no_vote_of_who_has_an_account(
    store: Store, client: TestClient, forged: Path, tmp_path: Path
):
    people = Accounts(store.database)
    roles: dict[str, Role] = {"Ida": "admin", "Lu": "lead", "Ada": "annotator"}
    for name, role in roles.items():
        people.add(name, PASSWORD, role=role, group="default")
    assert client.post("/api/login", json={"name": "Lu", "password": PASSWORD}).status_code == 200
    before = everything(store, tmp_path)
    send = f"{RANKINGS}?name=a.jsonl"
    lines = forged.read_bytes().splitlines()
    row = 1 + next(n for n, line in enumerate(lines) if b'"kind": "ranking"' in line)

    answer = client.post(send, content=forged.read_bytes())
    assert answer.status_code == 409
    assert answer.json()["error"] == (
        f"a.jsonl:{row}: ranking by 'ada', who has an account here and judges for themselves; "
        "give the annotator another name in the file, or ask whoever started the app to import it"
    )
    assert everything(store, tmp_path) == before

    renamed = forged.read_bytes().replace(b'"ada"', b'"ada of the file"')
    assert client.post(send, content=renamed).status_code == 200
    assert [each.annotator for each in store.rankings()] == ["ada of the file"]


def test_a_lead_takes_back_no_vote_of_who_has_an_account_by_a_file(
    store: Store, client: TestClient, forged: Path, tmp_path: Path
):
    assert import_rankings(store, forged) == 1  # on the command line
    people = Accounts(store.database)
    people.add("Ida", PASSWORD, role="admin", group="default")
    people.add("Ada", PASSWORD, role="annotator", group="default")
    assert client.post("/api/login", json={"name": "Ida", "password": PASSWORD}).status_code == 200
    send = f"{RANKINGS}?name=a.jsonl"
    whole = everything(store, tmp_path)
    assert client.post(send, content=whole).json()["said"].startswith("a.jsonl: nothing is new")
    (ranking,) = store.rankings()
    undo = {
        "kind": "undo",
        "ranking_id": ranking.ranking_id,
        "created_at": ranking.created_at.isoformat(),
    }
    answer = client.post(send, content=whole + json.dumps(undo).encode() + b"\n")
    assert answer.status_code == 409
    assert f"a.jsonl:{len(whole.splitlines()) + 1}: undo by 'ada'" in answer.json()["error"]
    assert everything(store, tmp_path) == whole
