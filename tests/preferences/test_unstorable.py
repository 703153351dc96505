"""Text that PostgreSQL can neither store nor look for is refused by every database, in one line."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from sqlalchemy import insert

from imgalign.errors import InputError
from imgalign.preferences.accounts import Accounts
from imgalign.preferences.issued import item_named
from imgalign.preferences.own_votes import own_votes
from imgalign.preferences.schema import annotators
from imgalign.preferences.store import Store


@pytest.mark.parametrize("bad", ["\0", "key-0001\0", "\ud800"])
@pytest.mark.parametrize(
    "ask",
    [
        lambda store, bad: item_named(store, bad, "ann"),
        lambda store, bad: item_named(store, "name", f"ann{bad}"),
        lambda store, bad: store.undo("ann", bad),
        lambda store, bad: store.judgement("ann", bad),
        lambda store, bad: store.issued_item(bad, "ann"),
        lambda store, bad: store.text_for_token(bad, "ann"),
        lambda store, bad: own_votes(store, "ann", project="default", limit=1, before=bad),
        lambda store, bad: Accounts(store.database).login(f"ann{bad}", "four odd green words"),
    ],
    ids=["item", "annotator", "undo", "key", "item id", "token", "votes", "login"],
)
def test_text_that_no_database_can_look_for_is_refused_without_the_name_of_the_database(
    store: Store, ask: Callable[[Store, str], object], bad: str
) -> None:
    with pytest.raises(InputError, match="contains characters that cannot be stored") as refused:
        ask(store, bad)
    assert store.database.name not in str(refused.value)


def test_one_row_of_many_with_a_nul_keeps_all_of_them_out(store: Store) -> None:
    before = store.annotators()
    rows = [
        {
            "annotator_id": name,
            "name": name,
            "group_name": "warm",
            "simulated": False,
            "created_at": datetime.now(UTC),
        }
        for name in ("cy", "d\0")
    ]
    with pytest.raises(InputError), store.database.write() as connection:
        connection.execute(insert(annotators), rows)
    assert store.annotators() == before
