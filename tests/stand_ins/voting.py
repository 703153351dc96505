"""Blind votes on an adapter and its base, for tests of what is counted."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from imgalign.evaluate.votes import VoteResult, count_votes
from imgalign.preferences.records import Submission
from imgalign.preferences.store import Store

BASE: dict[str, Any] = {"model": "storybook"}
Queue = Callable[..., str]
Vote = Callable[..., Submission]


def counted(adapter: Path, store: Store, **settings: Any) -> VoteResult:
    return count_votes(adapter, store, command="imgalign evaluate x --votes", **settings)
