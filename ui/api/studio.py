"""Routes of the Train and Generate pages: images, and whether the server is still the same one.

No file is opened by a path from a request.
"""

import fastapi
from fastapi.responses import Response

from ui.api.responses import png_response
from ui.runs import Runs
from ui.shelf import Shelf


def router(runs: Runs, shelf: Shelf, *, server: str) -> fastapi.APIRouter:
    """What the scripts of both pages call.

    `server` names this process: a page of an earlier one must be reloaded.
    """
    routes = fastapi.APIRouter(prefix="/api")

    @routes.get("/alive")
    def alive() -> dict[str, str]:
        return {"server": server}

    @routes.get("/runs/{name}/samples/{file}")
    def sample(name: str, file: str) -> Response:
        return png_response(runs.sample(name, file).read_bytes(), cache="no-cache")

    @routes.get("/generated/{image_id}")
    def generated(image_id: str) -> Response:
        return png_response(shelf.get(image_id).png)

    return routes
