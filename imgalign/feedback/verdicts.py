"""From a judge's answers to a ranking with ties.

A verdict is the judge's opinion of two candidates by one principle. It counts only if it is the
same in both orders: a judge that names the first candidate whatever it is, which models do
(arXiv:2306.05685, section 3.3), has no opinion. The preference between two candidates is the sign
of the weighted sum of the verdicts that count; without any, or where they cancel out, there is
none.

One candidate is ranked above another where preferences lead from it to the other, directly or by
way of others, and not back. All else is a tie, and ties are transitive. So the ranking is the
finest one in which each order has its reason: a cycle of preferences is one tie group, and so are
candidates that cannot be told apart. With fewer than K - 1 preferences among K candidates there is
no order, and no ranking.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from imgalign.preferences.records import Answer, TieGroups

EQUAL = 1e-9
"""Weighted sums below this share of all weight are zero but for rounding."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The opinion of two candidates by one principle; the winner is None where it is not
    consistent.
    """

    principle: int
    pair: tuple[int, int]
    winner: int | None


def verdicts(answers: Sequence[Answer]) -> list[Verdict]:
    """One for each principle and pair that was asked about, in order of first appearance."""
    choices: dict[tuple[int, tuple[int, int]], list[tuple[int, int | None]]] = {}
    for answer in answers:
        low, high = sorted((answer.first, answer.second))
        chosen = {"first": answer.first, "second": answer.second, None: None}[answer.choice]
        choices.setdefault((answer.principle, (low, high)), []).append((answer.first, chosen))
    found = []
    for (principle, pair), given in choices.items():
        in_both_orders = {first for first, _ in given} == set(pair)
        chosen_ones = {chosen for _, chosen in given}
        agreed = in_both_orders and len(chosen_ones) == 1
        found.append(Verdict(principle, pair, chosen_ones.pop() if agreed else None))
    return found


def preferences(found: Sequence[Verdict], weights: Sequence[float]) -> set[tuple[int, int]]:
    """(better, worse) of each pair with a preference; `weights` are those of the principles."""
    sums: dict[tuple[int, int], list[float]] = {}
    for verdict in found:
        sign = 0 if verdict.winner is None else 1 if verdict.winner == verdict.pair[0] else -1
        sums.setdefault(verdict.pair, []).append(sign * weights[verdict.principle])
    preferred = set()
    for (one, other), parts in sums.items():
        total = math.fsum(parts)
        if abs(total) > EQUAL * math.fsum(map(abs, parts)):
            preferred.add((one, other) if total > 0 else (other, one))
    return preferred


def order(preferred: set[tuple[int, int]], *, num: int) -> TieGroups | None:
    """The ranking of `num` candidates that the preferences give; None where they give no order.

    Example: (0, 1), (1, 2), (2, 0) is a cycle and gives None; (0, 1), (0, 2) give ((0,), (1, 2)).
    """
    leads = [[(i, j) in preferred for j in range(num)] for i in range(num)]
    for via in range(num):
        for i in range(num):
            for j in range(num):
                leads[i][j] = leads[i][j] or (leads[i][via] and leads[via][j])
    above = [[leads[i][j] and not leads[j][i] for j in range(num)] for i in range(num)]
    groups = _tied(above)
    if len(groups) < 2:
        return None
    # Any two members of two groups are in the same order, so one of each decides.
    groups.sort(key=lambda group: sum(above[other][group[0]] for other in range(num)))
    return tuple(tuple(group) for group in groups)


def _tied(above: Sequence[Sequence[bool]]) -> list[list[int]]:
    """Candidates that a chain of ties connects."""
    left, groups = set(range(len(above))), []
    while left:
        group, waiting = set(), [min(left)]
        while waiting:
            one = waiting.pop()
            group.add(one)
            left.discard(one)
            waiting += [other for other in left if not (above[one][other] or above[other][one])]
        groups.append(sorted(group))
    return groups


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How reliable a judge's answers are."""

    num_verdicts: int
    num_consistent: int
    num_answers: int
    num_read: int
    """Answers that say one of the two candidates."""
    num_first: int
    """Answers that say the one that was shown first; without position bias, half of those read."""


def tally(judged: Sequence[Sequence[Answer]]) -> Tally:
    """The numbers of some judgements, given the answers behind each."""
    found = [verdict for answers in judged for verdict in verdicts(answers)]
    choices = [answer.choice for answers in judged for answer in answers]
    return Tally(
        num_verdicts=len(found),
        num_consistent=sum(verdict.winner is not None for verdict in found),
        num_answers=len(choices),
        num_read=sum(choice is not None for choice in choices),
        num_first=choices.count("first"),
    )
