"""Routes of several pages: images, exports, and whether the server is still the same one.

No file is opened by a path from a request.
"""

from functools import partial

import fastapi
from fastapi.responses import Response

from imgalign.preferences.accounts import Accounts
from ui.api.login import only
from ui.api.responses import as_attachment, png_response
from ui.api.taking import Begun, add_files
from ui.builds import Builds
from ui.download import file_name, zipped
from ui.exports import offered_layout, zipped_export
from ui.pulse import Page, Pulse
from ui.runs import Runs
from ui.shelf import Shelf


def router(
    runs: Runs, shelf: Shelf, people: Accounts, pulse: Pulse, *, server: str
) -> fastapi.APIRouter:
    """What pages and their scripts ask for; 403 for whoever may not lead.

    `server` names this process: a page of an earlier one must be reloaded.
    """
    routes = fastapi.APIRouter(prefix="/api", dependencies=[only(people, "lead")])
    builds = Builds()

    @routes.get("/alive")
    def alive(of: Page | None = None) -> dict[str, str]:
        return {"server": server, "mark": "" if of is None else pulse.of(of)}

    @routes.get("/runs/{name}/samples/{file}")
    def sample(name: str, file: str) -> Response:
        return png_response(runs.sample(name, file).read_bytes(), cache="no-cache")

    @routes.post("/exports/{name}/{step}/{layout}")
    def export(name: str, step: str, layout: str) -> Begun:
        checkpoint = f"{name}/{step}"
        offered = offered_layout(runs, checkpoint, layout)
        write = partial(zipped_export, runs, checkpoint, offered)
        return Begun(file=builds.begin((checkpoint, layout), write))

    add_files(routes, builds, "/exports")

    @routes.get("/generated/{image_id}")
    def generated(image_id: str) -> Response:
        return png_response(shelf.get(image_id).png)

    @routes.get("/generated/{image_id}/file")
    def generated_file(image_id: str) -> Response:
        kept = shelf.get(image_id)
        return _attachment(kept.png, "image/png", file_name(kept))

    @routes.get("/generated-files")
    def generated_files(ids: str) -> Response:
        images = [shelf.get(image_id) for image_id in dict.fromkeys(ids.split(","))]
        return _attachment(zipped(images), "application/zip", "images.zip")

    return routes


def _attachment(content: bytes, media_type: str, name: str) -> Response:
    return Response(content, media_type=media_type, headers=as_attachment(name))
