"""The preference store: images and texts, items to rank, leases, and append-only rankings.

A judgement is acknowledged only when it is on disk. Rankings are never changed: undo adds an
event, ranking again adds another ranking. Clients submit positions on the screen, and the store
maps them to candidates by the display order that it issued. So a client can neither rank samples
that it was not shown nor claim another order.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from sqlalchemy import Connection, func, select

from imgalign.errors import ImgalignError, StoreError
from imgalign.preferences import (
    adding,
    address,
    choosing,
    corrections,
    identity,
    leases,
    queries,
    tallies,
    texts,
    validation,
)
from imgalign.preferences.database import Database
from imgalign.preferences.identity import person
from imgalign.preferences.latest import latest
from imgalign.preferences.originals import ImageFolder, without_metadata
from imgalign.preferences.places import OPTION, image_folder
from imgalign.preferences.records import (
    Annotator,
    Counts,
    Item,
    JudgedBy,
    Provenance,
    Ranking,
    Receipt,
    Submission,
    TextProvenance,
    utc_now,
)
from imgalign.preferences.schema import annotators, images, items, rankings
from imgalign.preferences.shown import shown_to

PAGE = 500


class Store:
    """Open with `Store.open`; safe to share between threads and between processes.

    `database` has the rows and `images` the original files. Annotators are found under any spelling
    of their name (`identity.person`).
    """

    def __init__(
        self,
        database: Database,
        images: ImageFolder,
        *,
        lease: timedelta = leases.LEASE,
        seed: int | None = None,
    ) -> None:
        self.database = database
        self.images = images
        self._lease = lease
        self._seed = seed

    @classmethod
    def open(
        cls,
        url: str | Path | None = None,
        *,
        images: Path | None = None,
        create: bool = True,
        lease: timedelta = leases.LEASE,
        seed: int | None = None,
        busy_seconds: float = 30.0,
        images_named_by: str = OPTION,
    ) -> "Store":
        """Open or create a store, bringing its schema up to date.

        `url` is a SQLAlchemy URL or the path of a SQLite file; it falls back to the environment
        variable IMGALIGN_DATABASE, then to imgalign.db in this folder. `images` is the folder of
        originals, which the database remembers (a new one has it beside it), and messages call it
        `images_named_by`. Without `create`, a missing store is a StoreError, so that a mistyped
        name creates nothing. `lease` is how long an item stays reserved for the annotator who sees
        it. With a `seed` display orders are the same in every run; without, they are random. Raises
        StoreError as `Database` and `places.image_folder` do.
        """
        where = address.of_file(url) if isinstance(url, Path) else address.chosen(url)
        database = Database(where, create=create, busy_seconds=busy_seconds)
        try:
            folder = image_folder(database, images, create=create, named_by=images_named_by)
        except ImgalignError:
            database.close()
            raise
        return cls(database, folder, lease=lease, seed=seed)

    @property
    def is_new(self) -> bool:
        """Whether opening the store created it."""
        return self.database.is_new

    def close(self) -> None:
        """Close the database connections; the store cannot be used afterwards."""
        self.database.close()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # Images

    def add_image(self, image: bytes | Path, provenance: Provenance) -> str:
        """Store an original PNG with its provenance; the image id is the SHA-256 of the file.

        Adding it again changes nothing. The same image with another provenance keeps both. Raises
        InputError for a corrupt image, StorageFullError if the disk is full.
        """
        validation.provenance(provenance)
        stored = self.images.add(image)  # on disk before its row
        with self.database.write() as connection:
            adding.add_image(connection, stored, provenance, now=utc_now())
        return stored.image_id

    def image_path(self, image_id: str) -> Path:
        """The verified original file. StoreError if it is unknown, missing or damaged."""
        with self.database.read() as connection:
            known = select(images.c.image_id).where(images.c.image_id == image_id)
            if connection.execute(known).first() is None:
                raise StoreError(f"image {image_id[:12]}: not in {self.database.name}")
        return self.images.checked(image_id)

    def provenance(self, image_id: str) -> Provenance:
        """The first provenance of an image."""
        return self.provenances(image_id)[0]

    def provenances(self, image_id: str) -> list[Provenance]:
        """All provenances of an image, oldest first; never empty."""
        with self.database.read() as connection:
            found = queries.provenances_of(connection, image_id)
        if not found:
            raise StoreError(f"image {image_id[:12]}: not in {self.database.name}")
        return found

    # Texts

    def add_text(self, text: str, provenance: TextProvenance) -> str:
        """Store a text with its provenance; the text id is the SHA-256 of its UTF-8 bytes.

        Adding it again changes nothing. The same text with another provenance keeps both.
        InputError for a text without a visible character or with more than
        `texts.MAX_CHARACTERS`.
        """
        texts.check_text(text)
        validation.provenance(provenance)
        with self.database.write() as connection:
            return texts.add_text(connection, text, provenance, now=utc_now())

    def text(self, text_id: str) -> str:
        """The text as it was added; StoreError if it is unknown or damaged."""
        with self.database.read() as connection:
            return texts.text_of(connection, text_id)

    def text_provenances(self, text_id: str) -> list[TextProvenance]:
        """All provenances of a text, oldest first; never empty."""
        with self.database.read() as connection:
            found = texts.provenances_of(connection, text_id)
        if not found:
            raise StoreError(f"text {text_id[:12]}: not in {self.database.name}")
        return found

    # Annotators

    def add_annotator(
        self,
        annotator_id: str,
        *,
        name: str | None = None,
        group: str = "default",
        client: str | None = None,
        simulated: bool = False,
    ) -> Annotator:
        """Register an annotator. Doing it again, in any spelling of the name, changes nothing.

        `client` is the origin of the request, such as a network address: new names from one client
        are limited. `simulated` marks one that is no person; AI judges are added by `add_judge`. A
        name of another group or kind, or one too many, is a StoreError.
        """
        with self.database.write() as connection:
            return identity.register(
                connection,
                annotator_id,
                display=name,
                group=group,
                client=client,
                simulated=simulated,
                now=utc_now(),
            )

    def annotator(self, name: str) -> Annotator | None:
        """The annotator of this name, in any spelling; None if not registered."""
        with self.database.read() as connection:
            return queries.annotator(connection, person(name))

    def annotators(self) -> list[Annotator]:
        """All annotators, in order of registration."""
        statement = select(annotators).order_by(annotators.c.created_at, annotators.c.annotator_id)
        with self.database.read() as connection:
            return [queries.to_annotator(row) for row in connection.execute(statement)]

    # Items and leases

    def add_item(
        self,
        prompt: str,
        sample_ids: Sequence[str],
        *,
        source: str,
        project: str = "default",
        overlap: int = 1,
    ) -> str:
        """Queue K candidates for ranking and return the item id.

        They are images or texts that were added before, never both in one item. `overlap` is how
        many annotators shall judge it. The same prompt, samples in the same order, source and
        project are the same item; adding it again can only raise the overlap.
        """
        validation.item(prompt, sample_ids, project=project, overlap=overlap)
        with self.database.write() as connection:
            return adding.add_item(
                connection,
                prompt,
                sample_ids,
                source=source,
                project=project,
                overlap=overlap,
                now=utc_now(),
            )

    def next_item(
        self,
        annotator: str,
        *,
        project: str = "default",
        holding: Collection[str] = (),
        prefetch: bool = False,
    ) -> Item | None:
        """The next item for this annotator, or None when none is left.

        First items that they undid, then a qualification, those already on their screen, and of
        those whose overlap is not covered by judgements and live leases the oldest, or as the
        project's order says (`queue_order`). The item is leased; again gives the same one.
        `holding` are items that the page has; with `prefetch` the lease is short. The oldest of
        many leases are released. Where others hold all that is left, one network address more than
        half, one of its leases is taken over; who had it may submit.
        """
        annotator, now = person(annotator), utc_now()
        with self.database.read() as connection:
            who = queries.require_annotator(connection, annotator)
            asked = leases.Asked(who, project, holding, now, self._seed)
            start = choosing.first_available(connection, asked)
            if start is None and (prefetch or leases.surplus(connection, asked) is None):
                return None
            if prefetch and start and leases.keeps(connection, start.first, annotator, now):
                return _issued(connection, str(start.first), annotator)
        with self.database.write() as connection:
            chosen = choosing.next_item(connection, asked, start=start)
            if chosen is None:
                return None
            until = now + (min(self._lease, leases.PREFETCH_LEASE) if prefetch else self._lease)
            leases.issue(connection, chosen, annotator, now=now, until=until, seed=self._seed)
            leases.release_oldest(connection, annotator, now)
            return _issued(connection, chosen.item_id, annotator)

    def issued_item(self, item_id: str, annotator: str) -> Item:
        """The item as this annotator was shown it; StoreError if they never were."""
        with self.database.read() as connection:
            return _issued(connection, item_id, person(annotator))

    def display_order(self, item_id: str, annotator: str) -> tuple[int, ...]:
        """The candidate at each position of this annotator's screen; StoreError without one.

        For simulated annotators. It does not belong in a page.
        """
        with self.database.read() as connection:
            return shown_to(connection, item_id, person(annotator))[0]

    def image_for_token(self, token: str, annotator: str) -> Path:
        """The file behind an image token; StoreError unless it was issued to this annotator.

        The original may carry text chunks that name its model: show `image_bytes_for_token`.
        """
        with self.database.read() as connection:
            shown = queries.shown_sample(connection, token, person(annotator))
        if shown.image_id is None:
            raise StoreError("token: of a text, not of an image")
        return self.images.checked(shown.image_id)

    def image_bytes_for_token(self, token: str, annotator: str) -> bytes:
        """The PNG behind an image token, pixel for pixel, without anything that names its model."""
        return without_metadata(self.image_for_token(token, annotator).read_bytes())

    def text_for_token(self, token: str, annotator: str) -> str:
        """The text behind a text token; StoreError unless it was issued to this annotator."""
        with self.database.read() as connection:
            shown = queries.shown_sample(connection, token, person(annotator))
            if shown.text_id is None:
                raise StoreError("token: of an image, not of a text")
            return texts.text_of(connection, shown.text_id)

    # Judgements

    def submit(self, submission: Submission) -> Receipt:
        """Record one judgement; when this returns it is on disk.

        The ranking is kept in the numbers of the candidates, by the order in which this annotator
        was shown them. The same key again gives the same receipt and changes nothing. Accepted
        even after the lease has run out: work once done is never thrown away. Raises InputError
        for content that does not fit the item, StoreError for a key used for other content, an
        item not issued to this annotator (NotIssuedError), or one that they have already judged
        and not undone, unless under a key in `replaces`, which this one undoes.
        """
        sent = validation.submission(submission)
        sent = replace(sent, annotator=person(sent.annotator))
        with self.database.write() as connection:
            who = queries.require_annotator(connection, sent.annotator)
            row = queries.by_key(connection, sent.annotator, sent.key)
            if row is not None:
                if queries.content(row) != validation.content(sent):
                    raise StoreError(
                        f"key {sent.key!r}: already used for another judgement; "
                        "make a new key for each one"
                    )
                return Receipt(row.ranking_id, created=False)
            order, _ = shown_to(connection, sent.item_id, sent.annotator)
            validation.fits_screen(sent.ranking, len(order))
            validation.answers(sent.answers, num=len(order), by_judge=who.judge_id is not None)
            now = utc_now()
            corrections.take_back_replaced(connection, sent, now=now)
            if queries.has_judged(connection, sent.item_id, sent.annotator):
                raise StoreError(f"item: already judged by {sent.annotator!r}; undo it first")
            ranking_id = queries.add_ranking(connection, sent, order=order, now=now)
            tallies.judged(connection, ranking_id, now=now)
        return Receipt(ranking_id, created=True)

    def undo(self, annotator: str, key: str) -> Receipt:
        """Undo the judgement submitted under `key`; its item is the next one.

        The judgement stays on record. Undoing is idempotent; submit under a new key to judge the
        item again.
        """
        annotator, now = person(annotator), utc_now()
        with self.database.write() as connection:
            queries.require_annotator(connection, annotator)
            row = queries.by_key(connection, annotator, key)
            if row is None:
                raise StoreError(f"key {key!r}: nothing by annotator {annotator!r} to undo")
            if not corrections.take_back(connection, row.ranking_id, now=now):
                return Receipt(row.ranking_id, created=False)
            until = now + self._lease
            leases.renew(connection, row.item_id, annotator, now=now, until=until, requeued_at=now)
        return Receipt(row.ranking_id, created=True)

    def judgement(self, annotator: str, key: str) -> Ranking:
        """The judgement submitted under `key`, undone or not; StoreError without one."""
        every = queries.judgements(include_undone=True, include_excluded=True)
        statement = every.where(rankings.c.annotator_id == person(annotator), rankings.c.key == key)
        with self.database.read() as connection:
            found = queries.to_rankings(connection, connection.execute(statement).all())
        if not found:
            raise StoreError(f"key {key!r}: nothing by annotator {annotator!r}")
        return found[0]

    def rankings(
        self,
        *,
        group: str | None = None,
        annotator: str | None = None,
        project: str | None = None,
        judged_by: JudgedBy = "people",
        include_undone: bool = False,
    ) -> Iterator[Ranking]:
        """Judgements in the order they were made, those made before this call; all if no filter,
        but those of AI judges only where `judged_by` asks for them, and none of annotators who are
        excluded from the project or of attention items.

        Reads in pages, without an open transaction while the caller works.
        """
        statement = queries.judgements(include_undone=include_undone, include_excluded=False)
        statement = statement.where(~queries.is_attention(), *queries.judged_by(judged_by))
        if group is not None:
            statement = statement.where(annotators.c.group_name == group)
        if annotator is not None:
            statement = statement.where(rankings.c.annotator_id == person(annotator))
        if project is not None:
            statement = statement.where(items.c.project == project)
        with self.database.read() as connection:
            end = connection.execute(select(func.max(rankings.c.sequence))).scalar() or 0
        last = 0
        while last < end:
            page = statement.where(rankings.c.sequence > last, rankings.c.sequence <= end)
            with self.database.read() as connection:
                rows = connection.execute(page.order_by(rankings.c.sequence).limit(PAGE)).all()
                found = queries.to_rankings(connection, rows)
            if not rows:
                return
            last = rows[-1].sequence
            yield from found

    def history(
        self,
        annotator: str,
        limit: int = 20,
        *,
        project: str | None = None,
        include_undone: bool = False,
    ) -> list[Ranking]:
        """The annotator's latest judgements, newest first; `.key` is what `undo` takes.

        Of all projects unless one is given.
        """
        who = person(annotator)
        with self.database.read() as connection:
            chosen = latest(
                connection, who, limit=limit, project=project, include_undone=include_undone
            )
            statement = queries.judgements(include_undone=True, include_excluded=True)
            statement = statement.where(rankings.c.sequence.in_(chosen))
            statement = statement.order_by(rankings.c.sequence.desc())
            return queries.to_rankings(connection, connection.execute(statement).all())

    def counts(self, annotator: str, *, project: str = "default") -> Counts:
        """Numbers of items judged by this annotator, skipped ones included, left, and held by
        others.
        """
        with self.database.read() as connection:
            return leases.counts(connection, person(annotator), project, utc_now())


def _issued(connection: Connection, item_id: str, annotator: str) -> Item:
    _, tokens = shown_to(connection, item_id, annotator)
    shown = queries.shown_item(connection, item_id)
    return Item(item_id=item_id, prompt=shown.prompt, samples=shown.samples, tokens=tokens)
