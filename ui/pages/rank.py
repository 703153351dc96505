"""The Rank page: one item at a time, blind, nothing acknowledged before it is stored.

The handlers are plain functions of a store. What they return goes to the browser, so it holds no
model, seed, path, candidate number or display order: images are known by tokens that the store
issued to this annotator, and positions are places on the screen.
"""

from urllib.parse import quote, urlencode

import gradio as gr
from pydantic import BaseModel, ConfigDict, Field

from imgalign.preferences.records import Item
from imgalign.preferences.store import Store
from ui.ranker import ranker
from ui.session import MAX_IMAGES, Session

IMAGE_ROUTE = "api/rank/images"


class Request(BaseModel):
    """A body sent by the widget; anything unexpected in it is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    annotator: str = Field(min_length=1, max_length=60)


class Undo(Request):
    """Take back the judgement that was submitted under `key`."""

    key: str = Field(min_length=8, max_length=64)


class Answer(Request):
    """One finished ranking in places on the screen; see `ui.session.Session`."""

    key: str = Field(min_length=8, max_length=64)
    item: str = Field(min_length=1, max_length=64)
    placed: tuple[int, ...] = Field(max_length=MAX_IMAGES)
    tied: tuple[bool, ...] = Field(max_length=MAX_IMAGES)
    verdict: str
    reason: str | None = None
    client_ms: int | None = Field(default=None, ge=0, le=2**53)


class Picture(BaseModel):
    """One candidate as the browser knows it."""

    token: str
    url: str


class Shown(BaseModel):
    """What is on the screen; `item` is None when nothing is left.

    `next` are addresses to prefetch, `undo` is the key of the latest judgement that stands.
    """

    item: str | None = None
    prompt: str = ""
    images: list[Picture] = []
    done: int
    total: int
    next: list[str] = []
    undo: str | None = None


class Saved(BaseModel):
    """The store's receipt; `created` is False when the same judgement was already stored."""

    receipt: str
    created: bool


class TakenBack(BaseModel):
    """A judgement that was undone, in places on the screen, to go on from."""

    item: str
    num_images: int
    placed: list[int]
    tied: list[bool]
    verdict: str
    reason: str | None


def next_item(
    store: Store, annotator: str, *, project: str = "default", client: str | None = None
) -> Shown:
    """The item of a project that this annotator should rank now, and the addresses of the next.

    `client` is the network address that asks: the store limits how many new names it may bring.
    """
    if store.annotator(annotator) is None:
        store.add_annotator(annotator, client=client)
    item = store.next_item(annotator, project=project)
    counts = store.counts(annotator, project=project)
    total = counts.done + counts.left
    # An item that is taken back must come up on this page again: only of this project.
    last_key = next((judged.key for judged in store.history(annotator, 1, project=project)), None)
    if item is None:
        return Shown(done=counts.done, total=total, undo=last_key)
    after = store.next_item(annotator, project=project, holding=(item.item_id,), prefetch=True)
    return Shown(
        item=item.item_id,
        prompt=item.prompt,
        images=_pictures(item, annotator),
        done=counts.done,
        total=total,
        next=[] if after is None else [p.url for p in _pictures(after, annotator)],
        undo=last_key,
    )


def submit(store: Store, answer: Answer) -> Saved:
    """Store one ranking; when this returns, it is on disk.

    Raises InputError for a ranking that nobody could have made by hand, StoreError for an item
    that was not issued to this annotator or that they have already judged.
    """
    order = store.issued_item(answer.item, answer.annotator).order
    session = Session.restored(
        len(order),
        placed=answer.placed,
        tied=answer.tied,
        verdict=answer.verdict,
        reason=answer.reason,
    )
    receipt = store.submit(
        session.submission(
            key=answer.key,
            item_id=answer.item,
            annotator=answer.annotator,
            order=order,
            client_ms=answer.client_ms,
        )
    )
    return Saved(receipt=receipt.ranking_id, created=receipt.created)


def undo(store: Store, request: Undo) -> TakenBack:
    """Take a judgement back; its item is the next one. Undoing twice is the same as once."""
    store.undo(request.annotator, request.key)
    judged = store.judgement(request.annotator, request.key)
    place = {candidate: position for position, candidate in enumerate(judged.order)}
    groups = judged.ranking or ()
    return TakenBack(
        item=judged.item_id,
        num_images=len(judged.order),
        placed=[place[candidate] for group in groups for candidate in group],
        tied=[index > 0 for group in groups for index in range(len(group))],
        verdict=judged.verdict,
        reason=judged.reason,
    )


def picture(store: Store, token: str, annotator: str) -> bytes:
    """The PNG behind a token, pixel for pixel, without text that could name its model."""
    return store.image_bytes_for_token(token, annotator)


def build() -> None:
    """Draw the page inside the current Blocks."""
    with gr.Column(elem_classes="page"):
        ranker()


def _pictures(item: Item, annotator: str) -> list[Picture]:
    who = urlencode({"annotator": annotator})
    return [
        Picture(token=token, url=f"{IMAGE_ROUTE}/{quote(token, safe='')}?{who}")
        for token in item.tokens
    ]
