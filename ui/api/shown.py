"""What annotators are shown: images and texts by tokens that the store issued to them alone."""

from collections.abc import Sequence
from typing import Annotated
from urllib.parse import quote, urlencode

import fastapi
from fastapi.responses import Response
from pydantic import BaseModel

from imgalign.errors import LostSampleError, StoreError
from imgalign.preferences.store import Store
from ui.api.lanes import Lane
from ui.api.login import MAX_NAME, annotator_of
from ui.api.responses import png_response, text_response
from ui.api.small import small_png, small_text

PREFIX = "api/rank"
Named = Annotated[str, fastapi.Query(alias="annotator", max_length=MAX_NAME)]
"""Whose token it is; with accounts the session says so."""


SAMPLES_AT_WORK = 4
"""Images and texts that are sent at once: pages have them before they show them."""


class Shown(BaseModel):
    """Token and address of one image or text."""

    token: str
    url: str


def addressed(tokens: Sequence[str], folder: str, whose: str | None) -> list[Shown]:
    """Where the candidates of tokens are, and `whose` they are if no session says so."""
    query = "" if whose is None else f"?{urlencode({'annotator': whose})}"
    return [
        Shown(token=token, url=f"{PREFIX}/{folder}/{quote(token, safe='')}{query}")
        for token in tokens
    ]


def add_samples(routes: fastapi.APIRouter, store: Store) -> None:
    """What a token stands for, whole or small."""
    samples = Lane(SAMPLES_AT_WORK)

    @routes.get("/images/small/{token}")
    @samples
    def glimpsed(token: str, sender: fastapi.Request, sent: Named = "") -> Response:
        return png_response(small_png(image(store, token, annotator_of(sent, sender))))

    @routes.get("/texts/small/{token}")
    @samples
    def skimmed(token: str, sender: fastapi.Request, sent: Named = "") -> Response:
        return text_response(small_text(text(store, token, annotator_of(sent, sender))))

    @routes.get("/images/{token}")
    @samples
    def shown(token: str, sender: fastapi.Request, sent: Named = "") -> Response:
        return png_response(image(store, token, annotator_of(sent, sender)))

    @routes.get("/texts/{token}")
    @samples
    def read(token: str, sender: fastapi.Request, sent: Named = "") -> Response:
        return text_response(text(store, token, annotator_of(sent, sender)))


def image(store: Store, token: str, annotator: str) -> bytes:
    """The PNG behind a token, pixel for pixel, without text that could name its model."""
    try:
        return store.image_bytes_for_token(token, annotator)
    except LostSampleError:
        raise _lost("image") from None


def text(store: Store, token: str, annotator: str) -> str:
    """The text behind a token, as it was added."""
    try:
        return store.text_for_token(token, annotator)
    except LostSampleError:
        raise _lost("text") from None


def _lost(what: str) -> StoreError:
    """Without the id, which tells what made it."""
    return StoreError(
        f"{what}: missing or damaged; skip the set, and tell whoever leads the project"
    )
