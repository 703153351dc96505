"""Claims: with accounts nobody gets past the login without a session, nobody acts as somebody else,
annotators reach what they need to rank, and passwords cannot be tried in masses."""

import pytest
from served_app import built
from starlette.testclient import TestClient

from imgalign.errors import DatabaseError, InputError, StorageFullError
from imgalign.preferences.accounts import Accounts
from imgalign.preferences.openings import set_open
from ui.api.login import COOKIE, TRIES, refuse_network_without_accounts
from ui.app import Settings
from ui.heading import PAGES

HERE = "http://127.0.0.1:7860"
PASSWORD = "four odd green words"
WEB_PAGE = {"Accept": "text/html"}


@pytest.fixture
def people(store) -> Accounts:
    people = Accounts(store.database)
    people.add("Lea", PASSWORD, role="admin", group="default")
    people.add("Ann", PASSWORD, role="annotator", group="default")
    return people


@pytest.fixture
def app(request, store, tmp_path):
    if "people" in request.fixturenames:
        request.getfixturevalue("people")
    # Where it listens makes no difference once there are accounts.
    host = "0.0.0.0" if Accounts(store.database).exist() else "127.0.0.1"
    settings = Settings(host=host, images=tmp_path / "images", runs=tmp_path / "runs")
    return built(settings, store)


@pytest.fixture
def browser(app):
    """A browser of its own, logged in by a name."""

    def opened(name: str | None = None, *, at: str = "192.0.2.1") -> TestClient:
        client = TestClient(app, base_url=HERE, follow_redirects=False, client=(at, 50000))
        if name is not None:
            answer = client.post("/api/login", json={"name": name, "password": PASSWORD})
            assert answer.status_code == 200, answer.text
        return client

    return opened


def ask(client: TestClient, path: str, **body: object):
    return client.post(f"/api/{path}", json=body)


def test_without_accounts_nobody_is_asked_and_a_network_is_refused(browser, store):
    client = browser()
    assert ask(client, "rank/next", annotator="Zoe").status_code == 200
    assert client.get("/api/account").json() == {"name": None, "role": None}
    refuse_network_without_accounts("127.0.0.1", Accounts(store.database))
    with pytest.raises(InputError, match=r"open the link .* accounts add NAME --role admin"):
        refuse_network_without_accounts("0.0.0.0", Accounts(store.database))


def test_without_a_session_only_the_login_is_there(browser, people, app, store):
    refuse_network_without_accounts("0.0.0.0", Accounts(store.database))
    client = browser()
    for path in ("/", *(f"/{name}" for name in PAGES if name != "rank")):
        answer = client.get(path, headers=WEB_PAGE)
        assert (answer.status_code, answer.headers["location"]) == (303, "/enter"), path
    for page in ("/enter", "/join"):
        answer = client.get(page)
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-store"
    for path in ("/config", "/api/rank/guidelines", "/api/rank/images/abc?annotator=Ann"):
        assert client.get(path).status_code == 401, path
    for path in ("rank/next", "rank/submit", "rank/undo", "rank/votes", "rank/projects"):
        assert ask(client, path, annotator="Ann").status_code == 401, path
    assert client.post("/gradio_api/queue/join", json={}).status_code == 401
    assert client.get("/", headers={"Cookie": f"{COOKIE}=forged"}).status_code == 401


def test_every_route_of_the_app_asks_for_a_session(browser, people, app):
    client = browser()
    open_paths = {"/enter", "/join", "/reset", "/favicon.ico", "/robots.txt"}
    open_paths |= {f"/api/{n}" for n in ("login", "join", "invitation", "logout", "account")}
    open_paths |= {"/api/reset", "/api/reset-link"}
    routes = app.openapi()["paths"]
    assert {"/api/rank/submit", "/api/rank/images/{token}", "/enter"} <= set(routes)
    for path, methods in routes.items():
        for method in methods:
            if path not in open_paths:
                answer = client.request(method, path.replace("{", "").replace("}", ""))
                assert answer.status_code in (401, 404), (method, path)


def test_a_session_is_a_cookie_that_scripts_cannot_read(browser, people):
    client = browser()
    answer = ask(client, "login", name="ann", password=PASSWORD)
    assert answer.json() == {"name": "Ann", "role": "annotator"}
    cookie = answer.headers["set-cookie"].lower()
    for part in ("httponly", "samesite=lax", "path=/", "max-age=2592000"):
        assert part in cookie
    assert "secure" not in cookie
    assert client.get("/api/account").json()["name"] == "Ann"
    assert ask(client, "logout").status_code == 200
    assert client.get("/api/account").json()["name"] is None
    assert ask(client, "rank/next", annotator="Ann").status_code == 401


def test_a_session_that_was_left_is_worth_nothing_to_who_kept_it(browser, people):
    client = browser("Ann")
    kept = client.cookies[COOKIE]
    ask(client, "logout")
    client.cookies.set(COOKIE, kept)
    assert ask(client, "rank/next", annotator="Ann").status_code == 401


def test_over_https_the_cookie_is_sent_over_https_alone(app, people):
    client = TestClient(app, base_url="https://127.0.0.1")
    answer = ask(client, "login", name="Ann", password=PASSWORD)
    assert "; secure" in answer.headers["set-cookie"].lower()


def test_nobody_acts_as_somebody_else(browser, people):
    client = browser("Ann")
    assert ask(client, "rank/next", annotator=" ANN ").status_code == 200
    for path, body in (
        ("rank/next", {}),
        ("rank/projects", {}),
        ("rank/votes", {}),
        ("rank/undo", {"key": "somebody's"}),
        ("rank/submit", {"key": "k" * 8, "item": "i", "ranking": None, "verdict": "all_bad"}),
    ):
        answer = ask(client, path, annotator="Lea", **body)
        assert answer.status_code == 403, path
        assert answer.json() == {"error": "you are logged in as Ann: reload the page"}
    for kind in ("images", "texts", "images/small", "texts/small"):
        answer = client.get(f"/api/rank/{kind}/token", params={"annotator": "Lea"})
        assert answer.status_code == 403, kind
        twice = client.get(f"/api/rank/{kind}/token?annotator=Ann&annotator=Lea")
        assert twice.status_code == 403, kind
    assert ask(client, "rank/next", annotator=["Ann"]).status_code in (403, 422)
    for content in (b"[" * 100_000, b"{", b"\xff", b'{"annotator": "Ann"'):
        headers = {"Content-Type": "application/json"}
        answer = client.post("/api/rank/next", content=content, headers=headers)
        assert 400 <= answer.status_code < 500, content[:9]


def test_with_accounts_the_session_alone_says_who_ranks(browser, people, store, add_items):
    add_items(3)
    client = browser("Ann")
    screen = ask(client, "rank/next").json()
    later = [each for coming in screen["after"] for each in coming["candidates"]]
    shown = [each["url"] for each in (*screen["candidates"], *later)]
    assert len(shown) == 12
    vote = {"key": "a key of hers", "item": screen["item"], "verdict": "all_bad", "ranking": None}
    assert ask(client, "rank/submit", **vote).json()["created"]
    assert [each.annotator for each in store.rankings()] == ["ann"]
    (voted,) = ask(client, "rank/votes").json()["votes"]
    shown += [each["url"] for each in voted["candidates"]]
    assert [url for url in (*shown, *screen["next"]) if "?" in url] == []
    lead = browser("Lea")
    for url in shown:
        answer = client.get(f"/{url}")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png"), url
        assert answer.headers["cache-control"].startswith("private")
        assert answer.headers["vary"] == "Cookie"
        assert lead.get(f"/{url}").status_code == 409
    (project,) = ask(client, "rank/projects").json()["projects"]
    assert (project["name"], project["done"]) == ("default", 1)
    assert ask(client, "rank/undo", key="a key of hers").json()["item"] == screen["item"]
    assert ask(lead, "rank/undo", key="a key of hers").status_code == 409


def test_without_accounts_a_name_is_asked_for_and_stands_in_addresses(browser, add_items):
    add_items(1)
    client = browser()
    for body in ({}, {"annotator": ""}, {"annotator": None}):
        for path, more in (
            ("next", {}),
            ("projects", {}),
            ("votes", {}),
            ("undo", {"key": "k" * 8}),
        ):
            refused = ask(client, f"rank/{path}", **body, **more)
            assert (refused.status_code, "annotator" in refused.json()["error"]) == (422, True), (
                path
            )
    (url, *_) = (
        each["url"] for each in ask(client, "rank/next", annotator="Zoe").json()["candidates"]
    )
    assert url.endswith("?annotator=Zoe")
    assert client.get(f"/{url}").status_code == 200
    assert client.get(f"/{url.partition('?')[0]}").status_code == 422


def test_an_annotator_ranks_and_a_lead_does_the_rest(browser, people):
    annotator, lead = browser("Ann"), browser("Lea")
    assert annotator.get("/", headers=WEB_PAGE).status_code == 200
    for path in ("/train", "/learn", "/results", "/generate", "/candidates"):
        answer = annotator.get(path, headers=WEB_PAGE)
        assert answer.status_code == 403, path
        assert answer.json()["error"] == "Ann (annotator): for leads; ask one of them"
        assert lead.get(path, headers=WEB_PAGE).status_code == 200, path
    # It describes all pages, with the models and recipes that their forms offer.
    assert annotator.get("/config").status_code == 403
    assert "storybook_dpo" in lead.get("/config").text
    assert "storybook_dpo" not in annotator.get("/", headers=WEB_PAGE).text
    assert annotator.post("/gradio_api/queue/join", json={}).status_code == 403
    assert lead.post("/gradio_api/queue/join", json={}).status_code not in (401, 403)


def test_a_role_that_is_taken_away_and_an_account_that_is_disabled_end_at_once(browser, people):
    people.set_role("Ann", "lead")
    client = browser("Ann")
    assert client.get("/train", headers=WEB_PAGE).status_code == 200
    people.set_role("Ann", "annotator")
    assert client.get("/train", headers=WEB_PAGE).status_code == 403
    people.disable("Ann")
    assert ask(client, "rank/next", annotator="Ann").status_code == 401


def test_an_invitation_makes_an_account_and_opens_its_session(browser, people):
    token = people.invite(role="annotator", group="cosy", by=None)
    client = browser()
    assert ask(client, "invitation", token=token).json() == {"role": "annotator", "group": "cosy"}
    taken = ask(client, "join", token=token, name="LEA", password=PASSWORD)
    assert taken.status_code == 409
    short = ask(client, "join", token=token, name="Zoe", password="short")
    assert (short.status_code, "10 to 200" in short.json()["error"]) == (422, True)
    assert ask(client, "join", token=token, name="Zoe", password=PASSWORD).status_code == 200
    assert client.get("/api/account").json()["name"] == "Zoe"
    again = ask(browser(), "join", token=token, name="Zed", password=PASSWORD)
    assert (again.status_code, "used, too old" in again.json()["error"]) == (409, True)
    assert ask(browser(), "invitation", token=token).status_code == 404


def test_annotators_rank_what_leads_have_opened_and_leads_rank_all(
    browser, people, store, add_items
):
    add_items(1)
    add_items(2, project="default-compare", num_images=2)
    add_items(1, project="secret plans", num_images=3)
    people.add("Lu", PASSWORD, role="lead", group="default")
    ann, lu = browser("Ann"), browser("Lu")

    def projects(client: TestClient, name: str) -> list[str]:
        found = ask(client, "rank/projects", annotator=name).json()["projects"]
        return [each["name"] for each in found]

    assert ask(ann, "rank/next", annotator="Ann").json()["project"] == "default"
    for path in ("next", "votes"):
        for project in ("default-compare", "secret plans", "nothing"):
            refused = ask(ann, f"rank/{path}", annotator="Ann", project=project)
            assert refused.status_code == 422, (path, project)
            assert "nothing to rank of that name" in refused.json()["error"]
    assert ann.get("/api/rank/guidelines?project=secret%20plans").status_code == 422
    assert projects(ann, "Ann") == ["default"]
    assert projects(lu, "Lu") == ["default", "default-compare", "secret plans"]
    assert ask(lu, "rank/next", annotator="Lu", project="secret plans").status_code == 200

    set_open(store.database, "default-compare", True, by=None)
    assert projects(ann, "Ann") == ["default", "default-compare"]
    screen = ask(ann, "rank/next", annotator="Ann", project="default-compare").json()
    assert len(screen["candidates"]) == 2
    set_open(store.database, "default-compare", False, by=None)
    vote = {"annotator": "Ann", "key": "a key of hers", "item": screen["item"]}
    kept = ask(ann, "rank/submit", **vote, ranking=[[1], [0]], verdict="ranked")
    assert kept.json()["created"]  # shown before it was closed
    assert ask(ann, "rank/next", annotator="Ann", project="default-compare").status_code == 422
    set_open(store.database, "default", False, by=None)
    closed = ask(ann, "rank/next", annotator="Ann")
    assert (closed.status_code, "no project is open" in closed.json()["error"]) == (422, True)


def test_the_owner_of_a_name_gets_in_while_others_guess_at_it(browser, people):
    guesser = browser(at="198.51.100.7")
    for n in range(TRIES + 2):
        ask(guesser, "login", name="Lea", password=f"wrong {n}")
    assert ask(guesser, "login", name="Lea", password=PASSWORD).status_code == 429
    assert ask(browser(), "login", name="Lea", password=PASSWORD).status_code == 200


def test_many_addresses_together_do_not_guess_at_one_name_fast(browser, people):
    answers = []
    for number in range(2 * TRIES):
        client = browser(at=f"198.51.100.{number}")
        answers += [
            ask(client, "login", name="Lea", password=f"wrong {n}").status_code for n in range(4)
        ]
    # Each address once, and all of them as often as one alone.
    assert answers.count(401) <= 2 * TRIES + TRIES


def test_an_address_of_ipv6_is_what_one_household_has(browser, people):
    for number in range(TRIES):
        client = browser(at=f"2001:db8:1:2::{number:x}")
        assert ask(client, "login", name="Lea", password="wrong").status_code == 401
    neighbour = browser(at="2001:db8:1:2:ffff::1")
    assert ask(neighbour, "login", name="Ann", password=PASSWORD).status_code == 429
    assert ask(browser(at="2001:db8:1:3::1"), "login", name="Lea", password=PASSWORD).is_success


def test_any_number_of_people_log_in_from_behind_one_address(browser, people):
    for number in range(TRIES + 2):
        people.add(f"Ann {number}", PASSWORD, role="annotator", group="default")
        assert browser(f"Ann {number}").get("/api/account").json()["role"] == "annotator"


def test_passwords_cannot_be_tried_in_masses(browser, people):
    client = browser()
    wrong = [ask(client, "login", name="Ann", password=f"wrong {n}") for n in range(TRIES)]
    assert {each.status_code for each in wrong} == {401}
    assert len({each.text for each in wrong}) == 1
    assert ask(client, "login", name="nobody", password="wrong").status_code == 429
    stopped = ask(client, "login", name="Ann", password=PASSWORD)
    assert (stopped.status_code, "too many tries" in stopped.json()["error"]) == (429, True)
    assert "set-cookie" not in stopped.headers


@pytest.mark.parametrize("error", [DatabaseError, StorageFullError])
def test_an_outage_is_no_try_of_a_password(browser, people, monkeypatch, error):
    client = browser("Ann")

    def fail(*_: object, **__: object) -> None:
        raise error("away")

    token = people.invite(role="annotator", group="default", by=None)
    for name, path, body in (
        ("login", "login", {"name": "Ann", "password": PASSWORD}),
        ("join", "join", {"token": token, "name": "Zoe", "password": PASSWORD}),
        ("change_password", "password", {"old": PASSWORD, "password": "another few blue words"}),
    ):
        with monkeypatch.context() as away:
            away.setattr(Accounts, name, fail)
            answers = {ask(client, path, **body).status_code for _ in range(TRIES + 1)}
        assert answers <= {503, 507}, path
        assert ask(client, path, **body).status_code == 200, path


def test_a_name_or_password_with_a_nul_is_refused_in_one_line_and_no_try(browser, people):
    client = browser("Ann")
    word = f"{PASSWORD}\0"
    for _ in range(TRIES):
        for path, body, where in (
            ("login", {"name": "a\0", "password": "x"}, "name"),
            ("login", {"name": "Ann", "password": word}, "password"),
            ("join", {"token": "x", "name": "b\0", "password": PASSWORD}, "name"),
            ("join", {"token": "x\0", "name": "b", "password": PASSWORD}, "token"),
            ("reset", {"token": "x", "password": word}, "password"),
            ("password", {"old": PASSWORD, "password": word}, "password"),
        ):
            answer = ask(client, path, **body)
            told = {"error": f"{where}: contains characters that cannot be stored"}
            assert (answer.status_code, answer.json()) == (422, told), path
    assert ask(client, "login", name="Ann", password=PASSWORD).status_code == 200
