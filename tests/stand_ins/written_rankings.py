"""Rankings written as text, for tests of what is computed from them."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from imgalign.preferences.records import Ranking


def ranking(
    annotator: str, text: str, *, prompt: str = "p", images: str | None = None, **fields: Any
) -> Ranking:
    """ "a>bc" is a best, then b and c tied; `images` fixes how candidates are numbered."""
    groups = text.split(">")
    names = images or "".join(sorted(text.replace(">", "")))
    written = Ranking(
        ranking_id=f"{annotator} {text}",
        prompt=prompt,
        sample_ids=tuple(names),
        order=tuple(range(len(names))),
        ranking=tuple(tuple(names.index(name) for name in group) for group in groups),
        verdict="ranked",
        reason=None,
        annotator=annotator,
        group="default",
        created_at=datetime(2026, 11, 22, tzinfo=UTC),
    )
    return replace(written, **fields)
