"""The route by which a browser sends a LoRA of the Generate page.

No file is opened by a path from a request: what is sent lies in a folder of its own until it was
found to be what it should be.
"""

import shutil
from typing import Annotated

import fastapi
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel

from imgalign.preferences.accounts import Accounts
from ui.api.login import only
from ui.api.receiving import receive
from ui.loras import CURE, LARGEST, Loras

UPLOADS = r"/api/loras"
"""Where a browser sends the file of a LoRA."""
LARGEST_UPLOAD = LARGEST


class Kept(BaseModel):
    """What a LoRA is called here."""

    name: str


def router(loras: Loras, people: Accounts) -> fastapi.APIRouter:
    """What the page calls; 403 for whoever may not lead."""
    routes = fastapi.APIRouter(prefix="/api/loras", dependencies=[only(people, "lead")])

    @routes.post("")
    async def bring(
        name: Annotated[str, fastapi.Query(max_length=1000)], sent: fastapi.Request
    ) -> Kept:
        folder = await run_in_threadpool(loras.begin)
        try:
            part = folder / "sent"
            await receive(sent, part, name, most=LARGEST_UPLOAD, cure=CURE)
            return Kept(name=await run_in_threadpool(loras.take, part, name))
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    return routes
