"""The ranking protocol: one item at a time, blind, acknowledged once it is stored.

The handlers are plain functions of a store. Their results go to the browser, so they contain no
model, seed, path, candidate number or display order, and no id of the store, from which these could
be guessed: items, images and texts are named by tokens that the store issued to this annotator, and
everything else by positions on the screen, 0-based.

Addresses stay the same when the server restarts or is upgraded, and the HTTP status distinguishes a
refusal from an outage.
"""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal, TypeVar, get_args

import fastapi
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, StrictInt

from imgalign.errors import StoreError
from imgalign.preferences.accounts import Accounts
from imgalign.preferences.identity import person
from imgalign.preferences.issued import item_named
from imgalign.preferences.leases import PREFETCH_KEPT
from imgalign.preferences.own_votes import Judged, latest_key, own_votes, taken_back
from imgalign.preferences.records import (
    Item,
    Samples,
    Submission,
    TieGroups,
    Verdict,
    as_positions,
)
from imgalign.preferences.store import Store
from ui.api.guidelines import Guidelines
from ui.api.lanes import Lane
from ui.api.login import MAX_NAME, annotator_of, only, same_annotator
from ui.api.pace import Pace
from ui.api.projects import FIRST, Projects, Rankable, own_projects
from ui.api.shown import PREFIX, Shown, add_samples, addressed
from ui.roles import ACCOUNT

SharedReason = Literal["unsafe", "cannot judge", "prompt unclear", "too similar"]
SkipReason = Literal["broken image", "broken text"] | SharedReason
SKIP_REASONS: dict[Samples, tuple[SkipReason, ...]] = {
    "images": ("broken image", *get_args(SharedReason)),
    "texts": ("broken text", *get_args(SharedReason)),
}
"""What the page offers, by what the candidates are."""
MAX_PROJECT = 200
AHEAD = 2
"""Items that a page gets before it needs them, so that a fast annotator does not wait."""
VOTES_PER_PAGE = 10
VOTES_AT_ONCE, VOTES_PER_SECOND = 30, 2.0
"""Pages of one's own votes, and lists of projects: as many at once, and as many a second in the
long run."""
MAX_REPLACED = 100
"""Keys that one judgement replaces."""
REQUESTS_AT_ONCE, REQUESTS_PER_SECOND = 200, 20.0
"""Requests of one annotator that write, of each kind: as many at once, and as many a second in the
long run. A key that is held down repeats itself 30 times a second."""
SETS_AT_WORK, SETS_OF_A_SERVER, VOTES_AT_WORK = 2, 8, 8
"""Requests that are at work at once: for sets, from a file or from the server of a database, for
which they wait most of their time; and votes, with what takes them back. More sets of a file would
take longer each, and every vote with them."""


Key = Annotated[str, Field(min_length=8, max_length=64)]


class Request(BaseModel):
    """A body sent by the widget; anything unexpected in it is refused.

    With accounts the session says who is asking, and `annotator` may be left out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    annotator: str = Field(default="", max_length=MAX_NAME)


Asked = TypeVar("Asked", bound=Request)


class Next(Request):
    """Ask for what to rank now, in a project: None is the one that the app begins with."""

    project: str | None = Field(default=None, min_length=1, max_length=MAX_PROJECT)


class Undo(Request):
    """Take back the judgement that was submitted under `key`."""

    key: Key


class Answer(Request):
    """One judgement. Example: ranking ((2,), (0, 1)) puts the third candidate on the screen first.

    `ranking` goes with the verdict "ranked", `reason` with "skipped"; the store checks both.
    `replaces` are the keys under which this item was judged otherwise, without a receipt.
    """

    key: Key
    item: str = Field(min_length=1, max_length=64)
    ranking: tuple[tuple[StrictInt, ...], ...] | None
    verdict: Verdict
    reason: SkipReason | None = None
    client_ms: int | None = Field(default=None, ge=0, le=2**53)
    replaces: tuple[Key, ...] = Field(default=(), max_length=MAX_REPLACED)


class Coming(BaseModel):
    """An item after the one on the screen, reserved for a short time: `seconds`."""

    item: str
    prompt: str
    samples: Samples
    candidates: list[Shown]
    taken_back: Judged | None
    seconds: float


class Screen(BaseModel):
    """What is on the screen; `item` is None when nothing is left.

    `item` is the name that this annotator has for it, here and wherever an item is named;
    `samples` says what the candidates are, `taken_back` what was judged of them and taken back, to
    continue from; `waiting` counts items that other annotators hold, which are part of `total`.
    `after` are the next items, at most AHEAD, which may be shown in this order as soon as this one
    is judged; `next` are their addresses, to prefetch. `undo` is the key of the latest judgement
    that stands. `qualifying` items are left of the project's qualification; who is `held` did not
    pass it.
    """

    item: str | None = None
    prompt: str = ""
    samples: Samples = "images"
    candidates: list[Shown] = []
    taken_back: Judged | None = None
    done: int
    total: int
    waiting: int
    next: list[str] = []
    after: list[Coming] = []
    undo: str | None = None
    project: str = FIRST
    qualifying: int = 0
    held: bool = False


class Queued(BaseModel):
    """Whether there is or was anything to rank; asked before anybody has given a name."""

    queued: bool


class Saved(BaseModel):
    """The store's receipt; `created` is False when the same judgement was already stored."""

    receipt: str
    created: bool


class Earlier(Next):
    """Ask for one's own votes: the newest, or those older than the one under the key `before`."""

    before: Key | None = None


class Guide(BaseModel):
    """What the lead of the project asks of its annotators, as plain text; "" for nothing."""

    text: str


class Vote(BaseModel):
    """One's own judgement: `candidates` are small, in the order of the screen.

    `key` is what undo takes, `ranking` holds positions, `at` is UTC.
    """

    key: str
    prompt: str
    samples: Samples
    candidates: list[Shown]
    ranking: TieGroups | None
    verdict: Verdict
    reason: str | None
    at: datetime


class Votes(BaseModel):
    """A page of one's own votes, newest first; `more` says whether there are older ones."""

    votes: list[Vote]
    more: bool


class TakenBack(BaseModel):
    """A judgement that was undone, to continue from."""

    item: str
    num_candidates: int
    ranking: TieGroups | None
    verdict: Verdict
    reason: str | None


def router(
    store: Store, people: Accounts, *, project: str | None, guidelines: Path | None = None
) -> fastapi.APIRouter:
    """What the ranking widget calls, on the projects that the sender may rank.

    `project` is that of `Rankable`; `guidelines` is a text file for annotators, InputError where
    it cannot be read.
    """
    guide = Guidelines(guidelines, store.database)
    pace = Pace(burst=VOTES_AT_ONCE, per_second=VOTES_PER_SECOND)
    writes = Pace(burst=REQUESTS_AT_ONCE, per_second=REQUESTS_PER_SECOND)
    routes = fastapi.APIRouter(
        prefix=f"/{PREFIX}",
        dependencies=[only(people, "annotator"), fastapi.Depends(same_annotator)],
    )
    rankable = Rankable(store, project)
    sets = Lane(SETS_OF_A_SERVER if store.database.path is None else SETS_AT_WORK)
    votes = Lane(VOTES_AT_WORK)

    def writing(sender: fastapi.Request, asked: Asked) -> Asked:
        """A request that writes, under the name of its sender; 429 for who is too fast."""
        asked = _of(sender, asked)
        writes.require(person(asked.annotator), sender.url.path.rstrip("/").rpartition("/")[2])
        return asked

    @routes.post("/next")
    @sets
    def to_rank(request: Next, sender: fastapi.Request) -> Screen:
        request = writing(sender, request)
        client = sender.client.host if sender.client else None
        where = rankable.chosen(request.project, sender)
        who = request.annotator
        return next_item(store, who, project=where, client=client, named=_is_named(sender))

    @routes.post("/projects", response_model=Projects)
    def offered(request: Request, sender: fastapi.Request) -> Projects | JSONResponse:
        request = _of(sender, request)
        known = store.annotator(request.annotator)
        if known is None:
            return Projects(projects=[])
        if not pace.allows(known.annotator_id):
            return _too_often("projects")
        return own_projects(store, request.annotator, among=rankable.among(sender))

    @routes.get("/queued")
    def queued(sender: fastapi.Request) -> Queued:
        return Queued(queued=rankable.holds_any(sender))

    @routes.post("/submit")
    @votes
    def judged(answer: Answer, sender: fastapi.Request) -> Saved:
        return submit(store, writing(sender, answer))

    @routes.post("/undo")
    @votes
    def taken_back(request: Undo, sender: fastapi.Request) -> TakenBack:
        return undo(store, writing(sender, request))

    @routes.post("/votes", response_model=Votes)
    def voted(request: Earlier, sender: fastapi.Request) -> Votes | JSONResponse:
        request = _of(sender, request)
        known = store.annotator(request.annotator)
        if known is None:  # who has not begun has no votes, and no bucket of their own either
            return Votes(votes=[], more=False)
        if not pace.allows(known.annotator_id):
            return _too_often("votes")
        where = rankable.chosen(request.project, sender)
        return own_votes_page(store, request, project=where, named=_is_named(sender))

    @routes.get("/guidelines")
    def asked(
        sender: fastapi.Request,
        of: Annotated[
            str | None, fastapi.Query(alias="project", min_length=1, max_length=MAX_PROJECT)
        ] = None,
    ) -> Guide:
        return Guide(text=guide.text(rankable.chosen(of, sender)))

    add_samples(routes, store)
    return routes


def _of(sender: fastapi.Request, asked: Asked) -> Asked:
    """A request under the name of whoever sent it."""
    return asked.model_copy(update={"annotator": annotator_of(asked.annotator, sender)})


def _is_named(sender: fastapi.Request) -> bool:
    """Whether addresses for the sender must say whose they are, because no session does."""
    return sender.scope.get(ACCOUNT) is None


def _too_often(what: str) -> JSONResponse:
    error = f"{what}: more than {VOTES_AT_ONCE} pages at once; wait a few seconds"
    return JSONResponse({"error": error}, status_code=429)


def next_item(
    store: Store,
    annotator: str,
    *,
    project: str = "default",
    client: str | None = None,
    named: bool = True,
) -> Screen:
    """The item of a project that this annotator should rank now, and the addresses of the next.

    `client` is the network address of the request: the store limits its number of new names.
    Addresses say whose they are if `named`.
    """
    if store.annotator(annotator) is None:
        store.add_annotator(annotator, client=client)
    item = store.next_item(annotator, project=project)
    counts = store.counts(annotator, project=project)
    total = counts.done + counts.left + counts.waiting
    # An item that is taken back must come up on this page again: only of this project.
    last_key = latest_key(store, annotator, project=project)
    if item is None:
        return Screen(
            done=counts.done,
            total=total,
            waiting=counts.waiting,
            undo=last_key,
            project=project,
            qualifying=counts.qualifying,
            held=counts.held,
        )
    whose = annotator if named else None
    coming = _coming(store, annotator, project=project, shown=item.item_id)
    before = taken_back(store, annotator, [each.item_id for each in (item, *coming)])
    after = [
        Coming(
            item=each.issued_name,
            prompt=each.prompt,
            samples=each.samples,
            candidates=_shown(each, whose),
            taken_back=before.get(each.item_id),
            seconds=PREFETCH_KEPT.total_seconds(),
        )
        for each in coming
    ]
    return Screen(
        item=item.issued_name,
        prompt=item.prompt,
        samples=item.samples,
        candidates=_shown(item, whose),
        taken_back=before.get(item.item_id),
        done=counts.done,
        total=total,
        waiting=counts.waiting,
        next=[shown.url for each in after for shown in each.candidates],
        after=after,
        undo=last_key,
        project=project,
        qualifying=counts.qualifying,
    )


def _coming(store: Store, annotator: str, *, project: str, shown: str) -> list[Item]:
    found: list[Item] = []
    while len(found) < AHEAD:
        held = (shown, *(each.item_id for each in found))
        item = store.next_item(annotator, project=project, holding=held, prefetch=True)
        if item is None:
            break
        found.append(item)
    return found


def submit(store: Store, answer: Answer) -> Saved:
    """Store one judgement; when this returns, it is on disk.

    Raises InputError for an invalid ranking, NotIssuedError for an item that was not issued to this
    annotator by this name, StoreError for one that they have already judged, and for a judgement
    that they took back since it came, perhaps in another tab: it does not count any more.
    """
    receipt = store.submit(
        Submission(
            key=answer.key,
            item_id=item_named(store, answer.item, answer.annotator),
            annotator=answer.annotator,
            ranking=answer.ranking,
            verdict=answer.verdict,
            reason=answer.reason,
            client_ms=answer.client_ms,
            replaces=answer.replaces,
        )
    )
    if not receipt.created and store.judgement(answer.annotator, answer.key).undone_at is not None:
        raise StoreError("judgement: taken back since it was sent; send it under a new key")
    return Saved(receipt=receipt.ranking_id, created=receipt.created)


def undo(store: Store, request: Undo) -> TakenBack:
    """Take a judgement back; its item is the next one. Undoing twice is the same as once.

    StoreError for one that was not made on a screen here, but imported.
    """
    judged = store.judgement(request.annotator, request.key)
    item = store.issued_item(judged.item_id, request.annotator)
    store.undo(request.annotator, request.key)
    ranking = judged.ranking
    return TakenBack(
        item=item.issued_name,
        num_candidates=len(judged.order),
        ranking=None if ranking is None else as_positions(ranking, judged.order),
        verdict=judged.verdict,
        reason=judged.reason,
    )


def own_votes_page(
    store: Store, request: Earlier, *, project: str = "default", named: bool = True
) -> Votes:
    """One page of this annotator's own votes on a project, newest first.

    StoreError for a `before` that is not a key of theirs. `named` is that of `next_item`.
    """
    who = request.annotator
    found = own_votes(store, who, project=project, limit=VOTES_PER_PAGE + 1, before=request.before)
    votes = [
        Vote(
            key=each.key,
            prompt=each.prompt,
            samples=each.samples,
            candidates=addressed(each.tokens, f"{each.samples}/small", who if named else None),
            ranking=each.ranking,
            verdict=each.verdict,
            reason=each.reason,
            at=each.created_at,
        )
        for each in found[:VOTES_PER_PAGE]
    ]
    return Votes(votes=votes, more=len(found) > VOTES_PER_PAGE)


def _shown(item: Item, whose: str | None) -> list[Shown]:
    return addressed(item.tokens, item.samples, whose)
