"""Claims: an import keeps others from writing only while its rows are written, in a few statements
for a thousand rankings; a store that changes while a file is read takes it whole or not at all."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from databases import make_tables
from sqlalchemy import Connection, Engine, event, insert, select
from submissions import judge, on_screen
from texts import add_texts

from imgalign.errors import InputError, StoreError
from imgalign.preferences import recount, schema
from imgalign.preferences.accounts import Accounts
from imgalign.preferences.exchange import export_rankings, import_rankings
from imgalign.preferences.exclusions import exclude
from imgalign.preferences.import_checks import Import, checked
from imgalign.preferences.queries import item_id
from imgalign.preferences.records import Provenance, utc_now
from imgalign.preferences.store import Store

Add = Callable[..., list[str]]
TEXTS = ["purr", "miaow"]


def differences(store: Store) -> list[str]:
    with store.database.read() as connection:
        return recount.differences(connection)


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Store]:
    """Where files come from: the same images, and annotators of the same names."""
    url = f"sqlite:///{tmp_path / 'other.db'}"
    make_tables(url)
    with Store.open(url, images=tmp_path / "images") as other:
        other.add_annotator("ann", group="warm")
        other.add_annotator("bob", group="cool")
        yield other


def many(other: Store, number: int, *, first: int = 0) -> None:
    """Rankings of as many items of two texts, by three annotators and of every verdict."""
    add_texts(other, TEXTS)
    with other.database.write() as connection:
        texts = list(connection.execute(select(schema.texts.c.text_id)).scalars())
        numbers = range(first, first + number)
        named = {each: item_id("default", f"p {each % 97}", f"{each}", texts) for each in numbers}
        rows: list[dict[str, Any]] = [
            {
                "item_id": named[each],
                "prompt": f"p {each % 97}",
                "project": "default",
                "source": f"{each}",
                "samples": "texts",
                "overlap": 1 + each % 2,
                "created_at": utc_now(),
            }
            for each in numbers
        ]
        connection.execute(insert(schema.items), rows)
        shown = [
            {"item_id": row["item_id"], "candidate": place, "text_id": text}
            for row in rows
            for place, text in enumerate(texts)
        ]
        connection.execute(insert(schema.candidates), shown)
        connection.execute(insert(schema.rankings), [ranking(each, named) for each in numbers])


def ranking(each: int, named: dict[int, str]) -> dict[str, Any]:
    verdict = ("ranked", "all_bad", "skipped")[each % 3]
    return {
        "ranking_id": f"{each:032x}",
        "item_id": named[each],
        "annotator_id": ("ann", "bob")[each % 2],
        "key": f"key {each}",
        "attempt": 0,
        "verdict": verdict,
        "reason": "unsafe" if verdict == "skipped" else None,
        "display_order": [0, 1],
        "tie_groups": [[1], [0]] if verdict == "ranked" else None,
        "created_at": utc_now(),
    }


@contextmanager
def written(said: list[str]) -> Iterator[None]:
    """Statements of transactions that keep others from writing."""

    def note(connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        if "imgalign_begin" in connection.get_execution_options():
            said.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def test_a_thousand_rankings_more_are_a_few_statements_more_under_the_lock(
    store: Store, other: Store, tmp_path: Path
):
    file, counts = tmp_path / "a.jsonl", []
    for number, first in ((30, 0), (1000, 30), (2000, 1030)):
        many(other, number, first=first)
        export_rankings(other, file)
        said: list[str] = []
        with written(said):
            assert import_rankings(store, file) == number
        counts.append(len(said))
        assert differences(store) == []
    assert counts[0] < 60
    assert counts[1] - counts[0] < 30
    assert counts[2] - counts[1] < 30


def test_a_file_is_read_and_refused_while_somebody_else_writes(
    store: Store, other: Store, tmp_path: Path
):
    add_texts(other, TEXTS)
    other.submit(judge(other.next_item("ann")))
    file, damaged = tmp_path / "a.jsonl", tmp_path / "damaged.jsonl"
    export_rankings(other, file)
    damaged.write_text(file.read_text().replace('"verdict": "ranked"', '"verdict": "x"'))
    with store.database.write(), pytest.raises(InputError, match=r"damaged\.jsonl:\d+: verdict"):
        import_rankings(store, damaged)
    assert import_rankings(store, file) == 1
    with store.database.write():
        assert import_rankings(store, file) == 0  # nothing of it is new


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], list[int]]:
    """Let something happen once between the check of a file and the writing of its rows.

    What it returns has an entry for each check.
    """

    def let(happen: Callable[[], object]) -> list[int]:
        checks: list[int] = []

        def check(*arguments: Any, **options: Any) -> Import:
            checks.append(len(checks))
            is_first = len(checks) == 1
            found = checked(*arguments, **options)
            if is_first:
                happen()
            return found

        monkeypatch.setattr("imgalign.preferences.exchange.checked", check)
        return checks

    return let


def elsewhere(url: str, tmp_path: Path, do: Callable[[Store], object]) -> Callable[[], None]:
    """Something that another process does to a store."""

    def happen() -> None:
        with Store.open(url, images=tmp_path / "images") as again:
            do(again)

    return happen


def test_a_vote_that_is_given_while_a_file_is_read_is_saved_and_counted(
    store: Store, add_items: Add, other: Store, url: str, tmp_path: Path, meanwhile: Any
):
    items = add_items(2, overlap=2)
    file = tmp_path / "a.jsonl"
    export_rankings(store, file)
    import_rankings(other, file)
    other.submit(judge(other.next_item("ann")))
    other.submit(judge(other.next_item("ann")))
    export_rankings(other, file)
    vote = elsewhere(
        url, tmp_path, lambda again: again.submit(judge(again.next_item("bob"), "bob"))
    )
    checks = meanwhile(vote)
    assert import_rankings(store, file) == 2
    assert checks == [0]
    assert differences(store) == []
    given = [(each.annotator, each.item_id) for each in store.rankings()]
    assert given == [("bob", items[0]), ("ann", items[0]), ("ann", items[1])]


def test_a_vote_of_the_same_set_that_came_meanwhile_is_kept_and_the_file_refused(
    store: Store, add_items: Add, other: Store, url: str, tmp_path: Path, meanwhile: Any
):
    first, _ = add_items(2, overlap=2)
    file = tmp_path / "a.jsonl"
    export_rankings(store, file)
    import_rankings(other, file)
    for _ in range(2):
        other.submit(judge(other.next_item("ann"), key=f"another {other.counts('ann').done}"))
    export_rankings(other, file)
    mine = elsewhere(url, tmp_path, lambda again: again.submit(judge(again.next_item("ann"))))
    checks = meanwhile(mine)
    with pytest.raises(StoreError, match=r"a\.jsonl:\d+: annotator 'ann' has judged this item"):
        import_rankings(store, file)
    assert checks == [0, 1]
    assert [each.key for each in store.rankings()] == [f"ann-{first}"]
    assert differences(store) == []


def test_a_second_attempt_in_a_file_does_not_stand_beside_a_vote_that_came_meanwhile(
    store: Store, add_items: Add, other: Store, url: str, tmp_path: Path, meanwhile: Any
):
    add_items(1, overlap=2)
    file = tmp_path / "a.jsonl"
    export_rankings(store, file)
    import_rankings(other, file)
    other.submit(judge(other.next_item("ann"), key="another key"))
    export_rankings(other, file)
    file.write_text(file.read_text().replace('"attempt": 0', '"attempt": 1'))
    mine = elsewhere(url, tmp_path, lambda again: again.submit(judge(again.next_item("ann"))))
    meanwhile(mine)
    with pytest.raises(InputError, match="a second judgement of its item by 'ann'"):
        import_rankings(store, file)
    assert len(list(store.rankings())) == 1
    assert differences(store) == []


def test_the_same_file_imported_twice_at_once_is_there_once(
    store: Store, other: Store, url: str, tmp_path: Path, meanwhile: Any
):
    many(other, 50)
    file = tmp_path / "a.jsonl"
    export_rankings(other, file)
    checks = meanwhile(elsewhere(url, tmp_path, lambda again: import_rankings(again, file)))
    assert import_rankings(store, file) == 0
    assert len(checks) == 3  # of both, and again of the one that came second
    assert len(list(store.rankings())) == 50
    assert differences(store) == []


def test_an_account_that_is_made_meanwhile_judges_for_itself(
    store: Store, other: Store, url: str, tmp_path: Path, meanwhile: Any
):
    many(other, 2)
    file = tmp_path / "a.jsonl"
    export_rankings(other, file)

    def register(again: Store) -> None:
        people = Accounts(again.database)
        people.add("Ida", "four odd green words", role="admin", group="default")
        people.add("Ann", "four odd green words", role="annotator", group="warm")

    meanwhile(elsewhere(url, tmp_path, register))
    with pytest.raises(StoreError, match="ranking by 'ann', who has an account here"):
        import_rankings(store, file, of_accounts=False)
    assert list(store.rankings()) == []


def test_a_later_file_takes_back_excludes_and_names_another_maker_of_what_is_there(
    store: Store,
    add_items: Add,
    other: Store,
    png: Callable[..., bytes],
    provenance: Callable[..., Provenance],
    tmp_path: Path,
):
    add_items(4, overlap=2)
    file = tmp_path / "a.jsonl"
    export_rankings(store, file)
    import_rankings(other, file)
    for who in ("ann", "bob"):
        while (item := other.next_item(who)) is not None:
            ranking = on_screen(other, item, ((2,), (0, 1)), who)
            other.submit(judge(item, who, ranking=ranking))
    export_rankings(other, file)
    assert import_rankings(store, file) == 8
    assert [store.counts(who).left for who in ("ann", "bob")] == [0, 0]
    assert differences(store) == []
    other.undo("ann", other.history("ann", 2)[1].key)
    other.add_image(png(0), provenance(model="another"))
    exclude(other.database, "bob", project="default")
    export_rankings(other, file)
    assert import_rankings(store, file) == 0
    assert differences(store) == []
    assert [store.counts(who).left for who in ("ann", "bob")] == [1, 0]
    assert store.next_item("ann") is not None


@pytest.mark.parametrize(
    ("kind", "column"), [("candidate", "item_id"), ("undo", "ranking_id"), ("item", None)]
)
def test_a_line_whose_reference_is_not_before_it_is_named(
    store: Store, other: Store, tmp_path: Path, kind: str, column: str | None
):
    add_texts(other, TEXTS)
    sent = judge(other.next_item("ann"))
    other.submit(sent)
    other.undo("ann", sent.key)
    file = tmp_path / "a.jsonl"
    export_rankings(other, file)
    lines: Sequence[str] = file.read_text().splitlines()
    left_out = {"candidate": "item", "undo": "ranking", "item": "candidate"}[kind]
    kept = [line for line in lines if f'"kind": "{left_out}"' not in line]
    file.write_text("\n".join(kept) + "\n")
    said = "is not what its id says" if column is None else "does not fit the lines before it"
    with pytest.raises(InputError, match=rf"a\.jsonl:\d+: .*{said}|each candidate"):
        import_rankings(store, file)
    assert differences(store) == []
    assert list(store.rankings()) == []
