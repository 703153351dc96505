"""The ranking protocol: one item at a time, blind, acknowledged once it is stored.

The handlers are plain functions of a store. Their results go to the browser, so they contain no
model, seed, path, candidate number or display order: images and texts are named by tokens that the
store issued to this annotator, and everything else by positions on the screen, 0-based.

Addresses stay the same when the server restarts or is upgraded, and the HTTP status distinguishes a
refusal from an outage.
"""

from typing import Annotated, Literal, get_args
from urllib.parse import quote, urlencode

import fastapi
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, StrictInt

from imgalign.preferences.records import (
    Item,
    Samples,
    Submission,
    TieGroups,
    Verdict,
    as_positions,
)
from imgalign.preferences.store import Store
from ui.api.responses import png_response, text_response

PREFIX = "api/rank"

SharedReason = Literal["unsafe", "cannot judge", "prompt unclear", "too similar"]
SkipReason = Literal["broken image", "broken text"] | SharedReason
SKIP_REASONS: dict[Samples, tuple[SkipReason, ...]] = {
    "images": ("broken image", *get_args(SharedReason)),
    "texts": ("broken text", *get_args(SharedReason)),
}
"""What the page offers, by what the candidates are."""
MAX_NAME = 60
"""Characters of an annotator's name."""


class Request(BaseModel):
    """A body sent by the widget; anything unexpected in it is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    annotator: str = Field(min_length=1, max_length=MAX_NAME)


class Undo(Request):
    """Take back the judgement that was submitted under `key`."""

    key: str = Field(min_length=8, max_length=64)


class Answer(Request):
    """One judgement. Example: ranking ((2,), (0, 1)) puts the third candidate on the screen first.

    `ranking` goes with the verdict "ranked", `reason` with "skipped"; the store checks both.
    """

    key: str = Field(min_length=8, max_length=64)
    item: str = Field(min_length=1, max_length=64)
    ranking: tuple[tuple[StrictInt, ...], ...] | None
    verdict: Verdict
    reason: SkipReason | None = None
    client_ms: int | None = Field(default=None, ge=0, le=2**53)


class Shown(BaseModel):
    """Token and address of one image or text."""

    token: str
    url: str


class Screen(BaseModel):
    """What is on the screen; `item` is None when nothing is left.

    `samples` says what the candidates are; `waiting` counts items that other annotators hold, which
    are part of `total`. `next` are addresses to prefetch, `undo` is the key of
    the latest judgement that stands.
    """

    item: str | None = None
    prompt: str = ""
    samples: Samples = "images"
    candidates: list[Shown] = []
    done: int
    total: int
    waiting: int
    next: list[str] = []
    undo: str | None = None


class Saved(BaseModel):
    """The store's receipt; `created` is False when the same judgement was already stored."""

    receipt: str
    created: bool


class TakenBack(BaseModel):
    """A judgement that was undone, to continue from."""

    item: str
    num_candidates: int
    ranking: TieGroups | None
    verdict: Verdict
    reason: str | None


def router(store: Store, *, project: str) -> fastapi.APIRouter:
    """What the ranking widget calls, on one project's queue."""
    routes = fastapi.APIRouter(prefix=f"/{PREFIX}")

    @routes.post("/next")
    def to_rank(request: Request, sender: fastapi.Request) -> Screen:
        client = sender.client.host if sender.client else None
        return next_item(store, request.annotator, project=project, client=client)

    @routes.post("/submit")
    def judged(answer: Answer) -> Saved:
        return submit(store, answer)

    @routes.post("/undo")
    def taken_back(request: Undo) -> TakenBack:
        return undo(store, request)

    @routes.get("/images/{token}")
    def shown(
        token: str, annotator: Annotated[str, fastapi.Query(max_length=MAX_NAME)]
    ) -> Response:
        return png_response(image(store, token, annotator))

    @routes.get("/texts/{token}")
    def read(token: str, annotator: Annotated[str, fastapi.Query(max_length=MAX_NAME)]) -> Response:
        return text_response(text(store, token, annotator))

    return routes


def next_item(
    store: Store, annotator: str, *, project: str = "default", client: str | None = None
) -> Screen:
    """The item of a project that this annotator should rank now, and the addresses of the next.

    `client` is the network address of the request: the store limits its number of new names.
    """
    if store.annotator(annotator) is None:
        store.add_annotator(annotator, client=client)
    item = store.next_item(annotator, project=project)
    counts = store.counts(annotator, project=project)
    total = counts.done + counts.left + counts.waiting
    # An item that is taken back must come up on this page again: only of this project.
    last_key = next((judged.key for judged in store.history(annotator, 1, project=project)), None)
    if item is None:
        return Screen(done=counts.done, total=total, waiting=counts.waiting, undo=last_key)
    after = store.next_item(annotator, project=project, holding=(item.item_id,), prefetch=True)
    return Screen(
        item=item.item_id,
        prompt=item.prompt,
        samples=item.samples,
        candidates=_shown(item, annotator),
        done=counts.done,
        total=total,
        waiting=counts.waiting,
        next=[] if after is None else [each.url for each in _shown(after, annotator)],
        undo=last_key,
    )


def submit(store: Store, answer: Answer) -> Saved:
    """Store one judgement; when this returns, it is on disk.

    Raises InputError for an invalid ranking, StoreError for an item that was not issued to this
    annotator or that they have already judged.
    """
    receipt = store.submit(
        Submission(
            key=answer.key,
            item_id=answer.item,
            annotator=answer.annotator,
            ranking=answer.ranking,
            verdict=answer.verdict,
            reason=answer.reason,
            client_ms=answer.client_ms,
        )
    )
    return Saved(receipt=receipt.ranking_id, created=receipt.created)


def undo(store: Store, request: Undo) -> TakenBack:
    """Take a judgement back; its item is the next one. Undoing twice is the same as once."""
    store.undo(request.annotator, request.key)
    judged = store.judgement(request.annotator, request.key)
    ranking = judged.ranking
    return TakenBack(
        item=judged.item_id,
        num_candidates=len(judged.order),
        ranking=None if ranking is None else as_positions(ranking, judged.order),
        verdict=judged.verdict,
        reason=judged.reason,
    )


def image(store: Store, token: str, annotator: str) -> bytes:
    """The PNG behind a token, pixel for pixel, without text that could name its model."""
    return store.image_bytes_for_token(token, annotator)


def text(store: Store, token: str, annotator: str) -> str:
    """The text behind a token, as it was added."""
    return store.text_for_token(token, annotator)


def _shown(item: Item, annotator: str) -> list[Shown]:
    who = urlencode({"annotator": annotator})
    return [
        Shown(token=token, url=f"{PREFIX}/{item.samples}/{quote(token, safe='')}?{who}")
        for token in item.tokens
    ]
