"""Who somebody is: log in, join by an invitation, choose another password, log out; and what each
role may reach.

With accounts a browser without a session reaches the pages `/enter`, `/join` and `/reset` and
nothing else, an annotator the Rank page and its routes, a lead all pages. What a lead may not do
there is asked by the routes (`only`) and by the events of the pages (ui/authority.py). Who ranks is
whose session a request comes with; one that names somebody else is refused. The session is a cookie
that scripts cannot read and other sites do not send. Without accounts everybody may do everything,
and the app listens on loopback only. No gradio here.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv6Address, ip_address
from typing import Any

import fastapi
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from pydantic import BaseModel, ConfigDict, Field, field_validator
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from imgalign.errors import DatabaseError, ImgalignError, InputError, StorageFullError, StoreError
from imgalign.preferences.accounts import (
    SESSION,
    Account,
    Accounts,
    Role,
    WrongPasswordError,
)
from imgalign.preferences.identity import person
from imgalign.preferences.passwords import LONGEST_PASSWORD
from imgalign.preferences.resets import NO_RESET, Resets
from ui.api.pace import Pace
from ui.api.responses import OUT_OF_ORDER, error_response
from ui.api.security import on_loopback
from ui.roles import ACCOUNT, NO_ACCOUNTS, is_known, may, refusal

COOKIE = "imgalign_session"
_UNCACHED = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
OPEN = re.compile(
    r"/(enter|join|reset|favicon\.ico|robots\.txt"
    r"|api/(login|join|invitation|reset|reset-link|logout|account))"
)
"""What anybody may reach."""
PAGES = ("/enter", "/join", "/reset", "/password")
FOR_ANNOTATORS = (r"/password", r"/api/password", r"/api/rank/.+")
"""What an annotator may reach, beside the Rank page and Gradio's files."""
ALL_PAGES = "/config"
"""Gradio's description of all pages, with what their forms offer; a page brings its own part."""
MAX_NAME = 60
"""Characters of the name of an account or annotator."""
TRIES, TRIES_PER_SECOND = 8, 1 / 20
"""Wrong passwords of an address, and of a name, at once and in the long run."""
SECONDS_TO_WAIT = round(1 / TRIES_PER_SECOND)
PER_HOUSEHOLD = 64
"""Leading bits of an IPv6 address that its owner cannot choose."""


class Login:
    """Passes on what an account may reach; else a page to log in, 401 without one, 403 beyond it.

    `files` are regular expressions of paths that every account may read, `prefix` the path of a
    proxy; `rank` says whether the page at "/" is the Rank page, which is everybody's. With
    `required` nobody gets in before there are accounts either. `out_of_order` is the HTML of a page
    for browsers that wait until the database can be read again.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        people: Accounts,
        files: tuple[str, ...],
        prefix: str = "",
        rank: bool = True,
        required: bool = False,
        out_of_order: str = "",
    ) -> None:
        self.app = app
        self.out_of_order = out_of_order
        self.people = people
        self.prefix = prefix
        self._exist = required
        reachable = (*FOR_ANNOTATORS, *files, *((r"/",) if rank else ()))
        self._annotators = re.compile("|".join(f"(?:{route})" for route in reachable))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            # Accounts are disabled and never removed: once there are some, there are.
            self._exist = self._exist or await run_in_threadpool(self.people.exist)
            token = HTTPConnection(scope).cookies.get(COOKIE, "") if self._exist else ""
            account = await run_in_threadpool(self.people.of_session, token) if token else None
        except ImgalignError as error:  # out here no error handler of the app is asked
            await self._error(error, scope)(scope, receive, send)
            return
        if self._exist:
            scope = {**scope, ACCOUNT: account}
            if (refusal := self._refusal(scope, account)) is not None:
                await refusal(scope, receive, send)
                return
        else:
            scope = {**scope, NO_ACCOUNTS: True}
        await self.app(scope, receive, send)

    def _error(self, error: ImgalignError, scope: Scope) -> Response:
        answer = error_response(error, scope)
        if answer.status_code in OUT_OF_ORDER and _asks_for_a_page(scope):
            return HTMLResponse(self.out_of_order, answer.status_code, headers=_UNCACHED)
        return answer

    def _refusal(self, scope: Scope, account: Account | None) -> Response | None:
        path = scope["path"]
        if OPEN.fullmatch(path):
            return None
        if account is None:
            if _asks_for_a_page(scope):
                return RedirectResponse(f"{self.prefix}/enter", status_code=303)
            return _error("log in first: reload the page", 401)
        if account.may("lead") or (self._annotators.fullmatch(path) and path != ALL_PAGES):
            return None
        return _error(f"{account.name} ({account.role}): for leads; ask one of them", 403)


def _asks_for_a_page(scope: Scope) -> bool:
    return scope["method"] == "GET" and "text/html" in Headers(scope=scope).get("accept", "")


class Body(BaseModel):
    """A body sent by a page; anything unexpected in it is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*")
    @classmethod
    def _storable(cls, value: object) -> object:
        if isinstance(value, str) and "\0" in value:
            raise ValueError("contains characters that cannot be stored")
        return value


class Credentials(Body):
    """What opens a session."""

    name: str = Field(min_length=1, max_length=MAX_NAME)
    password: str = Field(max_length=LONGEST_PASSWORD)


class Linked(Body):
    """An invitation or a reset link."""

    token: str = Field(max_length=100)


class Joining(Credentials, Linked):
    """A new account."""


class Resetting(Linked):
    """Another password of the account of a reset link."""

    password: str = Field(max_length=LONGEST_PASSWORD)


class Changing(Body):
    """Another password of one's own account."""

    old: str = Field(max_length=LONGEST_PASSWORD)
    password: str = Field(max_length=LONGEST_PASSWORD)


def router(people: Accounts, *, page: str) -> fastapi.APIRouter:
    """The pages and what they call; `page` is the HTML of all."""
    routes = fastapi.APIRouter()
    pace = Pace(burst=TRIES, per_second=TRIES_PER_SECOND)

    @routes.get("/enter")
    @routes.get("/join")
    @routes.get("/reset")
    @routes.get("/password")
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
        counted = _counted(pace, request, given.name)
        if not counted:
            return _too_often()
        with _trying(pace, counted):
            return _opened(people, given, request)

    @routes.post("/api/invitation")
    def invitation(given: Linked) -> Response:
        found = people.invitation(given.token)
        if found is None:
            return _error("invitation: used, too old or not whole; ask for another link", 404)
        return JSONResponse({"role": found.role, "group": found.group})

    @routes.post("/api/join")
    def join(given: Joining, request: fastapi.Request) -> Response:
        counted = _counted(pace, request, given.name)
        if not counted:
            return _too_often()
        with _trying(pace, counted):
            people.join(given.token, given.name, given.password)
            return _opened(people, given, request)

    @routes.post("/api/logout")
    def logout(request: fastapi.Request) -> Response:
        people.logout(request.cookies.get(COOKIE, ""))
        left = JSONResponse({"name": None})
        left.delete_cookie(COOKIE, path="/", httponly=True, samesite="lax")
        return left

    _add_passwords(routes, people, pace)
    return routes


def _add_passwords(routes: fastapi.APIRouter, people: Accounts, pace: Pace) -> None:
    """Another password: by a reset link, or for whoever is logged in and knows the old one."""
    resets = Resets(people.database)

    @routes.post("/api/reset-link")
    def reset_link(given: Linked) -> Response:
        found = resets.account(given.token)
        return _error(NO_RESET, 404) if found is None else JSONResponse({"name": found.name})

    @routes.post("/api/reset")
    def reset(given: Resetting, request: fastapi.Request) -> Response:
        found = resets.account(given.token)
        counted = _counted(pace, request, "" if found is None else found.name)
        if not counted:
            return _too_often()
        with _trying(pace, counted):
            name = resets.use(given.token, given.password).name
            return _opened(people, Credentials(name=name, password=given.password), request)

    @routes.post("/api/password")
    def change(given: Changing, request: fastapi.Request) -> Response:
        account: Account | None = request.scope.get(ACCOUNT)
        if account is None:
            raise StoreError("no account is logged in; reload the page")
        counted = _counted(pace, request, account.name)
        if not counted:
            return _too_often()
        session = request.cookies.get(COOKIE, "")
        try:
            with _trying(pace, counted):
                people.change_password(account, given.old, given.password, session=session)
        except WrongPasswordError as error:
            return _error(str(error), 403)
        return JSONResponse({"name": account.name})


def refuse_network_without_accounts(host: str, people: Accounts) -> None:
    """InputError where anybody who reaches the address could use the app."""
    if not (on_loopback(host) or people.exist()):
        raise InputError(
            f"--host {host}: without accounts the app listens on this machine only; add --accounts "
            "and open the link that it prints, or make the first by `imgalign accounts add NAME "
            "--role admin`, and invite others on the People page"
        )


def only(people: Accounts, role: Role) -> Any:
    """A dependency of routes: 403 for whoever has not the rights of a role."""

    async def refuse_others(request: fastapi.Request) -> None:
        # What `Login` knows already needs no thread.
        asked = (people, request.scope, role)
        if not (may(*asked) if is_known(request.scope) else await run_in_threadpool(may, *asked)):
            raise fastapi.HTTPException(403, refusal(role))

    return fastapi.Depends(refuse_others)


def annotator_of(sent: str, request: fastapi.Request) -> str:
    """Whose request it is: the account of its session, else the name that it was sent with.

    InputError where there is neither.
    """
    account: Account | None = request.scope.get(ACCOUNT)
    if account is None and not sent:
        raise InputError("annotator: expected the name of whoever ranks; got none")
    return sent if account is None else account.name


async def same_annotator(request: fastapi.Request) -> None:
    """For routes that may name an annotator: with accounts only the one of the session.

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


def _counted(pace: Pace, request: fastapi.Request, name: str) -> list[str]:
    """Count a try; the buckets that it was taken from, none where it may not be made.

    Tries are limited by address, and for addresses that have been wrong lately by name as well: so
    many addresses together cannot guess fast, and nobody keeps the owner of a name out, whose own
    address has been wrong about nothing.
    """
    address, named = f"address {_origin(request)}", f"name {person(name)}"
    left = pace.take(address)
    if left < 1:
        return []
    if pace.allows(named):
        return [address, named]
    if left >= pace.burst:
        return [address]
    pace.give_back(address)
    return []


@contextmanager
def _trying(pace: Pace, counted: list[str]) -> Iterator[None]:
    """Forget a try that was right, so that many people behind one address all get in; and one of
    which nobody could tell, because the database was out of order.
    """
    try:
        yield
    except (DatabaseError, StorageFullError):
        _forget(pace, counted)
        raise
    _forget(pace, counted)


def _forget(pace: Pace, counted: list[str]) -> None:
    for each in counted:
        pace.give_back(each)


def _origin(request: fastapi.Request) -> str:
    """The address of a request; of IPv6 the part that one household has in common."""
    client = request.client.host if request.client else ""
    try:
        address = ip_address(client.partition("%")[0])
    except ValueError:
        return client
    if isinstance(address, IPv6Address) and address.ipv4_mapped is None:
        return f"{int(address) >> (128 - PER_HOUSEHOLD):x}"
    return client


def _opened(people: Accounts, given: Credentials, request: fastapi.Request) -> Response:
    token = people.login(given.name, given.password)
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
