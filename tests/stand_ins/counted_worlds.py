"""What a store should count, told row by row, and steps of people who rank."""

import itertools
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import strategies as st
from sqlalchemy import select
from submissions import judge

from imgalign.preferences import leases, schema
from imgalign.preferences.attention import bring_back, withdraw
from imgalign.preferences.exclusions import exclude, include
from imgalign.preferences.records import ATTENTION, Answer, Counts, Provenance, utc_now
from imgalign.preferences.store import Store

PEOPLE = ("ann", "bob", "eve")
VERDICTS: dict[str, dict[str, Any]] = {
    "ranked": {},
    "all_bad": {"verdict": "all_bad", "ranking": None},
    "skipped": {"verdict": "skipped", "ranking": None, "reason": "unsafe"},
}
number = itertools.count()


class Plain:
    """What the store should say, counted row by row from its judgements and leases."""

    def __init__(self, store: Store, project: str) -> None:
        with store.database.read() as connection:

            def rows(table: Any) -> list[Any]:
                return list(connection.execute(select(table)).all())

            undone = {row.ranking_id for row in rows(schema.undos)}
            self.judges = {
                row.annotator_id for row in rows(schema.annotators) if row.judge_id is not None
            }
            self.items = [row for row in rows(schema.items) if row.project == project]
            self.items.sort(key=lambda row: row.sequence)
            self.standing = [row for row in rows(schema.rankings) if row.ranking_id not in undone]
            self.leases = rows(schema.assignments)
            self.excluded = {
                row.annotator_id for row in rows(schema.exclusions) if row.project == project
            }
            self.uncounted = self.judges | self.excluded

    def state(self) -> object:
        """All that is counted of the project."""
        own = {row.item_id for row in self.items}
        given = [row.ranking_id for row in self.standing if row.item_id in own]
        return own, given, self.excluded

    def judged(self, who: str, item_id: str) -> bool:
        return any((r.annotator_id, r.item_id) == (who, item_id) for r in self.standing)

    def given(self, item_id: str) -> int:
        return sum(
            r.item_id == item_id and r.verdict != "skipped" and r.annotator_id not in self.uncounted
            for r in self.standing
        )

    def lives(self, item_id: str, now: Any) -> dict[str, Any]:
        """Live leases on an item by who holds them."""
        return {
            lease.annotator_id: lease
            for lease in self.leases
            if lease.item_id == item_id
            and lease.leased_until > now
            and lease.issued_at <= now + leases.SKEW
        }

    def available(self, who: str, item: Any, now: Any) -> bool:
        if self.judged(who, item.item_id) or item.withdrawn_at is not None:
            return False
        held = self.lives(item.item_id, now)
        if who in self.judges or (who in held and held[who].requeued_at is not None):
            return True
        others = [
            each
            for each in held
            if each != who and each not in self.uncounted and not self.judged(each, item.item_id)
        ]
        return bool(self.given(item.item_id) + len(others) < item.overlap)

    def counts(self, who: str, now: Any) -> Counts:
        left = sum(self.available(who, item, now) for item in self.items)
        could = sum(
            not self.judged(who, item.item_id) and self.given(item.item_id) < item.overlap
            for item in self.items
            if item.withdrawn_at is None
        )
        done = sum(self.judged(who, item.item_id) for item in self.items)
        return Counts(done=done, left=left, waiting=max(0, could - left))

    def next_item(self, who: str, now: Any) -> str | None:
        found = [item for item in self.items if self.available(who, item, now)]

        def order(item: Any) -> tuple[float, bool, float, int]:
            held = self.lives(item.item_id, now).get(who)
            at = None if held is None else held.requeued_at
            came = 0.0 if held is None else held.chosen_at.timestamp()
            back = 0.0 if at is None else -at.timestamp()
            return (back, held is None, came, item.sequence)

        return min(found, key=order).item_id if found else None


class World:
    """A project of its own in a store, and what is done in it."""

    def __init__(
        self, store: Store, images: list[str], monkeypatch: pytest.MonkeyPatch, made: Any
    ) -> None:
        self.store, self.images, self.made = store, images, made
        self.project = f"project {next(number)}"
        self.now = utc_now()
        self.keys: dict[str, list[str]] = {}
        self.attention: list[str] = []
        monkeypatch.setattr("imgalign.preferences.store.utc_now", lambda: self.now)

    def add(self, which: int, overlap: int) -> None:
        shown = [self.images[which % 4], self.images[4 + which % 3], self.images[7]]
        self.store.add_item(
            f"prompt {which}", shown, source="test", project=self.project, overlap=overlap
        )

    def watch(self, which: int, overlap: int) -> None:
        """Queue an attention item; of these alone some are withdrawn."""
        self.attention.append(
            self.store.add_item(
                f"prompt {which}",
                [self.images[which % 4], self.images[4]],
                source=f"{ATTENTION}{len(self.attention)}",
                project=self.project,
                overlap=overlap,
            )
        )

    def withdraw(self, which: int) -> None:
        if self.attention:
            item = self.attention[which % len(self.attention)]
            withdraw(self.store, item, project=self.project)

    def bring_back(self, which: int) -> None:
        if self.attention:
            item = self.attention[which % len(self.attention)]
            bring_back(self.store, item, project=self.project)

    def judge(self, who: str, verdict: str) -> None:
        plain = Plain(self.store, self.project).next_item(who, self.now)
        item = self.store.next_item(who, project=self.project)
        # None is right as well where a lease was taken over: no client has so many here.
        assert (None if item is None else item.item_id) == plain
        if item is None:
            return
        fields = VERDICTS[verdict]
        if who not in PEOPLE:
            fields = fields | {"answers": (Answer(0, 0, 1, None),)}
        sent = judge(item, who, key=f"key {next(number)}", **fields)
        self.store.submit(sent)
        self.keys.setdefault(who, []).append(sent.key)

    def hold(self, who: str) -> None:
        self.store.next_item(who, project=self.project)

    def undo(self, who: str, which: int) -> None:
        if keys := self.keys.get(who):
            self.store.undo(who, keys[which % len(keys)])

    def exclude(self, who: str) -> None:
        exclude(self.store.database, who, project=self.project)

    def include(self, who: str) -> None:
        include(self.store.database, who, project=self.project)

    def wait(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)

    def make_alike(self, which: int) -> None:
        """Another model makes an image that is there."""
        self.store.add_image(self.made[which % len(self.made)], self.other_model)

    other_model: Provenance


WHO = st.sampled_from((*PEOPLE, "the judge"))
WHICH = st.integers(0, 5)
STEPS = st.one_of(
    st.tuples(st.sampled_from(("add", "watch")), WHICH, st.integers(1, 3)),
    st.tuples(st.sampled_from(("withdraw", "withdraw", "bring_back")), WHICH),
    st.tuples(st.just("judge"), WHO, st.sampled_from(("ranked", "ranked", "all_bad", "skipped"))),
    st.tuples(st.just("judge"), WHO, st.just("ranked")),
    st.tuples(st.just("hold"), WHO),
    st.tuples(st.just("undo"), WHO, WHICH),
    st.tuples(st.sampled_from(("exclude", "include")), WHO),
    st.tuples(st.just("wait"), st.sampled_from((1, 10, 40))),
    st.tuples(st.just("make_alike"), WHICH),
)
