"""Texts made elsewhere, queued for ranking: those of one prompt are candidates of one item.

They come from a table of prompts and completions, in any layout of text_layouts.WRITINGS, and are
stored as they stand there.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from imgalign.errors import InputError
from imgalign.preferences import validation
from imgalign.preferences.foreign.image_queue import SOURCE, evenly
from imgalign.preferences.foreign.records import (
    Reason,
    Remark,
    WrittenTexts,
    refuse_none,
    summarised,
)
from imgalign.preferences.foreign.text_layouts import WRITING_OPTIONS, WRITINGS
from imgalign.preferences.foreign.texts import read_rows
from imgalign.preferences.records import UNKNOWN, TextProvenance
from imgalign.preferences.store import Store
from imgalign.preferences.texts import MAX_CHARACTERS, check_text
from imgalign.preferences.wording import counted, there_are


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundText:
    """A text of a row, and how it was made."""

    row: str
    prompt: str
    text: str
    provenance: TextProvenance


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupedTexts:
    """The texts of a table, those of one prompt together."""

    groups: list[Sequence[FoundText]]
    left_out: list[Remark]


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedTexts:
    """What was queued, and what was left out."""

    item_ids: list[str]
    num_texts: int
    left_out: list[Remark]

    def lines(self) -> list[str]:
        """For a terminal. Example: "3 items are queued, of 11 texts"."""
        return [
            f"{there_are(len(self.item_ids), 'item')} queued, of {counted(self.num_texts, 'text')}",
            *(f"left out, {line}" for line in summarised(self.left_out)),
        ]


def group_texts(path: Path, *, per_prompt: int, model: str | None = None) -> GroupedTexts:
    """Read a table of texts, or a folder of tables, in groups of up to `per_prompt` of each prompt.

    A prompt with more texts has several groups, as equal in size as can be, of texts in the order
    of the table. With `per_prompt` 1 each text is a group. `model` is the name of what made the
    texts that do not name it. InputError where columns are missing, and where there is no group.
    """
    if per_prompt < 1:
        raise InputError(f"per_prompt: expected at least 1 text, got {per_prompt}")
    validation.text("model", model)
    rows, left_out = read_rows(path, WRITINGS, WRITING_OPTIONS)
    found = _texts(rows, left_out, model)
    groups = _grouped(found, per_prompt, left_out)
    what = "text" if per_prompt == 1 else "prompt with two texts"
    refuse_none(str(path), what, groups, left_out)
    return GroupedTexts(groups=groups, left_out=left_out)


def queue_texts(
    store: Store,
    found: GroupedTexts,
    *,
    project: str = "default",
    overlap: int = 1,
    on_progress: Callable[[float], None] = lambda _: None,
    on_item: Callable[[str], None] = lambda _: None,
) -> QueuedTexts:
    """Store texts and queue an item of each group.

    What is stored is kept when the call is interrupted; the same call again adds nothing twice.
    `on_item` gets the id of each item once it is queued.
    """
    item_ids: list[str] = []
    for number, group in enumerate(found.groups):
        on_progress(number / len(found.groups))
        ids = [store.add_text(each.text, each.provenance) for each in group]
        item_ids.append(
            store.add_item(group[0].prompt, ids, source=SOURCE, project=project, overlap=overlap)
        )
        on_item(item_ids[-1])
    on_progress(1.0)
    return QueuedTexts(
        item_ids=item_ids,
        num_texts=sum(len(group) for group in found.groups),
        left_out=found.left_out,
    )


def _texts(
    rows: Iterable[tuple[str, WrittenTexts]], left_out: list[Remark], model: str | None
) -> list[FoundText]:
    """The texts that the store can keep."""
    found: list[FoundText] = []
    for name, row in rows:
        made = row.provenance
        if model is not None and made.model == UNKNOWN:
            made = replace(made, model=model)
        for text in row.texts:
            try:
                validation.provenance(made)
                check_text(row.prompt, what="prompt")
                check_text(text)
            except InputError as error:
                longest = max(len(row.prompt), len(text))
                reason: Reason = "too large" if longest > MAX_CHARACTERS else "unusable row"
                left_out.append(Remark(reason=reason, name=name, detail=str(error)))
                continue
            found.append(FoundText(row=name, prompt=row.prompt, text=text, provenance=made))
    return found


def _grouped(
    texts: Iterable[FoundText], per_prompt: int, left_out: list[Remark]
) -> list[Sequence[FoundText]]:
    """Groups of up to `per_prompt` texts of one prompt, in order; what is in none is named."""
    by_prompt: dict[str, dict[str, FoundText]] = defaultdict(dict)
    for each in texts:
        same = by_prompt[each.prompt].setdefault(each.text, each)
        if same is not each:
            left_out.append(Remark(reason="equal texts", name=each.row, detail=f"as {same.row}"))
    groups: list[Sequence[FoundText]] = []
    for own in by_prompt.values():
        for group in evenly(list(own.values()), per_prompt):
            if len(group) >= min(per_prompt, 2):
                groups.append(group)
            else:
                left_out.append(Remark(reason="only text of its prompt", name=group[0].row))
    return groups
