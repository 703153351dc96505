"""Submissions of rankings for tests of the store, right ones and wrong ones."""

import copy
from typing import Any, TypeVar

from imgalign.preferences.records import Item, Submission, TieGroups, as_positions
from imgalign.preferences.store import Store

R = TypeVar("R")


def judge(item: Item | None, annotator: str = "ann", **fields: Any) -> Submission:
    """A ranking of the images as they stand on the screen, best first."""
    assert item is not None
    defaults: dict[str, Any] = {
        "key": f"{annotator}-{item.item_id}",
        "item_id": item.item_id,
        "annotator": annotator,
        "ranking": tuple((position,) for position in range(len(item.tokens))),
    }
    return Submission(**(defaults | fields))


def on_screen(
    store: Store, item: Item | None, ranking: TieGroups, annotator: str = "ann"
) -> TieGroups:
    """Where this annotator sees the candidates of a ranking."""
    assert item is not None
    return as_positions(ranking, store.display_order(item.item_id, annotator))


def forged(record: R, **fields: Any) -> R:
    """What a broken or hostile page could send, past our own type annotations."""
    forgery = copy.copy(record)
    for name, value in fields.items():
        object.__setattr__(forgery, name, value)
    return forgery
