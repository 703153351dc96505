"""Submissions of rankings for tests of the store, right ones and wrong ones."""

import copy
from typing import Any

from imgalign.preferences.records import Item, Submission


def judge(item: Item | None, annotator: str = "ann", **fields: Any) -> Submission:
    """A ranking of the candidates in display order, best first."""
    assert item is not None
    defaults: dict[str, Any] = {
        "key": f"{annotator}-{item.item_id}",
        "item_id": item.item_id,
        "annotator": annotator,
        "order": item.order,
        "ranking": tuple((index,) for index in item.order),
    }
    return Submission(**(defaults | fields))


def forged(submission: Submission, **fields: Any) -> Submission:
    """What a broken or hostile page could send, past our own type annotations."""
    forgery = copy.copy(submission)
    for name, value in fields.items():
        object.__setattr__(forgery, name, value)
    return forgery
