"""Responses of routes: images as PNG files, texts as they are, errors as one line of JSON.

`{"error": ...}` has status 401 for a wrong password, 409 for a conflict in the store, 413 and 422
for an invalid request, 429 for one too many at once, 507 for a full disk, 503 for a database that
cannot be used and anything else that may pass. What is known of these two names files and servers:
it goes to the log, and not to whoever asked.
"""

import logging
from urllib.parse import quote

import fastapi
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.types import Scope

from imgalign.errors import (
    DatabaseError,
    ImgalignError,
    InputError,
    NotIssuedError,
    StorageFullError,
    StoreError,
    in_one_line,
)
from imgalign.preferences.accounts import WrongPasswordError
from ui.links import NO_DATABASE, NO_SPACE, said

log = logging.getLogger(__name__)

STATUS: dict[type[ImgalignError], int] = {
    StorageFullError: 507,
    InputError: 422,
    DatabaseError: 503,
    NotIssuedError: 410,
    WrongPasswordError: 401,
    StoreError: 409,
}
OUT_OF_ORDER = {507: NO_SPACE, 503: NO_DATABASE}
"""What is said with a status, whatever the reason."""
LONGEST_NAME = 200
"""Characters of what a refusal repeats of a request."""
DAY = "private, max-age=86400, immutable"
"""Cache-Control of what never changes and is private to one annotator."""


def png_response(content: bytes, *, cache: str = DAY) -> Response:
    """A PNG file that browsers do not sniff, and whose address they do not send on."""
    return _private(content, "image/png", cache)


def text_response(content: str) -> Response:
    """Plain text, byte for byte, that browsers show as such and never as a page."""
    return _private(content.encode(), "text/plain; charset=utf-8", DAY)


def as_attachment(name: str) -> dict[str, str]:
    """Headers of a file that browsers save under this name, whatever is in it."""
    return {
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name)}",
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }


def _private(content: bytes, media_type: str, cache: str) -> Response:
    headers = {
        "Cache-Control": cache,
        "Vary": "Cookie",  # who logs in next in the same browser gets nothing from its cache
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }
    return Response(content, media_type=media_type, headers=headers)


def error_response(error: ImgalignError, scope: Scope) -> JSONResponse:
    """One line for whoever sent the request of this scope; the log gets what is not for them."""
    status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), 503)
    if status in OUT_OF_ORDER:
        log.error("%s %s: %s", scope["method"], in_one_line(scope["path"]), error)
    return JSONResponse({"error": OUT_OF_ORDER.get(status) or said(error)}, status_code=status)


def add_error_handlers(app: fastapi.FastAPI) -> None:
    """Turn the project's errors into one line each."""

    @app.exception_handler(ImgalignError)
    async def known(request: fastapi.Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ImgalignError)
        return error_response(error, request.scope)

    @app.exception_handler(fastapi.HTTPException)
    async def refused(_: fastapi.Request, error: Exception) -> JSONResponse:
        assert isinstance(error, fastapi.HTTPException)
        return JSONResponse(
            {"error": error.detail}, status_code=error.status_code, headers=error.headers
        )

    @app.exception_handler(RequestValidationError)
    async def malformed(_: fastapi.Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])  # names of keys, which are sent
        # pydantic writes "Value error, " before what one of our own validators says.
        said = first["ctx"]["error"] if first["type"] == "value_error" else first["msg"]
        line = in_one_line(f"{where[:LONGEST_NAME]}: {said}")
        return JSONResponse({"error": line}, status_code=422)
