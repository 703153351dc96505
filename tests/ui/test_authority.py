"""Claims: every event of every page asks on the server for the role of whose session it is, before
anything of it runs; what starts processes of free settings or reads paths is for admins alone."""

import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import fastapi
import gradio as gr
import httpx
import pytest
from gradio.context import LocalContext
from gradio_events import sent, told
from served_app import built, served
from starlette.testclient import TestClient

from imgalign.errors import InputError
from imgalign.preferences.accounts import Account, Accounts, Role
from imgalign.preferences.queue_order import queue_order_of
from imgalign.preferences.store import Store
from ui import authority
from ui.app import Settings
from ui.batch_asked import Asked
from ui.batch_request import IMAGES, TEXTS, Form, refuse_what_is_not_offered
from ui.batches import Batch, Batches
from ui.heading import PAGES as ALL_PAGES
from ui.roles import ACCOUNT
from ui.runs import Runs
from ui.theme import asset

pytestmark = [
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
]

PASSWORD = "four odd green words"
ROLES: Mapping[str, Role] = {"Ida": "admin", "Lu": "lead", "Ann": "annotator"}
FOR_ADMINS = {
    "candidates": {"move"},
    "learn": {"start_fit", "stop", "forget", "explain_now"},
    "train": {
        *("start_run", "stop", "resume", "delete", "move", "remove", "start_now"),
        *("open_page", "choose", "copy", "explain_now"),
    },
}
"""Functions of events that leads may not use, by page."""
OF_NOTHING = (AttributeError, TypeError, KeyError, ValueError, UserWarning)
"""What comes of values that no page sends, where an event was let through to its function; gradio's
warnings to people are errors in tests."""
QUIET = {("train", "open_page"), ("train", "explain_now"), ("learn", "explain_now")}
"""Those that a page calls by itself, so that they do nothing instead of refusing."""


@pytest.fixture
def people(store: Store) -> Accounts:
    people = Accounts(store.database)
    for name, role in ROLES.items():
        people.add(name, PASSWORD, role=role, group="default")
    return people


def events_of(app: fastapi.FastAPI) -> list[Any]:
    """What happens on the server by the events of all pages."""
    apps: list[Any] = [getattr(each, "app", None) for each in app.routes]
    (mounted,) = (each for each in apps if hasattr(each, "blocks"))
    return [each for each in mounted.blocks.fns.values() if each.fn is not None]


def named(event: Any) -> str:
    return f"{event.page or 'rank'}: {event.fn.__name__}"


@pytest.fixture
def events(store: Store, people: Accounts, tmp_path: Path) -> list[Any]:
    settings = Settings(host="0.0.0.0", images=tmp_path / "images", runs=tmp_path / "runs")
    return events_of(built(settings, store))


@pytest.fixture
def as_account() -> Iterator[Callable[[Account | None], None]]:
    """Let events be those of an account, as gradio tells them."""

    def chosen(account: Account | None) -> None:
        scope = {"type": "http", "headers": [], ACCOUNT: account}
        LocalContext.request.set(gr.Request(fastapi.Request(scope)))

    yield chosen
    LocalContext.request.set(None)


def outcome(event: Any) -> str:
    """What becomes of an event with values of nothing: refused, quiet, or whatever it does."""
    try:
        answer = event.fn(*(None for _ in event.inputs))
        if hasattr(answer, "__next__"):
            answer = next(answer)
    except gr.Error as error:
        return "refused" if "ask one of them" in error.message else "done"
    except OF_NOTHING:
        return "done"
    told = answer if isinstance(answer, tuple) else (answer,)
    nothing = all(isinstance(each, dict) and set(each) == {"__type__"} for each in told)
    return "quiet" if nothing else "done"


def test_without_a_session_or_as_an_annotator_no_event_happens(
    events: list[Any], people: Accounts, as_account: Any
) -> None:
    assert len(events) > 60
    assert {each.page for each in events} == {*ALL_PAGES} - {"rank"}
    annotator = next(each for each in people.all() if each.role == "annotator")
    got: dict[str, str] = {}
    for who in (annotator, None, "no request"):
        if who == "no request":
            LocalContext.request.set(None)
        else:
            as_account(who)
        for each in events:
            quietly = (each.page, each.fn.__name__) in QUIET
            expected = "quiet" if quietly else "refused"
            if (what := outcome(each)) != expected:
                got[named(each)] = what
    assert got == {}


def test_leads_may_all_but_what_is_for_admins(
    events: list[Any], people: Accounts, as_account: Any
) -> None:
    by_page: dict[str, set[str]] = {}
    for each in events:
        if authority.needed(each.fn) == "admin":
            by_page.setdefault(each.page, set()).add(each.fn.__name__)
        else:
            assert authority.needed(each.fn) == "lead", named(each)
    assert by_page == FOR_ADMINS
    as_account(next(each for each in people.all() if each.role == "lead"))
    refused = {
        (each.page, each.fn.__name__) for each in events if outcome(each) in ("refused", "quiet")
    }
    expected = {(page, name) for page, names in FOR_ADMINS.items() for name in names}
    assert expected <= refused
    # others leave the page as it is where nothing was chosen
    assert {page for page, _ in refused - expected} <= {"candidates", "generate"}


def test_buttons_of_admins_are_marked_so_that_nobody_else_sees_them() -> None:
    unmarked = [
        button
        for name in ("monitor.html", "learn.html")
        for button in re.findall(r"<button[^>]*>", asset(name))
        if "for-admins" not in button
    ]
    assert unmarked == []
    moves = re.findall(r'<button[^>]*data-do="(?:earlier|later)"[^>]*>', asset("batches.html"))
    assert [("for-admins" in button) for button in moves] == [True, True]
    assert ':not([data-role="admin"])' in asset("role.css")


def test_a_lead_names_no_path_and_no_other_model(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    for form, said in (
        (Form(source=TEXTS, place="/etc/passwd"), "tables of this machine are for admins"),
        (Form(source=IMAGES, place="/etc"), "folders of this machine are for admins"),
        (Form(model="/etc"), "not in the list are for admins"),
        (Form(model="somebody/model"), "not in the list are for admins"),
        (Form(model="storybook\n/etc"), "not in the list are for admins"),
        (Form(model=None), "not in the list are for admins"),
    ):
        with pytest.raises(InputError, match=said):
            refuse_what_is_not_offered(form, runs=runs, model="storybook")
    for form in (Form(), Form(source=IMAGES, place="/etc", upload="A" * 20)):
        refuse_what_is_not_offered(form, runs=runs, model="storybook")
    refuse_what_is_not_offered(Form(model="of/admins"), runs=runs, model="of/admins")


def test_a_lead_makes_one_batch_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = Batches(Runs(tmp_path), database=None)
    asked = Asked(source="prompts", project="default", per_prompt=4, prompts=("a fox",))
    made = Batch(name="batch-1", asked=asked, state="making", message="", share=None, item_ids=())
    monkeypatch.setattr(Batches, "all", lambda self: [made])
    for act in (
        lambda: batches.launch(asked, alone=True),
        lambda: batches.resume("batch-1", alone=True),
        lambda: batches.make_now("batch-2", alone=True),
    ):
        with pytest.raises(
            InputError, match="batch-1 is being made or waits: expected one batch at a time"
        ):
            act()


def said_of(client: httpx.Client, event: dict[str, Any]) -> str:
    """All that an event says of values of nothing; its status where it was refused before."""
    session = f"session-{event['id']}"
    asked = sent(client, event, [None] * len(event["inputs"]), session=session)
    return told(client, session=session) if asked.status_code == 200 else f"{asked.status_code}"


def test_the_page_at_the_root_is_for_annotators_only_where_they_rank_there(
    store: Store, people: Accounts, settings: Settings
) -> None:
    known = {"name": "Ann", "password": PASSWORD}
    for pages, status in ((("candidates", "people"), 403), (("people", "rank"), 200)):
        app = built(replace(settings, pages=pages), store)
        client = TestClient(app, base_url=settings.address)
        assert client.post("/api/login", json=known).status_code == 200
        assert client.get("/", headers={"Accept": "text/html"}).status_code == status


def test_sessions_decide_what_the_events_of_a_browser_do(
    store: Store, people: Accounts, settings: Settings, add_items: Any
) -> None:
    add_items(1)
    with served(settings, store) as address:

        @contextmanager
        def browser(name: str | None) -> Iterator[httpx.Client]:
            with httpx.Client(base_url=address, timeout=60) as client:
                if name is not None:
                    known = {"name": name, "password": PASSWORD}
                    assert client.post("/api/login", json=known).status_code == 200
                yield client

        with (
            browser("Ida") as ida,
            browser("Lu") as lu,
            browser("Ann") as ann,
            browser(None) as no,
        ):
            config = ida.get("/config").json()
            found = config["dependencies"]
            by_name = {each["api_name"]: each for each in found if each["backend_fn"]}
            start = by_name["start_fit"]
            assert said_of(no, start) == "401"
            assert said_of(ann, start) == "403"
            assert "for admins; ask one of them" in said_of(lu, start)
            assert "rankings: there are none yet" in said_of(ida, start)
            explain = json.dumps(said_of(lu, by_name["explain_now"]))
            assert "for admins" not in explain
            invite = by_name["invite"]
            assert "role: expected one of" in said_of(lu, invite)

            (radio,) = (
                each["id"]
                for each in config["components"]
                if each["props"].get("elem_id") == "queue-order"
            )
            (order,) = (each for each in found if [radio, "input"] in each["targets"])
            chosen, *_ = order["inputs"]
            wanted = ["default", "default", "informative"]  # the project that is on the screen, too
            for browser_of, status in ((no, 401), (ann, 403)):
                assert sent(browser_of, order, wanted, session="order").status_code == status
            assert queue_order_of(store.database, "default") == "oldest"
            (opens,) = (
                each
                for each in found
                if chosen in each["outputs"] and "load" in {event for _, event in each["targets"]}
            )
            assert sent(lu, opens, [""], session="order").status_code == 200
            assert '"success":true' in told(lu, session="order")
            assert sent(lu, order, wanted, session="order").status_code == 200
            assert '"success":true' in told(lu, session="order")
            assert queue_order_of(store.database, "default") == "informative"


def test_an_event_that_goes_on_asks_and_is_still_one(events: list[Any]) -> None:
    several = {each.fn.__name__ for each in events if inspect.isgeneratorfunction(each.fn)}
    assert several == {each.fn.__name__ for each in events if each.types_generator}
    assert {"explain_now", "begin"} <= several
