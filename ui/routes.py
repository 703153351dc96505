"""The app's own HTTP routes, beside Gradio's: the ranking protocol and the pictures.

Errors become one JSON line `{"error": ...}`: 404 unknown, 409 a conflict in the store, 413 and 422
for what should not have been sent, 507 a full disk, 503 anything else that may pass.
"""

from typing import Annotated

import fastapi
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response

from imgalign.errors import ImgalignError, InputError, StorageFullError, StoreError
from imgalign.preferences.store import Store
from ui.pages import rank
from ui.runs import Runs
from ui.shelf import Shelf

PRIVATE = {
    # A token always names the same picture, but only for one annotator.
    "Cache-Control": "private, max-age=86400, immutable",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def add_rank_routes(app: fastapi.FastAPI, store: Store, *, project: str) -> None:
    """What the ranking widget calls, on one project's queue."""

    @app.post("/api/rank/next")
    def next_item(request: rank.Request, sender: fastapi.Request) -> rank.Shown:
        client = sender.client.host if sender.client else None
        return rank.next_item(store, request.annotator, project=project, client=client)

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


def add_studio_routes(app: fastapi.FastAPI, runs: Runs, shelf: Shelf, *, server: str) -> None:
    """Pictures of the Train and Generate pages. No file is opened by a path that was sent.

    `server` names this process: a page that another one made must be loaded again.
    """

    @app.get("/api/alive")
    def alive() -> dict[str, str]:
        return {"server": server}

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
