"""Guidelines of a project in the store: replaced, removed, and never too long."""

import pytest

from imgalign.errors import InputError
from imgalign.preferences.guidelines import MOST_BYTES, guidelines_of, set_guidelines
from imgalign.preferences.store import Store


def test_each_project_has_its_latest_text(store: Store):
    set_guidelines(store.database, "cats", "  Hands first.\n")
    set_guidelines(store.database, "dogs", "Faces first.")
    assert guidelines_of(store.database, "cats") == "Hands first."
    set_guidelines(store.database, "cats", "Paws first.")
    assert guidelines_of(store.database, "cats") == "Paws first."
    assert guidelines_of(store.database, "dogs") == "Faces first."
    set_guidelines(store.database, "cats", " ")
    assert guidelines_of(store.database, "cats") == ""


@pytest.mark.parametrize(
    ("project", "text", "message"),
    [
        ("", "x", "project: expected a name"),
        ("cats", "a\0b", "guidelines: contains characters that cannot be stored"),
        ("cats", "ä" * MOST_BYTES, "guidelines: expected at most 32768 bytes, got 65536"),
    ],
)
def test_what_cannot_be_shown_is_refused(store: Store, project: str, text: str, message: str):
    with pytest.raises(InputError, match=message):
        set_guidelines(store.database, project, text)
