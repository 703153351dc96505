"""Routes of the Learn page: pictures of reports, and the images that they name.

No file is opened by a path from a request: an image is shown where the report of a reward model
names it.
"""

import fastapi
from fastapi.responses import Response

from imgalign.errors import InputError
from imgalign.preferences.accounts import Accounts
from imgalign.preferences.store import Store
from ui.api.login import only
from ui.api.responses import png_response
from ui.fits import Fits


def router(fits: Fits, store: Store, people: Accounts) -> fastapi.APIRouter:
    """What the script of the page calls; 403 for whoever may not lead."""
    routes = fastapi.APIRouter(prefix="/api/rewards", dependencies=[only(people, "lead")])

    @routes.get("/{name}/picture")
    def picture(name: str) -> Response:
        return png_response(fits.picture(name).read_bytes(), cache="no-cache")

    @routes.get("/{name}/images/{image_id}")
    def image(name: str, image_id: str) -> Response:
        if image_id not in fits.shown(name):
            raise InputError("this report names no such image")
        return png_response(store.image_path(image_id).read_bytes())

    return routes
