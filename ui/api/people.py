"""Routes of the People page: small copies of candidates, and rankings as files, for leads.

No file is opened by a path from a request: candidates are named by their place in an item, and
files of rankings lie in folders that are made for one request.
"""

import tempfile
from pathlib import Path
from typing import Annotated

import fastapi
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, Response
from pydantic import BaseModel
from starlette.background import BackgroundTask

from imgalign.errors import ImgalignError, InputError
from imgalign.preferences.accounts import Accounts
from imgalign.preferences.store import Store
from imgalign.preferences.stored import item_samples
from ui import ranking_files
from ui.api.login import only
from ui.api.receiving import receive
from ui.api.responses import as_attachment, png_response
from ui.api.small import small_png
from ui.links import in_the_app

UPLOADS = r"/api/people/rankings"
"""Where a browser sends a file of rankings."""
LARGEST_UPLOAD = ranking_files.LARGEST


class BroughtIn(BaseModel):
    """What came in, in words."""

    said: str


def router(store: Store, people: Accounts) -> fastapi.APIRouter:
    """What the page calls; 403 for whoever may not lead."""
    routes = fastapi.APIRouter(prefix="/api/people", dependencies=[only(people, "lead")])

    @routes.get("/items/{item_id}/{candidate}")
    def candidate(item_id: str, candidate: int) -> Response:
        found = item_samples(store, [item_id])
        images = [each.sample_ids for each in found if each.samples == "images"]
        if not images or not 0 <= candidate < len(images[0]):
            raise InputError("there is no such image; reload the page")
        return png_response(small_png(store.image_path(images[0][candidate]).read_bytes()))

    @routes.get("/rankings/{kind}")
    def take(
        kind: ranking_files.Kind, project: Annotated[str, fastapi.Query(max_length=200)]
    ) -> Response:
        name, file = ranking_files.written(store, project, kind)
        return FileResponse(
            file,
            media_type="application/jsonl",
            headers=as_attachment(name),
            background=BackgroundTask(ranking_files.remove, file),
        )

    @routes.post("/rankings")
    async def bring(
        name: Annotated[str, fastapi.Query(max_length=1000)], sent: fastapi.Request
    ) -> BroughtIn:
        with tempfile.TemporaryDirectory(prefix="imgalign-") as folder:
            part = Path(folder) / "sent.jsonl"
            await receive(sent, part, name, most=LARGEST_UPLOAD, cure=ranking_files.CURE)
            try:
                said = await run_in_threadpool(ranking_files.brought_in, store, part, name)
            except ImgalignError as error:
                raise type(error)(in_the_app(str(error))) from error
        return BroughtIn(said=said)

    return routes
