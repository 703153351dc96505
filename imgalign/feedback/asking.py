"""Asking a judge about the items of a queue, and writing its rankings to the store.

Every pair of candidates is asked about in both orders, once for each principle. The ranking of an
item is written as soon as its last reply is there: a call that is stopped, however it is, has lost
at most the replies under way, and the same call again goes on with the items that are left.
"""

import logging
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import combinations

from imgalign.errors import InputError, JudgeError
from imgalign.feedback.constitution import Constitution
from imgalign.feedback.judge import Judge, provenance_of, unreadable
from imgalign.feedback.question import Candidate, Question, Reply
from imgalign.feedback.verdicts import order, preferences, verdicts
from imgalign.preferences.coverage import queued_projects
from imgalign.preferences.judges import add_judge
from imgalign.preferences.records import Answer, Item, Submission
from imgalign.preferences.store import Store

log = logging.getLogger(__name__)

MOST_FAILURES = 3
"""Items in a row without a readable reply; then something is wrong with all of them."""


@dataclass(slots=True)
class Outcome:
    """What a call has done."""

    annotator: str
    """The judge's name in the store."""
    num_judged: int = 0
    left_open: Counter[str] = field(default_factory=Counter)
    """How many items were left as they were, by the reason."""


@dataclass(slots=True)
class _Asked:
    """An item, and the replies to its questions that are there."""

    item: Item
    questions: list[Answer]
    """Which principle and candidates each is about; the choices are open."""
    replies: list[Reply] = field(default_factory=list)


def ask_about_queue(
    store: Store,
    judge: Judge,
    constitution: Constitution,
    *,
    project: str = "default",
    limit: int | None = None,
    on_progress: Callable[[float], None] = lambda _: None,
) -> Outcome:
    """Let a judge rank the items of a project that it has not judged, at most `limit` of them.

    An item about which no question could be asked, or no reply read, is left open: a later call
    asks about it again. JudgeError where that happens to several in a row, or to all, and where the
    judge cannot go on; InputError for a project without items.
    """
    _refuse_empty(store, project)
    name = add_judge(store, provenance_of(judge, constitution)).name
    outcome = Outcome(annotator=name)
    queue = _Queue(store, judge, constitution, outcome, project=project, limit=limit)
    total = max(1, min(store.counts(name, project=project).left, limit or 2**62))
    failures = 0
    with closing(judge.replies(queue.questions())) as replies:
        for reply in replies:
            asked = queue.under_way[0]
            asked.replies.append(reply)
            if len(asked.replies) < len(asked.questions):
                continue
            queue.under_way.popleft()
            if reason := _failure(asked):
                queue.leave_open(asked.item, reason)
                failures += 1
                if failures == MOST_FAILURES:
                    raise JudgeError(
                        f"judge {judge.model!r}: {failures} items in a row: {reason}; use a judge "
                        "that follows instructions and reads the whole question; what was judged "
                        "is kept"
                    )
            else:
                _submit(store, asked, constitution, name)
                failures = 0
                outcome.num_judged += 1
            on_progress(min(1.0, (outcome.num_judged + outcome.left_open.total()) / total))
    if outcome.left_open and not outcome.num_judged:
        reason, count = outcome.left_open.most_common(1)[0]
        raise JudgeError(f"judge {judge.model!r}: no item could be judged; {count} items: {reason}")
    return outcome


def _refuse_empty(store: Store, project: str) -> None:
    projects = queued_projects(store)
    if project not in projects:
        raise InputError(
            f"project {project!r}: nothing is queued there; projects with items: "
            f"{', '.join(projects) or 'none, queue some with `imgalign candidates`'}"
        )


@dataclass(slots=True)
class _Queue:
    """The questions about the items of a project, made as they are needed."""

    store: Store
    judge: Judge
    constitution: Constitution
    outcome: Outcome
    project: str
    limit: int | None
    under_way: deque[_Asked] = field(default_factory=deque)
    held: set[str] = field(default_factory=set)

    def questions(self) -> Iterator[Question]:
        while (item := self._next()) is not None:
            if len(item.tokens) == 1:
                self.leave_open(item, "a single candidate, and the judge compares two")
                continue
            if reason := unreadable(self.judge, self.constitution, item.samples):
                self.leave_open(item, reason)
                continue
            principles = self.constitution.principles_for(item.samples)
            shown = [self._shown(item, token) for token in item.tokens]
            asked = _Asked(
                item,
                [
                    Answer(principle, first, second, None)
                    for one, other in combinations(range(len(shown)), 2)
                    for principle in principles
                    for first, second in ((one, other), (other, one))
                ],
            )
            self.under_way.append(asked)
            for each in asked.questions:
                yield Question(
                    prompt=item.prompt,
                    principle=principles[each.principle].text,
                    first=shown[each.first],
                    second=shown[each.second],
                )

    def leave_open(self, item: Item, reason: str) -> None:
        if reason not in self.outcome.left_open:
            log.warning("item %s is left open: %s", item.item_id[:12], reason)
        self.outcome.left_open[reason] += 1
        self.held.add(item.item_id)

    def _next(self) -> Item | None:
        num_taken = self.outcome.num_judged + self.outcome.left_open.total() + len(self.under_way)
        if self.limit is not None and num_taken >= self.limit:
            return None
        holding = self.held | {asked.item.item_id for asked in self.under_way}
        name = self.outcome.annotator
        return self.store.next_item(name, project=self.project, holding=holding)

    def _shown(self, item: Item, token: str) -> Candidate:
        name = self.outcome.annotator
        if item.samples == "texts":
            return self.store.text_for_token(token, name)
        return self.store.image_bytes_for_token(token, name)


def _failure(asked: _Asked) -> str:
    """Why nothing is known about an item; empty where at least one reply can be read."""
    problem = next((reply.problem for reply in asked.replies if reply.problem), "")
    if problem or any(reply.choice for reply in asked.replies):
        return problem
    return f"none of {len(asked.replies)} replies is A or B, such as {asked.replies[0].said!r}"


def _submit(store: Store, asked: _Asked, constitution: Constitution, annotator: str) -> None:
    answers = tuple(
        Answer(question.principle, question.first, question.second, reply.choice)
        for question, reply in zip(asked.questions, asked.replies, strict=True)
    )
    found = verdicts(answers)
    weights = [principle.weight for principle in constitution.principles]
    ranking = order(preferences(found, weights), num=len(asked.item.tokens))
    num_consistent = sum(verdict.winner is not None for verdict in found)
    reason = (
        f"no order: {num_consistent} of {len(found)} verdicts are the same in both orders"
        if ranking is None
        else None
    )
    store.submit(
        Submission(
            key=uuid.uuid4().hex,
            item_id=asked.item.item_id,
            annotator=annotator,
            verdict="skipped" if ranking is None else "ranked",
            ranking=ranking,
            reason=reason,
            answers=answers,
        )
    )
