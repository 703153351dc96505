"""AI judges in a store, for tests that need rankings of theirs."""

from dataclasses import replace
from typing import Any

from imgalign.preferences.judges import add_judge
from imgalign.preferences.records import Answer, Item, JudgeProvenance, Submission, TieGroups
from imgalign.preferences.store import Store

JUDGE = JudgeProvenance(
    model="org/tiny-judge",
    constitution_name="plain",
    constitution='{"principles": [{"text": "short"}]}',
    question_hash="0" * 64,
    host="127.0.0.1:8080",
)


def another(**facts: Any) -> JudgeProvenance:
    """`JUDGE`, except for what is given."""
    return replace(JUDGE, **facts)


def judge_next(
    store: Store,
    judge: JudgeProvenance = JUDGE,
    *,
    ranking: TieGroups | None = None,
    answers: tuple[Answer, ...] = (Answer(0, 0, 1, "first"), Answer(0, 1, 0, "second")),
    project: str = "default",
) -> Item:
    """Let an AI judge rank its next item, as it stands on its screen."""
    name = add_judge(store, judge).name
    item = store.next_item(name, project=project)
    assert item is not None
    store.submit(
        Submission(
            key=item.item_id,
            item_id=item.item_id,
            annotator=name,
            ranking=ranking or tuple((position,) for position in range(len(item.tokens))),
            answers=answers,
        )
    )
    return item
