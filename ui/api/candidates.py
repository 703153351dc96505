"""Routes of the Candidates page: small copies of what a batch queued, and images that are sent.

No file is opened by a path from a request: an image is shown where a batch has queued it, and what
is sent lies under a name that the app gave out.
"""

from typing import Annotated

import fastapi
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from pydantic import BaseModel

from imgalign.errors import InputError
from imgalign.preferences.accounts import Accounts
from imgalign.preferences.store import Store
from imgalign.preferences.stored import item_samples
from ui.api.login import only
from ui.api.receiving import receive
from ui.api.responses import png_response
from ui.api.small import small_png
from ui.batches import Batches
from ui.uploads import LARGEST_ARCHIVE, limit_of

UPLOADS = r"/api/candidates/uploads/[A-Za-z0-9_-]{20}"
"""Where a browser sends files, one in each request."""
LARGEST_UPLOAD = LARGEST_ARCHIVE


class Begun(BaseModel):
    """A new upload."""

    upload: str


class Taken(BaseModel):
    """What was taken: images of this file, and of the upload altogether."""

    images: int
    total: int


def router(batches: Batches, store: Store, people: Accounts) -> fastapi.APIRouter:
    """What the scripts of the page call; 403 for whoever may not lead."""
    routes = fastapi.APIRouter(prefix="/api/candidates", dependencies=[only(people, "lead")])

    @routes.post("/uploads")
    def begin() -> Begun:
        batches.uploads.tidy(batches.uploads_in_use())
        return Begun(upload=batches.uploads.begin())

    @routes.post("/uploads/{upload}")
    async def send(
        upload: str, name: Annotated[str, fastapi.Query(max_length=1000)], sent: fastapi.Request
    ) -> Taken:
        part = await run_in_threadpool(batches.uploads.part, upload)
        try:
            cure = "name its folder on this machine instead"
            await receive(sent, part, name, most=limit_of(name), cure=cure)
            images = await run_in_threadpool(batches.uploads.take, upload, name, part)
        finally:
            part.unlink(missing_ok=True)
        return Taken(images=images, total=await run_in_threadpool(batches.uploads.count, upload))

    @routes.get("/{name}/images/{image_id}")
    def image(name: str, image_id: str) -> Response:
        queued = item_samples(store, batches.batch(name).item_ids)
        if not any(image_id in each.sample_ids for each in queued if each.samples == "images"):
            raise InputError("this batch has queued no such image")
        return png_response(small_png(store.image_path(image_id).read_bytes()))

    return routes
