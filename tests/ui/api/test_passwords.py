"""Claims: a password is changed in a browser, by a reset link or with the old one, as slowly as one
logs in; and where accounts are asked for and there are none, nobody gets in but by the link that
the server printed."""

import re
from dataclasses import replace

import pytest
from served_app import built
from starlette.testclient import TestClient

from imgalign.cli.main import main
from imgalign.errors import StoreError
from imgalign.preferences.accounts import Accounts, Role
from imgalign.preferences.resets import Resets
from imgalign.preferences.store import Store
from ui.api.login import COOKIE, TRIES
from ui.app import Settings, launch
from ui.heading import PAGES
from ui.pages import accounts
from ui.roles import ACCOUNT, may

HERE = "http://127.0.0.1:7860"
PASSWORD = "four odd green words"
OTHER = "another few blue words"
WEB_PAGE = {"Accept": "text/html"}


def app_of(store, tmp_path, **changes):
    settings = Settings(images=tmp_path / "images", runs=tmp_path / "runs", **changes)
    return built(settings, store)


@pytest.fixture
def people(store) -> Accounts:
    people = Accounts(store.database)
    roles: dict[str, Role] = {"Lea": "admin", "Lu": "lead", "Ann": "annotator"}
    for name, role in roles.items():
        people.add(name, PASSWORD, role=role, group="default")
    return people


@pytest.fixture
def browser(people, store, tmp_path):
    app = app_of(store, tmp_path, host="0.0.0.0")

    def opened(name: str | None = None, *, at: str = "192.0.2.1") -> TestClient:
        client = TestClient(app, base_url=HERE, follow_redirects=False, client=(at, 50000))
        if name is not None:
            assert ask(client, "login", name=name, password=PASSWORD).status_code == 200
        return client

    return opened


def ask(client: TestClient, path: str, **body: object):
    return client.post(f"/api/{path}", json=body)


def test_a_lead_gives_an_annotator_a_link_by_which_they_choose_another_password(
    browser, people, store
):
    elsewhere = browser("Ann")
    lead = people.of_session(browser("Lu").cookies[COOKIE])
    page, _, token = accounts.reset_link(people, lead, "ann").partition("#")
    assert page == "reset"
    client = browser()
    answer = client.get(f"/{page}")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert ask(client, "reset-link", token=token).json() == {"name": "Ann"}
    short = ask(client, "reset", token=token, password="short")
    assert (short.status_code, "10 to 200" in short.json()["error"]) == (422, True)
    assert ask(client, "reset", token=token, password=OTHER).json()["name"] == "Ann"
    assert client.get("/api/account").json() == {"name": "Ann", "role": "annotator"}
    assert elsewhere.get("/api/account").json()["name"] is None
    again = ask(browser(), "reset", token=token, password=PASSWORD)
    assert (again.status_code, "used, too old" in again.json()["error"]) == (409, True)
    assert ask(browser(), "reset-link", token=token).status_code == 404
    assert ask(browser(), "login", name="Ann", password=PASSWORD).status_code == 401


def test_a_page_makes_links_for_those_alone_who_may_change_the_account(people):
    lea, lu, ann = (next(a for a in people.all() if a.name == n) for n in ("Lea", "Lu", "Ann"))
    for by, of in ((lu, "lu"), (lu, "lea"), (ann, "ann"), (ann, "lea"), (None, "ann")):
        with pytest.raises(StoreError, match=r"may not do that|for leads"):
            accounts.reset_link(people, by, of)
    table = accounts.table(people, lu)
    assert table.count('data-do="account_reset"') == 1
    assert 'aria-label="Reset password: Ann"' in table
    assert accounts.table(people, lea).count('data-do="account_reset"') == 3
    assert 'data-do="account_reset"' not in accounts.table(people, ann)


def test_everybody_changes_their_own_password_with_the_old_one(browser, people):
    here, elsewhere, lead = browser("Ann"), browser("Ann"), browser("Lu")
    assert here.get("/password", headers=WEB_PAGE).status_code == 200
    wrong = ask(here, "password", old=OTHER, password=OTHER)
    assert (wrong.status_code, "old password" in wrong.json()["error"]) == (403, True)
    assert ask(here, "password", old=PASSWORD, password="short").status_code == 422
    assert ask(here, "password", old=PASSWORD, password=OTHER).status_code == 200
    assert here.get("/api/account").json()["name"] == "Ann"
    assert elsewhere.get("/api/account").json()["name"] is None
    assert lead.get("/api/account").json()["name"] == "Lu"
    assert ask(lead, "password", old=PASSWORD, password=OTHER, name="Ann").status_code == 422
    assert ask(browser(), "login", name="Lu", password=PASSWORD).status_code == 200


def test_without_a_session_no_password_is_changed(browser):
    client = browser()
    assert client.get("/password", headers=WEB_PAGE).headers["location"] == "/enter"
    assert ask(client, "password", old=PASSWORD, password=OTHER).status_code == 401
    assert "reset link" in client.get("/enter").text


@pytest.mark.parametrize("path", ["password", "reset"])
def test_old_passwords_and_links_cannot_be_tried_in_masses(browser, people, store, path):
    client = browser("Ann")
    body = {"password": {"old": "wrong"}, "reset": {"token": "x"}}[path]
    tried = [ask(client, path, password=OTHER, **body).status_code for _ in range(TRIES)]
    assert set(tried) == {{"password": 403, "reset": 409}[path]}
    token = Resets(store.database).link("Ann", by=None)
    right = {"password": {"old": PASSWORD}, "reset": {"token": token}}[path]
    stopped = ask(client, path, password=OTHER, **right)
    assert (stopped.status_code, "too many tries" in stopped.json()["error"]) == (429, True)
    assert people.login("Ann", PASSWORD)


def test_where_accounts_are_asked_for_and_there_are_none_only_the_link_gets_in(
    store, add_items, tmp_path
):
    add_items(1)
    people = Accounts(store.database)
    app = app_of(store, tmp_path, host="0.0.0.0", accounts=True)
    client = TestClient(app, base_url=HERE, follow_redirects=False)
    for path in ("/", *(f"/{name}" for name in PAGES if name != "rank")):
        assert client.get(path, headers=WEB_PAGE).headers["location"] == "/enter", path
    for path in ("rank/next", "rank/projects", "people/files", "candidates/uploads"):
        assert ask(client, path, annotator="Eve").status_code == 401, path
    assert client.post("/gradio_api/queue/join", json={}).status_code == 401
    assert client.get("/config").status_code == 401
    assert ask(client, "join", token="x", name="Eve", password=PASSWORD).status_code == 409
    assert not people.exist()
    assert not may(people, {ACCOUNT: None}, "annotator")
    token = people.set_up()
    joined = ask(client, "join", token=token, name="Ada", password=PASSWORD)
    assert joined.json() == {"name": "Ada", "role": "admin"}
    assert client.get("/people", headers=WEB_PAGE).status_code == 200
    late = TestClient(app, base_url=HERE)
    assert ask(late, "join", token=token, name="Eve", password=PASSWORD).status_code == 409


def test_the_link_is_told_where_accounts_are_asked_for_and_there_are_none(tmp_path, monkeypatch):
    monkeypatch.setattr("ui.app.build_app", lambda settings, store: settings)
    monkeypatch.setattr("ui.app.Server.run", lambda self, sockets: None)
    database = f"sqlite:///{tmp_path / 'imgalign.db'}"
    here = Settings(port=0, pages=("rank",), database=database)
    everywhere = replace(here, host="0.0.0.0", accounts=True)
    told: list[str] = []
    launch(here, create=True, on_set_up=told.append)
    assert told == []
    launch(everywhere, on_set_up=told.append)
    (link,) = told
    address, _, token = link.partition("/join#")
    assert re.fullmatch(r"http://127\.0\.0\.1:[1-9]\d+", address)  # 0.0.0.0 is no address to open
    assert replace(everywhere, host="::", port=1).address_here == "http://[::1]:1"
    assert replace(everywhere, host="studio.local", port=1).address_here == "http://studio.local:1"
    with Store.open(database, create=False) as store:
        assert Accounts(store.database).join(token, "Ada", PASSWORD).role == "admin"
    launch(everywhere, on_set_up=told.append)
    assert told == [link]


def test_the_command_says_how_to_make_the_first_account(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("IMGALIGN_DATABASE", raising=False)
    assert main(["ui", "--host", "0.0.0.0", "--port", "0", "--create"]) == 2
    said = capsys.readouterr().err
    assert "add --accounts and open the link that it prints" in said
    assert said.count("\n") == 1
    given = []

    def launched(settings, *, on_set_up, **options):
        given.append(settings.accounts)
        on_set_up("http://127.0.0.1:7860/join#token")

    monkeypatch.setattr("ui.app.launch", launched)
    assert main(["ui", "--host", "0.0.0.0", "--accounts"]) == 0
    assert given == [True]
    assert "http://127.0.0.1:7860/join#token" in capsys.readouterr().out
