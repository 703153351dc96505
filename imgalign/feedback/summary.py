"""What a judge has done in a project so far, and how far its verdicts can be trusted."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from imgalign.errors import StoreError
from imgalign.feedback.verdicts import Tally, tally
from imgalign.preferences.agreement import Agreement, agreement_between, pair_agreement
from imgalign.preferences.judges import judges
from imgalign.preferences.records import JudgeProvenance
from imgalign.preferences.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Of all that the judge's rankings in the store say, whenever they were made."""

    annotator: str
    judge: JudgeProvenance
    num_ranked: int
    num_without_order: int
    tally: Tally
    with_people: Agreement
    """On pairs that the judge and a person have ordered; simulated annotators count as people."""
    among_people: Agreement
    """Of people with each other, which is what the judge's can be compared with."""
    left_open: Mapping[str, int] = field(default_factory=Counter)
    """Items of this call that are still to be judged, by the reason."""

    def lines(self) -> list[str]:
        """For a terminal, one fact per line."""
        found = self.tally
        lines = [
            f"{self.num_ranked + self.num_without_order} items are judged by {self.annotator!r}: "
            f"{self.num_ranked} rankings, {self.num_without_order} without an order",
            f"judge: {self.judge.model}{f' at {self.judge.host}' if self.judge.host else ''}; "
            f"constitution: {self.judge.constitution_name} ({self.judge.constitution_hash[:8]})",
            f"consistent verdicts: {_share(found.num_consistent, found.num_verdicts)} (the same in "
            "both orders; no others count)",
            f"first place chosen: {_share(found.num_first, found.num_read)} answers (50 % without "
            "position bias)",
        ]
        if found.num_read < found.num_answers:
            unread = found.num_answers - found.num_read
            lines.append(f"answers that say neither: {_share(unread, found.num_answers)}")
        if self.with_people.count:
            lines.append(f"agreement with people: {_agreed(self.with_people)}")
        if self.among_people.count:
            lines.append(f"agreement of people among each other: {_agreed(self.among_people)}")
        lines += [f"left open: {count} items, {why}" for why, count in self.left_open.items()]
        return lines


def summary_of(
    store: Store, annotator: str, *, project: str, left_open: Mapping[str, int] | None = None
) -> Summary:
    """Read a judge's rankings in a project, and those of people beside them.

    `annotator` is the judge's name; StoreError where it is nobody's, or no AI judge's.
    """
    known = store.annotator(annotator)
    if known is None or known.judge_id is None:
        raise StoreError(f"annotator {annotator!r}: no AI judge in {store.database.name}")
    judged = list(store.rankings(annotator=annotator, project=project, judged_by="ai"))
    by_people = list(store.rankings(project=project))
    verdicts = Counter(ranking.verdict for ranking in judged)
    return Summary(
        annotator=annotator,
        judge=judges(store)[known.judge_id],
        num_ranked=verdicts["ranked"],
        num_without_order=verdicts["skipped"],
        tally=tally([ranking.answers for ranking in judged]),
        with_people=agreement_between(judged, by_people),
        among_people=pair_agreement(by_people),
        left_open=left_open or {},
    )


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} % of {whole}" if whole else "none of 0"


def _agreed(found: Agreement) -> str:
    assert not math.isnan(found.rate)
    return (
        f"{100 * found.rate:.0f} % of {found.count} pairs "
        f"(95 % interval {100 * found.low:.0f} to {100 * found.high:.0f} %)"
    )
