"""One ranking in the making: a pure state machine, without gradio, storage or clock.

The browser widget (`assets/session.js`) mirrors these transitions, and the server rebuilds the
finished state with `Session.restored` before it stores anything, so that what arrives over the
network is always a ranking somebody could have made by hand.

Positions are places on the screen, 0-based. Candidates are the store's numbering of the same
images; the two differ by the display permutation, which never leaves the server.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from imgalign.errors import InputError
from imgalign.preferences.records import Submission

Verdict = Literal["ranked", "all_bad", "skipped"]
VERDICTS: tuple[str, ...] = get_args(Verdict)

SKIP_REASONS = (
    "broken image",
    "unsafe",
    "cannot judge",
    "prompt unclear",
    "too similar",
)
MIN_IMAGES, MAX_IMAGES = 2, 9


@dataclass(frozen=True, slots=True)
class Session:
    """The images placed so far, best first, and which of them share a rank.

    `tied[i]` says that `placed[i]` has the same rank as `placed[i - 1]`. Example: placed
    (2, 0, 1) with tied (False, False, True) means that image 2 is best and that 0 and 1 tie for
    second. Every transition returns a new session that remembers the one before it.
    """

    num_images: int
    placed: tuple[int, ...] = ()
    tied: tuple[bool, ...] = ()
    verdict: Verdict = "ranked"
    reason: str | None = None
    past: "tuple[Session, ...]" = field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        if not MIN_IMAGES <= self.num_images <= MAX_IMAGES:
            raise InputError(
                f"ranking: expected {MIN_IMAGES} to {MAX_IMAGES} images, got {self.num_images}"
            )
        if len(set(self.placed)) != len(self.placed):
            raise InputError(f"ranking: an image is placed twice in {list(self.placed)}")
        if any(not 0 <= position < self.num_images for position in self.placed):
            raise InputError(
                f"ranking: expected positions 0 to {self.num_images - 1}, got {list(self.placed)}"
            )
        if len(self.tied) != len(self.placed):
            raise InputError(
                f"ranking: expected one tie flag per placed image ({len(self.placed)}), "
                f"got {len(self.tied)}"
            )
        if self.tied and self.tied[0]:
            raise InputError("ranking: the best image has nothing before it to tie with")
        if self.verdict not in VERDICTS:
            raise InputError(f"verdict: expected one of {list(VERDICTS)}, got {self.verdict!r}")
        if (self.verdict == "skipped") != (self.reason is not None):
            raise InputError("reason: a skip needs one, and nothing else may have one")
        if self.reason is not None and self.reason not in SKIP_REASONS:
            raise InputError(f"reason: expected one of {list(SKIP_REASONS)}, got {self.reason!r}")

    @classmethod
    def restored(
        cls,
        num_images: int,
        *,
        placed: Sequence[int],
        tied: Sequence[bool],
        verdict: str,
        reason: str | None,
    ) -> "Session":
        """Rebuild a session from what a browser sent; raises InputError where it is impossible."""
        if verdict not in VERDICTS:
            raise InputError(f"verdict: expected one of {list(VERDICTS)}, got {verdict!r}")
        return cls(
            num_images,
            tuple(placed),
            tuple(tied),
            verdict,  # type: ignore[arg-type]  # narrowed by the membership test above
            reason,
        )

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Positions in tie groups, best first; inside a group in the order they were placed."""
        groups: list[list[int]] = []
        for position, tied in zip(self.placed, self.tied, strict=True):
            if tied:
                groups[-1].append(position)
            else:
                groups.append([position])
        return tuple(tuple(group) for group in groups)

    @property
    def missing(self) -> tuple[int, ...]:
        """Positions that have no rank yet."""
        return tuple(p for p in range(self.num_images) if p not in self.placed)

    @property
    def ready(self) -> bool:
        """Whether the session can be submitted: every image has a rank, or there is a verdict."""
        return self.verdict != "ranked" or not self.missing

    def place(self, position: int) -> "Session":
        """Give an image the next rank; an image that has one loses it."""
        if position in self.placed:
            return self.unplace(position)
        return self._next(placed=(*self.placed, position), tied=(*self.tied, False))

    def unplace(self, position: int) -> "Session":
        """Take an image out of the ranking; the ones behind it move up."""
        if position not in self.placed:
            return self
        return self._regrouped(_without(self.groups, position))

    def toggle_tie(self) -> "Session":
        """Tie the image placed last with the rank before it, or break that tie."""
        if len(self.placed) < 2:
            return self
        return self._next(placed=self.placed, tied=(*self.tied[:-1], not self.tied[-1]))

    def tie_with(self, position: int, other: int) -> "Session":
        """Move an image into the rank of another placed image."""
        if position == other or other not in self.placed:
            return self
        groups = _without(self.groups, position)
        return self._regrouped([(*g, position) if other in g else g for g in groups])

    def insert_before(self, position: int, other: int) -> "Session":
        """Move an image to a rank of its own, directly before the rank of another."""
        if position == other or other not in self.placed:
            return self
        moved: list[tuple[int, ...]] = []
        for group in _without(self.groups, position):
            moved += [(position,), group] if other in group else [group]
        return self._regrouped(moved)

    def move_last(self, position: int) -> "Session":
        """Move an image to a rank of its own behind all others."""
        return self._regrouped([*_without(self.groups, position), (position,)])

    def complete(self) -> "Session":
        """Place the only image that is left; with more than one left, nothing happens."""
        return self.place(self.missing[0]) if len(self.missing) == 1 else self

    def judge_all_bad(self) -> "Session":
        """Say that none of the images is acceptable, or take that back."""
        verdict: Verdict = "ranked" if self.verdict == "all_bad" else "all_bad"
        return self._next(placed=self.placed, tied=self.tied, verdict=verdict)

    def skip(self, reason: str) -> "Session":
        """Pass on this item for one of SKIP_REASONS; the same reason again takes it back."""
        if self.verdict == "skipped" and self.reason == reason:
            return self._next(placed=self.placed, tied=self.tied)
        return self._next(placed=self.placed, tied=self.tied, verdict="skipped", reason=reason)

    def clear(self) -> "Session":
        """Start this ranking again."""
        return self._next(placed=(), tied=())

    def undo(self) -> "Session":
        """The session before the last transition; a fresh one stays as it is."""
        return self.past[-1] if self.past else self

    def submission(
        self,
        *,
        key: str,
        item_id: str,
        annotator: str,
        order: Sequence[int],
        client_ms: int | None,
    ) -> Submission:
        """The finished ranking in candidate numbers; `order[position]` is the candidate shown."""
        if sorted(order) != list(range(self.num_images)):
            raise InputError(
                f"order: expected a permutation of {self.num_images} candidates, got {list(order)}"
            )
        if not self.ready:
            names = ", ".join(str(p + 1) for p in self.missing)
            raise InputError(f"ranking: images without a rank: {names}")
        ranked = self.verdict == "ranked"
        ranking = tuple(tuple(sorted(order[p] for p in group)) for group in self.groups)
        return Submission(
            key=key,
            item_id=item_id,
            annotator=annotator,
            order=tuple(order),
            ranking=ranking if ranked else None,
            verdict=self.verdict,
            reason=self.reason,
            client_ms=client_ms,
        )

    def _regrouped(self, groups: Sequence[tuple[int, ...]]) -> "Session":
        placed = tuple(p for group in groups for p in group)
        tied = tuple(index > 0 for group in groups for index in range(len(group)))
        return self._next(placed=placed, tied=tied)

    def _next(
        self,
        *,
        placed: tuple[int, ...],
        tied: tuple[bool, ...],
        verdict: Verdict = "ranked",
        reason: str | None = None,
    ) -> "Session":
        """Placing an image takes back a verdict: whoever ranks has changed their mind."""
        after = Session(self.num_images, placed, tied, verdict, reason)
        return self if after == self else replace(after, past=(*self.past, self))


def _without(groups: Sequence[tuple[int, ...]], position: int) -> list[tuple[int, ...]]:
    left = (tuple(p for p in group if p != position) for group in groups)
    return [group for group in left if group]
