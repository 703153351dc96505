"""Routes of the People page: small copies of the candidates of an item, for leads.

No file is opened by a path from a request: candidates are named by their place in an item.
"""

import fastapi
from fastapi.responses import Response

from imgalign.errors import InputError
from imgalign.preferences.accounts import Accounts
from imgalign.preferences.store import Store
from imgalign.preferences.stored import item_samples
from ui.api.login import only
from ui.api.responses import png_response
from ui.api.small import small_png


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

    return routes
