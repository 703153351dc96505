"""Judgements for `ratings.py`: tie groups of rated items, with the prompt and annotator of each."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from imgalign.statistics import distinct


@dataclass(frozen=True, slots=True)
class Ordering:
    """One judgement of rated items: tie groups of names, best first.

    Standard errors are clustered by `cluster`, usually the prompt, and by `annotator`. A name may
    occur twice, when two candidates came from one model.
    """

    groups: tuple[tuple[str, ...], ...]
    cluster: str
    annotator: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Many judgements, each distinct outcome once.

    Judgement i had the tie groups `groups[kind[i]]`; `clusters` and `annotators` number its prompt
    and its annotator, in any way.
    """

    groups: Sequence[tuple[tuple[str, ...], ...]]
    kind: Int[np.ndarray, " n"]
    clusters: Int[np.ndarray, " n"]
    annotators: Int[np.ndarray, " n"]

    @classmethod
    def of(cls, judgements: "Judgements") -> "Judged":
        """The same judgements, in the same order."""
        if isinstance(judgements, Judged):
            return judgements
        kinds, clusters, annotators = _Numbering(), _Numbering(), _Numbering()
        rows = [
            (kinds[each.groups], clusters[each.cluster], annotators[each.annotator])
            for each in judgements
        ]
        columns = np.array(rows, dtype=np.int64).reshape(-1, 3).T
        groups = list(dict.fromkeys(each.groups for each in judgements))
        return cls(groups=groups, kind=columns[0], clusters=columns[1], annotators=columns[2])

    def latest(self, number: int) -> "Judged":
        """The last `number` of them, with the outcomes that occur there."""
        return self._only(slice(-number, None))

    def first(self, number: int) -> "Judged":
        """The first `number` of them, with the outcomes that occur there."""
        return self._only(slice(number))

    def _only(self, which: slice) -> "Judged":
        kinds, kind = distinct(self.kind[which])
        return Judged(
            groups=[self.groups[each] for each in kinds.tolist()],
            kind=kind,
            clusters=self.clusters[which],
            annotators=self.annotators[which],
        )

    def parts(self) -> list[tuple[Int[np.ndarray, " m"], "Judged"]]:
        """The parts whose items were never compared with each other, largest first.

        Each with the places of its judgements among all.
        """
        part_of: dict[str, int] = {}
        members: dict[int, set[str]] = {}
        for number, groups in enumerate(self.groups):
            own = {who for group in groups for who in group}
            for joined in {part_of[who] for who in own if who in part_of}:
                own |= members.pop(joined)
            members[number] = own
            part_of.update(dict.fromkeys(own, number))
        if len(members) == 1:
            return [(np.arange(len(self.kind)), self)]
        of_kind = np.array([part_of[groups[0][0]] for groups in self.groups], dtype=np.int64)
        found = []
        for part in members:
            kinds = np.flatnonzero(of_kind == part)
            number_of = np.full(len(self.groups), -1)
            number_of[kinds] = np.arange(len(kinds))
            places = np.flatnonzero(number_of[self.kind] >= 0)
            judged = Judged(
                groups=[self.groups[each] for each in kinds.tolist()],
                kind=number_of[self.kind[places]],
                clusters=self.clusters[places],
                annotators=self.annotators[places],
            )
            found.append((places, judged))
        return sorted(found, key=lambda each: (-len(each[0]), each[1].groups[0]))

    def times(self) -> list[int]:
        """How many judgements had each of `groups`."""
        return [int(n) for n in np.bincount(self.kind, minlength=len(self.groups))]


Judgements = Sequence[Ordering] | Judged


class _Numbering(dict[Hashable, int]):
    """Numbers keys 0, 1, 2, ... in order of first access."""

    def __missing__(self, key: Hashable) -> int:
        self[key] = len(self)
        return self[key]
