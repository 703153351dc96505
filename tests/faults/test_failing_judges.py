"""Claims: whatever a judge's server does, a call that asks it about a queue ends with what it has
judged, or in a JudgeError of one line; verdicts that were given are kept, none is made up, and once
the server answers again the same call judges what is left."""

import shutil
import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fault_counts import LONG, Faults, check_line, examples
from hypothesis import given
from hypothesis import strategies as st
from judge_server import (
    Answered,
    HangUpError,
    JudgeServer,
    Rule,
    completion,
    failure,
    judge_server,
    prefers_shorter,
)
from texts import add_texts

from imgalign.errors import JudgeError
from imgalign.feedback.asking import ask_about_queue
from imgalign.feedback.constitution import Constitution, Principle
from imgalign.feedback.endpoint import EndpointConfig, EndpointJudge
from imgalign.preferences.checking import check_store
from imgalign.preferences.records import Ranking
from imgalign.preferences.store import Store

pytestmark = LONG

ITEMS, TEXTS = 3, ("a", "bb", "cccc")
QUICK = EndpointConfig(timeout=0.4, retries=2, first_wait=0.001, parallel=3)
CONSTITUTION = Constitution(name="short", principles=(Principle(text="It is short."),))


def answers(content: bytes, **headers: str) -> Rule:
    """A rule that answers so, whatever is asked."""
    return lambda body: (200, headers, content)


def says(status: int, message: str = "no", **headers: str) -> Rule:
    """A rule that refuses, whatever is asked."""
    return lambda body: failure(status, message, **headers)


def hangs_up(body: dict[str, Any]) -> Answered:
    raise HangUpError


def is_silent(body: dict[str, Any]) -> Answered:
    threading.Event().wait(0.8)  # twice as long as it is waited for
    return prefers_shorter(body)


MISDEEDS: dict[str, Rule] = {
    "hangs": is_silent,
    "dies": hangs_up,
    "busy": says(429, "slow down"),
    "busy, and says for how long": says(503, Retry_After="nan"),
    "fails": says(500, "\x1b[2J oops\x00"),
    "too long": says(400, "This model's maximum context length is 10 tokens."),
    "an option": says(400, "Unsupported value: 'temperature' does not support 0"),
    "refuses": says(401, "who are you"),
    "another model": says(404, "no such model"),
    "NaN": answers(b'{"choices": [{"message": {"content": NaN}}]}'),
    "a number": answers(b'{"choices": [{"message": {"content": 1e999}}]}'),
    "parts": answers(b'{"choices": [{"message": {"content": [{"type": "text"}, 3, null]}}]}'),
    "no choices": answers(b'{"choices": []}'),
    "nothing": answers(b""),
    "half of an answer": answers(b'{"choices": [{"message": {"content": "A'),
    "a page": answers(b"<html>busy</html>", Content_Type="text/html; charset=base64"),
    "no text": answers(b"\xff\xfe\x00"),
    "no gzip": answers(b"no gzip", Content_Encoding="gzip"),
    "asterisks": lambda body: completion("*" * 20_000),
    "both": lambda body: completion("A\nB"),
    "a poem": lambda body: completion("Roses are red.\n\x1b]0;title\x07"),
    "thoughts": lambda body: completion("<think>A is", finish_reason="length"),
}


@pytest.fixture(scope="module")
def queued(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with a few items of texts, the shorter the better."""
    path = tmp_path_factory.mktemp("queued") / "imgalign.db"
    with Store.open(path) as store:
        for number in range(ITEMS):
            add_texts(store, [f"{text} {number}" for text in TEXTS], prompt=f"prompt {number}")
    return path


class Misbehaving:
    """A rule with a plan: what to do at which request, and to be honest at all others."""

    def __init__(self, plan: dict[int, str]) -> None:
        self.plan = plan
        self.asked = 0
        self.lock = threading.Lock()

    def __call__(self, body: dict[str, Any]) -> Answered:
        with self.lock:
            misdeed = self.plan.get(self.asked)
            self.asked += 1
        return prefers_shorter(body) if misdeed is None else MISDEEDS[misdeed](body)


def judged(store: Store) -> dict[str, Ranking]:
    """The verdicts in the store, none of which says that a longer text is better."""
    found = list(store.rankings(judged_by="ai", include_undone=True))
    for ranking in found:
        lengths = [len(store.text(each)) for each in ranking.sample_ids]
        groups = ranking.ranking or ()
        for better, worse in pairwise(groups):
            assert max(lengths[each] for each in better) < max(lengths[each] for each in worse)
    assert len({ranking.item_id for ranking in found}) == len(found)
    return {ranking.ranking_id: ranking for ranking in found}


def asked(store: Store, server: JudgeServer) -> bool:
    """Ask once; whether all items are judged."""
    before = judged(store)
    try:
        outcome = ask_about_queue(
            store, EndpointJudge(server.url, "tiny", config=QUICK), CONSTITUTION
        )
        over = not outcome.left_open
    except JudgeError as error:
        check_line(error)
        over = False
    after = judged(store)
    assert before.items() <= after.items()
    assert not over or len(after) == ITEMS
    return over


REQUESTS = ITEMS * len(TEXTS) * (len(TEXTS) - 1)
PLANS = st.dictionaries(
    st.integers(0, 2 * REQUESTS), st.sampled_from(sorted(MISDEEDS)), min_size=1, max_size=10
) | st.sampled_from(sorted(MISDEEDS)).map(lambda each: dict.fromkeys(range(12), each))


def judge_through(plan: dict[int, str], queued: Path, folder: Path, faults: Faults) -> None:
    """Ask until all is judged, while the server follows a plan."""
    path = folder / "imgalign.db"
    shutil.copy(queued, path)
    rule = Misbehaving(plan)
    with Store.open(path) as store, judge_server(rule) as server:
        try:
            over = [asked(store, server) for _ in range(len(plan) + 2)]
        finally:
            met = [f"judge: {misdeed}" for number, misdeed in plan.items() if number < rule.asked]
            faults.injected.update(met)
        assert over[-1], "an honest server has not judged all of them"
        assert check_store(store).passed
    faults.survived.update(met)


@pytest.mark.parametrize("misdeed", MISDEEDS)
def test_each_failure_is_survived(queued, tmp_path, faults, misdeed):
    judge_through({0: misdeed, 4: misdeed, 5: misdeed}, queued, tmp_path, faults)


@examples(8)
@given(plan=PLANS)
def test_a_judge_that_fails_in_any_way_loses_no_verdict_and_makes_none_up(
    queued, tmp_path, faults, plan
):
    judge_through(plan, queued, tmp_path, faults)
