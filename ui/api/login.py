"""Who somebody is: log in, join by an invitation, log out; and what each role may reach.

Where the store has accounts, a browser without a session reaches the pages `/enter` and `/join` and
nothing else, an annotator the Rank page and its routes, a lead everything. Requests to rank must
name the account whose session they come with. The session is a cookie that scripts cannot read and
other sites do not send. Without accounts everybody may do everything, and the app listens on
loopback only. No gradio here.
"""

import json
import re

import fastapi
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from imgalign.errors import InputError, StoreError
from imgalign.preferences.accounts import LONGEST_PASSWORD, SESSION, Account, Accounts
from imgalign.preferences.identity import person
from ui.api.pace import Pace

COOKIE = "imgalign_session"
_UNCACHED = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
ACCOUNT = "imgalign.account"
"""Key of a request's scope."""
OPEN = re.compile(
    r"/(enter|join|api/(login|join|invitation|logout|account)|favicon\.ico|robots\.txt)"
)
"""What anybody may reach."""
PAGES = ("/enter", "/join")
FOR_ANNOTATORS = (r"/", r"/api/rank/.+")
"""What an annotator may reach, beside Gradio's files."""
ALL_PAGES = "/config"
"""Gradio's description of all pages, with what their forms offer; a page brings its own part."""
MAX_NAME = 60
TRIES, TRIES_PER_SECOND = 8, 1 / 20
"""Passwords that an address, and those that a name, may try at once, and in the long run."""
SECONDS_TO_WAIT = round(1 / TRIES_PER_SECOND)


class Login:
    """Passes on what an account may reach; else a page to log in, 401 without one, 403 beyond it.

    `files` are regular expressions of paths that every account may read, `prefix` the path of a
    proxy.
    """

    def __init__(
        self, app: ASGIApp, *, people: Accounts, files: tuple[str, ...], prefix: str = ""
    ) -> None:
        self.app = app
        self.people = people
        self.prefix = prefix
        self._exist = False
        reachable = (*FOR_ANNOTATORS, *files)
        self._annotators = re.compile("|".join(f"(?:{route})" for route in reachable))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        # Accounts are disabled and never removed: once there are some, there are.
        self._exist = self._exist or await run_in_threadpool(self.people.exist)
        if self._exist:
            token = HTTPConnection(scope).cookies.get(COOKIE, "")
            account = await run_in_threadpool(self.people.of_session, token) if token else None
            scope = {**scope, ACCOUNT: account}
            if (refusal := self._refusal(scope, account)) is not None:
                await refusal(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _refusal(self, scope: Scope, account: Account | None) -> Response | None:
        path = scope["path"]
        if OPEN.fullmatch(path):
            return None
        if account is None:
            if scope["method"] == "GET" and "text/html" in Headers(scope=scope).get("accept", ""):
                return RedirectResponse(f"{self.prefix}/enter", status_code=303)
            return _error("log in first: reload the page", 401)
        if account.may("lead") or (self._annotators.fullmatch(path) and path != ALL_PAGES):
            return None
        return _error(f"{account.name} ({account.role}): for leads; ask one of them", 403)


class Body(BaseModel):
    """A body sent by a page; anything unexpected in it is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Credentials(Body):
    """What opens a session."""

    name: str = Field(min_length=1, max_length=MAX_NAME)
    password: str = Field(max_length=LONGEST_PASSWORD)


class Invited(Body):
    """An invitation."""

    token: str = Field(max_length=100)


class Joining(Credentials, Invited):
    """A new account."""


def router(people: Accounts, *, page: str) -> fastapi.APIRouter:
    """The two pages and what they call; `page` is the HTML of both."""
    routes = fastapi.APIRouter()
    pace = Pace(burst=TRIES, per_second=TRIES_PER_SECOND)

    @routes.get("/enter")
    @routes.get("/join")
    def shown() -> HTMLResponse:
        return HTMLResponse(page, headers=_UNCACHED)

    @routes.get("/api/account")
    def known(request: fastapi.Request) -> dict[str, str | None]:
        account: Account | None = request.scope.get(ACCOUNT)
        return {
            "name": None if account is None else account.name,
            "role": None if account is None else account.role,
        }

    @routes.post("/api/login")
    def login(given: Credentials, request: fastapi.Request) -> Response:
        if not _may_try(pace, request, given.name):
            return _too_often()
        return _opened(people, given, request)

    @routes.post("/api/invitation")
    def invitation(given: Invited) -> Response:
        found = people.invitation(given.token)
        if found is None:
            return _error("invitation: used, too old or not whole; ask for another link", 404)
        return JSONResponse({"role": found.role, "group": found.group})

    @routes.post("/api/join")
    def join(given: Joining, request: fastapi.Request) -> Response:
        if not _may_try(pace, request, given.name):
            return _too_often()
        people.join(given.token, given.name, given.password)
        return _opened(people, given, request)

    @routes.post("/api/logout")
    def logout(request: fastapi.Request) -> Response:
        people.logout(request.cookies.get(COOKIE, ""))
        left = JSONResponse({"name": None})
        left.delete_cookie(COOKIE, path="/", httponly=True, samesite="lax")
        return left

    return routes


def may_lead(people: Accounts, scope: Scope) -> bool:
    """Whether a request may steer a project: anybody's without accounts, else one of a lead.

    `Login` lets no other request reach what is for leads; handlers ask again.
    """
    account: Account | None = scope.get(ACCOUNT)
    return not people.exist() if account is None else account.may("lead")


async def same_annotator(request: fastapi.Request) -> None:
    """For routes that name an annotator: with accounts only the one of the session.

    Raises 403 otherwise, as when somebody else has logged in in another tab.
    """
    account: Account | None = request.scope.get(ACCOUNT)
    if account is None:
        return
    named = [*request.query_params.getlist("annotator")]
    if request.method == "POST":
        try:
            body = json.loads(await request.body() or b"{}")
        except (ValueError, RecursionError):
            raise InputError("body: expected JSON") from None
        named += [body["annotator"]] if isinstance(body, dict) and "annotator" in body else []
    if any(not isinstance(name, str) or person(name) != account.account_id for name in named):
        raise fastapi.HTTPException(403, f"you are logged in as {account.name}: reload the page")


def _may_try(pace: Pace, request: fastapi.Request, name: str) -> bool:
    client = request.client.host if request.client else ""
    # Both are counted: many names from one address, and one name from many.
    return all([pace.allows(f"address {client}"), pace.allows(f"name {person(name)}")])


def _opened(people: Accounts, given: Credentials, request: fastapi.Request) -> Response:
    try:
        token = people.login(given.name, given.password)
    except StoreError as error:
        return _error(str(error), 401)
    account = people.of_session(token)
    assert account is not None
    answer = JSONResponse({"name": account.name, "role": account.role})
    answer.set_cookie(
        COOKIE,
        token,
        max_age=int(SESSION.total_seconds()),
        path="/",
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )
    return answer


def _too_often() -> Response:
    return _error(f"too many tries: wait {SECONDS_TO_WAIT} seconds and try again", 429)


def _error(message: str, status: int) -> Response:
    return JSONResponse({"error": message}, status_code=status)
