"""One ranking as a browser sends it: checked, and told in the store's candidates.

The browser widget (`assets/session.js`) makes it step by step. The server rebuilds the finished
state with `Session.restored` before it stores anything, so that what arrives over the network is
always a ranking somebody could have made by hand. Without gradio, storage or clock.

Positions are places on the screen, 0-based. Candidates are the store's numbering of the same
images; the two differ by the display permutation, which never leaves the server.
"""

from collections.abc import Sequence
from dataclasses import dataclass
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
    second.
    """

    num_images: int
    placed: tuple[int, ...] = ()
    tied: tuple[bool, ...] = ()
    verdict: Verdict = "ranked"
    reason: str | None = None

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
