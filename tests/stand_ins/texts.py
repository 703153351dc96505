"""Texts in a store, for tests that need some to be ranked."""

from collections.abc import Sequence
from typing import Any

from imgalign.preferences.records import TextProvenance
from imgalign.preferences.store import Store

FACTS: dict[str, Any] = {
    "model": "m",
    "prompt": "a cat",
    "seed": 0,
    "temperature": 1.0,
    "max_new_tokens": 32,
}


def text_provenance(**facts: Any) -> TextProvenance:
    """`FACTS`, except for what is given."""
    return TextProvenance(**(FACTS | facts))


def add_texts(store: Store, texts: Sequence[str], *, prompt: str = "a cat", **options: Any) -> str:
    """Queue an item of these texts; returns its id."""
    ids = [store.add_text(text, text_provenance(prompt=prompt)) for text in texts]
    return store.add_item(prompt, ids, source="test", **options)
