"""The app's own HTTP routes, beside Gradio's: the ranking protocol and the pictures.

Errors become one JSON line `{"error": ...}`: 404 unknown, 409 a conflict in the store, 413 and 422
for what should not have been sent, 507 a full disk, 503 anything else that may pass.
"""

from typing import Annotated

import fastapi
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from imgalign.errors import ImgalignError, InputError, StorageFullError, StoreError
from imgalign.preferences.store import Store
from ui.pages import rank
from ui.runs import Runs
from ui.shelf import Shelf

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
PRIVATE = {
    # A token always names the same picture, but only for one annotator.
    "Cache-Control": "private, max-age=86400, immutable",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def add_rank_routes(app: fastapi.FastAPI, store: Store, *, project: str) -> None:
    """What the ranking widget calls, on one project's queue."""

    @app.post("/api/rank/next")
    def next_item(request: rank.Request) -> rank.Shown:
        return rank.next_item(store, request.annotator, project=project)

    @app.post("/api/rank/submit")
    def submit(answer: rank.Answer) -> rank.Saved:
        return rank.submit(store, answer)

    @app.post("/api/rank/undo")
    def undo(request: rank.Undo) -> rank.TakenBack:
        return rank.undo(store, request)

    @app.get(f"/{rank.IMAGE_ROUTE}/{{token}}")
    def picture(token: str, annotator: Annotated[str, fastapi.Query(max_length=60)]) -> Response:
        png = rank.picture(store, token, annotator)
        return Response(png, media_type="image/png", headers=PRIVATE)


def add_studio_routes(app: fastapi.FastAPI, runs: Runs, shelf: Shelf) -> None:
    """Pictures of the Train and Generate pages. No file is opened by a path that was sent."""

    @app.get("/api/runs/{name}/samples/{file}")
    def sample(name: str, file: str) -> Response:
        png = runs.sample(name, file).read_bytes()
        return Response(
            png, media_type="image/png", headers=PRIVATE | {"Cache-Control": "no-cache"}
        )

    @app.get("/api/pictures/{picture_id}")
    def picture(picture_id: str) -> Response:
        return Response(shelf.get(picture_id).png, media_type="image/png", headers=PRIVATE)


def add_error_handlers(app: fastapi.FastAPI) -> None:
    """Turn the project's errors into one line each."""

    @app.exception_handler(ImgalignError)
    async def known(_: fastapi.Request, error: Exception) -> JSONResponse:
        status = next(
            (code for kind, code in STATUS.items() if isinstance(error, kind)),
            503,
        )
        return JSONResponse({"error": str(error)}, status_code=status)

    @app.exception_handler(RequestValidationError)
    async def malformed(_: fastapi.Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return JSONResponse({"error": f"{where}: {first['msg']}"}, status_code=422)


STATUS: dict[type[ImgalignError], int] = {
    StorageFullError: 507,
    InputError: 422,
    StoreError: 409,
}


class SameOrigin:
    """Refuse requests that another website makes a browser send to this app.

    The app listens on the loopback interface without a password, so a page on the internet could
    otherwise post to it, or reach it under a name of its own that resolves to 127.0.0.1. State
    changes must come from the app's own pages, and on loopback the Host must be a loopback name.
    """

    def __init__(self, app: ASGIApp, *, loopback: bool) -> None:
        self.app = app
        self.loopback = loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; refused ones get 403."""
        if scope["type"] == "http" and (reason := self.objection(scope)):
            await JSONResponse({"error": reason}, status_code=403)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def objection(self, scope: Scope) -> str | None:
        """Why a request is refused, or None."""
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        host = headers.get("host", "")
        if self.loopback and _name(host) not in LOOPBACK:
            return f"host {host!r}: this app answers on {', '.join(LOOPBACK)} only"
        origin = headers.get("origin")
        if scope["method"] in ("GET", "HEAD", "OPTIONS") or origin is None:
            return None
        if origin.partition("://")[2] != host:
            return f"origin {origin!r}: requests must come from the app itself ({host})"
        return None


def _name(host: str) -> str:
    """A Host header without its port; an IPv6 address keeps its brackets."""
    return (
        host[: host.index("]") + 1]
        if host.startswith("[") and "]" in host
        else host.partition(":")[0]
    )
