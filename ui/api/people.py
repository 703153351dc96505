"""Routes of the People page: small copies of candidates, and rankings as files, for leads.

No file is opened by a path from a request: candidates are named by their place in an item, files
that are written by a name that the app gave out, and what is sent lies in a folder of its own.
"""

import tempfile
from pathlib import Path
from typing import Annotated

import fastapi
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from pydantic import BaseModel

from imgalign.errors import InputError
from imgalign.preferences.accounts import Accounts
from imgalign.preferences.store import Store
from imgalign.preferences.stored import item_samples
from ui import ranking_import
from ui.api.login import only
from ui.api.receiving import receive
from ui.api.responses import png_response
from ui.api.small import small_png
from ui.api.taking import Begun, add_files
from ui.builds import Builds, Built
from ui.ranking_files import Kind, written

UPLOADS = r"/api/people/rankings"
"""Where a browser sends a file of rankings."""
LARGEST_UPLOAD = ranking_import.LARGEST


class BroughtIn(BaseModel):
    """What came in, in words."""

    said: str


def router(store: Store, people: Accounts) -> fastapi.APIRouter:
    """What the page calls; 403 for whoever may not lead."""
    routes = fastapi.APIRouter(prefix="/api/people", dependencies=[only(people, "lead")])
    builds = Builds()

    @routes.get("/items/{item_id}/{candidate}")
    def candidate(item_id: str, candidate: int) -> Response:
        found = item_samples(store, [item_id])
        images = [each.sample_ids for each in found if each.samples == "images"]
        if not images or not 0 <= candidate < len(images[0]):
            raise InputError("there is no such image; reload the page")
        return png_response(small_png(store.image_path(images[0][candidate]).read_bytes()))

    @routes.post("/files")
    def begin(kind: Kind, project: Annotated[str, fastapi.Query(max_length=200)]) -> Begun:
        def write(folder: Path) -> Built:
            file, said = written(store, project, kind, folder)
            return Built(file, f"{project}-{file.name}", said)

        return Begun(file=builds.begin((project, kind), write))

    add_files(routes, builds, "/files")

    @routes.post("/rankings")
    async def bring(
        name: Annotated[str, fastapi.Query(max_length=1000)], sent: fastapi.Request
    ) -> BroughtIn:
        with tempfile.TemporaryDirectory(prefix="imgalign-") as folder:
            part = Path(folder) / "sent"
            await receive(sent, part, name, most=LARGEST_UPLOAD, cure=ranking_import.CURE)
            said = await run_in_threadpool(ranking_import.brought_in, store, part, name)
        return BroughtIn(said=said)

    return routes
